"""Wait for jobs to end, across restarts of foreman."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.internet.task import deferLater

from foreman.cli.client.client import REQUEST_TIMEOUT, ForemanClient, Response
from foreman.cli.client.errors import RequestFailed, Unreachable
from foreman.cli.client.jobs import Job, job_from, job_path, no_such_job
from foreman.cli.ui.exit_status import FAILED, has_ended
from foreman.cli.ui.progress import Progress

T = TypeVar("T")

#: How long foreman may be unreachable before waiting ends, in seconds: longer than a restart takes.
MAX_OUTAGE = 600.0
#: The statuses that a proxy, or a foreman that shuts down, sends for a while.
_TEMPORARY_STATUSES = frozenset({429, 502, 503, 504})
#: How long foreman may hold one long poll, in seconds: with a progress display, and without.
INTERACTIVE_WAIT, UNATTENDED_WAIT = 2, 60
#: Seconds before each retry; the last one repeats.
_RETRY_DELAYS = (0.5, 1.0, 2.0, 5.0)
#: The pause after a long poll that returned at once, in seconds.
_MIN_INTERVAL = 1.0
#: How many jobs are polled at once.
_MAX_CONCURRENT = 16


@define(eq=False)
class Retrier:
    """Repeats a request while foreman is unreachable, and shows so in the progress display.

    :param last: the time of the clock after which a failure is final.
    :ivar failures: failed requests since foreman last answered.
    """

    _foreman: ForemanClient
    _progress: Progress
    _last: float | None = None
    _since: float | None = None
    failures: int = 0

    async def fetch(self, path: str, time_limit: float = REQUEST_TIMEOUT) -> Response:
        """The first response to a GET that is not a temporary failure.

        :raises RequestFailed: if foreman is unreachable for too long.
        """
        return await self.run(lambda: self._foreman.fetch("GET", path, time_limit=time_limit))

    async def run(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of ``request``, repeated until it is not a temporary failure."""
        while True:
            try:
                result = await request()
            except Unreachable as problem:
                await self._back_off(problem)
                continue
            if isinstance(result, Response) and result.status in _TEMPORARY_STATUSES:
                reason = f"{self._foreman.url} is temporarily unavailable ({result.status})"
                await self._back_off(Unreachable(FAILED, reason))
                continue
            self._since, self.failures = None, 0
            self._progress.outage = ""
            return result

    async def pause(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await deferLater(self._foreman.clock, seconds)

    def reset(self) -> None:
        """Record that foreman answers: the next failure begins another outage."""
        self._since, self.failures = None, 0

    async def _back_off(self, problem: RequestFailed) -> None:
        now = self._foreman.clock.seconds()
        self._since = now if self._since is None else self._since
        if now - self._since > MAX_OUTAGE or (self._last is not None and now >= self._last):
            raise problem
        self._progress.outage = str(problem)
        pause = _RETRY_DELAYS[min(self.failures, len(_RETRY_DELAYS) - 1)]
        self.failures += 1
        await self.pause(pause if self._last is None else min(pause, self._last - now))


async def wait_for_job(
    foreman: ForemanClient,
    id_: str,
    progress: Progress,
    *,
    max_hold: int,
    time_limit: float | None = None,
    is_done: Callable[[Job], bool] = has_ended,
) -> Job:
    """Poll a job until ``is_done`` is true of it, or ``time_limit`` seconds have passed; return it.

    :param max_hold: how long foreman may hold one long poll, in seconds.
    :raises RequestFailed: if the job does not exist (any more), or foreman is unreachable for too long.
    """
    clock = foreman.clock
    last = None if time_limit is None else clock.seconds() + time_limit
    retrier = Retrier(foreman, progress, last)
    wait = 0  # the first poll returns at once
    job: Job | None = None
    while True:
        started = clock.seconds()
        try:
            answer = await retrier.fetch(job_path(id_) + (f"?wait={wait}" if wait else ""), wait + REQUEST_TIMEOUT)
        except Unreachable:
            if job is None or last is None or clock.seconds() < last:
                raise
            return job
        if answer.status != 200:
            raise no_such_job(foreman, answer, id_)
        job = job_from(foreman, answer)
        now = clock.seconds()
        if is_done(job) or (last is not None and now >= last):
            progress.remove(job)
            return job
        progress.update(job)
        # A server that ignores ?wait= must not be polled in a tight loop.
        if wait and now - started < min(wait, _MIN_INTERVAL):
            await retrier.pause(_MIN_INTERVAL if last is None else max(min(_MIN_INTERVAL, last - now), 0.05))
        remaining = max_hold if last is None else last - clock.seconds()
        wait = max(1, min(max_hold, round(remaining)))


async def wait_for_jobs(
    foreman: ForemanClient, ids: Sequence[str], progress: Progress, *, max_hold: int, time_limit: float | None
) -> list[Job]:
    """Poll several jobs until each has ended, or ``time_limit`` seconds have passed; return them in the same order.

    :raises RequestFailed: as ``wait_for_job`` does, for the first that fails.
    """
    slots = DeferredSemaphore(_MAX_CONCURRENT)
    started = foreman.clock.seconds()

    async def one(id_: str) -> Job:
        remaining = None if time_limit is None else max(time_limit - (foreman.clock.seconds() - started), 0.0)
        return await wait_for_job(foreman, id_, progress, max_hold=max_hold, time_limit=remaining)

    waits: list[Deferred[Job]] = [slots.run(one, id_) for id_ in ids]
    try:
        return list(await gatherResults(waits, consumeErrors=True))
    except FirstError as first:
        problem = first.subFailure.value
        assert problem is not None
        raise problem from None
    finally:
        for wait in waits:
            wait.cancel()
