"""The bytes of artifacts on their way to readers: in pieces, at each reader's pace, to so many readers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from foreman.jobs.artifacts import StoredArtifact
from foreman.store.job_store import JobStore
from foreman.web.jobs.flow_control import FlowControl
from foreman.web.jobs.problems import SOON, Problem

#: How much of an artifact is held for its reader, in bytes; of one that is read line by line, where each line takes time.
PIECE, PIECE_OF_LINES = 256 * 1024, 64 * 1024
#: How many artifacts may be read at once, and how many by one caller.
MAX_READERS, MAX_OF_ONE = 64, 32


@define(eq=False)
class Readers:
    """Those who read artifacts now."""

    _by_caller: Counter[str] = field(factory=Counter, init=False)

    @contextmanager
    def one_more(self, caller: str) -> Iterator[None]:
        """``caller`` reads one.

        :raises Problem: when as many are read as may be.
        """
        if self._by_caller[caller] >= MAX_OF_ONE or self._by_caller.total() >= MAX_READERS:
            if not self._by_caller[caller]:
                del self._by_caller[caller]
            headers = [(b"Retry-After", b"%d" % SOON)]
            text = f"{MAX_READERS} artifacts are read at once, {MAX_OF_ONE} of them by one caller; try again soon"
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
    """What one reader still gets of an artifact.

    :ivar left: of its bytes; :ivar size: of a piece, in bytes.
    """

    _store: JobStore
    _flow_control: FlowControl
    _stored: StoredArtifact
    _caller: str
    left: range
    size: int = PIECE

    async def next(self) -> bytes:
        """The next piece, once the reader takes it; empty when there is no more.

        :raises errors.ReaderStalled: when the reader takes nothing.
        :raises ArtifactGone: when the artifact has been deleted or replaced meanwhile.
        """
        if not self.left:
            return b""
        await self._flow_control.ready()
        now, self.left = self.left[: self.size], self.left[self.size :]
        return await self._store.read_artifact(self._stored, now.start, now.stop, self._caller)
