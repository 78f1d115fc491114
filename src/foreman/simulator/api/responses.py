"""``/v1/responses``: one object, or a long row of named events (contract 2.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from foreman.simulator.api import responses_items as items
from foreman.simulator.api.inference import Counts, infer
from foreman.simulator.api.inference_request import Terms, check_capable, inquiry, installed
from foreman.simulator.api.openai_fields import effort, form_of
from foreman.simulator.engine.fields import Fields
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import rendered
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Call, Piece
from foreman.simulator.server.error_shapes import PLAIN_JSON, SSE, STREAMING
from foreman.simulator.server.exchange import Exchange


@define(eq=False)
class ResponsesVoice:
    """An answer of ``/v1/responses``.

    :ivar request: what the response object repeats of the request.
    """

    state: SimulatorState
    exchange: Exchange
    typed: str
    stream: bool
    request: Mapping[str, Any]
    id: str = ""
    created: int = 0
    _said: list[Piece] = Factory(list)
    _output: list[dict[str, Any]] = Factory(list)
    _open: str = ""
    _item: str = ""
    _sequence: int = 0

    def __attrs_post_init__(self) -> None:
        self.id = f"resp_{self.state.number(999_999)}"
        self.created = int(self.state.now())

    def event(self, kind: str, **rest: Any) -> bytes:
        """The next event."""
        value = items.in_order(rest | {"sequence_number": self._sequence, "type": kind})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(value))

    def _emit(self, kind: str, **rest: Any) -> None:
        self.exchange.write(self.event(kind, **rest))

    def response(self, *, whole: bool, usage: Any = None) -> dict[str, Any]:
        """The response object."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(self.state.now()) if whole else None,
            "status": "completed" if whole else "in_progress",
            "incomplete_details": None,
            "model": self.typed,
            "previous_response_id": None,
            "instructions": self.request.get("instructions"),
            "output": self._output if whole else [],
            "error": None,
            "tools": self.request["tools"],
            "tool_choice": "auto",
            "truncation": "disabled",
            "parallel_tool_calls": True,
            "text": {"format": {"type": "text"}},
            "top_p": self.request.get("top_p", 1),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": self.request.get("temperature", 1),
            "reasoning": self.request.get("reasoning"),
            "usage": usage,
            "max_output_tokens": self.request.get("max_output_tokens"),
            "max_tool_calls": None,
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": None,
            "prompt_cache_key": None,
        }

    def say(self, piece: Piece) -> None:
        """The next token."""
        if not self.stream:
            self._said.append(piece)
            return
        if piece.kind == "silent":
            return
        if not self.exchange.begun:
            self.exchange.start(200, SSE + STREAMING)
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, response=self.response(whole=False))
        if piece.call is not None:
            self._close()
            self._call(piece.call)
        elif piece.kind == "thinking":
            self._think(piece.text)
        else:
            self._speak(piece.text)

    def _think(self, text: str) -> None:
        if self._open != "thinking":
            self._close()
            self._open, self._item = "thinking", f"rs_{self.state.number(999_999)}"
            item = {"id": self._item, "summary": [], "type": "reasoning"}
            self._emit("response.output_item.added", item=item, output_index=len(self._output))
        self._said.append(Piece(text))
        where = {"item_id": self._item, "output_index": len(self._output), "summary_index": 0}
        self._emit("response.reasoning_summary_text.delta", delta=text, **where)

    def _speak(self, text: str) -> None:
        where = {"item_id": self._item, "output_index": len(self._output), "content_index": 0}
        if self._open != "text":
            self._close()
            self._open, self._item = "text", f"msg_{self.state.number(999_999)}"
            where |= {"item_id": self._item, "output_index": len(self._output)}
            item = {"content": [], "id": self._item, "role": "assistant", "status": "in_progress", "type": "message"}
            self._emit("response.output_item.added", item=item, output_index=len(self._output))
            self._emit("response.content_part.added", part=items.part(""), **where)
        self._said.append(Piece(text))
        self._emit("response.output_text.delta", delta=text, logprobs=[], **where)

    def _close(self) -> None:
        """The item that was being said is done."""
        text = "".join(piece.text for piece in self._said)
        where = {"item_id": self._item, "output_index": len(self._output)}
        if self._open == "thinking":
            self._emit("response.reasoning_summary_text.done", summary_index=0, text=text, **where)
            self._done(items.reasoning(self._item, text))
        elif self._open == "text":
            self._emit("response.output_text.done", content_index=0, logprobs=[], text=text, **where)
            self._emit("response.content_part.done", content_index=0, part=items.part(text), **where)
            self._done(items.message(self._item, text))
        self._open = ""
        self._said.clear()

    def _done(self, item: dict[str, Any]) -> None:
        self._emit("response.output_item.done", item=item, output_index=len(self._output))
        self._output.append(item)

    def _call(self, call: Call) -> None:
        item = self._function_call(call, len(self._output))
        where = {"item_id": item["id"], "output_index": len(self._output)}
        added = {**item, "arguments": "", "status": "in_progress"}
        self._emit("response.output_item.added", item=added, output_index=len(self._output))
        self._emit("response.function_call_arguments.delta", delta=item["arguments"], **where)
        self._emit("response.function_call_arguments.done", arguments=item["arguments"], **where)
        self._done(item)

    def _function_call(self, call: Call, index: int) -> dict[str, Any]:
        return {
            "id": f"fc_{self.state.number(999_999)}_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": self.state.call_id(),
            "name": call.name,
            "arguments": dumps(call.arguments),
        }

    def end(self, counts: Counts) -> None:
        """What finishes the answer."""
        usage = usage_of(counts)
        if self.stream:
            if not self.exchange.begun:
                self.exchange.start(200, SSE + STREAMING)
            if counts.reason is not None:
                self._close()
                self._emit("response.completed", response=self.response(whole=True, usage=usage))
            self.exchange.finish()
            return
        thinking = "".join(piece.text for piece in self._said if piece.kind == "thinking")
        text = "".join(piece.text for piece in self._said if piece.kind == "content")
        calls = [piece.call for piece in self._said if piece.call is not None]
        if thinking:
            self._output.append(items.reasoning(f"rs_{self.state.number(999_999)}", thinking))
        if text or not calls:
            self._output.append(items.message(f"msg_{self.state.number(999_999)}", text))
        self._output += [self._function_call(call, index) for index, call in enumerate(calls)]
        self.exchange.respond(200, PLAIN_JSON, encode(self.response(whole=True, usage=usage)) + b"\n")

    def broken(self, text: str) -> None:
        """Nothing tells of it but what is missing (contract 0.15)."""
        del text
        self.exchange.finish()


