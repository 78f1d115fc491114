"""What v0.34 put in front of ``/v1/responses``: a strict look at the body, and compaction (contract 1.2 and 2.0)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import define

from foreman.simulator.api import responses
from foreman.simulator.api.inference import Counts, infer
from foreman.simulator.api.inference_request import Terms, check_capable, inquiry, installed
from foreman.simulator.api.responses_items import Struct, messages
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import kind
from foreman.simulator.engine.go_json import dumps, encode, loads_whole
from foreman.simulator.engine.prompts import rendered
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Call, Piece
from foreman.simulator.server.error_shapes import JSON, SSE, STREAMING
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
#: An answer that nobody flushes leaves Go in pieces of so many bytes.
_PIECE = 2048


def _wrong(text: str) -> Malformed:
    return Malformed(text, code=_CODE)


def _read(body: bytes) -> dict[str, Any]:
    """The members of a body, each in exactly its own spelling, and nothing behind them."""
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
    """An item of the input; what was compacted before becomes a message again."""
    if not _is(item, "compaction"):
        return item
    try:
        kept = json.loads(item.get("encrypted_content"))
        return {"role": "user", "content": str(kept["summary"])}
    except (TypeError, ValueError, KeyError):
        text = "unsupported compaction item: encrypted_content is not an Ollama payload"
        raise _wrong(text) from None


@define(eq=False)
class _Summary:
    """Hears what the model makes of a conversation, and says nothing meanwhile."""

    call: Call | None = None
    counts: Counts | None = None

    def say(self, piece: Piece) -> None:
        """The next token."""
        self.call = piece.call or self.call

    def end(self, counts: Counts) -> None:
        """That was all."""
        self.counts = counts

    def broken(self, text: str) -> None:
        """Nothing has been said yet, so that this is never called."""


async def _compacted(state: SimulatorState, exchange: Exchange, value: Mapping[str, Any]) -> tuple[Struct, Any]:
    """The item that takes the place of a conversation, and what it cost.

    :raises Refused: where the model makes no summary.
    """
    typed, given = value["model"], value["input"]
    turns, _ = messages([_expanded(item) for item in given] if isinstance(given, list) else given)
    if not turns:
        raise _wrong("compaction input is empty")
    model = installed(state, typed)
    check_capable(model, typed, "chat", [_TOOL])
    question = inquiry(state, model, typed, Terms(tools=[_TOOL]), rendered(model, turns, [_TOOL]), turns[-1])
    heard = _Summary()
    await infer(state, exchange, question, heard)
    if heard.call is None or heard.call.name != "create_summary" or heard.counts is None:
        raise Refused(500, _FAILED, code="compaction_failed")
    summary = {"type": "ollama_compaction", "version": 1, "summary": heard.call.arguments["summary"], "retained": []}
    return Struct(type="compaction", encrypted_content=dumps(summary)), responses.usage_of(heard.counts)


def _id(state: SimulatorState) -> str:
    return f"resp_compact_{int(state.now() * 1e9)}"


async def compact(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/responses/compact``; a stream is never given."""
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
    given = value["input"]
    if isinstance(given, list) and given and _is(given[-1], "compaction_trigger"):
        if value.get("stream") is not True:
            raise _wrong("compaction_trigger requires stream=true")
        await _trigger(state, exchange, {**value, "input": given[:-1]})
        return
    if isinstance(given, list):
        exchange.body = encode({**value, "input": [_expanded(item) for item in given]})
    await responses.respond(state, exchange)


async def _trigger(state: SimulatorState, exchange: Exchange, value: Mapping[str, Any]) -> None:
    """A compaction whose answer looks like a stream, and comes at once."""
    item, usage = await _compacted(state, exchange, value)
    voice = responses.ResponsesVoice(state, exchange, value["model"], stream=True, request={"tools": []})
    voice.id = _id(state)
    begun, done = voice.response(whole=False), voice.response(whole=True, usage=usage) | {"output": [item]}
    said = b"".join(
        voice.event(name, **rest)
        for name, rest in (
            ("response.created", {"response": begun}),
            ("response.in_progress", {"response": begun}),
            ("response.output_item.added", {"item": item, "output_index": 0}),
            ("response.output_item.done", {"item": item, "output_index": 0}),
            ("response.completed", {"response": done}),
        )
    )
    exchange.start(200, SSE + STREAMING)
    for at in range(0, len(said), _PIECE):
        exchange.write(said[at : at + _PIECE])
    exchange.finish()
