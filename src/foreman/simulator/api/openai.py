"""``/v1/chat/completions`` and ``/v1/completions``: JSON, or server-sent events (contract 2.9)."""

from __future__ import annotations

from typing import Any, Literal

from attrs import Factory, define

from foreman.simulator.api.inference import AnswerStats, infer
from foreman.simulator.api.model_request import Parameters, check_capable, find_model, make_request
from foreman.simulator.api.native import logprob
from foreman.simulator.api.openai_fields import effort, messages_of, options_of, output_format_of
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import Fields
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import render_prompt
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Token
from foreman.simulator.server.content_types import PLAIN_JSON, SSE
from foreman.simulator.server.exchange import Exchange

Route = Literal["chat", "text"]


@define(eq=False)
class OpenAIEncoder:
    """Encodes a response of one of the two routes.

    :ivar usage: the stream ends with the usage; :ivar logprobs: each token has its log probability.
    """

    state: SimulatorState
    exchange: Exchange
    route: Route
    model_name: str
    stream: bool
    usage: bool = False
    logprobs: bool = False
    id: str = ""
    created: int = 0
    _tokens: list[Token] = Factory(list)
    _events: dict[str, bytes] = Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.route == 'chat' else 'cmpl'}-{self.state.random_number(999)}"
        self.created = int(self.state.now())

    def _event(self, choices: list[Any], *, model: str | None = None, usage: Any = None) -> bytes:
        name = self.model_name if model is None else model
        if self.route == "chat":
            kind = "chat.completion.chunk"
            value = {"id": self.id, "object": kind, "created": self.created, "model": name}
            value |= {"system_fingerprint": "fp_ollama", "choices": choices}
        else:
            value = {"id": self.id, "object": "text_completion", "created": self.created, "choices": choices}
            value |= {"model": name, "system_fingerprint": "fp_ollama"}
        if usage is not None:
            value["usage"] = usage
        elif self.usage and self.route == "text":
            value["usage"] = _usage(0, 0)
        return b"data: " + encode(value) + b"\n\n"

    def _choice(self, token: Token, *, first: bool = False) -> dict[str, Any]:
        if self.route == "text":
            return {"text": token.text if token.kind == "content" else "", "index": 0, "finish_reason": None}
        choice: dict[str, Any] = {"index": 0, "delta": self._message([token], role=first), "finish_reason": None}
        if self.logprobs:
            choice["logprobs"] = {"content": [logprob(token.text, 0)]}
        return choice

    def _message(self, tokens: list[Token], *, role: bool) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant"} if role else {}
        message["content"] = "".join(token.text for token in tokens if token.kind == "content")
        thinking = "".join(token.text for token in tokens if token.kind == "thinking")
        if thinking:
            message["reasoning"] = thinking
        calls = [token.call for token in tokens if token.call is not None]
        if calls:
            message["tool_calls"] = [
                {
                    "id": self.state.call_id(),
                    "index": index,
                    "type": "function",
                    "function": {"name": call.name, "arguments": dumps(call.arguments)},
                }
                for index, call in enumerate(calls)
            ]
        return message

    def add_token(self, token: Token) -> None:
        """Send or keep the next token."""
        if not self.stream or token.kind == "call":
            self._tokens.append(token)
        if not self.stream or (token.kind == "silent" and self.route == "chat"):
            return
        first = not self.exchange.started
        if first:
            self.exchange.start(200, SSE)
        if first or token.kind != "content" or self.logprobs:
            self.exchange.write(self._event([self._choice(token, first=first)]))
            return
        event = self._events.get(token.text)
        if event is None:
            event = self._events[token.text] = self._event([self._choice(token)])
        self.exchange.write(event)

    def end(self, stats: AnswerStats) -> None:
        """End the response."""
        tool_used = any(token.kind == "call" for token in self._tokens)
        finish_reason = "tool_calls" if tool_used else stats.reason
        usage = _usage(stats.prompt_tokens, stats.tokens, stats.cached)
        if not self.stream:
            self.exchange.respond(200, PLAIN_JSON, encode(self._object(finish_reason, usage)) + b"\n")
            return
        if not self.exchange.started:
            self.exchange.start(200, SSE)
        if stats.reason is not None:
            ending: dict[str, Any] = {"index": 0, "delta": {}} if self.route == "chat" else {"text": "", "index": 0}
            last = self._event([ending | {"finish_reason": finish_reason}])
            if self.usage:
                last += self._event([], usage=usage)
            self.exchange.write(last + b"data: [DONE]\n\n")
        self.exchange.finish()

    def _object(self, finish_reason: str | None, usage: Any) -> Any:
        value: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion" if self.route == "chat" else "text_completion",
            "created": self.created,
            "model": self.model_name,
            "system_fingerprint": "fp_ollama",
        }
        if self.route == "chat":
            choice: dict[str, Any] = {
                "index": 0,
                "message": self._message(self._tokens, role=True),
                "finish_reason": finish_reason,
            }
            if self.logprobs:
                choice["logprobs"] = {"content": [logprob(token.text, 0) for token in self._tokens]}
        else:
            text = "".join(token.text for token in self._tokens if token.kind == "content")
            choice = {"text": text, "index": 0, "finish_reason": finish_reason}
        return value | {"choices": [choice], "usage": usage}

    def error(self, text: str) -> None:
        """Send one empty event without a model, and no end marker; the text is lost (contract 0.15)."""
        del text
        choice: dict[str, Any] = (
            {"index": 0, "delta": {"content": ""}} if self.route == "chat" else {"text": "", "index": 0}
        )
        self.exchange.write(self._event([choice | {"finish_reason": None}], model=""))
        self.exchange.finish()


