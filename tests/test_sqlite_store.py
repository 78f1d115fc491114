"""The store in SQLite as a whole: its threads, its one writer and its readers, and what happens when they fail."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from ulid import ULID

from foreman.jobs.queries import Filter
from foreman.store.errors import KeyReused, ReadTimedOut, StoreUnavailable, WrongState
from foreman.store.sqlite import maintenance, opening
from foreman.store.sqlite import read_queue as read_queue_module
from foreman.store.sqlite import writer as writer_module
from foreman.store.sqlite.read_queue import ReadQueue
from foreman.store.sqlite.statements import enqueue, user_actions
from foreman.store.sqlite.statements.transaction import Transaction
from support.new_jobs import new_job
from support.stores import SQLiteStores, outcome, soon

reactor: Any = installed_reactor


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SQLiteStores]:
    stores = SQLiteStores(tmp_path)
    yield stores
    blockon(Deferred.fromCoroutine(stores.close()))


def fail_with(code: int) -> Callable[[Transaction], None]:
    """A step that meets an error of SQLite's."""

    def step(_: Transaction) -> None:
        problem = sqlite3.OperationalError("as if")
        problem.sqlite_errorcode = code
        raise problem

    return step


# many at once


@ensureDeferred
async def test_many_at_once_share_commits(served: SQLiteStores, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    commit = writer_module.Writer._commit

    def counted(self: Any, connection: Any, steps: Any, now: int) -> Any:
        sizes.append(len(steps))
        return commit(self, connection, steps, now)

    monkeypatch.setattr(writer_module.Writer, "_commit", counted)
    store = served.store()
    await gatherResults([soon(store.enqueue([new_job()])) for _ in range(300)])
    assert sum(sizes) == served.rows() == 300
    assert len(sizes) <= 6
    assert max(sizes) == writer_module.MAX_BATCH


@ensureDeferred
async def test_large_steps_are_committed_one_at_a_time_and_keep_nobody_waiting(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = served.store()
    commit = writer_module.Writer._commit
    batches: list[list[Any]] = []

    def counted(self: Any, connection: Any, steps: Any, now: int) -> Any:
        batches.append([step(None) for step in steps])
        return commit(self, connection, [lambda _: None], now)

    monkeypatch.setattr(writer_module.Writer, "_commit", counted)
    monkeypatch.setattr(
        writer_module.Writer, "_committed", lambda _, __, batch: [done.callback(None) for ___, done in batch]
    )
    first = store.database.write(lambda _: "first")
    large = [store.database.write(lambda _: "large", is_large=True) for _ in range(3)]
    small = [store.database.write(lambda _: "small") for _ in range(3)]
    await gatherResults([first, *large, *small])
    assert batches == [["first"], ["small", "small", "small", "large"], ["large"], ["large"]]


@ensureDeferred
async def test_a_step_that_fails_does_not_take_its_neighbours_with_it(served: SQLiteStores) -> None:
    store = served.store()
    await store.enqueue([new_job(idempotency_key="k")])
    wrong = "\ud800"  # is no text that SQLite takes
    asked = [
        store.enqueue([new_job()]),
        store.enqueue([new_job(), new_job(idempotency_key="k", fingerprint="other")]),
        store.cancel("0" * 26),
        store.enqueue([new_job(model=wrong)]),
        store.enqueue([new_job(priority=99)]),
        store.enqueue([new_job()]),
    ]
    outcomes = await gatherResults([soon(outcome(one)) for one in asked])
    kinds = [type(one) for one in outcomes]
    assert kinds == [list, KeyReused, WrongState, UnicodeEncodeError, sqlite3.IntegrityError, list]
    assert served.rows() == 3
    assert (await store.counts()).queued == 3
    assert store.condition == "ok"


@ensureDeferred
async def test_whoever_comes_when_too_many_wait_is_sent_away(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 3)
    store = served.store()
    outcomes = await gatherResults([soon(outcome(store.enqueue([new_job()]))) for _ in range(10)])
    refused = [one for one in outcomes if isinstance(one, StoreUnavailable)]
    assert len(refused) == 6
    assert served.rows() == 4
    assert store.condition == "ok"


# announcements


@ensureDeferred
async def test_nothing_rings_for_what_was_not_committed(served: SQLiteStores) -> None:
    store = served.store()
    rung: list[object] = []
    store.notifications.on_queued = lambda: rung.append("queued")

    def step(tx: Transaction) -> None:
        enqueue.enqueue(tx, [new_job()], [str(ULID())], 10)
        raise ValueError

    assert isinstance(await outcome(store.database.write(step)), ValueError)
    assert not rung
    assert served.rows() == 0


@ensureDeferred
async def test_a_claim_passes_over_what_has_expired_a_few_at_a_time(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreman.store.sqlite.statements import execution

    monkeypatch.setattr(execution, "MAX_EXPIRED", 3)
    store = served.store()
    await store.enqueue([new_job(deadline=store.now() + 1000) for _ in range(4)])
    (last,) = await store.enqueue([new_job()])
    served.wall.now += 10
    nudged: list[str] = []
    store.notifications.on_queued = lambda: nudged.append("queued")
    assert await store.claim("gate", lambda _: 0) is None
    assert nudged
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    assert claim.job.id == last.id
    counts = await store.counts()
    assert (counts.queued, counts.scheduled, len(counts.running)) == (0, 0, 1)
    discarded = await store.list_jobs(Filter(states=("discarded", "discarded")), None, 100)
    assert [job.started_at for job in discarded] == [None] * 4


# trouble


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB]
)
@ensureDeferred
async def test_after_a_failed_write_nothing_is_acknowledged_any_more(served: SQLiteStores, code: int) -> None:
    store = served.store()
    await store.enqueue([new_job()])
    asked = [
        store.enqueue([new_job()]),
        store.database.write(fail_with(code)),
        store.enqueue([new_job()]),
        store.sweep(),
    ]
    outcomes = await gatherResults([soon(outcome(one)) for one in asked])
    outcomes += [
        await outcome(store.enqueue([new_job()])),
        await outcome(store.get("x")),
        await outcome(store.counts()),
    ]
    assert [type(one) for one in outcomes] == [StoreUnavailable] * 7
    assert {one.condition for one in outcomes} == {store.condition} == {"broken"}
    assert str(outcomes[-1]).count("the job store has failed") == 1
    assert served.rows() == 1


@ensureDeferred
async def test_what_is_on_its_way_when_the_store_fails_does_not_make_it_well(served: SQLiteStores) -> None:
    store = served.store()
    asked = [soon(outcome(store.enqueue([new_job()]))) for _ in range(2)]
    assert store.database._writer is not None
    store.database._writer.mark_broken("a page is damaged")
    assert [type(one) for one in await gatherResults(asked)] == [StoreUnavailable] * 2
    assert store.condition == "broken"
    assert "a page is damaged" in store.database.detail


@ensureDeferred
async def test_a_store_that_failed_is_not_written_into_its_file(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    monkeypatch.setattr(writer_module.Writer, "_checkpoint", lambda *_: written.append("log"))
    monkeypatch.setattr(writer_module, "CHECKPOINT_ROWS", 0)
    store = served.store()
    await store.enqueue([new_job()])
    await store.enqueue([new_job()])
    assert len(written) >= 1
    before = len(written)
    await outcome(store.database.write(fail_with(sqlite3.SQLITE_IOERR)))
    await deferLater(reactor, 0.05)
    assert len(written) <= before + 1


@ensureDeferred
async def test_a_log_that_cannot_be_written_into_the_file_is_the_end(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        fail_with(sqlite3.SQLITE_IOERR_FSYNC)(Transaction(None, 0))  # type: ignore[arg-type]

    monkeypatch.setattr(writer_module.Writer, "_checkpoint", broken)
    monkeypatch.setattr(writer_module, "CHECKPOINT_ROWS", 0)
    store = served.store()
    outcomes = await gatherResults([soon(outcome(store.enqueue([new_job()]))) for _ in range(3)])
    assert [type(one) for one in outcomes] == [list, StoreUnavailable, StoreUnavailable]
    assert store.condition == "broken"
    assert served.rows() == 1


@pytest.mark.parametrize(
    ("code", "condition"),
    [
        (errno.ENOTDIR, "broken"), (errno.ENOENT, "broken"), (errno.EIO, "broken"), (errno.ESTALE, "broken"),
        (errno.EACCES, "unwritable"),
    ],
)  # fmt: skip
@ensureDeferred
async def test_a_file_whose_name_leads_nowhere_is_written_no_more(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch, code: int, condition: str
) -> None:
    """Such as one whose folder was replaced by a file, or is on a server of files that is gone."""
    store = served.store()
    await store.enqueue([new_job()])
    found = Path.stat

    def fails(path: Path, **more: Any) -> os.stat_result:
        if path.name.endswith(("-wal", store.database.path.name)):
            raise OSError(code, os.strerror(code), str(path))
        return found(path, **more)

    monkeypatch.setattr(Path, "stat", fails)
    assert isinstance(await outcome(store.enqueue([new_job()])), StoreUnavailable)
    assert store.condition == condition
    monkeypatch.undo()
    assert isinstance(await outcome(store.enqueue([new_job()])), StoreUnavailable) is (condition == "broken")


@ensureDeferred
async def test_a_look_that_finds_damage_is_the_end_too(served: SQLiteStores) -> None:
    store = served.store()
    await store.enqueue([new_job()])

    def look(_: object) -> None:
        fail_with(sqlite3.SQLITE_CORRUPT)(Transaction(None, 0))  # type: ignore[arg-type]

    assert isinstance(await outcome(store.database.read(look)), StoreUnavailable)
    assert isinstance(await outcome(store.enqueue([new_job()])), StoreUnavailable)
    assert store.condition == "broken"


@ensureDeferred
async def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(served: SQLiteStores) -> None:
    store = served.store()

    def room(pages: int) -> Callable[[Transaction], None]:
        def step(tx: Transaction) -> None:
            tx.cursor.execute(f"PRAGMA max_page_count = {pages}").fetchall()

        return step

    await store.database.write(room(1))  # no more than there are
    asked = [store.enqueue([new_job(payload=b"x" * 3000) for _ in range(1 + number % 2)]) for number in range(200)]
    outcomes = await gatherResults([soon(outcome(one)) for one in asked])
    refused = [one for one in outcomes if isinstance(one, StoreUnavailable)]
    acknowledged = sum(len(one) for one in outcomes if isinstance(one, list))
    assert refused
    assert {one.condition for one in refused} == {"full"}
    assert served.rows() == acknowledged == (await store.counts()).queued
    assert await store.claim("embedding", lambda _: 0) is None
    assert store.database.condition == "full", "what writes nothing does not show that there is room"
    await store.database.write(room(1_000_000))
    await store.enqueue([new_job()])
    assert store.condition == "ok"
    assert served.rows() == acknowledged + 1


@ensureDeferred
async def test_deleting_on_a_full_disk_does_not_fail_again_and_again(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = served.store()
    ids = [one.id for one in await store.enqueue([new_job() for _ in range(3)])]
    for id_ in ids:
        await store.cancel(id_)
    plain: list[str] = []

    def delete(tx: Transaction, id_: str) -> None:
        if tx.cursor.execute("PRAGMA secure_delete").fetchone() == (1,):  # it overwrites, for which there is no room
            plain.append(id_)
            fail_with(sqlite3.SQLITE_FULL)(tx)
        by_hand_delete(tx, id_)

    by_hand_delete = user_actions.delete
    monkeypatch.setattr(user_actions, "delete", delete)
    for id_ in ids:
        await store.delete(id_)
    assert plain == ids[:1]
    assert store.condition == "ok"
    assert served.rows() == 0


@ensureDeferred
async def test_another_program_that_holds_the_file_is_waited_for_and_then_said(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 50)
    store = served.store()
    other = sqlite3.connect(served.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    problem = await outcome(store.enqueue([new_job()]))
    assert isinstance(problem, StoreUnavailable)
    assert (problem.condition, store.condition) == ("unwritable", "unwritable")
    other.execute("COMMIT")
    other.close()
    await store.enqueue([new_job()])
    assert store.condition == "ok"


@ensureDeferred
async def test_a_foreman_whose_file_was_taken_over_stops_writing(served: SQLiteStores) -> None:
    store = served.store()
    await store.enqueue([new_job()])
    other = sqlite3.connect(served.path)
    other.execute("UPDATE meta SET value = 'somebody else' WHERE key = 'boot'")
    other.commit()
    other.close()
    problem = await outcome(store.enqueue([new_job()]))
    assert isinstance(problem, StoreUnavailable)
    assert "another foreman" in str(problem)
    assert store.condition == "broken"
    assert served.rows() == 1


@ensureDeferred
async def test_a_look_that_takes_too_long_is_given_up_and_the_next_is_not(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_queue_module, "MAX_DURATION", 0.05)
    store = served.store()
    await store.enqueue([new_job()])
    for_ever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    looks = [store.database.read(lambda cursor: cursor.execute(for_ever).fetchall()) for _ in range(4)]
    for look in looks:
        problem = await outcome(look)
        assert isinstance(problem, ReadTimedOut)
        assert "cannot be written" not in str(problem)
    assert store.condition == "ok"
    for _ in range(4):
        assert (await store.counts()).queued == 1


@ensureDeferred
async def test_what_a_caller_asks_waits_in_its_own_queue(served: SQLiteStores, monkeypatch: pytest.MonkeyPatch) -> None:
    store = served.store()
    callers: list[tuple[str | None, bool]] = []
    read = ReadQueue.read

    def seen(self: ReadQueue, work: Any, arguments: Any, caller: str | None = None, *, patient: bool = False) -> Any:
        callers.append((caller, patient))
        return read(self, work, arguments, caller, patient=patient)

    monkeypatch.setattr(ReadQueue, "read", seen)
    (taken,) = await store.enqueue([new_job(owner="alice", idempotency_key="k")])
    assert await store.fingerprints("alice", ["k", "other"]) == {"k": "f"}
    assert [job and job.id for job in await store.get_many([taken.id, "gone"], "alice")] == [taken.id, None]
    assert await store.get_artifact(taken.id, "response", "alice") is None
    assert callers == [("alice", True)] * 3


@ensureDeferred
async def test_a_reader_cannot_write(served: SQLiteStores) -> None:
    store = served.store()
    await store.enqueue([new_job()])
    assert isinstance(await outcome(store.database.read(lambda cursor: cursor.execute("DELETE FROM jobs"))), Exception)
    assert served.rows() == 1


@ensureDeferred
async def test_the_log_stays_bounded_and_is_begun_anew_when_a_reader_has_left(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(writer_module, "RESTART_BYTES", 1_000_000)
    store = served.store()
    log = served.path.with_name("jobs.sqlite-wal")
    other = sqlite3.connect(served.path, isolation_level=None)

    async def fill() -> None:
        for _ in range(60):
            await store.enqueue([new_job(payload=b"x" * 50_000)])

    await fill()
    assert log.stat().st_size < 1_500_000
    monkeypatch.setattr(writer_module, "RESTART_BYTES", 1 << 40)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM jobs").fetchall()
    await fill()
    held = log.stat().st_size
    assert held > 3_000_000
    other.execute("COMMIT")
    other.close()
    await fill()
    assert log.stat().st_size < held + 300_000
    assert store.condition == "ok"


# the end


@ensureDeferred
async def test_stopping_leaves_no_log(served: SQLiteStores) -> None:
    store = served.store()
    await store.enqueue([new_job()])
    await store.stop()
    assert not served.path.with_name("jobs.sqlite-wal").exists()


@ensureDeferred
async def test_whoever_asks_while_the_store_is_closing_is_refused_and_not_forgotten(
    served: SQLiteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = served.store()
    await store.enqueue([new_job()])
    asked: list[Deferred[Any]] = []
    truncate_log = maintenance.truncate_log

    def slow(connection: Any) -> bool:
        reactor.callFromThread(lambda: asked.extend(soon(outcome(one)) for one in (store.sweep(), store.counts())))
        time.sleep(0.05)
        return truncate_log(connection)

    monkeypatch.setattr(maintenance, "truncate_log", slow)
    await store.database.stop()
    assert [type(one) for one in await gatherResults(asked)] == [StoreUnavailable] * 2


@ensureDeferred
async def test_stopping_does_not_wait_for_a_long_look(served: SQLiteStores, monkeypatch: pytest.MonkeyPatch) -> None:
    store = served.store()
    for_ever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    monkeypatch.setattr(read_queue_module, "MAX_DURATION", 3600.0)
    begun: Deferred[None] = Deferred()

    def look(cursor: Any) -> object:
        reactor.callFromThread(begun.callback, None)
        return cursor.execute(for_ever).fetchall()

    looking = soon(outcome(store.database.read(look)))
    await begun
    await deferLater(reactor, 0.05)
    await store.database.stop()
    assert isinstance(await looking, StoreUnavailable)


@ensureDeferred
async def test_a_failure_of_one_step_is_told_as_it_was(served: SQLiteStores) -> None:
    store = served.store()

    def step(_: Transaction) -> None:
        raise LookupError("its own")

    failed: list[Failure] = []
    await store.database.write(step).addErrback(failed.append)
    assert failed[0].check(LookupError)
