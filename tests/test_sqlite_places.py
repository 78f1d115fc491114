"""The places of many queued jobs, counted from one to the next, are those that each has by itself."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ulid import ULID

from foreman.jobs.job import JobLane, NewJob
from foreman.jobs.queries import Filter
from foreman.store.sqlite import opening, queries
from foreman.store.sqlite.statements.enqueue import enqueue
from foreman.store.sqlite.statements.transaction import Transaction


@pytest.mark.parametrize("farthest", [3, 10, 1000])
def test_places_in_a_list_are_those_of_the_whole_queue(
    farthest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_POSITION", farthest)
    chance = random.Random(farthest)
    opening.open_database(tmp_path / "jobs.db", str(ULID()), 0).lock.release()
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as connection:
        cursor = connection.cursor()
        for number in range(80):
            lane: JobLane = chance.choice(("gate", "embedding"))
            run_at = chance.choice((None, None, 10**15))
            new = NewJob(
                endpoint="/api/chat",
                lane=lane,
                family="ollama",
                model=chance.choice("abc"),
                owner="alice",
                payload=b"{}",
                stream=False,
                fingerprint="",
                priority=chance.randrange(10),
                run_at=run_at,
            )
            enqueue(Transaction(cursor, 1000 * number), [new], [str(ULID())], 1000)
        rows = cursor.execute(
            "SELECT lane, sort_key, id FROM jobs WHERE state = 'queued' ORDER BY sort_key, id"
        ).fetchall()
        expected: dict[str, int | None] = {}
        for lane in ("gate", "embedding"):
            in_line = [id_ for of, _, id_ in rows if of == lane]
            expected |= {id_: place if place <= farthest + 1 else None for place, id_ in enumerate(in_line, 1)}
        for limit in (5, 50, 100):
            jobs = queries.list_jobs(cursor, Filter(), None, limit)
            assert {job.id: job.position for job in jobs} == {job.id: expected.get(job.id) for job in jobs}
        ids = [job.id for job in queries.list_jobs(cursor, Filter(), None, 100)]
        chance.shuffle(ids)
        found = queries.get_many(cursor, [*ids[:9], "nobody", *ids[9:]])
        assert [job and (job.id, job.position) for job in found] == [
            None if id_ == "nobody" else (id_, expected.get(id_)) for id_ in [*ids[:9], "nobody", *ids[9:]]
        ]
