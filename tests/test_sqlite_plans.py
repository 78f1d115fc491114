"""How SQLite goes about each statement: by an index, and at the same cost however many jobs there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from foreman.jobs.artifacts import Artifact, ArtifactInfo, StoredArtifact
from foreman.jobs.job import STATES, NewJob
from foreman.jobs.queries import Filter
from foreman.jobs.retry_policy import Transition
from foreman.store.errors import ArtifactGone
from foreman.store.sqlite import opening, queries
from foreman.store.sqlite.queries import list_statements
from foreman.store.sqlite.statements import enqueue, execution, prune, sweep, user_actions
from foreman.store.sqlite.statements.rows import job_of
from foreman.store.sqlite.statements.transaction import Transaction

NOW = 1_700_000_000_000
MANY = 3000
MODELS = ("a", "b", "c")


class Watched(sqlite3.Cursor):
    """Writes down what it runs."""

    def execute(self, statement: str, values: Any = ()) -> Any:
        assert isinstance(self.connection, WatchedConnection)
        self.connection.ran[statement] = values
        return super().execute(statement, values)


class WatchedConnection(sqlite3.Connection):
    """Whose cursors are watched."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.ran: dict[str, Any] = {}

    def cursor(self, factory: Any = Watched) -> Any:
        return super().cursor(factory)


def new(number: int, **given: Any) -> NewJob:
    plain: dict[str, Any] = {
        "endpoint": "/api/chat", "lane": "gate", "family": "ollama", "model": MODELS[number % 3], "owner": f"o{number % 4}",
        "payload": b"{}", "stream": True, "fingerprint": "f", "metadata": {"k": str(number % 5)},
        "idempotency_key": f"key-{number}",
    }  # fmt: skip
    return NewJob(**{**plain, **given})


def fill(connection: sqlite3.Connection, count: int) -> None:
    tx = Transaction(connection.cursor(), NOW)
    tx.cursor.execute("BEGIN IMMEDIATE")
    for number in range(count):
        deadline = NOW + number if number % 7 == 0 else None
        run_at = NOW + 1 + number if number % 5 == 0 else None
        job = new(number, deadline=deadline, run_at=run_at)
        enqueue.enqueue(tx, [job], [f"{number:026}"], 10**6)
    tx.cursor.execute("COMMIT")


def statistics(connection: sqlite3.Connection, state: str) -> None:
    """What ANALYZE makes of a queue when all jobs are in one state: it is what misleads the planner most."""
    connection.execute("DROP TRIGGER jobs_follow")
    (jobs,) = (connection.execute("SELECT id, state, finished_at, boot FROM jobs").fetchall(),)
    finished = NOW if state == "succeeded" else None
    connection.execute("UPDATE jobs SET state = ?, finished_at = ?, boot = NULL", (state, finished))
    connection.execute("ANALYZE")
    connection.executemany(
        "UPDATE jobs SET state = ?, finished_at = ?, boot = ? WHERE id = ?",
        [(state, finished, boot, id_) for id_, state, finished, boot in jobs],
    )


@pytest.fixture(params=["fresh", "many", "analysed when all was queued", "analysed when all had ended"], scope="module")
def connection(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedConnection]:
    path: Path = tmp_path_factory.mktemp("plans") / "jobs.sqlite"
    opening.open_database(path, "boot", NOW).lock.release()
    kept = sqlite3.connect(path, isolation_level=None, factory=WatchedConnection)
    with closing(kept):
        opening.configure(kept)
        kept.execute("PRAGMA synchronous = OFF")
        if request.param != "fresh":
            fill(kept, MANY)
        if "queued" in request.param:
            statistics(kept, "queued")
        if "ended" in request.param:
            statistics(kept, "succeeded")
    # Opened again, since that is when the statistics are read.
    with closing(sqlite3.connect(path, isolation_level=None, factory=WatchedConnection)) as again:
        opening.configure(again)
        again.execute("PRAGMA synchronous = OFF")
        yield again


def plan(connection: sqlite3.Connection, statement: str, values: Any) -> str:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    return "\n".join(row[3] for row in rows)


