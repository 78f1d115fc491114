"""Read the final state of a database from a copy, so that the file itself stays as the crash left it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from crash import prompts
from crash.history import Artifact, Attempt, Event, FinalState, Row


def read(database: Path) -> FinalState:
    """The jobs in ``database``, and the errors that SQLite reports."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / database.name
        for end in ("", "-wal"):
            if database.with_name(database.name + end).exists():
                shutil.copyfile(database.with_name(database.name + end), copy.with_name(copy.name + end))
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            return _read(connection)


def _read(connection: sqlite3.Connection) -> FinalState:
    damage = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    damage += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
    waiting = int(connection.execute("SELECT value FROM meta WHERE key = 'waiting'").fetchone()[0])
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for id_, type_, fence in connection.execute("SELECT job_id, type, attempt FROM events ORDER BY id"):
        events[id_].append(Event(type_, fence))
    attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
    for id_, *values in connection.execute(
        "SELECT job_id, fence, started_at, ended_at, outcome, error_class FROM attempts ORDER BY job_id, fence"
    ):
        attempts[id_].append(Attempt(*values))
    artifacts: defaultdict[str, dict[str, Artifact]] = defaultdict(dict)
    for id_, name, *values in connection.execute("SELECT job_id, name, fence, bytes, sha256, data FROM artifacts"):
        artifacts[id_][name] = Artifact(*values)
    pieces = dict(connection.execute("SELECT job_id, count(*) FROM pieces GROUP BY job_id").fetchall())
    rows = connection.execute(
        "SELECT id, state, endpoint, idempotency_key, owner, attempt, rescues, fence, boot, finished_at IS NOT NULL, "
        "error_class, payload FROM jobs LEFT JOIN payloads ON job_id = id ORDER BY id"
    )
    return FinalState(
        tuple(_row(row, events[row[0]], attempts[row[0]], artifacts[row[0]], pieces.get(row[0], 0)) for row in rows),
        tuple(damage),
        waiting,
    )


def _row(
    row: tuple[Any, ...], events: list[Event], attempts: list[Attempt], artifacts: dict[str, Artifact], pieces: int
) -> Row:
    id_, state, endpoint, key, owner, attempt, rescues, fence, boot, finished, error_class, payload = row
    return Row(
        id=id_,
        state=state,
        endpoint=endpoint,
        prompt="" if payload is None else prompts.text_of(payload),
        key=key,
        owner=owner,
        attempt=attempt,
        rescues=rescues,
        fence=fence,
        boot=boot,
        finished=bool(finished),
        error_class=error_class,
        events=tuple(events),
        attempts=tuple(attempts),
        artifacts=artifacts,
        pieces=pieces,
    )
