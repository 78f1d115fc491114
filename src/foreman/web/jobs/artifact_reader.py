"""Reading artifacts from the store in pieces, at the pace of each reader, with a limit on how many are read at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from foreman.jobs.artifacts import StoredArtifact
from foreman.store.job_store import JobStore
from foreman.web.jobs.flow_control import FlowControl
from foreman.web.jobs.problems import RETRY_SOON, Problem

#: How much of an artifact is held in memory for its reader, in bytes; less for one read by lines, since each line takes time.
PIECE_BYTES, LINES_PIECE_BYTES = 256 * 1024, 64 * 1024
#: How many artifacts may be read at once, and how many by one caller.
MAX_READERS, MAX_READERS_PER_CALLER = 64, 32


@define(eq=False)
class ReaderLimit:
    """Limits how many artifacts are read at once, in all and by one caller."""

    _by_caller: Counter[str] = field(factory=Counter, init=False)

    @contextmanager
    def reserve(self, caller: str) -> Iterator[None]:
        """Count one more artifact that ``caller`` reads, while the context lasts.

        :raises Problem: when the limit is reached.
        """
        if self._by_caller[caller] >= MAX_READERS_PER_CALLER or self._by_caller.total() >= MAX_READERS:
            if not self._by_caller[caller]:
                del self._by_caller[caller]
            headers = [(b"Retry-After", b"%d" % RETRY_SOON)]
            text = f"too many artifacts are being read ({MAX_READERS} at once, {MAX_READERS_PER_CALLER} by one caller); try again soon"
            raise Problem(503, text, headers=headers)
        self._by_caller[caller] += 1
        try:
            yield
        finally:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]


@define
class ArtifactReader:
    """Reads an artifact, or a range of it, for one reader.

    :ivar remaining: the bytes still to be read, as offsets; :ivar piece_bytes: the size of a piece.
    """

    _store: JobStore
    _flow_control: FlowControl
    _stored: StoredArtifact
    _caller: str
    remaining: range
    piece_bytes: int = PIECE_BYTES

    async def next(self) -> bytes:
        """The next piece, once the reader is ready for it; empty at the end.

        :raises errors.ReaderStalled: when the reader reads nothing for too long.
        :raises ArtifactGone: when the artifact has been deleted or replaced meanwhile.
        """
        if not self.remaining:
            return b""
        await self._flow_control.ready()
        current, self.remaining = self.remaining[: self.piece_bytes], self.remaining[self.piece_bytes :]
        return await self._store.read_artifact(self._stored, current.start, current.stop, self._caller)
