"""The access log: one line for each request, with where the time went and how it ended. No prompt, no token, no query."""

from __future__ import annotations

from collections import deque
from math import inf

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from foreman.errors import shortened
from foreman.jobs.job import Job, State
from foreman.proxy.access_record import RequestRecord

#: When thousands of requests end at once, their lines must not delay the others: a line takes 50 µs.
MAX_LINES_AT_ONCE = 20
#: The longest path or name, and the longest detail, of what clients and the target wrote, in characters.
MAX_NAME, MAX_DETAIL = 200, 500
#: So many refusals are logged in ``REFUSALS_PERIOD`` seconds; the others are only counted.
MAX_REFUSALS = 200
REFUSALS_PERIOD = 10.0


@define(eq=False)
class AccessLog:
    """Writes the lines in later turns of the reactor, so that no answer waits for its log line."""

    _clock: IReactorTime
    _waiting: deque[tuple[RequestRecord, float]] = field(factory=deque, init=False)
    _period_started_at: float = field(default=-inf, init=False)
    _refusals: int = field(default=0, init=False)
    _log = Logger()

    def request_finished(self, record: RequestRecord) -> None:
        """Log a request that was answered or given up; of very many early refusals only their number."""
        if record.is_early_refusal and (record.status == 429 or not self._may_log_refusal()):
            return  # those with 429 are counted by the throttle
        self._waiting.append((record, self._clock.seconds()))
        if len(self._waiting) == 1:
            self._clock.callLater(0, self._write_some)

    def job_ended(self, job: Job, state: State | None, record: RequestRecord) -> None:
        """Jobs have no lines here: the worker logs them."""

    def committed(self, changed: frozenset[str]) -> None:
        """Commits have no lines here."""

    def _may_log_refusal(self) -> bool:
        now = self._clock.seconds()
        if now - self._period_started_at >= REFUSALS_PERIOD:
            self._log_omitted()
            self._period_started_at = now
        self._refusals += 1
        return self._refusals <= MAX_REFUSALS

    def _log_omitted(self) -> None:
        omitted, self._refusals = self._refusals - MAX_REFUSALS, 0
        if omitted > 0:
            self._log.warn("{count} more requests were refused, and are not logged one by one", count=omitted)

    def flush(self) -> None:
        """Write every line that waits."""
        self._log_omitted()
        while self._waiting:
            self._write(*self._waiting.popleft())

    def _write_some(self) -> None:
        for _ in range(min(MAX_LINES_AT_ONCE, len(self._waiting))):
            self._write(*self._waiting.popleft())
        if self._waiting:
            self._clock.callLater(0, self._write_some)

    def _write(self, record: RequestRecord, ended_at: float) -> None:
        started_at = record.started_at
        wait = None if record.turn_at is None else record.turn_at - started_at
        first = None if record.first_byte_at is None else record.first_byte_at - started_at
        total = ended_at - started_at
        rate = None
        if record.tokens_out and record.eval_seconds:
            rate = record.tokens_out / record.eval_seconds
        route, detail = shortened(record.route, MAX_NAME), _sentence(record.detail)
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
            model=None if record.model is None else shortened(record.model, MAX_NAME),
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
    """Whether it is a health check of a supervisor, which many make every few seconds; a refusal is none."""
    return record.route == "/healthz" and record.status in (200, 503)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}s"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _plain(text: str | None) -> str:
    # A text from a client must not add a line or a colour to the log.
    if not text:
        return "-"
    short = shortened(text, MAX_NAME)
    return short if short.isprintable() and " " not in short else repr(short)


def _sentence(text: str) -> str:
    # A detail may repeat what a client or the target wrote.
    short = shortened(text, MAX_DETAIL)
    return short if short.isprintable() else repr(short)
