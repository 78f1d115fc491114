"""Makes databases with any number of jobs, by writing the tables directly, and the logs that a crash leaves next to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ulid import ULID

from benchmarks.programs import MODEL
from foreman.jobs.job import sort_key
from foreman.protocol.model_names import canonical
from foreman.store.sqlite import opening
from foreman.store.sqlite.statements.rows import group_key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Twelve models, one of which the target has; a claim reads the first job of each.
MODELS = (MODEL, *(f"model-{number:02d}:latest" for number in range(11)))
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: How many rows one statement writes.
BATCH = 20_000
#: The milliseconds between two jobs; the last is made now.
STEP = 20
ANSWER = b'{"model":"bench:latest","message":{"role":"assistant","content":"Because of the air."},"done":true}'
_ENDINGS = ("succeeded",) * 8 + ("failed", "cancelled")


def payload(number: int = 0, lines: int = 1) -> dict[str, Any]:
    """A chat of about 600 bytes, which the target answers at once in so many lines."""
    words = "Why is the sky blue, and why is it red in the evening? Say it in a few words, for a child of six years. "
    return {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You answer briefly."}, {"role": "user", "content": words * 4}],
        "options": {"bench_id": number, "bench_lines": lines},
    }


def payload_bytes(number: int = 0) -> bytes:
    """The same, encoded."""
    return json.dumps(payload(number)).encode()


def id_of(moment: int, number: int) -> str:
    """The id of a job made at ``moment``, in milliseconds since the epoch: a ULID with a counter in place of the random part."""
    time_part = "".join(ALPHABET[moment >> shift & 31] for shift in range(45, -1, -5))
    return f"{time_part}{number:016d}"


def fill(path: Path, rows: int, ended: int = 0) -> None:
    """Make a database with ``rows`` jobs; the first ``ended`` have ended, the others are queued."""
    opened = opening.open_database(path, str(ULID()), int(time.time() * 1000))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # A database that is only half made is never used.
        for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
            connection.execute(f"PRAGMA {pragma}").fetchone()
        find = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        indices = connection.execute(find).fetchall()
        for name, _sql in indices:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("BEGIN")
        began = int(time.time() * 1000) - rows * STEP
        for first in range(0, rows, BATCH):
            _insert(connection, began, range(first, min(first + BATCH, rows)), ended)
        for _name, sql in indices:
            connection.execute(sql)
        connection.execute("COMMIT")
    opened.lock.release()


def _insert(connection: sqlite3.Connection, began: int, numbers: range, ended: int) -> None:
    ids = {number: id_of(began + number * STEP, number) for number in numbers}
    sent, fingerprint = payload_bytes(), "f" * 64
    connection.executemany(
        "INSERT INTO jobs (id, state, endpoint, lane, family, model, model_key, group_key, owner, priority, sort_key, run_at, "
        "max_attempts, fingerprint, created_at, started_at, finished_at) "
        "VALUES (?, ?, '/api/chat', 'gate', 'ollama', ?, ?, ?, ?, 5, ?, ?, 5, "
        "?, ?, ?, ?)",
        _jobs(ids, began, ended, fingerprint),
    )
    connection.executemany(
        "INSERT INTO payloads VALUES (?, ?, 'application/json', NULL, '[]', 0)", ((id_, sent) for id_ in ids.values())
    )
    connection.executemany(
        "INSERT INTO events (job_id, at, type, attempt) VALUES (?, ?, 'queued', 0)",
        ((id_, began + number * STEP) for number, id_ in ids.items()),
    )
    connection.executemany(
        "INSERT INTO job_metadata VALUES (?, 'batch', ?)",
        ((id_, f"b{number // 10 % 1000}") for number, id_ in ids.items() if number % 10 == 0),
    )
    connection.executemany(
        "INSERT INTO artifacts VALUES (?, 'response', 'application/json', ?, ?, 1, ?, ?)",
        (
            (id_, len(ANSWER), fingerprint, began + number * STEP, ANSWER)
            for number, id_ in ids.items()
            if number < ended and number % 10 < 8
        ),
    )


def _jobs(ids: dict[int, str], began: int, ended: int, fingerprint: str) -> Iterator[tuple[Any, ...]]:
    for number, id_ in ids.items():
        at = began + number * STEP
        over = at + 1 if number < ended else None
        state = "queued" if over is None else _ENDINGS[number % 10]
        model, owner = MODELS[number % len(MODELS)], f"user{number % 7}"
        key = canonical(model)
        yield id_, state, model, key, group_key_of(key), owner, sort_key(at, 5), at, fingerprint, at, over, over


def copy(source: Path, to: Path) -> Path:
    """Copy a database that is not open."""
    shutil.copyfile(source, to)
    return to


def crash(path: Path, log_bytes: int) -> int:
    """Let a process write until its log holds ``log_bytes``, with running jobs, and kill it.

    :return: the size of the log.
    """
    subprocess.run([sys.executable, "-m", "benchmarks.jobs_fill", str(path), str(log_bytes)], check=False)
    return log_of(path).stat().st_size


def log_of(path: Path) -> Path:
    """The write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


def _write_and_die(path: Path, log_bytes: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    opening.configure(connection)
    boot = str(ULID())
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))
    connection.execute(
        "UPDATE jobs SET state = 'running', boot = ?, fence = fence + 1, attempt = attempt + 1 WHERE id IN "
        "(SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND lane = 'gate' LIMIT 2)",
        (boot,),
    )
    (most,) = connection.execute("SELECT max(rowid) FROM payloads").fetchone()
    at = 0
    while log_of(path).stat().st_size < log_bytes and at < most:
        # SQLite does not write a page that does not change.
        connection.execute("UPDATE payloads SET stream = 1 - stream WHERE rowid BETWEEN ? AND ?", (at, at + 2000))
        at += 2000
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _write_and_die(Path(sys.argv[1]), int(sys.argv[2]))
