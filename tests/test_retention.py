"""What ended long ago is forgotten, by how it ended, and its room is given back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from ulid import ULID

from foreman.jobs.artifacts import Artifact
from foreman.jobs.job import State
from foreman.jobs.queries import Filter
from foreman.jobs.retry_policy import Transition
from foreman.service import retention_times
from foreman.store.notifications import Notifications
from foreman.store.sqlite import maintenance
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements import prune
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.worker.retention import COPIES_KEPT, EVERY, MAX_AWAY, STEADY, STORE_TIME_EVERY, ClockWatch, Retention
from support.live_foreman import settings
from support.new_jobs import job_for

reactor: Any = installed_reactor
DAY = 86_400


@define
class Attic:
    """A store whose wall clock the test sets."""

    store: SQLiteJobStore
    wall: list[float]

    async def keep(self, state: State, count: int = 1, size: int = 10) -> list[str]:
        """Jobs that have just ended in ``state``, each with an answer of ``size`` bytes."""
        ids = [one.id for one in await self.store.enqueue([job_for()] * count)]
        for _ in ids:
            claim = await self.store.claim("gate", lambda _: 0)
            assert claim is not None
            artifact = Artifact("response", "text/plain", b"x" * size)
            if state == "succeeded":
                await self.store.succeed(claim, [artifact], None)
            else:
                ending = Transition(state, None, counts=True, uncounted_tries=0, error=None)
                await self.store.end_attempt(claim, lambda _job, _now: ending, [artifact])  # noqa: B023 - the same for all
        return ids

    async def there(self) -> set[str]:
        return {job.id for job in await self.store.list_jobs(Filter(), None, 1000)}

    async def clean(self, **variables: str) -> None:
        """One round of the housekeeping, with these settings."""
        retention = Retention(reactor, self.store, retention_times(settings(1, **variables)), min_steady=0)
        retention.start()
        while retention._round is None or not retention._round.called:
            await deferLater(reactor, 0.01)
        await retention.stop()


@pytest_twisted.async_yield_fixture
async def attic(tmp_path: Path) -> AsyncIterator[Attic]:
    wall = [1_800_000_000.0]
    database = Database(reactor, tmp_path / "jobs.db", str(ULID()), lambda: wall[0], Notifications())
    database.open()
    database.start()
    yield Attic(SQLiteJobStore(database, lambda: ULID.from_timestamp(wall[0]), 10_000), wall)
    await database.stop()


@pytest.mark.parametrize(
    ("state", "variable"),
    [
        ("succeeded", "keep_succeeded"),
        ("cancelled", "keep_cancelled"),
        ("failed", "keep_failed"),
        ("discarded", "keep_failed"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_job_is_forgotten_when_it_ended_longer_ago_than_its_kind_is_kept(
    attic: Attic, state: State, variable: str
) -> None:
    (old,) = await attic.keep(state)
    attic.wall[0] += DAY
    (young,) = await attic.keep(state)
    attic.wall[0] += DAY
    await attic.clean(**{variable: "36h"})
    assert await attic.there() == {young}
    assert await attic.store.get_artifact(old, "response") is None
    assert await attic.store.events(old, 0) == []


@pytest_twisted.ensureDeferred
async def test_nothing_is_the_word_for_keeping_for_good_and_what_has_not_ended_is_never_forgotten(attic: Attic) -> None:
    (kept,) = await attic.keep("succeeded")
    (waits,) = await attic.store.enqueue([job_for()])
    attic.wall[0] += 300 * DAY
    await attic.clean(keep_succeeded="0", keep_failed="1s", keep_cancelled="1s")
    assert await attic.there() == {kept, waits.id}


@pytest_twisted.ensureDeferred
async def test_many_are_forgotten_in_small_steps_between_which_others_write(attic: Attic) -> None:
    await attic.keep("succeeded", 250)
    attic.wall[0] += 8 * DAY
    cleaning = Deferred.fromCoroutine(attic.clean(keep_succeeded="7d"))
    (taken,) = await attic.store.enqueue([job_for()])
    assert taken.id in await attic.there()
    await cleaning
    assert await attic.there() == {taken.id}


@pytest_twisted.ensureDeferred
async def test_a_key_is_free_again_when_its_job_is_forgotten(attic: Attic) -> None:
    await attic.store.enqueue([job_for(idempotency_key="night")])
    claim = await attic.store.claim("gate", lambda _: 0)
    assert claim is not None
    await attic.store.succeed(claim, [], None)
    attic.wall[0] += 8 * DAY
    await attic.clean()
    (again,) = await attic.store.enqueue([job_for(idempotency_key="night")])
    assert not again.replayed


@pytest_twisted.ensureDeferred
async def test_the_room_of_what_is_forgotten_goes_back_to_the_disk(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "KEPT_FREE_PAGES", 50)
    await attic.keep("succeeded", 60, size=100_000)
    await attic.store.database.between_commits(
        lambda connection: connection.execute("PRAGMA wal_checkpoint").fetchone()
    )
    full = attic.store.database.path.stat().st_size
    attic.wall[0] += 8 * DAY
    await attic.clean()
    await attic.store.database.between_commits(
        lambda connection: connection.execute("PRAGMA wal_checkpoint").fetchone()
    )
    assert full > 6_000_000
    assert attic.store.database.path.stat().st_size < full / 3


@pytest_twisted.ensureDeferred
async def test_a_clock_that_was_set_ahead_and_back_forgets_nothing_too_early(attic: Attic) -> None:
    attic.wall[0] += DAY
    (ahead,) = await attic.keep("succeeded")
    attic.wall[0] -= DAY
    (now,) = await attic.keep("succeeded")
    attic.wall[0] += 7.5 * DAY
    await attic.clean()
    assert await attic.there() == {ahead}
    assert now not in await attic.there()


# what ended long ago by a clock that was set


@define
class Watched:
    """A housekeeping whose two clocks the test turns."""

    attic: Attic
    clock: Clock = field(factory=Clock)
    retention: Retention = field(init=False)

    async def begin(self) -> None:
        self.retention = Retention(self.clock, self.attic.store, retention_times(settings(1)))
        self.retention.start()
        await self.round_is_over()

    async def pass_time(self, seconds: float) -> None:
        """Both clocks go on, round after round."""
        for _ in range(round(seconds / EVERY)):
            self.attic.wall[0] += EVERY
            self.clock.advance(EVERY)
            await self.round_is_over()

    async def round_is_over(self) -> None:
        while self.retention._round is None or not self.retention._round.called:
            await deferLater(reactor, 0.002)
            self.clock.advance(0.06)
            self.attic.wall[0] += 0.06


@pytest_twisted.ensureDeferred
async def test_a_step_of_the_wall_clock_forgets_nothing_until_it_has_gone_evenly_for_an_hour(attic: Attic) -> None:
    watched = Watched(attic)
    await watched.begin()
    await watched.pass_time(2 * STEADY)
    (answer,) = await attic.keep("succeeded")
    attic.wall[0] += 8 * DAY
    await watched.pass_time(STEADY - 2 * EVERY)
    assert await attic.there() == {answer}
    attic.wall[0] += 3600
    await watched.pass_time(STEADY - 2 * EVERY)
    assert await attic.there() == {answer}
    await watched.pass_time(3 * EVERY)
    assert await attic.there() == set()
    await watched.retention.stop()


@pytest_twisted.ensureDeferred
async def test_a_step_that_is_taken_back_forgets_nothing(attic: Attic) -> None:
    watched = Watched(attic)
    await watched.begin()
    await watched.pass_time(STEADY)
    (answer,) = await attic.keep("succeeded")
    attic.wall[0] += 8 * DAY
    await watched.pass_time(STEADY / 2)
    attic.wall[0] -= 8 * DAY
    await watched.pass_time(2 * STEADY)
    assert await attic.there() == {answer}
    await watched.retention.stop()


@pytest.mark.parametrize("away", [8 * DAY, -DAY, MAX_AWAY + 60])
@pytest_twisted.ensureDeferred
async def test_a_step_while_foreman_was_away_is_a_step(attic: Attic, away: float) -> None:
    watched = Watched(attic)
    (answer,) = await attic.keep("succeeded")
    await watched.begin()
    await watched.pass_time(2 * STEADY)
    await watched.retention.stop()
    attic.wall[0] += away
    again = ClockWatch(Clock(), attic.store)
    assert await again.steady() == 0
    assert await attic.there() == {answer}


@pytest_twisted.ensureDeferred
async def test_a_short_restart_does_not_begin_the_wait_anew(attic: Attic) -> None:
    watched = Watched(attic)
    await watched.begin()
    await watched.pass_time(2 * STEADY)
    await watched.retention.stop()
    attic.wall[0] += MAX_AWAY / 2
    assert await ClockWatch(Clock(), attic.store).steady() >= STEADY


@pytest_twisted.ensureDeferred
async def test_the_time_away_counts_from_the_end_and_not_from_the_last_note(attic: Attic) -> None:
    watched = Watched(attic)
    await watched.begin()
    await watched.pass_time(2 * STEADY + STORE_TIME_EVERY - 2 * EVERY)
    await watched.retention.stop()
    noted = await attic.store.load_clock()
    assert noted is not None
    assert attic.wall[0] - noted[0] / 1000 < 1
    attic.wall[0] += MAX_AWAY - 30
    assert await ClockWatch(Clock(), attic.store).steady() >= 2 * STEADY
    # A step since the last look is not hidden by the note at the end.
    await watched.begin()
    await watched.pass_time(2 * EVERY)
    before = await attic.store.load_clock()
    attic.wall[0] += DAY
    await watched.retention.stop()
    assert await attic.store.load_clock() == before


@pytest_twisted.ensureDeferred
async def test_a_clock_that_was_noted_by_nobody_or_badly_is_not_trusted(attic: Attic) -> None:
    for text in ("", "x y", "1", "1 2 3", "9" * 30 + " 1", "-1 -1"):
        await attic.store.database.write(
            lambda tx: tx.cursor.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (text,))  # noqa: B023
        )
        assert await attic.store.load_clock() is None
    assert await ClockWatch(Clock(), attic.store).steady() == 0


@pytest_twisted.ensureDeferred
async def test_what_is_kept_for_a_moment_only_waits_no_longer_than_that(attic: Attic) -> None:
    await attic.keep("succeeded")
    clock = Clock()
    retention = Retention(clock, attic.store, {"succeeded": 2 * EVERY})
    watched = Watched(attic, clock)
    watched.retention = retention
    retention.start()
    await watched.round_is_over()
    await watched.pass_time(4 * EVERY)
    assert await attic.there() == set()
    await retention.stop()


# deleted is gone

SECRET = b"what nobody else is to read, ever; "


def holds(store: SQLiteJobStore) -> set[str]:
    """Which files of the database hold what was to be gone."""
    return {file.name for file in store.database.path.parent.iterdir() if SECRET in file.read_bytes()}


async def hand_over_secrets(attic: Attic, count: int = 3) -> list[str]:
    """Jobs that have ended, whose payloads and answers take pages of their own."""
    ids = [one.id for one in await attic.store.enqueue([job_for(payload=SECRET * 2000)] * count)]
    for _ in ids:
        claim = await attic.store.claim("gate", lambda _: 0)
        assert claim is not None
        await attic.store.append_output(claim, 1, SECRET * 500)
        await attic.store.succeed(claim, [Artifact("response", "text/plain", SECRET * 3000)], None)
    return ids


@pytest.mark.parametrize("way", ["by hand", "many by hand", "by age"])
@pytest_twisted.ensureDeferred
async def test_what_is_deleted_is_in_no_file_any_more(attic: Attic, way: str) -> None:
    ids = await hand_over_secrets(attic)
    await attic.keep("succeeded", 20, size=5000)
    attic.wall[0] += 8 * DAY
    assert holds(attic.store)
    if way == "by hand":
        for id_ in ids:
            await attic.store.delete(id_)
    elif way == "many by hand":
        await attic.store.delete_batch("succeeded", attic.store.now(), None, "")
    await attic.clean(keep_succeeded="7d" if way == "by age" else "0")
    assert holds(attic.store) == set()


@pytest_twisted.ensureDeferred
async def test_an_artifact_that_was_replaced_is_in_no_file_any_more(attic: Attic) -> None:
    (id_,) = await attic.keep("succeeded")
    await attic.store.put_artifact(id_, Artifact("mine", "text/plain", SECRET * 5000))
    await attic.store.put_artifact(id_, Artifact("mine", "text/plain", b"short"))
    await attic.clean()
    assert holds(attic.store) == set()


@pytest_twisted.ensureDeferred
async def test_what_an_older_foreman_deleted_is_in_no_file_any_more(attic: Attic) -> None:
    ids = await hand_over_secrets(attic)
    database = attic.store.database

    def as_it_was(connection: Any) -> None:
        connection.execute("PRAGMA secure_delete = FAST").fetchone()
        connection.execute("DELETE FROM meta WHERE key = 'clean'")
        connection.executemany("DELETE FROM jobs WHERE id = ?", [(id_,) for id_ in ids])
        connection.execute("PRAGMA secure_delete = ON").fetchone()
        maintenance.truncate_log(connection)

    await database.between_commits(as_it_was)
    assert holds(attic.store) == {"jobs.db"}
    await attic.clean()
    assert holds(attic.store) == set()


@pytest_twisted.ensureDeferred
async def test_a_round_ends_where_no_room_can_be_given_back(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "KEPT_FREE_PAGES", 10)
    database = attic.store.database
    await attic.keep("succeeded", 20, size=100_000)

    def vacuum(connection: Any) -> Any:
        connection.execute("PRAGMA auto_vacuum = NONE").fetchone()
        connection.execute("VACUUM")
        return connection.execute("PRAGMA auto_vacuum").fetchone()

    assert await database.between_commits(vacuum) == (0,)
    attic.wall[0] += 8 * DAY
    assert await attic.store.prune("succeeded", attic.store.now()) == 20
    for _ in range(2):
        assert not await attic.store.reclaim_space()
    await database.between_commits(lambda connection: connection.execute("DELETE FROM meta WHERE key = 'clean'"))
    assert not await attic.store.reclaim_space()
    await attic.clean()


@pytest_twisted.ensureDeferred
async def test_the_log_is_emptied_although_no_room_can_be_given_back(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> bool:
        problem = sqlite3.OperationalError("database or disk is full")
        problem.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise problem

    monkeypatch.setattr(maintenance, "reclaim_space", full)
    for id_ in await hand_over_secrets(attic):
        await attic.store.delete(id_)
    assert holds(attic.store) == {"jobs.db-wal"}
    await attic.clean()
    assert holds(attic.store) == set()


@pytest_twisted.ensureDeferred
async def test_the_copy_that_an_update_left_is_deleted_after_a_week(attic: Attic) -> None:
    path = attic.store.database.path
    copy = path.with_name(f"{path.name}.before-2")
    others = [path.with_name(path.name + end) for end in (".before-restore-x", ".before-", ".before-2x", "-before-2")]
    for file in (copy, *others):
        file.write_bytes(SECRET)
        os.utime(file, (attic.wall[0], attic.wall[0]))
    attic.wall[0] += COPIES_KEPT - 10
    await attic.clean()
    assert copy.exists()
    attic.wall[0] += 20
    await attic.clean()
    assert not copy.exists()
    assert all(file.exists() for file in others)


@pytest_twisted.ensureDeferred
async def test_a_step_overwrites_no_more_than_so_much(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "MAX_BYTES", 250_000)
    await attic.keep("succeeded", 10, size=100_000)
    attic.wall[0] += DAY
    assert await attic.store.prune("succeeded", attic.store.now()) == 3
    first = await attic.store.delete_batch("succeeded", attic.store.now(), None, "")
    assert (first.count, first.last is not None) == (3, True)
    second = await attic.store.delete_batch("succeeded", attic.store.now(), None, first.last or "")
    third = await attic.store.delete_batch("succeeded", attic.store.now(), None, second.last or "")
    assert (second.count, third.count, third.last) == (3, 1, None)
    assert await attic.there() == set()
