"""``/v1/responses``: one object, or many named events (contract 2.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from foreman.simulator.api import responses_items as items
from foreman.simulator.api.inference import AnswerStats, infer
from foreman.simulator.api.model_request import Parameters, check_capable, find_model, make_request
from foreman.simulator.api.openai_fields import effort, output_format_of
from foreman.simulator.engine.fields import Fields
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import render_prompt
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Token, ToolCall
from foreman.simulator.server.content_types import PLAIN_JSON, SSE, STREAMING
from foreman.simulator.server.exchange import Exchange


@define(eq=False)
class ResponsesEncoder:
    """Encodes a response of ``/v1/responses``.

    :ivar request: the members of the request that the response object repeats.
    """

    state: SimulatorState
    exchange: Exchange
    model_name: str
    stream: bool
    request: Mapping[str, Any]
    id: str = ""
    created: int = 0
    _tokens: list[Token] = Factory(list)
    _output: list[dict[str, Any]] = Factory(list)
    _open: str = ""
    _item: str = ""
    _sequence: int = 0

    def __attrs_post_init__(self) -> None:
        self.id = f"resp_{self.state.random_number(999_999)}"
        self.created = int(self.state.now())

    def event(self, kind: str, **rest: Any) -> bytes:
        """The bytes of the next event."""
        value = items.in_order(rest | {"sequence_number": self._sequence, "type": kind})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(value))

    def _emit(self, kind: str, **rest: Any) -> None:
        self.exchange.write(self.event(kind, **rest))

    def response(self, *, completed: bool, usage: Any = None) -> dict[str, Any]:
        """The response object."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(self.state.now()) if completed else None,
            "status": "completed" if completed else "in_progress",
            "incomplete_details": None,
            "model": self.model_name,
            "previous_response_id": None,
            "instructions": self.request.get("instructions"),
            "output": self._output if completed else [],
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

    def add_token(self, token: Token) -> None:
        """Send or keep the next token."""
        if not self.stream:
            self._tokens.append(token)
            return
        if token.kind == "silent":
            return
        if not self.exchange.started:
            self.exchange.start(200, SSE + STREAMING)
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, response=self.response(completed=False))
        if token.call is not None:
            self._close()
            self._call(token.call)
        elif token.kind == "thinking":
            self._think(token.text)
        else:
            self._speak(token.text)

    def _think(self, text: str) -> None:
        if self._open != "thinking":
            self._close()
            self._open, self._item = "thinking", f"rs_{self.state.random_number(999_999)}"
            item = {"id": self._item, "summary": [], "type": "reasoning"}
            self._emit("response.output_item.added", item=item, output_index=len(self._output))
        self._tokens.append(Token(text))
        where = {"item_id": self._item, "output_index": len(self._output), "summary_index": 0}
        self._emit("response.reasoning_summary_text.delta", delta=text, **where)

    def _speak(self, text: str) -> None:
        where = {"item_id": self._item, "output_index": len(self._output), "content_index": 0}
        if self._open != "text":
            self._close()
            self._open, self._item = "text", f"msg_{self.state.random_number(999_999)}"
            where |= {"item_id": self._item, "output_index": len(self._output)}
            item = {"content": [], "id": self._item, "role": "assistant", "status": "in_progress", "type": "message"}
            self._emit("response.output_item.added", item=item, output_index=len(self._output))
            self._emit("response.content_part.added", part=items.part(""), **where)
        self._tokens.append(Token(text))
        self._emit("response.output_text.delta", delta=text, logprobs=[], **where)

    def _close(self) -> None:
        """End the open output item."""
        text = "".join(token.text for token in self._tokens)
        where = {"item_id": self._item, "output_index": len(self._output)}
        if self._open == "thinking":
            self._emit("response.reasoning_summary_text.done", summary_index=0, text=text, **where)
            self._done(items.reasoning(self._item, text))
        elif self._open == "text":
            self._emit("response.output_text.done", content_index=0, logprobs=[], text=text, **where)
            self._emit("response.content_part.done", content_index=0, part=items.part(text), **where)
            self._done(items.message(self._item, text))
        self._open = ""
        self._tokens.clear()

    def _done(self, item: dict[str, Any]) -> None:
        self._emit("response.output_item.done", item=item, output_index=len(self._output))
        self._output.append(item)

    def _call(self, call: ToolCall) -> None:
        item = self._function_call(call, len(self._output))
        where = {"item_id": item["id"], "output_index": len(self._output)}
        added = {**item, "arguments": "", "status": "in_progress"}
        self._emit("response.output_item.added", item=added, output_index=len(self._output))
        self._emit("response.function_call_arguments.delta", delta=item["arguments"], **where)
        self._emit("response.function_call_arguments.done", arguments=item["arguments"], **where)
        self._done(item)

    def _function_call(self, call: ToolCall, index: int) -> dict[str, Any]:
        return {
            "id": f"fc_{self.state.random_number(999_999)}_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": self.state.call_id(),
            "name": call.name,
            "arguments": dumps(call.arguments),
        }

    def end(self, stats: AnswerStats) -> None:
        """End the response."""
        usage = usage_of(stats)
        if self.stream:
            if not self.exchange.started:
                self.exchange.start(200, SSE + STREAMING)
            if stats.reason is not None:
                self._close()
                self._emit("response.completed", response=self.response(completed=True, usage=usage))
            self.exchange.finish()
            return
        thinking = "".join(token.text for token in self._tokens if token.kind == "thinking")
        text = "".join(token.text for token in self._tokens if token.kind == "content")
        calls = [token.call for token in self._tokens if token.call is not None]
        if thinking:
            self._output.append(items.reasoning(f"rs_{self.state.random_number(999_999)}", thinking))
        if text or not calls:
            self._output.append(items.message(f"msg_{self.state.random_number(999_999)}", text))
        self._output += [self._function_call(call, index) for index, call in enumerate(calls)]
        self.exchange.respond(200, PLAIN_JSON, encode(self.response(completed=True, usage=usage)) + b"\n")

    def error(self, text: str) -> None:
        """End the stream without an end marker: Ollama reports nothing else (contract 0.15)."""
        del text
        self.exchange.finish()


