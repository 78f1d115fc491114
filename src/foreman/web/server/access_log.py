"""One line for each answered request: where the time went, and how it ended. No prompt, no token, no query."""

from __future__ import annotations

from collections import deque
from math import inf

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from foreman.errors import shortened
from foreman.protocol.routes import Route
from foreman.proxy.access_record import RequestRecord

#: When thousands leave together, their lines must not hold up everybody else: a line takes 50 µs.
LINES_AT_ONCE = 20
#: How much of what somebody else wrote is repeated, in characters: of a path or a name, and of a sentence.
LONGEST, LONGEST_SENTENCE = 200, 500
#: So many refusals are logged in ``PERIOD`` seconds; of the others it is said how many they were.
REFUSALS = 200
PERIOD = 10.0


@define(eq=False)
class AccessLog:
    """Writes the lines, each in a reactor turn after the answer, so that no answer waits for its log line."""

    _clock: IReactorTime
    _waiting: deque[tuple[RequestRecord, float]] = field(factory=deque, init=False)
    _period_began_at: float = field(default=-inf, init=False)
    _refusals: int = field(default=0, init=False)
    _log = Logger(namespace="foreman.access")

    def write(self, record: RequestRecord) -> None:
        """Log a request that has been answered, or given up."""
        self._waiting.append((record, self._clock.seconds()))
        if len(self._waiting) == 1:
            self._clock.callLater(0, self._write_some)

    def answered_here(self, id: str, caller: str, route: Route, status: int, began_at: float) -> None:  # noqa: A002 - the field's name
        """Log a request that foreman itself has answered, or refused; of thousands of refusals only how many they were."""
        if status >= 400 and not self._is_worth_a_line():
            return
        record = RequestRecord(id, caller, route.path, route.lane.value, began_at, status=status)
        if status >= 400:
            record.outcome = "refused"
        self.write(record)

    def _is_worth_a_line(self) -> bool:
        now = self._clock.seconds()
        if now - self._period_began_at >= PERIOD:
            self._tell_left_out()
            self._period_began_at = now
        self._refusals += 1
        return self._refusals <= REFUSALS

    def _tell_left_out(self) -> None:
        left_out, self._refusals = self._refusals - REFUSALS, 0
        if left_out > 0:
            self._log.warn("{count} more requests were refused, and are not logged one by one", count=left_out)

    def flush(self) -> None:
        """Write what waits, all of it."""
        self._tell_left_out()
        while self._waiting:
            self._write(*self._waiting.popleft())

    def _write_some(self) -> None:
        for _ in range(min(LINES_AT_ONCE, len(self._waiting))):
            self._write(*self._waiting.popleft())
        if self._waiting:
            self._clock.callLater(0, self._write_some)

    def _write(self, record: RequestRecord, ended_at: float) -> None:
        began_at = record.begun_at
        wait = None if record.turn_at is None else record.turn_at - began_at
        first = None if record.first_byte_at is None else record.first_byte_at - began_at
        total = ended_at - began_at
        rate = None
        if record.tokens_out and record.eval_seconds:
            rate = record.tokens_out / record.eval_seconds
        route, detail = shortened(record.route, LONGEST), _sentence(record.detail)
        line = (
            f"{record.lane} {_plain(record.route)} model={_plain(record.model)} caller={_plain(record.caller)}"
            f" status={record.status} wait={_seconds(wait)} first={_seconds(first)} total={_seconds(total)}"
            f" in={_number(record.tokens_in)} out={_number(record.tokens_out)}"
            f" rate={'-' if rate is None else f'{rate:.1f}/s'} outcome={record.outcome!r}"
            f"{f' ({detail})' if detail else ''} id={record.id or '-'}"
        )
        self._log.emit(
            LogLevel.debug if _is_probe(record) else LogLevel.info,
            "{_line}",
            _line=line,
            lane=record.lane,
            route=route,
            model=None if record.model is None else shortened(record.model, LONGEST),
            caller=record.caller,
            status=record.status,
            wait=_rounded(wait),
            first=_rounded(first),
            total=_rounded(total),
            tokens_in=record.tokens_in,
            tokens_out=record.tokens_out,
            rate=_rounded(rate),
            outcome=record.outcome,
            detail=detail,
            id=record.id,
        )


def _is_probe(record: RequestRecord) -> bool:
    """Whether a supervisor asked how foreman is, which many do every few seconds; a refusal is none."""
    return record.route == "/healthz" and record.status in (200, 503)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}s"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _plain(text: str | None) -> str:
    # What a client chose must not be able to make a second line, or a colour, out of a log line.
    if not text:
        return "-"
    shown = shortened(text, LONGEST)
    return shown if shown.isprintable() and " " not in shown else repr(shown)


def _sentence(text: str) -> str:
    # What went wrong may repeat what a client or the target said.
    shown = shortened(text, LONGEST_SENTENCE)
    return shown if shown.isprintable() else repr(shown)
