"""Wait for jobs, also while foreman is started anew in between."""

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

#: How long foreman may be away while somebody waits, in seconds: longer than it takes to start it anew.
MAX_OUTAGE = 600.0
#: What a proxy, or a foreman that stops, answers for a while.
_TEMPORARY_STATUSES = frozenset({429, 502, 503, 504})
#: How long foreman may hold one answer back: where somebody looks, and where nobody does.
INTERACTIVE_WAIT, UNATTENDED_WAIT = 2, 60
#: Seconds between two questions.
_RETRY_DELAYS = (0.5, 1.0, 2.0, 5.0)
#: And after an answer that came at once, though it was to wait.
_MIN_INTERVAL = 1.0
#: As many are waited for at once.
_MAX_CONCURRENT = 16


@define(eq=False)
class Retrier:
    """Asks again for as long as foreman is away, and tells so.

    :param last: when its clock says this, foreman has been asked often enough.
    :ivar tries: how often it was asked in vain since it went away.
    """

    _foreman: ForemanClient
    _progress: Progress
    _last: float | None = None
    _since: float | None = None
    tries: int = 0

    async def fetch(self, path: str, patience: float = REQUEST_TIMEOUT) -> Response:
        """The answer, as soon as there is one that means something.

        :raises Unanswered: when foreman is away for too long.
        """
        return await self.ask(lambda: self._foreman.fetch("GET", path, patience=patience))

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``question`` finds out: an answer, None for a whole one that was taken by lines."""
        while True:
            try:
                found = await question()
            except Unreachable as problem:
                await self._lasted(problem)
                continue
            if isinstance(found, Response) and found.status in _TEMPORARY_STATUSES:
                reason = f"{self._foreman.url} does not tell ({found.status})"
                await self._lasted(Unreachable(FAILED, reason))
                continue
            self._since, self.tries = None, 0
            self._progress.away = ""
            return found

    async def pause(self, seconds: float) -> None:
        """Do nothing for a while."""
        await deferLater(self._foreman.clock, seconds)

    def answered(self) -> None:
        """Something came: what breaks now is another outage."""
        self._since, self.tries = None, 0

    async def _lasted(self, problem: RequestFailed) -> None:
        now = self._foreman.clock.seconds()
        self._since = now if self._since is None else self._since
        if now - self._since > MAX_OUTAGE or (self._last is not None and now >= self._last):
            raise problem
        self._progress.away = str(problem)
        pause = _RETRY_DELAYS[min(self.tries, len(_RETRY_DELAYS) - 1)]
        self.tries += 1
        await self.pause(pause if self._last is None else min(pause, self._last - now))


async def wait_for_job(
    foreman: ForemanClient,
    id_: str,
    progress: Progress,
    *,
    step: int,
    longest: float | None = None,
    enough: Callable[[Job], bool] = has_ended,
) -> Job:
    """The job as soon as it is ``enough``, or as it is after ``longest`` seconds.

    :param step: how long foreman may hold one answer back, in seconds.
    :raises Unanswered: if there is no such job (any more), or foreman is away for too long.
    """
    clock = foreman.clock
    last = None if longest is None else clock.seconds() + longest
    patience = Retrier(foreman, progress, last)
    wait = 0  # what has ended already, or is missing, is told at once
    job: Job | None = None
    while True:
        begun = clock.seconds()
        try:
            answer = await patience.fetch(job_path(id_) + (f"?wait={wait}" if wait else ""), wait + REQUEST_TIMEOUT)
        except Unreachable:
            if job is None or last is None or clock.seconds() < last:
                raise
            return job
        if answer.status != 200:
            raise no_such_job(foreman, answer, id_)
        job = job_from(foreman, answer)
        now = clock.seconds()
        if enough(job) or (last is not None and now >= last):
            progress.ended(job)
            return job
        progress.saw(job)
        # One that answers at once, though it was to wait, is not asked without end.
        if wait and now - begun < min(wait, _MIN_INTERVAL):
            await patience.pause(_MIN_INTERVAL if last is None else max(min(_MIN_INTERVAL, last - now), 0.05))
        left = step if last is None else last - clock.seconds()
        wait = max(1, min(step, round(left)))


async def wait_for_jobs(
    foreman: ForemanClient, ids: Sequence[str], progress: Progress, *, step: int, longest: float | None
) -> list[Job]:
    """All of them, as soon as each has ended, or as they are after ``longest`` seconds.

    :raises Unanswered: as ``wait_for_job`` does, for the first.
    """
    places = DeferredSemaphore(_MAX_CONCURRENT)
    begun = foreman.clock.seconds()

    async def one(id_: str) -> Job:
        left = None if longest is None else max(longest - (foreman.clock.seconds() - begun), 0.0)
        return await wait_for_job(foreman, id_, progress, step=step, longest=left)

    waits: list[Deferred[Job]] = [places.run(one, id_) for id_ in ids]
    try:
        return list(await gatherResults(waits, consumeErrors=True))
    except FirstError as first:
        problem = first.subFailure.value
        assert problem is not None
        raise problem from None
    finally:
        for wait in waits:
            wait.cancel()