def work(tx: Transaction) -> None:
    """All that is done to jobs, once."""
    ids = [f"9{number:025}" for number in range(6)]
    enqueue.enqueue(tx, [new(number + 10**6) for number in range(5)], ids[:5], 10**6)
    enqueue.enqueue(tx, [new(10**6)], ids[5:], 10**6)
    claims = [execution.claim(tx, "gate", "boot", {"a": 0, "b": -1, "c": None}.get) for _ in range(5)]
    first, second, third, fourth, fifth = (claim for claim in claims if claim is not None)
    execution.append_output(tx, first, 1, b"line")
    execution.succeed(tx, first, [Artifact("response", "text/plain", b"")], None)
    execution.end_attempt(
        tx, second, lambda job, now: Transition("scheduled", now + 10, counts=True, uncounted_tries=0, error=job.error)
    )
    execution.release(tx, third)
    user_actions.cancel(tx, fourth.job.id)
    execution.rescue(tx, "another boot")
    user_actions.cancel(tx, second.job.id)
    user_actions.retry(tx, second.job.id)
    user_actions.put_user_artifact(tx, fifth.job.id, Artifact("note", "text/plain", b""))
    user_actions.delete(tx, first.job.id)
    prune.prune(tx, "succeeded", NOW)
    prune.delete_batch(tx, "cancelled", NOW + 1, fourth.job.owner, "")
    sweep.cap_retry_delays(tx, 1)
    sweep.sweep(Transaction(tx.cursor, NOW + 100))


def look(cursor: sqlite3.Cursor) -> None:
    """All that is asked of jobs but lists, once."""
    queries.events(cursor, "x", 0, 5)
    assert queries.get_artifact(cursor, "x", "response") is None
    gone = StoredArtifact("x", ArtifactInfo("response", "text/plain", 1, "digest", NOW), 1)
    with pytest.raises(ArtifactGone):
        queries.read_artifact(cursor, gone, 0, 1)
    cursor.execute(execution.OUTPUT, ("x", 1)).fetchall()
    queries.counts(cursor)
    queries.oldest_run_at(cursor, "gate")
    queries.peek(cursor, "gate", lambda _: 0)
    for job in queries.list_jobs(cursor, Filter(states=("queued",)), None, 5):
        queries.get_many(cursor, [job.id])


def test_everything_that_is_done_goes_by_an_index(connection: WatchedConnection) -> None:
    connection.ran.clear()
    tx = Transaction(connection.cursor(), NOW)
    tx.cursor.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT count(*) FROM jobs").fetchone()[0] == 0:
        enqueue.enqueue(tx, [new(number) for number in range(5)], [f"{number:026}" for number in range(5)], 10**6)
    work(tx)
    look(tx.cursor)
    tx.cursor.execute("ROLLBACK")
    looked_at = 0
    for statement, values in list(connection.ran.items()):
        if statement.startswith(("BEGIN", "ROLLBACK")):
            continue
        found = plan(connection, statement, values)
        looked_at += 1
        small = ("SCAN json_each", "SCAN CONSTANT ROW", "SCAN (subquery", "SCAN SUBQUERY")
        scans = [line for line in found.splitlines() if line.startswith("SCAN") and not line.startswith(small)]
        # To count those that are scheduled is to go through their own index.
        if "count(*) FROM jobs INDEXED BY jobs_due" in statement:
            scans.remove("SCAN jobs USING INDEX jobs_due")
        if "INDEXED BY jobs_running" in statement:  # holds those alone that run
            scans.remove("SCAN jobs USING INDEX jobs_running")
        assert not scans, f"{statement}\n{found}"
        if "json_each" not in statement:  # those are of the jobs of one page
            assert "TEMP B-TREE" not in found, f"{statement}\n{found}"
        for index in re.findall(r"INDEXED BY (\w+)", statement):
            assert index in found, f"{statement}\n{found}"
    assert looked_at >= 40


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Filter(), "PRIMARY KEY"),
        (Filter(endpoint="/api/chat", lane="gate"), "PRIMARY KEY"),
        (Filter(created_after=NOW, created_before=NOW + 1), "PRIMARY KEY"),
        (Filter(model="a"), "jobs_model_state"),
        (Filter(model="a", states=("queued",)), "jobs_model_state"),
        (Filter(model="a", owner="o1"), "jobs_owner_model"),
        (Filter(states=("queued",), owner="o1"), "jobs_owner_state"),
        (Filter(states=("queued",)), "jobs_state"),
        (Filter(owner="o1"), "jobs_owner"),
        (Filter(states=STATES, owner="o1", model="a"), "jobs_owner_model"),
        (Filter(metadata={"k": "1"}, states=("queued",)), "job_metadata_value"),
        (Filter(metadata={"k": "1", "l": "2"}), "job_metadata_value"),
    ],
)
def test_every_list_is_read_in_its_order_by_an_index(connection: WatchedConnection, wanted: Filter, index: str) -> None:
    for statement, values in list_statements(wanted, "5", 50):
        found = plan(connection, statement, values)
        assert index in found, found
        assert "SCAN" not in found, found
        assert "TEMP B-TREE" not in found, found


