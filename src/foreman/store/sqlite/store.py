"""The jobs and their artifacts, as the rest of foreman sees them: one method, one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from attrs import define, field
from ulid import ULID

from foreman.jobs.job import LONGEST_PAUSE, ArtifactInfo, Job, JobLane, NewJob, State, Transition, Usage
from foreman.store.errors import Condition, StoreUnavailable
from foreman.store.notifications import Notifications
from foreman.store.sqlite import backup, blobs, opening, queries
from foreman.store.sqlite.batched_reads import BatchedReads
from foreman.store.sqlite.blobs import Stored
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.queries import Counts, Event, Filter
from foreman.store.sqlite.statements import enqueue, execution, prune, sweep, user_actions
from foreman.store.sqlite.statements.enqueue import Enqueued
from foreman.store.sqlite.statements.execution import Claim
from foreman.store.sqlite.statements.prune import Forgotten
from foreman.store.sqlite.statements.transaction import Artifact, ArtifactFile, Transaction

T = TypeVar("T")

#: For how long after the disk was full what is deleted is not overwritten at once, in seconds.
SPARED = 60.0


@define(eq=False)
class Store:
    """The durable record.

    Every method that reads or writes raises ``StoreUnavailable`` when the store cannot be used.

    :ivar database: the file; :ivar new_id: makes ids; :ivar max_jobs: how many jobs may wait.
    """

    database: Database
    _new_id: Callable[[], ULID]
    _max_jobs: int
    _last_id: int = field(default=0, init=False)
    _deleted: bool = field(default=True, init=False)
    _spared_until: float = field(default=float("-inf"), init=False)
    _gathered: BatchedReads[Job | None] = field(init=False)
    _counted: BatchedReads[Counts] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._gathered = BatchedReads(lambda ids: self.database.read(queries.jobs_whole, ids))
        self._counted = BatchedReads(lambda ids: self.database.read(lambda cursor: [queries.counts(cursor)] * len(ids)))

    @property
    def condition(self) -> Condition:
        """How it is, in one word."""
        return self.database.condition

    @property
    def ill_since(self) -> float:
        """Since when it is not well, in seconds of the clock, as far as anybody looked."""
        return self.database.ill_since

    @property
    def notifications(self) -> Notifications:
        """Who is told of changes."""
        return self.database.notifications

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self.database.now()

    # writing

    async def enqueue(self, new: Sequence[NewJob]) -> list[Enqueued]:
        """Take all of ``new``, or none.

        :raises enqueue.KeyReused, enqueue.TooManyJobs, shared.TooMuchStored:
        """
        room = self.database.check_room()
        ids = [self._id() for _ in new]
        return await self.database.write(lambda tx: enqueue.enqueue(tx, new, ids, self._max_jobs, room))

    async def claim(
        self, lane: JobLane, bonus_of: Callable[[str], int | None], installed: Callable[[], Iterable[str]] = tuple
    ) -> Claim | None:
        """Take the job that is next in ``lane``; None where none can run.

        :param bonus_of: called in another thread: by how many milliseconds the jobs of a model go before others, None
            where it cannot run now.
        :param installed: likewise: the canonical names of the models that the target has.
        """
        return await self.database.write(lambda tx: execution.claim(tx, lane, self.database.boot, bonus_of, installed))

    async def keep(self, claim: Claim, number: int, data: bytes) -> None:
        """Keep the next lines of an answer that is on its way.

        :raises running.Stale:
        """
        await self.database.write(lambda tx: execution.keep(tx, claim, number, data))

    async def succeed(self, claim: Claim, artifacts: Sequence[Artifact], usage: Usage | None) -> None:
        """The job has its answer.

        :raises running.Stale:
        """
        await self.database.write(lambda tx: execution.succeed(tx, claim, artifacts, usage))

    async def end(
        self, claim: Claim, decide: Callable[[Job, int], Transition], artifacts: Sequence[Artifact] = ()
    ) -> Job:
        """The job's try ended without success; ``decide`` says what becomes of it, in another thread.

        :raises running.Stale:
        """
        return await self.database.write(lambda tx: execution.end(tx, claim, decide, artifacts))

    async def release(self, claim: Claim) -> Job:
        """Give the job back as if it had not been taken.

        :raises running.Stale:
        """
        return await self.database.write(lambda tx: execution.release(tx, claim))

    async def cancel(self, id_: str) -> Job:
        """End a job that waits, or note that a running one is to end.

        :raises shared.WrongState:
        """
        return await self.database.write(lambda tx: user_actions.cancel(tx, id_))

    async def retry(self, id_: str) -> Job:
        """Queue again what ended without success.

        :raises shared.WrongState, enqueue.TooManyJobs:
        """
        return await self.database.write(lambda tx: user_actions.retry(tx, id_, self._max_jobs))

    async def delete(self, id_: str) -> None:
        """Forget a job that has ended.

        :raises shared.WrongState:
        """
        self._deleted = True
        await self._delete(lambda tx: user_actions.delete(tx, id_))

    async def put_artifact(
        self, id_: str, artifact: Artifact | ArtifactFile, most_bytes: int | None = None
    ) -> tuple[ArtifactInfo, bool]:
        """Keep an artifact with a job; what is known of it, and whether it is new.

        A file is closed at the end, and at once when this is cancelled; then nothing is kept, unless it is under way.

        :param most_bytes: that those of the job may have together.
        :raises shared.WrongState: when the job is gone.
        :raises by_hand.TooManyArtifacts, by_hand.TooLargeTogether, shared.TooMuchStored:
        """
        is_large = isinstance(artifact, ArtifactFile)
        try:
            if isinstance(artifact, ArtifactFile):  # nobody else is to wait for this
                await self.database.in_thread(artifact.measure)
            room = self.database.check_room()
            self._deleted = True  # it may take the place of another
            return await self.database.write(
                lambda tx: user_actions.put_by_hand(tx, id_, artifact, most_bytes, room), is_large=is_large
            )
        finally:
            if isinstance(artifact, ArtifactFile):
                artifact.close()

    async def sweep(self) -> int | None:
        """Queue what is due, discard what has expired; when the next will be, milliseconds since the epoch."""
        return await self.database.write(sweep.sweep)

    async def hasten(self, longest: float = LONGEST_PAUSE) -> None:
        """The wall clock was set back: what tries again is not to wait for the time that is lived twice.

        :param longest: what is to wait longer than this, in seconds, is tried again now.
        """
        await self.database.write(lambda tx: sweep.hasten(tx, round(longest * 1000)))

    async def prune(self, state: State, before: int) -> int:
        """Forget some of the jobs that ended in ``state`` before ``before``; how many, 0 when none is left."""
        count = await self._delete(lambda tx: prune.prune(tx, state, before))
        self._deleted = self._deleted or count > 0
        return count

    async def forget(self, state: State, before: int, owner: str | None, after: str) -> Forgotten:
        """Forget some of the jobs of ``owner``, None for everybody's, likewise; the next step goes on behind ``after``."""
        self._deleted = True
        return await self._delete(lambda tx: prune.forget(tx, state, before, owner, after))

    async def _delete(self, step: Callable[[Transaction], T]) -> T:
        """Run a step that deletes; where there is no room to overwrite what it deletes, it makes some first."""
        # Where the disk was full just now, a try would fail, and with it all steps of others in the same commit.
        if self.database.is_out_of_room:
            self._spared_until = self.database.seconds() + SPARED
        if self.database.seconds() >= self._spared_until:
            try:
                return await self.database.write(step)
            except StoreUnavailable as problem:
                if problem.condition != "full":
                    raise
            self._spared_until = self.database.seconds() + SPARED
        return await self.database.write(lambda tx: prune.without_overwriting(tx, step))

    async def note_clock(self, wall: int, calm: int) -> None:
        """Write down that the wall clock says ``wall`` (milliseconds), and has gone evenly for ``calm`` seconds."""
        await self.database.write(lambda tx: prune.note_clock(tx, wall, calm))

    async def noted_clock(self) -> tuple[int, int] | None:
        """What was written down last, by this foreman or the one before; None where nothing was."""
        return await self.database.read(queries.noted_clock)

    async def drop_copies(self, before: int) -> list[Path]:
        """Delete what older foremen left before ``before``, milliseconds since the epoch; which files those were.

        :raises OSError: when one cannot be deleted.
        """
        return await self.database.in_thread(partial(backup.drop_copies, self.database.path, before / 1000))

    async def shrink(self) -> bool:
        """Give some of the room that nothing uses back to the disk; whether there may be more of it."""
        more = await self.database.aside(opening.shrink)
        self._deleted = self._deleted or more  # the log has what was moved
        return more

    async def empty_log(self) -> None:
        """See that what was deleted since the last time, or by the foreman before, is in no file any more."""
        if self._deleted:
            self._deleted = emptied = False
            try:
                emptied = await self.database.aside(opening.empty_log)
            finally:
                self._deleted = self._deleted or not emptied

    # reading

    async def get(self, id_: str) -> Job | None:
        """The job, with all that belongs to it but its blobs."""
        return await self._gathered.get(id_)

    async def several(self, ids: Sequence[str], caller: str = "") -> list[Job | None]:
        """Likewise those of ``ids``, in that order, in one look; None for each that is not there; ``caller`` asks."""
        return await self.database.read(queries.jobs_whole, ids, caller=caller, patient=True)

    async def keyed(self, owner: str, keys: Sequence[str]) -> dict[str, str]:
        """The fingerprints of those jobs of ``owner`` that have one of ``keys``, by key; ``owner`` asks."""
        return await self.database.read(queries.keyed, owner, keys, caller=owner, patient=True)

    async def page(self, wanted: Filter, before: str | None, limit: int, caller: str = "") -> list[Job]:
        """Up to ``limit`` jobs that are older than the one with the id ``before``, newest first.

        :param caller: who asks.
        :raises TooManyLooks: when too many others wait for theirs.
        """
        return await self.database.read(queries.page, wanted, before, limit, caller=caller)

    async def events(self, id_: str, after: int, limit: int = 500, caller: str = "") -> list[Event]:
        """What happened to the job after the event ``after``; ``caller`` asks."""
        return await self.database.read(queries.events, id_, after, limit, caller=caller, patient=True)

    async def artifact(self, id_: str, name: str, caller: str = "") -> Stored | None:
        """What is known of an artifact; ``caller`` asks."""
        return await self.database.read(blobs.artifact, id_, name, caller=caller, patient=True)

    async def piece(self, stored: Stored, start: int, stop: int, caller: str) -> bytes:
        """The bytes of an artifact from ``start`` to before ``stop``, which ``caller`` reads.

        :raises blobs.ArtifactGone: when they are not there any more.
        """
        return await self.database.read(blobs.piece, stored, start, stop, caller=caller, patient=True)

    async def counts(self) -> Counts:
        """How many jobs wait, and which run."""
        return await self._counted.get("")

    async def first(
        self, lane: JobLane, bonus_of: Callable[[str], int | None], installed: Callable[[], Iterable[str]] = tuple
    ) -> Job | None:
        """The job that is next in ``lane``, without taking it; the parameters as of ``claim``."""
        return await self.database.read(queries.first, lane, bonus_of, installed)

    async def oldest(self, lane: JobLane) -> int | None:
        """When the first queued job of ``lane`` could first have run; None where none is queued."""
        return await self.database.read(queries.oldest, lane)

    def _id(self) -> str:
        """The next id: greater than all before it, also within a millisecond and when the clock is set back."""
        self._last_id = max(int(self._new_id()), self._last_id + 1)
        return str(ULID.from_int(self._last_id))
