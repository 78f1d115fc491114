"""One answer, from the wait for the model to the last token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from foreman.simulator.engine.errors import CRASHED, LEFT, REPEATED, Crashed, Refused
from foreman.simulator.engine.models import Model
from foreman.simulator.engine.prompts import pieces_of
from foreman.simulator.engine.scheduler import Runner
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.engine.text_generator import Ending, Piece, Prompt, speak
from foreman.simulator.server.exchange import Exchange

#: How many tokens are said in one go when there is no rate.
_AT_ONCE = 64


@frozen
class Inquiry:
    """What is to be answered, and by which model.

    :ivar options: what may make the model load anew; :ivar stay: ``keep_alive`` in seconds, where it was said.
    :ivar prompt: ``None`` for a request that only loads; :ivar prompt_tokens: how long it is.
    :ivar late: an error that shows itself only when the model has been loaded; :ivar text: the whole prompt.
    """

    model: Model
    options: Mapping[str, Any]
    stay: float | None
    prompt: Prompt | None
    prompt_tokens: int = 0
    late: Refused | None = None
    text: str = ""


@frozen
class Counts:
    """What the last object of an answer tells: durations are whole nanoseconds, never 0, which Go would leave out.

    :ivar cached: how many tokens of the prompt the engine had from the one before, ``None`` where nobody says so.
    """

    reason: Literal["stop", "length"] | None
    prompt_tokens: int
    tokens: int
    total: int
    load: int
    prompt: int
    answer: int
    cached: int | None = None


class _Left(Exception):
    """The reader has shut its side."""


class _Repeated(Exception):
    """The model says the same again and again."""


class Voice(Protocol):
    """How an answer looks on one route."""

    def say(self, piece: Piece) -> None:
        """The next token."""

    def end(self, counts: Counts) -> None:
        """That was all."""

    def broken(self, text: str) -> None:
        """It ends here, for the reason given."""


def _from_cache(runner: Runner, inquiry: Inquiry) -> int:
    """How many tokens of a prompt are those with which the one before began; the last one is always made anew."""
    before, runner.prompt = runner.prompt, inquiry.text
    if before is None:
        return 0
    same, beyond = 0, min(len(before), len(inquiry.text)) + 1
    while beyond - same > 1:
        middle = (same + beyond) // 2
        if before[:middle] == inquiry.text[:middle]:
            same = middle
        else:
            beyond = middle
    return min(pieces_of(inquiry.model, inquiry.text[:same]), inquiry.prompt_tokens - 1)


def _nanos(seconds: float) -> int:
    return max(int(seconds * 1e9), 1_000)


@define(eq=False)
class _Saying:
    """Says tokens at their pace; waits while the reader is slow.

    :ivar first: when the first token was due; :ivar done: how the answer ended.
    """

    _clock: IReactorTime
    _pieces: Iterator[Piece | Ending]
    _rate: float
    _voice: Voice
    done: Deferred[Ending] = field(init=False)
    first: float = 0.0
    _call: IDelayedCall | None = None
    _paused: bool = False
    _since: float = 0.0
    _said: int = 0

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(lambda _: self.stop())

    def start(self, delay: float) -> Deferred[Ending]:
        """Say the first token after ``delay`` seconds."""
        self.first = self._since = self._clock.seconds() + delay
        if delay > 0:
            self._schedule()
        else:
            self._on()
        return self.done

    def _on(self) -> None:
        self._call = None
        due = (
            int((self._clock.seconds() - self._since) * self._rate + 1e-6) + 1 - self._said if self._rate else _AT_ONCE
        )
        while due > 0 and not self._paused and not self.done.called:
            due -= 1
            piece = next(self._pieces)
            if isinstance(piece, Ending):
                self.done.callback(piece)
                return
            self._said += 1
            self._voice.say(piece)
        self._schedule()

    def _schedule(self) -> None:
        if self._paused or self.done.called or self._call is not None:
            return
        due = self._since + (self._said / self._rate if self._rate else 0.0)
        self._call = self._clock.callLater(max(due - self._clock.seconds(), 0.0), self._on)

    def pause(self) -> None:
        """The reader is slow."""
        self._paused = True
        self.stop()

    def resume(self) -> None:
        """The reader goes on; what was not said meanwhile is not made up for."""
        if self._paused:
            self._paused = False
            if self._rate:
                self._since = self._clock.seconds() - self._said / self._rate
            self._schedule()

    def stop(self) -> None:
        """Say nothing more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def fail(self, error: Exception) -> None:
        """It ends here."""
        self.stop()
        if not self.done.called:
            self.done.errback(error)


async def infer(state: SimulatorState, exchange: Exchange, inquiry: Inquiry, voice: Voice) -> None:
    """Wait for the model and its slot, then answer; only the former where nothing is asked.

    :raises Refused: where there is an error before the first token.
    """
    asked = state.clock.seconds()
    runner = await state.scheduler.acquire(inquiry.model, inquiry.options, inquiry.stay)
    try:
        granted = state.clock.seconds()
        if inquiry.prompt is None:
            return
        if inquiry.late is not None:
            raise inquiry.late
        await runner.slots.acquire()
        state.began()
        saying = _Saying(state.clock, speak(inquiry.model.speech, inquiry.prompt), state.settings.rate, voice)
        cached = _from_cache(runner, inquiry) if state.settings.newer else None
        crashed = partial(saying.fail, Crashed())
        runner.crashed.append(crashed)
        exchange.pace = saying
        exchange.on_half_gone = partial(saying.fail, _Left())
        started = state.clock.seconds()
        try:
            ending = await saying.start(state.settings.prompt_time)
            now = state.clock.seconds()
            spans = (now - asked, granted - asked, saying.first - started, now - saying.first)
            exchange.on_half_gone = None
            if ending.reason is None and state.settings.newer:
                raise _Repeated
            total, load, prompt, answer = map(_nanos, spans)
            voice.end(Counts(ending.reason, inquiry.prompt_tokens, ending.count, total, load, prompt, answer, cached))
        finally:
            runner.crashed.remove(crashed)
            exchange.pace = exchange.on_half_gone = None
            state.ended()
            runner.slots.release()
    except (Crashed, _Left, _Repeated) as end:
        text = {Crashed: CRASHED, _Left: LEFT, _Repeated: REPEATED}[type(end)]
        if not exchange.begun:
            raise Refused(500, text) from None
        voice.broken(text)
    finally:
        state.scheduler.release(runner)