@pytest.mark.parametrize("child", ["payloads", "job_metadata", "artifacts", "pieces", "attempts", "events"])
def test_what_belongs_to_a_job_is_found_by_an_index_when_it_is_deleted(
    connection: WatchedConnection, child: str
) -> None:
    assert "SEARCH" in plan(connection, f"DELETE FROM {child} WHERE job_id = ?", ("x",))


def cost(connection: sqlite3.Connection, task: Callable[[Transaction], object], now: int = NOW) -> int:
    """How many instructions SQLite needs for it."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    tx = Transaction(connection.cursor(), now)
    tx.cursor.execute("BEGIN IMMEDIATE")
    connection.set_progress_handler(count, 10)
    try:
        task(tx)
    finally:
        connection.set_progress_handler(None, 0)
        tx.cursor.execute("ROLLBACK")
    return 10 * steps


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[sqlite3.Connection]]:
    opened = []
    for count in (300, 6000):
        path = tmp_path_factory.mktemp("cost") / "jobs.sqlite"
        opening.open_database(path, "boot", NOW).lock.release()
        one = sqlite3.connect(path, isolation_level=None)
        opening.configure(one)
        one.execute("PRAGMA synchronous = OFF")
        fill(one, count)
        opened.append(one)
    yield opened
    for one in opened:
        one.close()


def cancel_and_delete(tx: Transaction, id_: str) -> None:
    user_actions.cancel(tx, id_)
    user_actions.delete(tx, id_)


TASKS: dict[str, Callable[[Transaction], object]] = {
    "enqueue": lambda tx: enqueue.enqueue(tx, [new(10**7)], ["9" * 26], 10**7),
    "repeat": lambda tx: enqueue.enqueue(tx, [new(7)], ["9" * 26], 10**7),
    "claim": lambda tx: execution.claim(tx, "gate", "boot", lambda _: 0),
    "cancel": lambda tx: user_actions.cancel(tx, f"{11:026}"),
    "delete": lambda tx: cancel_and_delete(tx, f"{11:026}"),
    "sweep of nothing": lambda tx: sweep.sweep(Transaction(tx.cursor, NOW - 1)),
    "rescue of nothing": lambda tx: execution.rescue(tx, "boot"),
    "get": lambda tx: job_of(tx.cursor, f"{11:026}"),
    "page": lambda tx: queries.list_jobs(tx.cursor, Filter(states=("scheduled",)), None, 20),
    "page of metadata": lambda tx: tx.cursor.execute(
        *list_statements(Filter(metadata={"k": "1"}), None, 20)[0]
    ).fetchall(),
    "oldest": lambda tx: queries.oldest_run_at(tx.cursor, "gate"),
    "first": lambda tx: queries.peek(tx.cursor, "gate", lambda _: 0),
    "events": lambda tx: queries.events(tx.cursor, f"{11:026}", 0, 100),
}


#: What nobody's jobs are, among many that are the one and many that are the other.
NONE_AT_ALL = [
    Filter(owner="nobody"),
    Filter(owner="nobody", states=STATES),
    Filter(owner="o1", states=("failed", "running")),
    Filter(owner="o1", model="nothing"),
    Filter(owner="o1", model="nothing", states=STATES),
    Filter(model="nothing"),
    Filter(model="a", states=("failed", "running")),
    Filter(metadata={"k": "nothing"}, owner="o1"),
]


@pytest.mark.parametrize("wanted", NONE_AT_ALL)
def test_a_list_that_finds_nothing_costs_the_same_among_many_jobs(
    few_and_many: list[sqlite3.Connection], wanted: Filter
) -> None:
    few, many = (
        cost(connection, lambda tx: queries.list_jobs(tx.cursor, wanted, None, 50)) for connection in few_and_many
    )
    assert many <= few + 60


def missing(number: int) -> NewJob:
    return new(number, model=f"missing{number}", idempotency_key=None, metadata={})


def test_many_models_that_cannot_run_do_not_slow_a_claim_or_a_place(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    opening.open_database(path, "boot", NOW).lock.release()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        opening.configure(connection)
        connection.execute("PRAGMA synchronous = OFF")
        costs = []
        able = {"zz": 0, "x:cloud": None}.get
        for upto in (500, 3000):
            tx = Transaction(connection.cursor(), NOW)
            tx.cursor.execute("BEGIN IMMEDIATE")
            (known,) = tx.cursor.execute("SELECT count(*) FROM jobs").fetchone()
            numbers = range(known, upto)
            enqueue.enqueue(tx, [missing(one) for one in numbers], [f"{one:026}" for one in numbers], 10**6)
            last = [new(upto, model="zz", idempotency_key=None), new(upto, model="x:cloud", idempotency_key=None)]
            ids = [f"9{upto:025}", f"9{upto + 1:025}"]
            enqueue.enqueue(tx, last, ids, 10**6)
            tx.cursor.execute("COMMIT")
            costs.append(
                (
                    cost(connection, lambda tx: execution.claim(tx, "gate", "boot", able, lambda: ["zz:latest"])),
                    cost(connection, lambda tx: queries.oldest_run_at(tx.cursor, "gate")),
                    cost(connection, lambda tx: queries.get_many(tx.cursor, [f"{7:026}"])),
                )
            )
            found = execution.next_id(connection.cursor(), "gate", able, lambda: ["zz:latest"])
            assert found == f"9{500:025}"
            clouds = {"x:cloud": 0}.get
            assert execution.next_id(connection.cursor(), "gate", clouds, list) == f"9{501:025}"
        few, many = costs
        assert all(later <= former + 200 for former, later in zip(few, many, strict=True)), costs


def test_ten_thousand_spellings_of_a_model_are_one_group_and_one_list(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    opening.open_database(path, "boot", NOW).lock.release()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        opening.configure(connection)
        connection.execute("PRAGMA synchronous = OFF")
        spellings = ["M", " m", "m\n", "library/m", "registry.ollama.ai/library/m:Latest", "\u3000m:latest\t"]
        tx = Transaction(connection.cursor(), NOW)
        tx.cursor.execute("BEGIN IMMEDIATE")
        jobs = [
            new(number, model=" " * (number // 6 % 300) + spellings[number % 6], idempotency_key=None)
            for number in range(1800)
        ]
        enqueue.enqueue(tx, jobs, [f"{number:026}" for number in range(1800)], 10**6)
        tx.cursor.execute("COMMIT")
        asked: list[str] = []

        def bonus_of(model: str) -> int:
            asked.append(model)
            return 0

        assert execution.next_id(connection.cursor(), "gate", bonus_of) == f"{0:026}"
        assert asked == ["M"]
        page = queries.list_jobs(connection.cursor(), Filter(model="m"), None, 2000)
        assert [job.model for job in page] == [job.model for job in reversed(jobs)]


@pytest.mark.parametrize("task", TASKS)
def test_what_is_done_often_costs_the_same_among_many_jobs(few_and_many: list[sqlite3.Connection], task: str) -> None:
    few, many = (cost(connection, TASKS[task]) for connection in few_and_many)
    assert many <= few + 60
