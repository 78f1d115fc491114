"""``/v1/messages``: one object, or named events (contract 2.9)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from foreman.simulator.api.inference import Counts, infer
from foreman.simulator.api.inference_request import Terms, check_capable, inquiry, installed
from foreman.simulator.engine.errors import Malformed
from foreman.simulator.engine.fields import Fields
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import rendered
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Piece
from foreman.simulator.server.error_shapes import PLAIN_JSON, SSE, STREAMING
from foreman.simulator.server.exchange import Exchange

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


@define(eq=False)
class MessagesVoice:
    """An answer of ``/v1/messages``.

    :ivar estimate: how many tokens the first event says the prompt has.
    """

    state: SimulatorState
    exchange: Exchange
    typed: str
    stream: bool
    estimate: int
    _said: list[Piece] = Factory(list)
    _open: str = ""
    _index: int = -1
    _used: bool = False

    def _message(self, content: list[Any]) -> dict[str, Any]:
        id_ = self.state.hex_id("msg_")
        return {"id": id_, "type": "message", "role": "assistant", "model": self.typed, "content": content}

    def _emit(self, kind: str, **rest: Any) -> None:
        self.exchange.write(b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **rest})))

    def _start(self) -> None:
        self.exchange.start(200, SSE + STREAMING)
        usage = {"input_tokens": self.estimate, "output_tokens": 0}
        self._emit("message_start", message=self._message([]) | {"usage": usage})

    def say(self, piece: Piece) -> None:
        """The next token."""
        if not self.stream:
            self._said.append(piece)
            return
        if piece.kind == "silent":
            return
        if not self.exchange.begun:
            self._start()
        if piece.call is not None:
            self._used = True
            block = {"type": "tool_use", "id": self.state.call_id(), "name": piece.call.name, "input": {}}
            self._begin("tool_use", block)
            self._delta({"type": "input_json_delta", "partial_json": dumps(piece.call.arguments)})
            self._stop()
            return
        kind = "thinking" if piece.kind == "thinking" else "text"
        if self._open != kind:
            self._begin(kind, {"type": kind, kind: ""})
        self._delta({"type": f"{kind}_delta", kind: piece.text})

    def _begin(self, kind: str, block: dict[str, Any]) -> None:
        self._stop()
        self._open = kind
        self._index += 1
        self._emit("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> None:
        self._emit("content_block_delta", index=self._index, delta=delta)

    def _stop(self) -> None:
        if self._open:
            self._emit("content_block_stop", index=self._index)
        self._open = ""

    def end(self, counts: Counts) -> None:
        """What finishes the answer."""
        cache = {} if counts.cached is None else {"cache_read_input_tokens": counts.cached}
        fresh = counts.prompt_tokens - (counts.cached or 0)
        usage = {"input_tokens": fresh, **cache, "output_tokens": counts.tokens}
        used = self._used or any(piece.call is not None for piece in self._said)
        why = "tool_use" if used else _REASONS.get(counts.reason or "stop")
        if not self.stream:
            value = self._message(self._blocks()) | {"stop_reason": why, "usage": usage}
            self.exchange.respond(200, PLAIN_JSON, encode(value) + b"\n")
            return
        if not self.exchange.begun:
            self._start()
        if counts.reason is not None:
            self._stop()
            self._emit("message_delta", delta={"stop_reason": why}, usage=usage)
            self._emit("message_stop")
        self.exchange.finish()

    def _blocks(self) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        for kind, said in (("thinking", "thinking"), ("text", "content")):
            text = "".join(piece.text for piece in self._said if piece.kind == said)
            if text:
                blocks.append({"type": kind, kind: text})
        calls = (piece.call for piece in self._said if piece.call is not None)
        return blocks + [
            {"type": "tool_use", "id": self.state.call_id(), "name": call.name, "input": call.arguments}
            for call in calls
        ]

    def broken(self, text: str) -> None:
        """Nothing tells of it but what is missing (contract 0.15)."""
        del text
        self.exchange.finish()


def _content(value: Any) -> tuple[str, int, bool]:
    """The text of a message or system prompt, how many images are in it, and whether it is a tool's result."""
    if value is None or isinstance(value, str):
        return value or "", 0, False
    texts, images, answered = [], 0, False
    for block in value if isinstance(value, list) else ():
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image"}:
                images += 1
            case {"type": "tool_result", **rest}:
                texts.append(_content(rest.get("content"))[0])
                answered = True
    return "".join(texts), images, answered


def _size(tool: Mapping[str, Any]) -> int:
    """How many characters a tool adds to the estimate of the prompt."""
    return len(tool.get("name", "")) + len(tool.get("description", "")) + len(json.dumps(tool.get("input_schema")))


async def messages(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/messages``."""
    fields = Fields.read("MessagesRequest", exchange.body, "anthropic")
    typed, stream = fields.text("model"), bool(fields.truth("stream"))
    limit = fields.number("max_tokens") or 0
    asked = fields.items("messages", "[]anthropic.MessageParam")
    for missing, text in (
        (not typed, "model is required"),
        (limit <= 0, "max_tokens is required and must be positive"),
        (not asked, "messages is required"),
    ):
        if missing:
            raise Malformed(text)
    if stream:
        exchange.extra_on_error = STREAMING
    turns, images = [], 0
    system = _content(fields.raw("system"))[0]
    if system:
        turns.append({"role": "system", "content": system})
    for item in asked:
        if not isinstance(item, Mapping):
            raise fields.wrong("messages", item, "anthropic.MessageParam")
        content, count, answered = _content(item.get("content"))
        images += count
        turns.append({"role": "tool" if answered else str(item.get("role", "")), "content": content})
    given = [tool for tool in fields.items("tools", "[]anthropic.Tool") if isinstance(tool, dict)]
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.get("name"),
                "description": tool.get("description", ""),
                "parameters": tool.get("input_schema") or {},
            },
        }
        for tool in given
    ]
    options: dict[str, Any] = {
        "num_predict": limit,
        "temperature": fields.real("temperature"),
        "top_p": fields.real("top_p"),
        "top_k": fields.number("top_k"),
        "stop": fields.raw("stop_sequences"),
    }
    thinking = fields.table("thinking").get("type")
    think = {"enabled": True, "adaptive": True, "disabled": False}.get(thinking) if isinstance(thinking, str) else None
    terms = Terms(
        {name: value for name, value in options.items() if value is not None},
        think=think,
        tools=tools,
        images=images,
        relaxed=True,
    )
    model = installed(state, typed)
    check_capable(model, typed, "chat", tools)
    size = sum(len(turn["role"]) + len(turn["content"]) for turn in turns) + sum(map(_size, given))
    question = inquiry(state, model, typed, terms, rendered(model, turns, tools), turns[-1], temperature=1.0)
    await infer(state, exchange, question, MessagesVoice(state, exchange, typed, stream, size // 4))
