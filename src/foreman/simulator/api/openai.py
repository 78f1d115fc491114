"""``/v1/chat/completions`` and ``/v1/completions``: JSON, or server-sent events (contract 2.9)."""

from __future__ import annotations

from typing import Any, Literal

from attrs import Factory, define

from foreman.simulator.api.inference import Counts, infer
from foreman.simulator.api.inference_request import Terms, check_capable, inquiry, installed
from foreman.simulator.api.native import logprob
from foreman.simulator.api.openai_fields import effort, form_of, messages_of, options_of
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import Fields
from foreman.simulator.engine.go_json import dumps, encode
from foreman.simulator.engine.prompts import rendered
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Piece
from foreman.simulator.server.error_shapes import PLAIN_JSON, SSE
from foreman.simulator.server.exchange import Exchange

Route = Literal["chat", "text"]


@define(eq=False)
class OpenAIVoice:
    """An answer of one of the two routes.

    :ivar usage: the stream ends with what it cost; :ivar probable: each token comes with its probability.
    """

    state: SimulatorState
    exchange: Exchange
    route: Route
    typed: str
    stream: bool
    usage: bool = False
    probable: bool = False
    id: str = ""
    created: int = 0
    _said: list[Piece] = Factory(list)
    _events: dict[str, bytes] = Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.route == 'chat' else 'cmpl'}-{self.state.number(999)}"
        self.created = int(self.state.now())

    def _event(self, choices: list[Any], *, model: str | None = None, usage: Any = None) -> bytes:
        name = self.typed if model is None else model
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

    def _choice(self, piece: Piece, *, first: bool = False) -> dict[str, Any]:
        if self.route == "text":
            return {"text": piece.text if piece.kind == "content" else "", "index": 0, "finish_reason": None}
        choice: dict[str, Any] = {"index": 0, "delta": self._message([piece], role=first), "finish_reason": None}
        if self.probable:
            choice["logprobs"] = {"content": [logprob(piece.text, 0)]}
        return choice

    def _message(self, pieces: list[Piece], *, role: bool) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant"} if role else {}
        message["content"] = "".join(piece.text for piece in pieces if piece.kind == "content")
        thinking = "".join(piece.text for piece in pieces if piece.kind == "thinking")
        if thinking:
            message["reasoning"] = thinking
        calls = [piece.call for piece in pieces if piece.call is not None]
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

    def say(self, piece: Piece) -> None:
        """The next token."""
        if not self.stream or piece.kind == "call":
            self._said.append(piece)
        if not self.stream or (piece.kind == "silent" and self.route == "chat"):
            return
        first = not self.exchange.begun
        if first:
            self.exchange.start(200, SSE)
        if first or piece.kind != "content" or self.probable:
            self.exchange.write(self._event([self._choice(piece, first=first)]))
            return
        event = self._events.get(piece.text)
        if event is None:
            event = self._events[piece.text] = self._event([self._choice(piece)])
        self.exchange.write(event)

    def end(self, counts: Counts) -> None:
        """What finishes the answer."""
        used = any(piece.kind == "call" for piece in self._said)
        why = "tool_calls" if used else counts.reason
        usage = _usage(counts.prompt_tokens, counts.tokens, counts.cached)
        if not self.stream:
            self.exchange.respond(200, PLAIN_JSON, encode(self._whole(why, usage)) + b"\n")
            return
        if not self.exchange.begun:
            self.exchange.start(200, SSE)
        if counts.reason is not None:
            ending: dict[str, Any] = {"index": 0, "delta": {}} if self.route == "chat" else {"text": "", "index": 0}
            last = self._event([ending | {"finish_reason": why}])
            if self.usage:
                last += self._event([], usage=usage)
            self.exchange.write(last + b"data: [DONE]\n\n")
        self.exchange.finish()

    def _whole(self, why: str | None, usage: Any) -> Any:
        value: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion" if self.route == "chat" else "text_completion",
            "created": self.created,
            "model": self.typed,
            "system_fingerprint": "fp_ollama",
        }
        if self.route == "chat":
            choice: dict[str, Any] = {"index": 0, "message": self._message(self._said, role=True), "finish_reason": why}
            if self.probable:
                choice["logprobs"] = {"content": [logprob(piece.text, 0) for piece in self._said]}
        else:
            text = "".join(piece.text for piece in self._said if piece.kind == "content")
            choice = {"text": text, "index": 0, "finish_reason": why}
        return value | {"choices": [choice], "usage": usage}

    def broken(self, text: str) -> None:
        """The text is lost: one more event without a model or a word, and no end marker (contract 0.15)."""
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
    typed, stream = fields.text("model"), bool(fields.truth("stream"))
    if not fields.items("messages", "[]openai.Message"):
        raise Malformed("[] is too short - 'messages'")
    messages, images = messages_of(fields)
    usage = bool(fields.table("stream_options").get("include_usage"))
    limit = fields.number("max_completion_tokens") or fields.number("max_tokens")
    tools = fields.items("tools", "[]api.Tool")
    reasoning = fields.table("reasoning").get("effort")
    terms = Terms(
        options=options_of(fields, limit),
        think=effort(fields.text("reasoning_effort") or str(reasoning or "")),
        tools=tools,
        form=form_of(fields.raw("response_format")),
        images=images,
    )
    model = installed(state, typed)
    check_capable(model, typed, "chat", tools)
    question = inquiry(state, model, typed, terms, rendered(model, messages, tools), messages[-1], temperature=1.0)
    voice = OpenAIVoice(state, exchange, "chat", typed, stream, usage, bool(fields.truth("logprobs")))
    await infer(state, exchange, question, voice)


async def completions(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /v1/completions``."""
    fields = Fields.read("CompletionRequest", exchange.body, "openai")
    typed, text, stream = fields.text("model"), fields.text("prompt"), bool(fields.truth("stream"))
    usage = bool(fields.table("stream_options").get("include_usage"))
    terms = Terms(options=options_of(fields, fields.number("max_tokens")))
    if not typed.strip():
        raise Refused(404, f"model '{typed}' not found")
    model = installed(state, typed)
    check_capable(model, typed, "generate")
    if fields.text("suffix") and "insert" not in model.capabilities:
        raise Refused(400, f"{model.name.full} does not support insert")
    messages = [{"role": "user", "content": text}]
    question = inquiry(state, model, typed, terms, rendered(model, messages), messages[-1], temperature=1.0)
    await infer(state, exchange, question, OpenAIVoice(state, exchange, "text", typed, stream, usage))
