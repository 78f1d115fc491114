"""``/api/chat`` and ``/api/generate``: NDJSON, or one object (contract 2.1 to 2.3)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from attrs import Factory, define

from foreman.simulator.api.inference import AnswerStats, ModelRequest, infer
from foreman.simulator.api.model_request import (
    Parameters,
    check_capable,
    check_logprobs,
    check_tools,
    find_model,
    make_request,
    messages_of,
    uses_thinking,
)
from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.fields import Fields, check_options
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import render_prompt
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Token
from foreman.simulator.server.content_types import JSON, NDJSON
from foreman.simulator.server.exchange import Exchange

Route = Literal["chat", "generate"]


def logprob(text: str, top: int) -> dict[str, Any]:
    """The log probability of a token, with ``top`` alternatives."""
    entry: dict[str, Any] = {"token": text, "logprob": -1.6095019578933716, "bytes": list(text.encode())}
    return entry | {"top_logprobs": [dict(entry) for _ in range(top)]} if top else entry


@lru_cache(maxsize=4096)
def _line(route: Route, text: str) -> bytes:
    """The rest of a token's line after the timestamp."""
    payload = {"message": {"role": "assistant", "content": text}} if route == "chat" else {"response": text}
    return b'",' + encode({**payload, "done": False})[1:] + b"\n"