def _usage(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, **details, "completion_tokens": completion, "total_tokens": prompt + completion}


async def chat(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/chat/completions``."""
    fields = Fields.read("ChatCompletionRequest", exchange.body, "openai")
    model_name, stream = fields.string("model"), bool(fields.boolean("stream"))
    if not fields.array("messages", "[]openai.Message"):
        raise Malformed("[] is too short - 'messages'")
    messages, images = messages_of(fields)
    usage = bool(fields.object("stream_options").get("include_usage"))
    limit = fields.integer("max_completion_tokens") or fields.integer("max_tokens")
    tools = fields.array("tools", "[]api.Tool")
    reasoning = fields.object("reasoning").get("effort")
    parameters = Parameters(
        options=options_of(fields, limit),
        think=effort(fields.string("reasoning_effort") or str(reasoning or "")),
        tools=tools,
        output_format=output_format_of(fields.raw("response_format")),
        images=images,
    )
    model = find_model(state, model_name)
    check_capable(model, model_name, "chat", tools)
    model_request = make_request(
        state, model, model_name, parameters, render_prompt(model, messages, tools), messages[-1], temperature=1.0
    )
    encoder = OpenAIEncoder(state, exchange, "chat", model_name, stream, usage, bool(fields.boolean("logprobs")))
    await infer(state, exchange, model_request, encoder)


async def completions(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/completions``."""
    fields = Fields.read("CompletionRequest", exchange.body, "openai")
    model_name, text, stream = fields.string("model"), fields.string("prompt"), bool(fields.boolean("stream"))
    usage = bool(fields.object("stream_options").get("include_usage"))
    parameters = Parameters(options=options_of(fields, fields.integer("max_tokens")))
    if not model_name.strip():
        raise Refused(404, f"model '{model_name}' not found")
    model = find_model(state, model_name)
    check_capable(model, model_name, "generate")
    if fields.string("suffix") and "insert" not in model.capabilities:
        raise Refused(400, f"{model.name.full} does not support insert")
    messages = [{"role": "user", "content": text}]
    model_request = make_request(
        state, model, model_name, parameters, render_prompt(model, messages), messages[-1], temperature=1.0
    )
    await infer(state, exchange, model_request, OpenAIEncoder(state, exchange, "text", model_name, stream, usage))
