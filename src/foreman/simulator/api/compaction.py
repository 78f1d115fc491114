"""The layer of v0.34 in front of ``/v1/responses``: strict checks of the body, and compaction (contract 1.2, 2.0)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import define

from foreman.simulator.api import responses
from foreman.simulator.api.inference import AnswerStats, infer
from foreman.simulator.api.model_request import Parameters, check_capable, find_model, make_request
from foreman.simulator.api.responses_items import Struct, messages
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import kind
from foreman.simulator.engine.go_json import dumps, encode, loads_whole
from foreman.simulator.engine.prompts import render_prompt
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Token, ToolCall
from foreman.simulator.server.content_types import JSON, SSE, STREAMING
from foreman.simulator.server.exchange import Exchange

_CODE = "invalid_request_error"
_FAILED = (
    "compaction failed; the selected model did not return a valid summary and the original conversation is unchanged"
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "create_summary",
        "description": "Keep what matters of a conversation.",
        "parameters": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
    },
}
#: Go sends a response that is not flushed in pieces of this size; bytes.
_PIECE = 2048


def _wrong(text: str) -> Malformed:
    return Malformed(text, code=_CODE)


def _read(body: bytes) -> dict[str, Any]:
    """The members of a body, whose names are compared exactly, and which nothing may follow."""
    try:
        value = loads_whole(body)
    except Malformed as problem:
        raise _wrong(
            "missing request body" if problem.empty else f"invalid Responses request: {problem.text}"
        ) from None
    if not isinstance(value, dict):
        raise _wrong(f"invalid Responses request: json: cannot unmarshal {kind(value)} into Go value of type map")
    if not isinstance(value.get("model"), str) or not value["model"].strip():
        raise _wrong("model is required")
    if value.get("input") is None:
        raise _wrong("input is required")
    if not isinstance(value["input"], str | list):
        go = f"json: cannot unmarshal {kind(value['input'])} into Go value of type []json.RawMessage"
        raise _wrong(f"input must be a string or array: {go}")
    return value


def _is(item: Any, type_: str) -> bool:
    return isinstance(item, Mapping) and item.get("type") == type_


def _expanded(item: Any) -> Any:
    """An item of the input; the result of an earlier compaction becomes a message again."""
    if not _is(item, "compaction"):
        return item
    try:
        truncated_length = json.loads(item.get("encrypted_content"))
        return {"role": "user", "content": str(truncated_length["summary"])}
    except (TypeError, ValueError, KeyError):
        text = "unsupported compaction item: encrypted_content is not an Ollama payload"
        raise _wrong(text) from None


@define(eq=False)
class _SummaryCollector:
    """Collects the summary that the model makes of a conversation; sends nothing."""

    call: ToolCall | None = None
    stats: AnswerStats | None = None

    def add_token(self, token: Token) -> None:
        """Keep the tool call."""
        self.call = token.call or self.call

    def end(self, stats: AnswerStats) -> None:
        """Keep the statistics."""
        self.stats = stats

    def error(self, text: str) -> None:
        """Never called, since nothing has been sent yet."""


async def _compacted(state: SimulatorState, exchange: Exchange, value: Mapping[str, Any]) -> tuple[Struct, Any]:
    """The item that replaces a conversation, and the usage.

    :raises Refused: if the model makes no summary.
    """
    model_name, input_items = value["model"], value["input"]
    turns, _ = messages([_expanded(item) for item in input_items] if isinstance(input_items, list) else input_items)
    if not turns:
        raise _wrong("compaction input is empty")
    model = find_model(state, model_name)
    check_capable(model, model_name, "chat", [_TOOL])
    model_request = make_request(
        state, model, model_name, Parameters(tools=[_TOOL]), render_prompt(model, turns, [_TOOL]), turns[-1]
    )
    collector = _SummaryCollector()
    await infer(state, exchange, model_request, collector)
    if collector.call is None or collector.call.name != "create_summary" or collector.stats is None:
        raise Refused(500, _FAILED, code="compaction_failed")
    summary = {
        "type": "ollama_compaction",
        "version": 1,
        "summary": collector.call.arguments["summary"],
        "retained": [],
    }
    return Struct(type="compaction", encrypted_content=dumps(summary)), responses.usage_of(collector.stats)


def _id(state: SimulatorState) -> str:
    return f"resp_compact_{int(state.now() * 1e9)}"


async def compact(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/responses/compact``; never a stream."""
    value = _read(exchange.body)
    if isinstance(value["input"], list) and any(_is(item, "compaction_trigger") for item in value["input"]):
        raise _wrong("compaction_trigger is only valid on POST /v1/responses")
    item, usage = await _compacted(state, exchange, value)
    answer = {"id": _id(state), "object": "response.compaction", "created_at": int(state.now()), "output": [item]}
    exchange.respond(200, JSON, encode(answer | {"usage": usage}))


async def respond(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/responses``."""
    if not state.settings.newer:
        await responses.respond(state, exchange)
        return
    value = _read(exchange.body)
    input_items = value["input"]
    if isinstance(input_items, list) and input_items and _is(input_items[-1], "compaction_trigger"):
        if value.get("stream") is not True:
            raise _wrong("compaction_trigger requires stream=true")
        await _trigger(state, exchange, {**value, "input": input_items[:-1]})
        return
    if isinstance(input_items, list):
        exchange.body = encode({**value, "input": [_expanded(item) for item in input_items]})
    await responses.respond(state, exchange)


async def _trigger(state: SimulatorState, exchange: Exchange, value: Mapping[str, Any]) -> None:
    """Compact, and send the result as a stream, all at once."""
    item, usage = await _compacted(state, exchange, value)
    encoder = responses.ResponsesEncoder(state, exchange, value["model"], stream=True, request={"tools": []})
    encoder.id = _id(state)
    started, done = (
        encoder.response(completed=False),
        encoder.response(completed=True, usage=usage) | {"output": [item]},
    )
    events = b"".join(
        encoder.event(name, **rest)
        for name, rest in (
            ("response.created", {"response": started}),
            ("response.in_progress", {"response": started}),
            ("response.output_item.added", {"item": item, "output_index": 0}),
            ("response.output_item.done", {"item": item, "output_index": 0}),
            ("response.completed", {"response": done}),
        )
    )
    exchange.start(200, SSE + STREAMING)
    for at in range(0, len(events), _PIECE):
        exchange.write(events[at : at + _PIECE])
    exchange.finish()