@define(eq=False)
class NativeEncoder:
    """Encodes a response of ``/api/chat`` or ``/api/generate``.

    :ivar model_name: as the client wrote it; :ivar top: alternatives to each token, or ``None``.
    :ivar context: the prompt tokens that ``/api/generate`` returns, or ``None``.
    """

    state: SimulatorState
    exchange: Exchange
    route: Route
    model_name: str
    stream: bool
    top: int | None = None
    context: list[int] | None = None
    _tokens: list[Token] = Factory(list)
    _head: bytes = b""

    def _object(self, message: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
        payload = {"message": {"role": "assistant"} | message} if self.route == "chat" else message
        return {"model": self.model_name, "created_at": self.state.timestamp(), **payload, **rest}

    def _message(self, tokens: list[Token]) -> dict[str, Any]:
        content = "".join(token.text for token in tokens if token.kind == "content")
        thinking = "".join(token.text for token in tokens if token.kind == "thinking")
        message: dict[str, Any] = {"content" if self.route == "chat" else "response": content}
        if thinking:
            message["thinking"] = thinking
        calls = [token.call for token in tokens if token.call is not None]
        if calls:
            message["tool_calls"] = [
                {"id": self.state.call_id(), "function": {"index": i, "name": call.name, "arguments": call.arguments}}
                for i, call in enumerate(calls)
            ]
        return message

    def _probabilities(self, tokens: list[Token]) -> dict[str, Any]:
        if self.top is None:
            return {}
        return {"logprobs": [logprob(token.text, self.top) for token in tokens]}

    def load_result(self, reason: Literal["load", "unload"]) -> None:
        """Report that the model was loaded or unloaded: one object, even if a stream was asked for (contract 2.7)."""
        value = self._object(self._message([]), {"done": True, "done_reason": reason})
        self.exchange.respond(200, JSON, encode(value))

    def add_token(self, token: Token) -> None:
        """Send or keep the next token; lines mostly differ in time and text only, so the rest is encoded once."""
        if not self.stream or self.context is not None:
            self._tokens.append(token)
        if not self.stream:
            return
        if token.kind == "silent" and self.route == "chat":
            return
        if not self.exchange.started:
            self.exchange.start(200, NDJSON)
            self._head = b'{"model":%b,"created_at":"' % encode(self.model_name)
        if token.kind != "content" or self.top is not None:
            value = self._object(self._message([token]), {"done": False, **self._probabilities([token])})
            self.exchange.write(encode(value) + b"\n")
            return
        self.exchange.write(self._head + self.state.timestamp().encode() + _line(self.route, token.text))

    def end(self, stats: AnswerStats) -> None:
        """Send the last object; after too many equal tokens there is none, or one that is not done (contract 2.3)."""
        rest: dict[str, Any] = {"done": stats.reason is not None}
        if stats.reason is not None:
            rest["done_reason"] = stats.reason
        if not self.stream:
            rest |= self._probabilities(self._tokens)
        if stats.reason is not None:
            if self.context is not None:
                text = "".join(token.text for token in self._tokens)
                rest["context"] = self.context + [ord(c) for c in text]
            rest |= {
                "total_duration": stats.total,
                "load_duration": stats.load,
                "prompt_eval_count": stats.prompt_tokens,
                **({} if stats.cached is None else {"prompt_eval_cached_count": stats.cached}),
                "prompt_eval_duration": stats.prompt,
                "eval_count": stats.tokens,
                "eval_duration": stats.answer,
            }
        if not self.stream:
            self.exchange.respond(200, JSON, encode(self._object(self._message(self._tokens), rest)))
            return
        if not self.exchange.started:
            self.exchange.start(200, NDJSON)
        if stats.reason is not None:
            self.exchange.write(encode(self._object(self._message([]), rest)) + b"\n")
        self.exchange.finish()

    def error(self, text: str) -> None:
        """Send the error as the last line."""
        self.exchange.write(encode({"error": text}) + b"\n")
        self.exchange.finish()


def _struct_name(state: SimulatorState, struct: str) -> str:
    """The name of the request's struct in Go's error texts: in v0.34 it is embedded in another one."""
    return f".{struct}" if state.settings.newer else struct


def _terms(state: SimulatorState, fields: Fields, images: int) -> Parameters:
    return Parameters(
        options=fields.object("options"),
        keep_alive=fields.keep_alive(),
        think=fields.level() if state.settings.newer else fields.think(),
        tools=check_tools(fields) if fields.struct.endswith("ChatRequest") else (),
        output_format=fields.raw("format"),
        truncate=fields.boolean("truncate") is not False,
        images=images,
    )


async def _load_or_unload(
    state: SimulatorState, exchange: Exchange, encoder: NativeEncoder, model_request: ModelRequest
) -> None:
    if model_request.keep_alive == 0:
        state.scheduler.expire(model_request.model)
        encoder.load_result("unload")
    else:
        await infer(state, exchange, model_request, encoder)
        encoder.load_result("load")


async def chat(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/chat``."""
    fields = Fields.read(_struct_name(state, "ChatRequest"), exchange.body)
    model_name = fields.string("model")
    stream = fields.boolean("stream") is not False
    messages = messages_of(fields)
    parameters = _terms(state, fields, sum(message["images"] for message in messages))
    top = check_logprobs(fields)
    model = find_model(state, model_name)
    encoder = NativeEncoder(state, exchange, "chat", model_name, stream, top)
    if not messages and parameters.keep_alive == 0:
        await _load_or_unload(state, exchange, encoder, ModelRequest(model, {}, 0.0, None))
        return
    check_capable(model, model_name, "chat", parameters.tools)
    if not messages:
        uses_thinking(model, model_name, parameters)
        check_options(parameters.options, newer=state.settings.newer)
        await _load_or_unload(
            state, exchange, encoder, ModelRequest(model, parameters.options, parameters.keep_alive, None)
        )
        return
    text = render_prompt(model, messages, parameters.tools)
    await infer(state, exchange, make_request(state, model, model_name, parameters, text, messages[-1]), encoder)


async def generate(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/generate``."""
    fields = Fields.read(_struct_name(state, "GenerateRequest"), exchange.body)
    model_name, text, system = fields.string("model"), fields.string("prompt"), fields.string("system")
    suffix, template = fields.string("suffix"), fields.string("template")
    context = fields.array("context", "[]int")
    raw = bool(fields.boolean("raw"))
    stream = fields.boolean("stream") is not False
    parameters = _terms(state, fields, fields.images())
    top = check_logprobs(fields)
    if not model_name.strip():
        raise Refused(404, f"model '{model_name}' not found")
    model = find_model(state, model_name)
    encoder = NativeEncoder(state, exchange, "generate", model_name, stream, top)
    if not text and parameters.keep_alive == 0:
        await _load_or_unload(state, exchange, encoder, ModelRequest(model, {}, 0.0, None))
        return
    if raw and (template or system or context):
        raise Refused(400, "raw mode does not support template, system, or context")
    check_capable(model, model_name, "generate")
    if suffix and "insert" not in model.capabilities:
        raise Refused(400, f"{model.name.full} does not support insert")
    if not text:
        check_options(parameters.options, newer=state.settings.newer)
        await _load_or_unload(
            state, exchange, encoder, ModelRequest(model, parameters.options, parameters.keep_alive, None)
        )
        return
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    prompt = text if raw else render_prompt(model, messages)
    model_request = make_request(state, model, model_name, parameters, prompt, messages[-1], before=len(context))
    if fields.boolean("_debug_render_only"):
        debug = {"response": "", "done": False, "_debug_info": {"rendered_template": prompt}}
        exchange.respond(200, JSON, dumps({"model": model_name, "created_at": state.timestamp()} | debug).encode())
        return
    if not raw:
        encoder.context = [*context, *map(ord, prompt)]
    await infer(state, exchange, model_request, encoder)
