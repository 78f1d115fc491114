"""The bytes of artifacts, read in pieces: each function is one look within a reader's transaction, in the database's thread."""

from __future__ import annotations

import sqlite3

from attrs import frozen

from foreman.errors import ForemanError
from foreman.jobs.job import ArtifactInfo


@frozen
class Stored:
    """An artifact in the store, whose bytes are read in pieces.

    :ivar attempt: the number of the try that it is of.
    """

    job_id: str
    info: ArtifactInfo
    attempt: int


class ArtifactGone(ForemanError):
    """The artifact was deleted or replaced while it was read."""


def artifact(cursor: sqlite3.Cursor, id_: str, name: str) -> Stored | None:
    """What is known of an artifact."""
    row = cursor.execute(ARTIFACT, (id_, name)).fetchone()
    return None if row is None else Stored(id_, ArtifactInfo(name, *row[:4]), row[4])


ARTIFACT = "SELECT type, bytes, sha256, created_at, fence FROM artifacts WHERE job_id = ? AND name = ?"
#: Where its bytes are, while they are still the same.
BYTES = "SELECT rowid FROM artifacts WHERE job_id = ? AND name = ? AND sha256 = ? AND bytes = ?"


def piece(cursor: sqlite3.Cursor, stored: Stored, start: int, stop: int) -> bytes:
    """The bytes of an artifact from ``start`` to before ``stop``; no others are read.

    :raises ArtifactGone: when they are not there any more.
    """
    info = stored.info
    row = cursor.execute(BYTES, (stored.job_id, info.name, info.sha256, info.bytes)).fetchone()
    if row is None:
        raise ArtifactGone(f"the artifact {info.name!r} was deleted or replaced while it was read")
    with cursor.connection.blobopen("artifacts", "data", row[0], readonly=True) as blob:
        blob.seek(start)
        return blob.read(stop - start)
