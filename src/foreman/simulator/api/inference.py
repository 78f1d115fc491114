"""Runs one inference, from waiting for the model to the last token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from foreman.simulator.engine.errors import CLIENT_GONE, CRASHED, REPEATED, Crashed, Refused
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.prompts import count_tokens
from foreman.simulator.engine.scheduler import Runner
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import GenerationEnd, Prompt, Token, generate
from foreman.simulator.server.exchange import Exchange

#: How many tokens are sent at once when the rate is not limited.
_AT_ONCE = 64


@frozen
class ModelRequest:
    """An inference: which model, and what it is asked.

    :ivar options: some of them make the model load again; :ivar keep_alive: in seconds, if the request has it.
    :ivar prompt: ``None`` for a request that only loads the model; :ivar prompt_tokens: the length of the prompt.
    :ivar error_after_load: an error that Ollama finds only once the model is loaded; :ivar text: the whole prompt.
    """

    model: Model
    options: Mapping[str, Any]
    keep_alive: float | None
    prompt: Prompt | None
    prompt_tokens: int = 0
    error_after_load: Refused | None = None
    text: str = ""


@frozen
class AnswerStats:
    """The statistics in the last object of a response. Durations are whole nanoseconds, never 0, which Go would omit.

    :ivar cached: how many tokens of the prompt were in the prompt cache, ``None`` for versions that do not report it.
    """

    reason: Literal["stop", "length"] | None
    prompt_tokens: int
    tokens: int
    total: int
    load: int
    prompt: int
    answer: int
    cached: int | None = None


class _ClientGone(Exception):
    """The client has closed its side of the connection."""


class _Repeated(Exception):
    """The model repeats one token too often."""


class ResponseEncoder(Protocol):
    """Encodes and sends the response of one route."""

    def add_token(self, token: Token) -> None:
        """Send or keep the next token."""

    def end(self, stats: AnswerStats) -> None:
        """End the response."""

    def error(self, text: str) -> None:
        """Break the response off with an error."""


def _cached_tokens(runner: Runner, model_request: ModelRequest) -> int:
    """How many tokens the prompt has in common with the start of the one before; never the last one."""
    before, runner.prompt = runner.prompt, model_request.text
    if before is None:
        return 0
    same, beyond = 0, min(len(before), len(model_request.text)) + 1
    while beyond - same > 1:
        middle = (same + beyond) // 2
        if before[:middle] == model_request.text[:middle]:
            same = middle
        else:
            beyond = middle
    return min(count_tokens(model_request.model, model_request.text[:same]), model_request.prompt_tokens - 1)


def _nanos(seconds: float) -> int:
    return max(int(seconds * 1e9), 1_000)


@define(eq=False)
class _TokenStream:
    """Sends tokens at their rate; pauses while the client reads slowly.

    :ivar first_token_at: when the first token was due; :ivar done: fires with how the generation ended.
    """

    _clock: IReactorTime
    _tokens: Iterator[Token | GenerationEnd]
    _rate: float
    _voice: ResponseEncoder
    done: Deferred[GenerationEnd] = field(init=False)
    first_token_at: float = 0.0
    _timer: IDelayedCall | None = None
    _paused: bool = False
    _started_at: float = 0.0
    _sent: int = 0

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(lambda _: self.stop())

    def start(self, delay: float) -> Deferred[GenerationEnd]:
        """Send the first token after ``delay`` seconds."""
        self.first_token_at = self._started_at = self._clock.seconds() + delay
        if delay > 0:
            self._schedule()
        else:
            self._send_due()
        return self.done

    def _send_due(self) -> None:
        self._timer = None
        due = (
            int((self._clock.seconds() - self._started_at) * self._rate + 1e-6) + 1 - self._sent
            if self._rate
            else _AT_ONCE
        )
        while due > 0 and not self._paused and not self.done.called:
            due -= 1
            token = next(self._tokens)
            if isinstance(token, GenerationEnd):
                self.done.callback(token)
                return
            self._sent += 1
            self._voice.add_token(token)
        self._schedule()

    def _schedule(self) -> None:
        if self._paused or self.done.called or self._timer is not None:
            return
        due = self._started_at + (self._sent / self._rate if self._rate else 0.0)
        self._timer = self._clock.callLater(max(due - self._clock.seconds(), 0.0), self._send_due)

    def pause(self) -> None:
        """The client reads slowly."""
        self._paused = True
        self.stop()

    def resume(self) -> None:
        """The client reads again; the time of the pause is not caught up."""
        if self._paused:
            self._paused = False
            if self._rate:
                self._started_at = self._clock.seconds() - self._sent / self._rate
            self._schedule()

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def fail(self, error: Exception) -> None:
        """Stop with an error."""
        self.stop()
        if not self.done.called:
            self.done.errback(error)


async def infer(
    state: SimulatorState, exchange: Exchange, model_request: ModelRequest, encoder: ResponseEncoder
) -> None:
    """Wait for the model and a slot, then respond; without a prompt only load the model.

    :raises Refused: if there is an error before the first token.
    """
    requested_at = state.clock.seconds()
    runner = await state.scheduler.acquire(model_request.model, model_request.options, model_request.keep_alive)
    try:
        loaded_at = state.clock.seconds()
        if model_request.prompt is None:
            return
        if model_request.error_after_load is not None:
            raise model_request.error_after_load
        await runner.slots.acquire()
        state.inference_started()
        stream = _TokenStream(
            state.clock, generate(model_request.model.text_style, model_request.prompt), state.settings.rate, encoder
        )
        cached = _cached_tokens(runner, model_request) if state.settings.newer else None
        crashed = partial(stream.fail, Crashed())
        runner.crashed.append(crashed)
        exchange.producer = stream
        exchange.on_half_close = partial(stream.fail, _ClientGone())
        started = state.clock.seconds()
        try:
            ending = await stream.start(state.settings.prompt_time)
            now = state.clock.seconds()
            spans = (
                now - requested_at,
                loaded_at - requested_at,
                stream.first_token_at - started,
                now - stream.first_token_at,
            )
            exchange.on_half_close = None
            if ending.reason is None and state.settings.newer:
                raise _Repeated
            total, load, prompt, answer = map(_nanos, spans)
            encoder.end(
                AnswerStats(
                    ending.reason, model_request.prompt_tokens, ending.count, total, load, prompt, answer, cached
                )
            )
        finally:
            runner.crashed.remove(crashed)
            exchange.producer = exchange.on_half_close = None
            state.inference_ended()
            runner.slots.release()
    except (Crashed, _ClientGone, _Repeated) as end:
        text = {Crashed: CRASHED, _ClientGone: CLIENT_GONE, _Repeated: REPEATED}[type(end)]
        if not exchange.started:
            raise Refused(500, text) from None
        encoder.error(text)
    finally:
        state.scheduler.release(runner)