def usage_of(counts: Counts) -> dict[str, Any]:
    """What an answer cost."""
    return {
        "input_tokens": counts.prompt_tokens,
        "output_tokens": counts.tokens,
        "total_tokens": counts.prompt_tokens + counts.tokens,
        "input_tokens_details": {"cached_tokens": counts.cached or 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


async def respond(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/responses``."""
    fields = Fields.read("ResponsesRequest", exchange.body, "openai")
    typed, stream = fields.text("model"), bool(fields.truth("stream"))
    if stream:
        exchange.extra_on_error = STREAMING
    messages, images = items.messages(fields.raw("input"))
    instructions = fields.text("instructions")
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    tools = [tool for tool in fields.items("tools", "[]openai.ResponsesTool") if isinstance(tool, dict)]
    functions = [
        {
            "type": "function",
            "function": {key: tool[key] for key in ("name", "description", "parameters") if key in tool},
        }
        for tool in tools
        if tool.get("type") == "function"
    ]
    limit = fields.number("max_output_tokens")
    wanted = {"num_predict": limit, "temperature": fields.real("temperature"), "top_p": fields.real("top_p")}
    options = {name: value for name, value in wanted.items() if value is not None}
    terms = Terms(
        options=options,
        think=effort(str(fields.table("reasoning").get("effort") or "")),
        tools=functions,
        form=form_of(fields.table("text").get("format")),
        images=images,
    )
    request: dict[str, Any] = {
        "tools": [items.tool(tool, newer=state.settings.newer) for tool in tools],
        "max_output_tokens": limit,
    }
    request |= {name: options[name] for name in ("temperature", "top_p") if name in options}
    if instructions:
        request["instructions"] = instructions
    if reasoning := fields.table("reasoning"):
        request["reasoning"] = reasoning
    model = installed(state, typed)
    check_capable(model, typed, "chat", functions)
    text = rendered(model, messages, functions)
    last = messages[-1] if messages else {}
    question = inquiry(state, model, typed, terms, text, last, temperature=1.0)
    await infer(state, exchange, question, ResponsesVoice(state, exchange, typed, stream, request))
