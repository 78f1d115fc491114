"""The interface of the job store, whatever database implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from foreman.jobs.artifacts import Artifact, ArtifactFile, ArtifactInfo, StoredArtifact
from foreman.jobs.job import Claim, EnqueueResult, Job, JobLane, NewJob, State, Usage
from foreman.jobs.queries import Counts, DeletedBatch, Event, Filter
from foreman.jobs.retry_policy import MAX_RETRY_DELAY, Transition
from foreman.store.errors import Condition
from foreman.store.notifications import Notifications


class JobStore(Protocol):
    """The durable record of jobs and their artifacts. Each method that reads or writes is one transaction.

    Times are milliseconds since the epoch, unless a parameter says otherwise; ids are ULIDs. Every coroutine raises
    ``StoreUnavailable`` when the store cannot be used, besides what it names itself. Cancelling a coroutine that writes
    does not take the write back. Where a method that reads takes a ``caller``, the reads of each caller wait in their own
    queue, so that one caller's many reads do not delay another's.
    """

    # lifecycle

    def open(self) -> None:
        """Prepare the database; blocks, and is called before the reactor runs.

        Where it cannot be used for now, that is logged, and ``start`` begins to try again.

        :raises StoreRefused: when it must not be used.
        """

    def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Finish the writes that were accepted, refuse all others, and close the database."""

    # condition and time

    @property
    def condition(self) -> Condition:
        """The condition of the store."""

    @property
    def unavailable_since(self) -> float:
        """Since when ``condition`` has not been ok, as of the last check; now, while it is ok; seconds of the clock."""

    @property
    def notifications(self) -> Notifications:
        """Where changes are announced, after their commit."""

    def now(self) -> int:
        """The wall clock's time."""

    # submission, and what users do with their jobs

    async def enqueue(self, new: Sequence[NewJob]) -> list[EnqueueResult]:
        """Store all of ``new``, or none; one whose idempotency key is known is not stored again.

        :return: one result for each of ``new``, in the same order.
        :raises KeyReused: when a key was used for another request.
        :raises TooManyJobs: when too many jobs wait already.
        :raises TooMuchStored: when the owner's jobs would take up too much of the disk.
        """

    async def cancel(self, id_: str) -> Job:
        """Cancel a job: at once where it waits; a running one gets ``cancel_asked_at``, and its worker ends it.

        :raises WrongState: when it has ended otherwise, or does not exist.
        """

    async def retry(self, id_: str) -> Job:
        """Queue a job again that ended without success; all its attempts may be made again.

        :raises WrongState: when it is in another state, or does not exist.
        :raises TooManyJobs: when too many jobs wait already.
        """

    async def delete(self, id_: str) -> None:
        """Delete a job that has ended, with all that belongs to it.

        :raises WrongState: when it has not ended, or does not exist.
        """

    async def put_artifact(
        self, id_: str, artifact: Artifact | ArtifactFile, max_bytes: int | None = None
    ) -> tuple[ArtifactInfo, bool]:
        """Store a caller's artifact with a job, in place of an older one of its name.

        A file is closed in the end, and at once when this is cancelled; then nothing is stored, unless the write has begun.

        :param max_bytes: how many bytes the callers' artifacts of the job may have together.
        :return: what is known of the artifact, and whether its name is new.
        :raises WrongState: when the job does not exist.
        :raises TooManyArtifacts: when the job has too many already.
        :raises ArtifactsTooLarge: when they would have more than ``max_bytes`` together.
        :raises TooMuchStored: when the owner's jobs would take up too much of the disk.
        """

    # running jobs

    async def claim(
        self, lane: JobLane, bonus_of: Callable[[str], int | None], installed: Callable[[], Iterable[str]] = tuple
    ) -> Claim | None:
        """Claim the next job in ``lane``; expired jobs before it are discarded.

        :param bonus_of: by how many milliseconds jobs of a model go before others, None where it cannot run now; may be
            called in another thread.
        :param installed: returns the canonical names of the models that the target has; likewise.
        :return: None where no job can run.
        """

    async def append_output(self, claim: Claim, number: int, data: bytes) -> None:
        """Store the next lines of the answer to a running job; ``number`` counts these parts.

        :raises StaleClaim: when the job is no longer this claim's.
        """

    async def succeed(self, claim: Claim, artifacts: Sequence[Artifact], usage: Usage | None) -> None:
        """End the job as succeeded, and store its artifacts with it.

        :raises StaleClaim: when the job is no longer this claim's.
        """

    async def end_attempt(
        self, claim: Claim, decide: Callable[[Job, int], Transition], artifacts: Sequence[Artifact] = ()
    ) -> Job:
        """End an attempt that did not succeed.

        :param decide: given the job as it is and the time, returns what becomes of it; may be called in another thread.
        :return: the job afterwards.
        :raises StaleClaim: when the job is no longer this claim's.
        """

    async def release(self, claim: Claim) -> Job:
        """Give the job back as if it had not been claimed, since foreman stops.

        :raises StaleClaim: when the job is no longer this claim's.
        """

    # reading

    async def get(self, id_: str) -> Job | None:
        """The job with its metadata, artifacts' names and position; None where it does not exist."""

    async def get_many(self, ids: Sequence[str], caller: str = "") -> list[Job | None]:
        """The jobs of ``ids`` in the same order, from one snapshot, each as from ``get``."""

    async def fingerprints(self, owner: str, keys: Sequence[str]) -> dict[str, str]:
        """The fingerprints of the jobs of ``owner`` that have one of the idempotency ``keys``, by key."""

    async def list_jobs(self, which: Filter, before: str | None, limit: int, caller: str = "") -> list[Job]:
        """Up to ``limit`` jobs, newest first, older than the one with the id ``before``.

        :raises TooManyReads: when too many lists are being read.
        """

    async def events(self, id_: str, after: int, limit: int = 500, caller: str = "") -> list[Event]:
        """Up to ``limit`` events of a job, oldest first, after the event with the id ``after``."""

    async def get_artifact(self, id_: str, name: str, caller: str = "") -> StoredArtifact | None:
        """What is known of an artifact; None where it does not exist."""

    async def read_artifact(self, artifact: StoredArtifact, start: int, stop: int, caller: str) -> bytes:
        """The bytes of an artifact from ``start`` up to, not including, ``stop``.

        :raises ArtifactGone: when it has been deleted or replaced.
        """

    async def counts(self) -> Counts:
        """How many jobs wait, and the jobs that run."""

    async def peek(
        self, lane: JobLane, bonus_of: Callable[[str], int | None], installed: Callable[[], Iterable[str]] = tuple
    ) -> Job | None:
        """The job that ``claim`` would claim, without claiming it; the same parameters."""

    async def oldest_run_at(self, lane: JobLane) -> int | None:
        """When the first queued job of ``lane`` could first have run; None where none is queued."""

    # the clock

    async def sweep(self) -> int | None:
        """Queue the jobs that are due, and discard those that have expired.

        :return: when the next job is due or expires, None where none does; not later than now where more wait for a sweep.
        """

    async def cap_retry_delays(self, max_delay: float = MAX_RETRY_DELAY) -> None:
        """Make jobs that wait for a retry due now if they would wait longer than ``max_delay`` seconds.

        For a wall clock that was set back: it would count the time twice.
        """

    async def save_clock(self, wall: int, steady_for: int) -> None:
        """Store the wall clock's time, and for how many seconds it has run without being set."""

    async def load_clock(self) -> tuple[int, int] | None:
        """What ``save_clock`` stored last, in this process or an earlier one; None where nothing was."""

    # retention

    async def prune(self, state: State, before: int) -> int:
        """Delete some of the jobs that ended in ``state`` before ``before``; returns how many, 0 when none is left."""

    async def delete_batch(self, state: State, before: int, owner: str | None, after: str) -> DeletedBatch:
        """Delete some of the jobs of ``owner`` (None: of everybody) that ended in ``state`` before ``before``.

        :param after: where to continue: ``last`` of the step before; empty for the first.
        """

    async def delete_upgrade_copies(self, before: int) -> list[str]:
        """Delete the copies of the database that upgrades of its schema left before ``before``; returns their names.

        :raises OSError: when one cannot be deleted.
        """

    async def reclaim_space(self) -> bool:
        """Return some of the space that nothing uses to the disk; returns whether there may be more of it."""

    async def purge_deleted(self) -> None:
        """Make sure that nothing deleted since the last call is left in any file, where the database leaves it there."""
