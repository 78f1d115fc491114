"""One line for each answered request: where the time went, and how it ended. No prompt, no token, no query."""

from __future__ import annotations

from collections import deque

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from foreman.lanes import Way
from foreman.record import Record

#: When thousands leave together, their lines must not hold up everybody else: a line takes 50 µs.
LINES_AT_ONCE = 20

_SENTENCE = (
    "{lane} {route} model={model} caller={caller} status={status} wait={wait} first={first} total={total}"
    " in={tokens_in} out={tokens_out} rate={rate} outcome={outcome!r}{why} id={id}"
)


@define(eq=False)
class AccessLog:
    """Writes the lines, each in a reactor turn after the answer, so that no answer waits for its log line."""

    _clock: IReactorTime
    _waiting: deque[tuple[Record, float]] = field(factory=deque, init=False)
    _log = Logger(namespace="foreman.access")

    def write(self, record: Record) -> None:
        """Log a request that has been answered, or given up."""
        self._waiting.append((record, self._clock.seconds()))
        if len(self._waiting) == 1:
            self._clock.callLater(0, self._write_some)

    def refused(self, id: str, caller: str, way: Way, status: int, began_at: float) -> None:  # noqa: A002 - the field's name
        """Log a request that did not get past the door."""
        record = Record(id, caller, way.path, way.lane.value, began_at, status=status)
        if status >= 400:
            record.outcome = "refused"
        self.write(record)

    def flush(self) -> None:
        """Write what waits, all of it."""
        while self._waiting:
            self._write(*self._waiting.popleft())

    def _write_some(self) -> None:
        for _ in range(min(LINES_AT_ONCE, len(self._waiting))):
            self._write(*self._waiting.popleft())
        if self._waiting:
            self._clock.callLater(0, self._write_some)

    def _write(self, record: Record, ended_at: float) -> None:
        began_at = record.begun_at
        rate = None
        if record.tokens_out and record.eval_seconds:
            rate = record.tokens_out / record.eval_seconds
        self._log.info(
            _SENTENCE,
            lane=record.lane,
            route=_plain(record.route),
            model=_plain(record.model),
            caller=_plain(record.caller),
            status=record.status,
            wait=_seconds(None if record.turn_at is None else record.turn_at - began_at),
            first=_seconds(None if record.first_byte_at is None else record.first_byte_at - began_at),
            total=_seconds(ended_at - began_at),
            tokens_in=_number(record.tokens_in),
            tokens_out=_number(record.tokens_out),
            rate="-" if rate is None else f"{rate:.1f}/s",
            outcome=record.outcome,
            why=f" ({record.detail})" if record.detail else "",
            id=record.id,
        )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}s"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _plain(text: str | None) -> str:
    # What a client chose must not be able to make a second line, or a colour, out of a log line.
    if not text:
        return "-"
    shown = text if len(text) <= 200 else text[:200] + "…"
    return shown if shown.isprintable() and " " not in shown else repr(shown)
