"""``/api/chat`` and ``/api/generate``: NDJSON, or one object (contract 2.1 to 2.3)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from attrs import Factory, define

from foreman.simulator.api.inference import Counts, Inquiry, infer
from foreman.simulator.api.inference_request import (
    Terms,
    check_capable,
    check_logprobs,
    check_tools,
    inquiry,
    installed,
    messages_of,
    thinks,
)
from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.fields import Fields, check_options
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import rendered
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Piece
from foreman.simulator.server.error_shapes import JSON, NDJSON
from foreman.simulator.server.exchange import Exchange

Route = Literal["chat", "generate"]


def logprob(text: str, top: int) -> dict[str, Any]:
    """What a token's probability looks like, with ``top`` alternatives."""
    one: dict[str, Any] = {"token": text, "logprob": -1.6095019578933716, "bytes": list(text.encode())}
    return one | {"top_logprobs": [dict(one) for _ in range(top)]} if top else one


@lru_cache(maxsize=4096)
def _line(route: Route, text: str) -> bytes:
    """What stands behind the time in the line of a token."""
    said = {"message": {"role": "assistant", "content": text}} if route == "chat" else {"response": text}
    return b'",' + encode({**said, "done": False})[1:] + b"\n"


@define(eq=False)
class NativeVoice:
    """An answer of ``/api/chat`` or ``/api/generate``.

    :ivar typed: the model's name as the client wrote it; :ivar top: alternatives to each token, or ``None``.
    :ivar context: the tokens that ``/api/generate`` gives back, ``None`` where it does not.
    """

    state: SimulatorState
    exchange: Exchange
    route: Route
    typed: str
    stream: bool
    top: int | None = None
    context: list[int] | None = None
    _said: list[Piece] = Factory(list)
    _head: bytes = b""

    def _object(self, message: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
        said = {"message": {"role": "assistant"} | message} if self.route == "chat" else message
        return {"model": self.typed, "created_at": self.state.stamp(), **said, **rest}

    def _words(self, pieces: list[Piece]) -> dict[str, Any]:
        content = "".join(piece.text for piece in pieces if piece.kind == "content")
        thinking = "".join(piece.text for piece in pieces if piece.kind == "thinking")
        message: dict[str, Any] = {"content" if self.route == "chat" else "response": content}
        if thinking:
            message["thinking"] = thinking
        calls = [piece.call for piece in pieces if piece.call is not None]
        if calls:
            message["tool_calls"] = [
                {"id": self.state.call_id(), "function": {"index": i, "name": call.name, "arguments": call.arguments}}
                for i, call in enumerate(calls)
            ]
        return message

    def _probabilities(self, pieces: list[Piece]) -> dict[str, Any]:
        if self.top is None:
            return {}
        return {"logprobs": [logprob(piece.text, self.top) for piece in pieces]}

    def only(self, reason: Literal["load", "unload"]) -> None:
        """It is loaded or not, and nothing is said: one object, also where a stream was asked for (contract 2.7)."""
        value = self._object(self._words([]), {"done": True, "done_reason": reason})
        self.exchange.respond(200, JSON, encode(value))

    def say(self, piece: Piece) -> None:
        """The next token; most lines differ only in their time and word, so the rest is made once."""
        if not self.stream or self.context is not None:
            self._said.append(piece)
        if not self.stream:
            return
        if piece.kind == "silent" and self.route == "chat":
            return
        if not self.exchange.begun:
            self.exchange.start(200, NDJSON)
            self._head = b'{"model":%b,"created_at":"' % encode(self.typed)
        if piece.kind != "content" or self.top is not None:
            value = self._object(self._words([piece]), {"done": False, **self._probabilities([piece])})
            self.exchange.write(encode(value) + b"\n")
            return
        self.exchange.write(self._head + self.state.stamp().encode() + _line(self.route, piece.text))

    def end(self, counts: Counts) -> None:
        """The last object; there is none, or one that is not done, after too many equal tokens (contract 2.3)."""
        rest: dict[str, Any] = {"done": counts.reason is not None}
        if counts.reason is not None:
            rest["done_reason"] = counts.reason
        if not self.stream:
            rest |= self._probabilities(self._said)
        if counts.reason is not None:
            if self.context is not None:
                text = "".join(piece.text for piece in self._said)
                rest["context"] = self.context + [ord(c) for c in text]
            rest |= {
                "total_duration": counts.total,
                "load_duration": counts.load,
                "prompt_eval_count": counts.prompt_tokens,
                **({} if counts.cached is None else {"prompt_eval_cached_count": counts.cached}),
                "prompt_eval_duration": counts.prompt,
                "eval_count": counts.tokens,
                "eval_duration": counts.answer,
            }
        if not self.stream:
            self.exchange.respond(200, JSON, encode(self._object(self._words(self._said), rest)))
            return
        if not self.exchange.begun:
            self.exchange.start(200, NDJSON)
        if counts.reason is not None:
            self.exchange.write(encode(self._object(self._words([]), rest)) + b"\n")
        self.exchange.finish()

    def broken(self, text: str) -> None:
        """An error after the first line is the last one."""
        self.exchange.write(encode({"error": text}) + b"\n")
        self.exchange.finish()


def _named(state: SimulatorState, struct: str) -> str:
    """What Go's error texts call the object of a request: in v0.34 it stands within another one."""
    return f".{struct}" if state.settings.newer else struct


def _terms(state: SimulatorState, fields: Fields, images: int) -> Terms:
    return Terms(
        options=fields.table("options"),
        stay=fields.keep_alive(),
        think=fields.level() if state.settings.newer else fields.think(),
        tools=check_tools(fields) if fields.struct.endswith("ChatRequest") else (),
        form=fields.raw("format"),
        truncate=fields.truth("truncate") is not False,
        images=images,
    )


async def _load_or_unload(state: SimulatorState, exchange: Exchange, voice: NativeVoice, inquiry: Inquiry) -> None:
    if inquiry.stay == 0:
        state.scheduler.expire(inquiry.model)
        voice.only("unload")
    else:
        await infer(state, exchange, inquiry, voice)
        voice.only("load")


async def chat(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/chat``."""
    fields = Fields.read(_named(state, "ChatRequest"), exchange.body)
    typed = fields.text("model")
    stream = fields.truth("stream") is not False
    messages = messages_of(fields)
    terms = _terms(state, fields, sum(message["images"] for message in messages))
    top = check_logprobs(fields)
    model = installed(state, typed)
    voice = NativeVoice(state, exchange, "chat", typed, stream, top)
    if not messages and terms.stay == 0:
        await _load_or_unload(state, exchange, voice, Inquiry(model, {}, 0.0, None))
        return
    check_capable(model, typed, "chat", terms.tools)
    if not messages:
        thinks(model, typed, terms)
        check_options(terms.options, newer=state.settings.newer)
        await _load_or_unload(state, exchange, voice, Inquiry(model, terms.options, terms.stay, None))
        return
    text = rendered(model, messages, terms.tools)
    await infer(state, exchange, inquiry(state, model, typed, terms, text, messages[-1]), voice)


async def generate(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/generate``."""
    fields = Fields.read(_named(state, "GenerateRequest"), exchange.body)
    typed, text, system = fields.text("model"), fields.text("prompt"), fields.text("system")
    suffix, template = fields.text("suffix"), fields.text("template")
    context = fields.items("context", "[]int")
    raw = bool(fields.truth("raw"))
    stream = fields.truth("stream") is not False
    terms = _terms(state, fields, fields.images())
    top = check_logprobs(fields)
    if not typed.strip():
        raise Refused(404, f"model '{typed}' not found")
    model = installed(state, typed)
    voice = NativeVoice(state, exchange, "generate", typed, stream, top)
    if not text and terms.stay == 0:
        await _load_or_unload(state, exchange, voice, Inquiry(model, {}, 0.0, None))
        return
    if raw and (template or system or context):
        raise Refused(400, "raw mode does not support template, system, or context")
    check_capable(model, typed, "generate")
    if suffix and "insert" not in model.capabilities:
        raise Refused(400, f"{model.name.full} does not support insert")
    if not text:
        check_options(terms.options, newer=state.settings.newer)
        await _load_or_unload(state, exchange, voice, Inquiry(model, terms.options, terms.stay, None))
        return
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    whole = text if raw else rendered(model, messages)
    question = inquiry(state, model, typed, terms, whole, messages[-1], before=len(context))
    if fields.truth("_debug_render_only"):
        debug = {"response": "", "done": False, "_debug_info": {"rendered_template": whole}}
        exchange.respond(200, JSON, dumps({"model": typed, "created_at": state.stamp()} | debug).encode())
        return
    if not raw:
        voice.context = [*context, *map(ord, whole)]
    await infer(state, exchange, question, voice)
