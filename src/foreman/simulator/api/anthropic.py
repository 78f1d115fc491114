"""``/v1/messages``: one object, or named events (contract 2.9)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from foreman.simulator.api.inference import AnswerStats, infer
from foreman.simulator.api.model_request import Parameters, check_capable, find_model, make_request
from foreman.simulator.engine.errors import Malformed
from foreman.simulator.engine.fields import Fields
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import render_prompt
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Token
from foreman.simulator.server.content_types import PLAIN_JSON, SSE, STREAMING
from foreman.simulator.server.exchange import Exchange

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


@define(eq=False)
class MessagesEncoder:
    """Encodes a response of ``/v1/messages``.

    :ivar estimate: the number of prompt tokens that the first event states.
    """

    state: SimulatorState
    exchange: Exchange
    model_name: str
    stream: bool
    estimate: int
    _tokens: list[Token] = Factory(list)
    _open: str = ""
    _index: int = -1
    _tool_used: bool = False

    def _message(self, content: list[Any]) -> dict[str, Any]:
        id_ = self.state.hex_id("msg_")
        return {"id": id_, "type": "message", "role": "assistant", "model": self.model_name, "content": content}

    def _emit(self, kind: str, **rest: Any) -> None:
        self.exchange.write(b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **rest})))

    def _start(self) -> None:
        self.exchange.start(200, SSE + STREAMING)
        usage = {"input_tokens": self.estimate, "output_tokens": 0}
        self._emit("message_start", message=self._message([]) | {"usage": usage})

    def add_token(self, token: Token) -> None:
        """Send or keep the next token."""
        if not self.stream:
            self._tokens.append(token)
            return
        if token.kind == "silent":
            return
        if not self.exchange.started:
            self._start()
        if token.call is not None:
            self._tool_used = True
            block = {"type": "tool_use", "id": self.state.call_id(), "name": token.call.name, "input": {}}
            self._begin("tool_use", block)
            self._delta({"type": "input_json_delta", "partial_json": dumps(token.call.arguments)})
            self._stop()
            return
        kind = "thinking" if token.kind == "thinking" else "text"
        if self._open != kind:
            self._begin(kind, {"type": kind, kind: ""})
        self._delta({"type": f"{kind}_delta", kind: token.text})

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

    def end(self, stats: AnswerStats) -> None:
        """End the response."""
        cache = {} if stats.cached is None else {"cache_read_input_tokens": stats.cached}
        fresh = stats.prompt_tokens - (stats.cached or 0)
        usage = {"input_tokens": fresh, **cache, "output_tokens": stats.tokens}
        tool_used = self._tool_used or any(token.call is not None for token in self._tokens)
        stop_reason = "tool_use" if tool_used else _REASONS.get(stats.reason or "stop")
        if not self.stream:
            value = self._message(self._blocks()) | {"stop_reason": stop_reason, "usage": usage}
            self.exchange.respond(200, PLAIN_JSON, encode(value) + b"\n")
            return
        if not self.exchange.started:
            self._start()
        if stats.reason is not None:
            self._stop()
            self._emit("message_delta", delta={"stop_reason": stop_reason}, usage=usage)
            self._emit("message_stop")
        self.exchange.finish()

    def _blocks(self) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        for kind, token_kind in (("thinking", "thinking"), ("text", "content")):
            text = "".join(token.text for token in self._tokens if token.kind == token_kind)
            if text:
                blocks.append({"type": kind, kind: text})
        calls = (token.call for token in self._tokens if token.call is not None)
        return blocks + [
            {"type": "tool_use", "id": self.state.call_id(), "name": call.name, "input": call.arguments}
            for call in calls
        ]

    def error(self, text: str) -> None:
        """End the stream without an end marker: Ollama reports nothing else (contract 0.15)."""
        del text
        self.exchange.finish()


def _content(value: Any) -> tuple[str, int, bool]:
    """The text of a message or system prompt, the number of its images, and whether it is a tool's result."""
    if value is None or isinstance(value, str):
        return value or "", 0, False
    texts, images, after_tool_result = [], 0, False
    for block in value if isinstance(value, list) else ():
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image"}:
                images += 1
            case {"type": "tool_result", **rest}:
                texts.append(_content(rest.get("content"))[0])
                after_tool_result = True
    return "".join(texts), images, after_tool_result


def _size(tool: Mapping[str, Any]) -> int:
    """How many characters a tool adds to the estimate of the prompt."""
    return len(tool.get("name", "")) + len(tool.get("description", "")) + len(json.dumps(tool.get("input_schema")))


async def messages(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/messages``."""
    fields = Fields.read("MessagesRequest", exchange.body, "anthropic")
    model_name, stream = fields.string("model"), bool(fields.boolean("stream"))
    limit = fields.integer("max_tokens") or 0
    messages = fields.array("messages", "[]anthropic.MessageParam")
    for missing, text in (
        (not model_name, "model is required"),
        (limit <= 0, "max_tokens is required and must be positive"),
        (not messages, "messages is required"),
    ):
        if missing:
            raise Malformed(text)
    if stream:
        exchange.extra_on_error = STREAMING
    turns, images = [], 0
    system = _content(fields.raw("system"))[0]
    if system:
        turns.append({"role": "system", "content": system})
    for item in messages:
        if not isinstance(item, Mapping):
            raise fields.type_error("messages", item, "anthropic.MessageParam")
        content, count, after_tool_result = _content(item.get("content"))
        images += count
        turns.append({"role": "tool" if after_tool_result else str(item.get("role", "")), "content": content})
    tool_list = [tool for tool in fields.array("tools", "[]anthropic.Tool") if isinstance(tool, dict)]
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.get("name"),
                "description": tool.get("description", ""),
                "parameters": tool.get("input_schema") or {},
            },
        }
        for tool in tool_list
    ]
    options: dict[str, Any] = {
        "num_predict": limit,
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "top_k": fields.integer("top_k"),
        "stop": fields.raw("stop_sequences"),
    }
    thinking = fields.object("thinking").get("type")
    think = {"enabled": True, "adaptive": True, "disabled": False}.get(thinking) if isinstance(thinking, str) else None
    parameters = Parameters(
        {name: value for name, value in options.items() if value is not None},
        think=think,
        tools=tools,
        images=images,
        relaxed=True,
    )
    model = find_model(state, model_name)
    check_capable(model, model_name, "chat", tools)
    size = sum(len(turn["role"]) + len(turn["content"]) for turn in turns) + sum(map(_size, tool_list))
    model_request = make_request(
        state, model, model_name, parameters, render_prompt(model, turns, tools), turns[-1], temperature=1.0
    )
    await infer(state, exchange, model_request, MessagesEncoder(state, exchange, model_name, stream, size // 4))
