"""What the target has, and whether it answers: polled, and kept while the target does not answer.

The last good answers of ``/api/tags`` and ``/api/ps`` are kept as bytes, so that clients of foreman get every field that
the target sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman import errors
from foreman.protocol import model_names
from foreman.target.client import TargetClient
from foreman.target.listings import Installed, Listed, Running
from foreman.target.model_conflicts import ModelConflicts
from foreman.target.model_list import ModelList, list_at
from foreman.target.models import Availability, ModelSnapshot, installed_of
from foreman.target.state import ANSWERS_WRONGLY, Degraded, TargetState, Unknown, Well
from foreman.util.clock import NEVER, Monotonic, now
from foreman.util.deadline import within
from foreman.util.waiters import Waiters

#: Lists younger than this are served as they are, in seconds.
FRESH_FOR = 1.0
#: How long a request for a list waits for a younger one, in seconds.
REFRESH_TIMEOUT = 0.25
#: How long a request waits for new lists where its model is missing, or after a change; in seconds.
RECHECK_TIMEOUT = 2.0
#: How many names that cannot be read are logged.
_MAX_NAMED = 5


@define(eq=False)
class Inventory:
    """The models of the target, fetched every ``interval`` seconds and when there is a reason.

    :ivar tags: the answer of ``/api/tags``, None without one; :ivar ps: that of ``/api/ps``; :ivar missing: why one of them
        is missing, by path; :ivar installed: by folded name (``model_names.ModelName.key``); :ivar running: as listed;
    :ivar state: whether the target answers; :ivar conflicts: models that do not fit into its memory together;
    :ivar held: the lanes whose jobs are held back although the target answers, why, and since when;
    :ivar on_recovery: called when it answers for the first time, and whenever it answers again.
    """

    _clock: IReactorTime
    _client: TargetClient
    _interval: float
    tags: ModelList | None = field(default=None, init=False)
    ps: ModelList | None = field(default=None, init=False)
    missing: dict[str, str] = field(factory=dict, init=False)
    installed: dict[model_names.Key, Installed] = field(factory=dict, init=False)
    running: Sequence[Running] = field(factory=list, init=False)
    state: TargetState = field(factory=Unknown, init=False)
    conflicts: ModelConflicts = field(factory=ModelConflicts, init=False)
    held: dict[str, tuple[str, Monotonic]] = field(factory=dict, init=False)
    on_recovery: Callable[[], None] = field(default=lambda: None, init=False)
    _is_complete: bool = field(default=True, init=False)
    _snapshot: ModelSnapshot | None = field(default=None, init=False)
    _verified_at: Monotonic = field(default=NEVER, init=False)
    _listed_at: Monotonic = field(default=NEVER, init=False)
    _loop: LoopingCall = field(init=False)
    _loop_ended: Deferred[LoopingCall] | None = field(default=None, init=False)
    _refreshing: Deferred[None] | None = field(default=None, init=False)
    _waiters: Waiters[bool] = field(factory=Waiters, init=False)
    _waiters_for_next: Waiters[bool] = field(factory=Waiters, init=False)
    _outdated: bool = field(default=False, init=False)
    _refreshes_after_change: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._refreshed)
        self._loop.clock = self._clock

    @property
    def degraded(self) -> Degraded | None:
        """What is wrong with the target; None while it answers, and before the first request to it."""
        return self.state if isinstance(self.state, Degraded) else None

    def start(self) -> None:
        """Fetch the lists now, and from now on every ``interval`` seconds."""
        self._loop_ended = self._loop.start(self._interval)

    async def stop(self) -> None:
        """Fetch them no more; a refresh under way is cancelled."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()
        if self._refreshing is not None:
            self._refreshing.cancel()
        if self._loop_ended is not None:
            await self._loop_ended

    # fetching the lists

    def refresh(self) -> Deferred[bool]:
        """Fetch the lists, in one request for all that call this before it is sent.

        :return: fires with whether the target gave them, and never fails: the reason is in ``degraded``. Cancelling it
            does not cancel the refresh.
        """
        self.target_changed()
        return self._refreshed()

    def target_changed(self) -> None:
        """A model was created, deleted, loaded or unloaded: the lists are outdated, however young they are."""
        self._outdated = True

    async def until_fresh(self) -> None:
        """Wait until the lists are fresh, but not for long; longer where they are known to be outdated."""
        changed = self._outdated or (self._refreshing is not None and self._refreshes_after_change)
        timeout = RECHECK_TIMEOUT if changed and self.degraded is None else REFRESH_TIMEOUT
        if changed or self._clock.seconds() - self._listed_at > FRESH_FOR:
            await within(self._refreshed(), timeout, self._clock, lambda: False)

    def _refreshed(self) -> Deferred[bool]:
        """The end of a refresh that shows every change so far; begins one where none is under way."""
        if self._stopped:
            return succeed(False)
        if self._refreshing is not None and self._outdated:  # the one under way may show what was before the change
            return self._waiters_for_next.wait()
        refreshed = self._waiters.wait()
        if self._refreshing is None:
            self._begin_refresh()
        return refreshed

    def _begin_refresh(self) -> None:
        self._refreshes_after_change, self._outdated = self._outdated, False
        refreshing = self._refreshing = Deferred.fromCoroutine(self._fetch_lists())
        refreshing.addCallbacks(self._fetched, self._fetch_failed)
        refreshing.addBoth(self._refresh_ended)

    async def _fetch_lists(self) -> None:
        tags = await list_at(self._clock, self._client, "/api/tags", self.tags)
        if isinstance(tags, errors.ConnectionError):
            raise tags
        asked_at = now(self._clock)
        ps = await list_at(self._clock, self._client, "/api/ps", self.ps)
        if not isinstance(tags, ModelList) and not isinstance(ps, ModelList):
            raise tags
        self._listed_at = now(self._clock)
        lists = {"/api/tags": tags, "/api/ps": ps}
        missing = {path: str(found) for path, found in lists.items() if not isinstance(found, ModelList)}
        for path in missing.keys() - self.missing.keys():
            self._log.warn("the target gives no list at {path}: {why}", path=path, why=missing[path])
        self.missing, before = missing, self.tags
        self.tags = tags if isinstance(tags, ModelList) else None
        self.ps = ps if isinstance(ps, ModelList) else None
        self.running = [] if self.ps is None else self.ps.read.models
        headers = [] if self.ps is None else self.ps.headers
        self.conflicts.record_list(self.running, headers, asked_at, self._listed_at)
        if self.tags is not None and (before is None or before.read is not self.tags.read):
            self._read_tags(self.tags.read)

    def _read_tags(self, listed: Listed[Installed]) -> None:
        self.installed, unreadable = installed_of(listed.models)
        skipped = len(unreadable) + listed.skipped
        self._is_complete = not skipped
        if skipped:
            text = "{count} of the models that the target lists cannot be read, and are ignored: {names}"
            self._log.warn(text, count=skipped, names=", ".join(repr(name[:100]) for name in unreadable[:_MAX_NAMED]))

    def _fetched(self, _: None) -> bool:
        self._recovered()
        return True

    def _fetch_failed(self, reason: Failure) -> bool:
        problem = reason.value
        if isinstance(problem, errors.ConnectionError):
            self.target_failed(problem)
        elif isinstance(problem, errors.HTTPError):
            self.target_failed(errors.ConnectionError("status", str(problem)), problem.status)
        elif not isinstance(problem, CancelledError):
            self._log.failure("fetching the target's lists failed", reason)
            self.target_failed(errors.ConnectionError("garbage", reason.getErrorMessage()))
        return False

    def _refresh_ended(self, succeeded: object) -> None:
        if isinstance(succeeded, Failure):
            self._log.failure("a step after the target's recovery failed", succeeded)
        waiters, self._waiters, self._waiters_for_next = self._waiters, self._waiters_for_next, Waiters()
        self._refreshing = None
        self._outdated = self._outdated or succeeded is False
        if self._waiters and not self._stopped:
            self._begin_refresh()
        waiters.fire(succeeded is not False)
        if self._stopped:
            self._waiters.fire(succeeded is not False)

    # what requests find out about the target

    def model_answered(self, model: str, status: int) -> None:
        """A model has begun to answer, and so is loaded; where it was not, the lists show what had to make room for it."""
        if status < 300:
            self.conflicts.record_answer(model, self.snapshot().digest_of(model), now(self._clock))
        if not self.is_running(model):
            self.target_changed()
            if self.ps is not None and status < 300:
                self._refreshed()

    def target_answered(self) -> None:
        """A request was answered: the target can be reached."""
        degraded = self.degraded
        if degraded is not None and degraded.reason in ANSWERS_WRONGLY:
            self._refreshed()  # it could be reached all the time; its lists show whether it is well again
        else:
            self._recovered()
            if degraded is not None:
                self._refreshed()

    def verify(self, status: int = 0) -> None:
        """A request got an answer that may not be the target's own: fetch the lists, at most once in ``FRESH_FOR`` seconds.

        :param status: of the answer, or 0; a gateway's error while the target is known to be degraded is no news.
        """
        if self._clock.seconds() - self._verified_at > FRESH_FOR and (status < 500 or self.degraded is None):
            self._verified_at = now(self._clock)
            self._refreshed()

    def hold(self, lane: str, why: str | None) -> None:
        """Hold back the jobs of ``lane`` because of ``why``; None: no longer."""
        if why is None:
            self.held.pop(lane, None)
        else:
            since = self.held[lane][1] if lane in self.held else now(self._clock)
            self.held[lane] = (why, since)

    def why_held(self, lane: str) -> str | None:
        """Why no job of ``lane`` is started, in a sentence; None where nothing holds it back."""
        if self.degraded is not None:
            return f"jobs wait until Ollama can be reached: {self.degraded.detail}"
        return self.held[lane][0] if lane in self.held else None

    def _recovered(self) -> None:
        before = self.state
        if isinstance(before, Well):
            return
        self.state = Well()
        if isinstance(before, Degraded):
            text = "the target answers again, after {seconds:.0f} s"
            self._log.info(text, seconds=self._clock.seconds() - before.since)
        self.on_recovery()

    def target_failed(self, problem: errors.ConnectionError, status: int | None = None) -> None:
        """A request could not reach the target.

        :param status: the HTTP status of its answer where it gave one.
        """
        before = self.degraded
        if before is None or before.reason != problem.why:
            self._log.warn("degraded: {detail}", detail=str(problem))
        since = now(self._clock) if before is None else before.since
        self.state = Degraded(problem.why, str(problem), since, status)

    # models by name

    def snapshot(self) -> ModelSnapshot:
        """What the target had when its lists were fetched last."""
        known, installed = self._snapshot, None if self.tags is None else self.installed
        if known is None or known.installed is not installed or known.running is not self.running:
            known = self._snapshot = ModelSnapshot(installed, self.running, self._is_complete)
        return known

    def find(self, typed: str) -> Availability:
        """What is known of the model that ``typed`` names.

        :raises errors.InvalidName: when Ollama would refuse the name.
        """
        return self.snapshot().find(typed)

    async def look_for(self, typed: str) -> Availability:
        """Like ``find``, but where the model is missing the lists are fetched again first.

        :return: UNKNOWN when the target could not be reached, or did not answer soon.
        """
        availability = self.find(typed)
        if availability is Availability.MISSING:
            refreshed = within(self.refresh(), RECHECK_TIMEOUT, self._clock, lambda: False)
            availability = self.find(typed) if await refreshed else Availability.UNKNOWN
        return availability

    def is_running(self, model: str) -> bool:
        """Whether the model is loaded, according to the last list."""
        return self.snapshot().is_running(model)
