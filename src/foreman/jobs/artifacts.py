"""Artifacts: named, typed blobs that belong to a job, and the names of those that foreman makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from threading import Lock
from typing import BinaryIO

from attrs import define, field, frozen

#: The names of the artifacts that foreman makes: the whole response, the lines of a streamed response, the target's
#: error response, and what had been received of a response when its attempt failed.
RESPONSE, STREAM, ERROR, PARTIAL = "response", "stream", "error", "partial"
OWN_ARTIFACTS = frozenset({RESPONSE, STREAM, ERROR, PARTIAL})
#: The media type of lines of JSON.
NDJSON = "application/x-ndjson"
#: How much of a file is in memory at once, in bytes.
CHUNK_BYTES = 256 * 1024


@frozen
class ArtifactInfo:
    """What is known of an artifact without its bytes; ``created_at`` in milliseconds since the epoch."""

    name: str
    type: str
    bytes: int
    sha256: str
    created_at: int


@frozen
class StoredArtifact:
    """An artifact in the store, whose bytes are read in pieces with ``JobStore.read_artifact``.

    :ivar attempt: the fence of the attempt that made it.
    """

    job_id: str
    info: ArtifactInfo
    attempt: int


@frozen
class Artifact:
    """An artifact to be stored, whose bytes are in memory."""

    name: str
    type: str
    data: bytes


@define(eq=False)
class ArtifactFile:
    """An artifact to be stored, whose bytes are a file from its beginning to its end.

    One thread reads the file while another may close it: the file stays open until the read has ended, so that its
    descriptor's number is not reused for another file meanwhile.
    """

    name: str
    type: str
    _file: BinaryIO
    _size_and_digest: tuple[int, str] | None = field(default=None, init=False)
    _lock: Lock = field(factory=Lock, init=False)
    _is_read: bool = field(default=False, init=False)
    _is_closed: bool = field(default=False, init=False)

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """The file, at its beginning, for one thread.

        :raises ValueError: when it has been closed.
        """
        with self._lock:
            if self._is_closed:
                raise ValueError("the file of an artifact was closed before it was stored")
            self._is_read = True
        try:
            self._file.seek(0)
            yield self._file
        finally:
            with self._lock:
                self._is_read = False
                if self._is_closed:
                    self._file.close()

    def measure(self) -> tuple[int, str]:
        """The file's size in bytes and its SHA-256; the first call reads the whole file.

        :raises ValueError: when it has been closed.
        """
        if self._size_and_digest is None:
            digest, size = sha256(), 0
            with self.reading() as file:
                while data := file.read(CHUNK_BYTES):
                    digest.update(data)
                    size += len(data)
            self._size_and_digest = size, digest.hexdigest()
        return self._size_and_digest

    def close(self) -> None:
        """Close the file, as soon as no thread reads it."""
        with self._lock:
            self._is_closed = True
            if not self._is_read:
                self._file.close()
