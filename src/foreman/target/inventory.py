"""What the target has, and whether it answers: asked at intervals, kept while it does not.

The last good answers of ``/api/tags`` and ``/api/ps`` are kept as bytes, so that whoever asks foreman gets every field
that the target sent.
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
from foreman.target.model_list import THERE, Degraded, ModelList, list_at
from foreman.target.models import Availability, ModelSnapshot, installed_of
from foreman.util.clock import NEVER, Monotonic, now
from foreman.util.deadline import within
from foreman.util.waiters import Waiters

#: A list younger than this is served as it is, in seconds.
FRESH = 1.0
#: How long whoever asks for a list waits for a younger one, in seconds.
REFRESH_PATIENCE = 0.25
#: How long a request waits for a second look whether the target has its model, and for lists behind a change, in seconds.
LOOK_PATIENCE = 2.0
#: How many names are told that cannot be read.
_MAX_NAMED = 5


@define(eq=False)
class Inventory:
    """The models of the target, refreshed every ``interval`` seconds and whenever somebody has a reason.

    :ivar tags: the answer of ``/api/tags``, None without one; :ivar ps: that of ``/api/ps``; :ivar missing: why one of them
        is not there, by path; :ivar installed: by folded name (``names.ModelName.key``); :ivar running: as listed;
    :ivar degraded: None while the target answers; :ivar exclusive: models that do not fit together;
    :ivar held: lanes whose jobs wait although it answers, why, and since when;
    :ivar on_recovery: called when it answers for the first time, and again.
    """

    _clock: IReactorTime
    _client: TargetClient
    _interval: float
    tags: ModelList | None = field(default=None, init=False)
    ps: ModelList | None = field(default=None, init=False)
    missing: dict[str, str] = field(factory=dict, init=False)
    installed: dict[model_names.Key, Installed] = field(factory=dict, init=False)
    running: Sequence[Running] = field(factory=list, init=False)
    degraded: Degraded | None = field(default=None, init=False)
    exclusive: ModelConflicts = field(factory=ModelConflicts, init=False)
    held: dict[str, tuple[str, Monotonic]] = field(factory=dict, init=False)
    on_recovery: Callable[[], None] = field(default=lambda: None, init=False)
    _answered: bool = field(default=False, init=False)
    _is_complete: bool = field(default=True, init=False)
    _snapshot: ModelSnapshot | None = field(default=None, init=False)
    _doubted_at: Monotonic = field(default=NEVER, init=False)
    _listed_at: Monotonic = field(default=NEVER, init=False)
    _loop: LoopingCall = field(init=False)
    _done: Deferred[LoopingCall] | None = field(default=None, init=False)
    _asking: Deferred[None] | None = field(default=None, init=False)
    _waiters: Waiters[bool] = field(factory=Waiters, init=False)
    _waiters_for_next: Waiters[bool] = field(factory=Waiters, init=False)
    _outdated: bool = field(default=False, init=False)
    _asks_for_change: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._wait)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Ask now, and from now on every ``interval`` seconds."""
        self._done = self._loop.start(self._interval)

    async def stop(self) -> None:
        """Ask no more; a question under way is given up."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()
        if self._asking is not None:
            self._asking.cancel()
        if self._done is not None:
            await self._done

    # asking

    def refresh(self) -> Deferred[bool]:
        """Ask the target what it has now. Many askers share one question, which is put after they came.

        :return: fires with whether the target said it, and never fails: why not stands in ``degraded``. Cancelling it
            leaves the question to the others.
        """
        self.target_changed()
        return self._wait()

    def target_changed(self) -> None:
        """A model was made, removed, loaded or unloaded: the lists are old, however young they are."""
        self._outdated = True

    async def fresh(self) -> None:
        """Wait, but not long, until the lists are young; longer where they are known to be wrong."""
        changed = self._outdated or (self._asking is not None and self._asks_for_change)
        patience = LOOK_PATIENCE if changed and self.degraded is None else REFRESH_PATIENCE
        if changed or self._clock.seconds() - self._listed_at > FRESH:
            await within(self._wait(), patience, self._clock, lambda: False)

    def _wait(self) -> Deferred[bool]:
        if self._stopped:
            return succeed(False)
        if self._asking is not None and self._outdated:  # the answer that is awaited may be older than the change
            return self._waiters_for_next.wait()
        refreshed = self._waiters.wait()
        if self._asking is None:
            self._put()
        return refreshed

    def _put(self) -> None:
        self._asks_for_change, self._outdated = self._outdated, False
        asking = self._asking = Deferred.fromCoroutine(self._ask())
        asking.addCallbacks(self._question_answered, self._question_failed)
        asking.addBoth(self._asked)

    async def _ask(self) -> None:
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
        self.exclusive.saw(self.running, [] if self.ps is None else self.ps.headers, asked_at, self._listed_at)
        if self.tags is not None and (before is None or before.read is not self.tags.read):
            self._take(self.tags.read)

    def _take(self, listed: Listed[Installed]) -> None:
        self.installed, unreadable = installed_of(listed.models)
        skipped = len(unreadable) + listed.skipped
        self._is_complete = not skipped
        if skipped:
            text = "{count} of the models that the target lists cannot be read, and are passed over: {names}"
            self._log.warn(text, count=skipped, names=", ".join(repr(name[:100]) for name in unreadable[:_MAX_NAMED]))

    def _question_answered(self, _: None) -> bool:
        self._recovered()
        return True

    def _question_failed(self, reason: Failure) -> bool:
        problem = reason.value
        if isinstance(problem, errors.ConnectionError):
            self.target_failed(problem)
        elif isinstance(problem, errors.HTTPError):
            self.target_failed(errors.ConnectionError("status", str(problem)), problem.status)
        elif not isinstance(problem, CancelledError):
            self._log.failure("asking the target failed", reason)
            self.target_failed(errors.ConnectionError("garbage", reason.getErrorMessage()))
        return False

    def _asked(self, answered: object) -> None:
        if isinstance(answered, Failure):
            self._log.failure("what follows when the target is back failed", answered)
        waiters, self._waiters, self._waiters_for_next = self._waiters, self._waiters_for_next, Waiters()
        self._asking = None
        self._outdated = self._outdated or answered is False
        if self._waiters and not self._stopped:
            self._put()
        waiters.fire(answered is not False)
        if self._stopped:
            self._waiters.fire(answered is not False)

    # what others saw of the target

    def model_answered(self, typed: str, status: int) -> None:
        """A model has begun to answer, and is loaded: where it was not, it is asked at once what had to make room."""
        if status < 300:
            self.exclusive.answered(typed, self.snapshot().digest_of(typed), now(self._clock))
        if not self.is_running(typed):
            self.target_changed()
            if self.ps is not None and status < 300:
                self._wait()

    def target_answered(self) -> None:
        """Somebody got an answer: the target is there."""
        if self.degraded is None:
            if not self._answered:
                self._recovered()
        elif self.degraded.reason in THERE:
            self._wait()  # it was there all the time; whether it is well again, its lists tell
        else:
            self._recovered()
            self._wait()

    def doubt(self, status: int = 0) -> None:
        """Somebody got an answer that may be of something in front of the target: ask it, but not for each of them.

        :param status: that of the answer, or 0: what a gateway says of a target that is known to be away is no news.
        """
        if self._clock.seconds() - self._doubted_at > FRESH and (status < 500 or self.degraded is None):
            self._doubted_at = now(self._clock)
            self._wait()

    def hold(self, lane: str, why: str | None) -> None:
        """Jobs of ``lane`` wait because of ``why``; None: they wait no more."""
        if why is None:
            self.held.pop(lane, None)
        else:
            since = self.held[lane][1] if lane in self.held else now(self._clock)
            self.held[lane] = (why, since)

    def why_held(self, lane: str) -> str | None:
        """Why no job of ``lane`` is taken, in a sentence; None where nothing keeps it."""
        if self.degraded is not None:
            return f"jobs wait until Ollama can be reached: {self.degraded.detail}"
        return self.held[lane][0] if lane in self.held else None

    def _recovered(self) -> None:
        if self.degraded is not None:
            self._log.info(
                "the target answers again, after {seconds:.0f} s", seconds=self._clock.seconds() - self.degraded.since
            )
            self.degraded = None
        elif self._answered:
            return
        self._answered = True
        self.on_recovery()

    def target_failed(self, problem: errors.ConnectionError, status: int | None = None) -> None:
        """Somebody could not reach the target.

        :param status: the HTTP status of its answer where it gave one.
        """
        since = self.degraded.since if self.degraded is not None else now(self._clock)
        if self.degraded is None or self.degraded.reason != problem.why:
            self._log.warn("degraded: {detail}", detail=str(problem))
        self.degraded = Degraded(problem.why, str(problem), since, status)

    # names

    def snapshot(self) -> ModelSnapshot:
        """What the target had when it was last asked."""
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
        """Like ``find``; a model that is missing is looked for once more at the target.

        :return: UNKNOWN when the target could not be asked, or did not say it soon.
        """
        availability = self.find(typed)
        if availability is Availability.MISSING:
            refreshed = within(self.refresh(), LOOK_PATIENCE, self._clock, lambda: False)
            availability = self.find(typed) if await refreshed else Availability.UNKNOWN
        return availability

    def is_running(self, typed: str) -> bool:
        """Whether the model is loaded, as far as the last list tells."""
        return self.snapshot().is_running(typed)
