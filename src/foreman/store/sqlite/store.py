"""The job store in SQLite: each method runs one statement function in the database's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from attrs import define, field
from ulid import ULID

from foreman.jobs.artifacts import Artifact, ArtifactFile, ArtifactInfo, StoredArtifact
from foreman.jobs.job import Claim, EnqueueResult, Job, JobLane, NewJob, State, Usage
from foreman.jobs.queries import Counts, DeletedBatch, Event, Filter
from foreman.jobs.retry_policy import MAX_RETRY_DELAY, Transition
from foreman.store.errors import Condition, StoreUnavailable
from foreman.store.job_store import JobStore
from foreman.store.notifications import Notifications
from foreman.store.sqlite import backup, maintenance, queries
from foreman.store.sqlite.batched_reads import BatchedReads
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements import enqueue, execution, prune, sweep, user_actions
from foreman.store.sqlite.statements.transaction import Transaction

T = TypeVar("T")

#: For how long after the disk was full deleted data is not overwritten at once, in seconds.
NO_OVERWRITING_FOR = 60.0


@define(eq=False)
class SQLiteJobStore(JobStore):
    """Jobs and artifacts in one SQLite file. ``JobStore`` says what each method does, returns and raises.

    :ivar database: the file; :ivar new_id: makes ids; :ivar max_jobs: how many jobs may wait.
    """

    database: Database
    _new_id: Callable[[], ULID]
    _max_jobs: int
    _last_id: int = field(default=0, init=False)
    #: Whether the log may hold something that was deleted; so it may at the start, from the foreman before.
    _log_has_deleted: bool = field(default=True, init=False)
    _no_overwriting_until: float = field(default=float("-inf"), init=False)
    _jobs: BatchedReads[Job | None] = field(init=False)
    _counts: BatchedReads[Counts] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._jobs = BatchedReads(lambda ids: self.database.read(queries.get_many, ids))
        self._counts = BatchedReads(lambda ids: self.database.read(lambda cursor: [queries.counts(cursor)] * len(ids)))

    # lifecycle

    def open(self) -> None:
        self.database.open()

    def start(self) -> None:
        self.database.start()

    async def stop(self) -> None:
        await self.database.stop()

    # condition and time

    @property
    def condition(self) -> Condition:
        return self.database.condition

    @property
    def unavailable_since(self) -> float:
        return self.database.unavailable_since

    @property
    def notifications(self) -> Notifications:
        return self.database.notifications

    def now(self) -> int:
        return self.database.now()

    # submission, and what users do with their jobs

    async def enqueue(self, new: Sequence[NewJob]) -> list[EnqueueResult]:
        free = self.database.check_free_space()
        ids = [self._id() for _ in new]
        return await self.database.write(lambda tx: enqueue.enqueue(tx, new, ids, self._max_jobs, free))

    async def cancel(self, id_: str) -> Job:
        return await self.database.write(lambda tx: user_actions.cancel(tx, id_))

    async def retry(self, id_: str) -> Job:
        return await self.database.write(lambda tx: user_actions.retry(tx, id_, self._max_jobs))

    async def delete(self, id_: str) -> None:
        self._log_has_deleted = True
        await self._delete(lambda tx: user_actions.delete(tx, id_))

    async def put_artifact(
        self, id_: str, artifact: Artifact | ArtifactFile, max_bytes: int | None = None
    ) -> tuple[ArtifactInfo, bool]:
        is_large = isinstance(artifact, ArtifactFile)
        try:
            if isinstance(artifact, ArtifactFile):  # before the write, so that no other write waits for it
                await self.database.in_thread(artifact.measure)
            free = self.database.check_free_space()
            self._log_has_deleted = True  # it may replace another
            return await self.database.write(
                lambda tx: user_actions.put_user_artifact(tx, id_, artifact, max_bytes, free), is_large=is_large
            )
        finally:
            if isinstance(artifact, ArtifactFile):
                artifact.close()

    # running jobs

    async def claim(
        self, lane: JobLane, bonus_of: Callable[[str], int | None], installed: Callable[[], Iterable[str]] = tuple
    ) -> Claim | None:
        instance = self.database.instance
        return await self.database.write(lambda tx: execution.claim(tx, lane, instance, bonus_of, installed))

    async def append_output(self, claim: Claim, number: int, data: bytes) -> None:
        await self.database.write(lambda tx: execution.append_output(tx, claim, number, data))

    async def succeed(self, claim: Claim, artifacts: Sequence[Artifact], usage: Usage | None) -> None:
        await self.database.write(lambda tx: execution.succeed(tx, claim, artifacts, usage))

    async def end_attempt(
        self, claim: Claim, decide: Callable[[Job, int], Transition], artifacts: Sequence[Artifact] = ()
    ) -> Job:
        return await self.database.write(lambda tx: execution.end_attempt(tx, claim, decide, artifacts))

    async def release(self, claim: Claim) -> Job:
        return await self.database.write(lambda tx: execution.release(tx, claim))

    # reading

    async def get(self, id_: str) -> Job | None:
        return await self._jobs.get(id_)

    async def get_many(self, ids: Sequence[str], caller: str = "") -> list[Job | None]:
        return await self.database.read(queries.get_many, ids, caller=caller, patient=True)

    async def fingerprints(self, owner: str, keys: Sequence[str]) -> dict[str, str]:
        return await self.database.read(queries.fingerprints, owner, keys, caller=owner, patient=True)

    async def list_jobs(self, which: Filter, before: str | None, limit: int, caller: str = "") -> list[Job]:
        return await self.database.read(queries.list_jobs, which, before, limit, caller=caller)

    async def events(self, id_: str, after: int, limit: int = 500, caller: str = "") -> list[Event]:
        return await self.database.read(queries.events, id_, after, limit, caller=caller, patient=True)

    async def get_artifact(self, id_: str, name: str, caller: str = "") -> StoredArtifact | None:
        return await self.database.read(queries.get_artifact, id_, name, caller=caller, patient=True)

    async def read_artifact(self, artifact: StoredArtifact, start: int, stop: int, caller: str) -> bytes:
        return await self.database.read(queries.read_artifact, artifact, start, stop, caller=caller, patient=True)

    async def counts(self) -> Counts:
        return await self._counts.get("")

    async def peek(
        self, lane: JobLane, bonus_of: Callable[[str], int | None], installed: Callable[[], Iterable[str]] = tuple
    ) -> Job | None:
        return await self.database.read(queries.peek, lane, bonus_of, installed)

    async def oldest_run_at(self, lane: JobLane) -> int | None:
        return await self.database.read(queries.oldest_run_at, lane)

    # the clock

    async def sweep(self) -> int | None:
        return await self.database.write(sweep.sweep)

    async def cap_retry_delays(self, max_delay: float = MAX_RETRY_DELAY) -> None:
        await self.database.write(lambda tx: sweep.cap_retry_delays(tx, round(max_delay * 1000)))

    async def save_clock(self, wall: int, steady_for: int) -> None:
        await self.database.write(lambda tx: sweep.save_clock(tx, wall, steady_for))

    async def load_clock(self) -> tuple[int, int] | None:
        return await self.database.read(queries.load_clock)

    # retention

    async def prune(self, state: State, before: int) -> int:
        count = await self._delete(lambda tx: prune.prune(tx, state, before))
        self._log_has_deleted = self._log_has_deleted or count > 0
        return count

    async def delete_batch(self, state: State, before: int, owner: str | None, after: str) -> DeletedBatch:
        self._log_has_deleted = True
        return await self._delete(lambda tx: prune.delete_batch(tx, state, before, owner, after))

    async def _delete(self, step: Callable[[Transaction], T]) -> T:
        """Run a step that deletes; where the disk is too full to overwrite what is deleted, do not overwrite it."""
        # Right after the disk was full a try would fail, and with it all steps of others in the same commit.
        if self.database.is_out_of_space:
            self._no_overwriting_until = self.database.seconds() + NO_OVERWRITING_FOR
        if self.database.seconds() >= self._no_overwriting_until:
            try:
                return await self.database.write(step)
            except StoreUnavailable as error:
                if error.condition != "full":
                    raise
            self._no_overwriting_until = self.database.seconds() + NO_OVERWRITING_FOR
        return await self.database.write(lambda tx: prune.without_overwriting(tx, step))

    async def delete_upgrade_copies(self, before: int) -> list[str]:
        deleted = await self.database.in_thread(
            partial(backup.delete_upgrade_copies, self.database.path, before / 1000)
        )
        return list(map(str, deleted))

    async def reclaim_space(self) -> bool:
        more = await self.database.between_commits(maintenance.reclaim_space)
        self._log_has_deleted = self._log_has_deleted or more  # the log has the pages that were moved
        return more

    async def purge_deleted(self) -> None:
        if self._log_has_deleted:
            self._log_has_deleted = truncated = False
            try:
                truncated = await self.database.between_commits(maintenance.truncate_log)
            finally:
                self._log_has_deleted = self._log_has_deleted or not truncated

    def _id(self) -> str:
        """The next id: greater than all before it, also within a millisecond and when the clock is set back."""
        self._last_id = max(int(self._new_id()), self._last_id + 1)
        return str(ULID.from_int(self._last_id))