def usage_of(stats: AnswerStats) -> dict[str, Any]:
    """The usage of a response."""
    return {
        "input_tokens": stats.prompt_tokens,
        "output_tokens": stats.tokens,
        "total_tokens": stats.prompt_tokens + stats.tokens,
        "input_tokens_details": {"cached_tokens": stats.cached or 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


async def respond(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/responses``."""
    fields = Fields.read("ResponsesRequest", exchange.body, "openai")
    model_name, stream = fields.string("model"), bool(fields.boolean("stream"))
    if stream:
        exchange.extra_on_error = STREAMING
    messages, images = items.messages(fields.raw("input"))
    instructions = fields.string("instructions")
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    tools = [tool for tool in fields.array("tools", "[]openai.ResponsesTool") if isinstance(tool, dict)]
    functions = [
        {
            "type": "function",
            "function": {key: tool[key] for key in ("name", "description", "parameters") if key in tool},
        }
        for tool in tools
        if tool.get("type") == "function"
    ]
    limit = fields.integer("max_output_tokens")
    candidates = {"num_predict": limit, "temperature": fields.number("temperature"), "top_p": fields.number("top_p")}
    options = {name: value for name, value in candidates.items() if value is not None}
    parameters = Parameters(
        options=options,
        think=effort(str(fields.object("reasoning").get("effort") or "")),
        tools=functions,
        output_format=output_format_of(fields.object("text").get("format")),
        images=images,
    )
    request: dict[str, Any] = {
        "tools": [items.tool(tool, newer=state.settings.newer) for tool in tools],
        "max_output_tokens": limit,
    }
    request |= {name: options[name] for name in ("temperature", "top_p") if name in options}
    if instructions:
        request["instructions"] = instructions
    if reasoning := fields.object("reasoning"):
        request["reasoning"] = reasoning
    model = find_model(state, model_name)
    check_capable(model, model_name, "chat", functions)
    text = render_prompt(model, messages, functions)
    last = messages[-1] if messages else {}
    model_request = make_request(state, model, model_name, parameters, text, last, temperature=1.0)
    await infer(state, exchange, model_request, ResponsesEncoder(state, exchange, model_name, stream, request))
