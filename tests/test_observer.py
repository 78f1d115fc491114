"""What observers are told of finished work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater

from foreman.jobs.job import Job, State
from foreman.proxy.access_record import RequestRecord
from foreman.proxy.observer import Observers
from foreman.simulator import Settings, Simulator
from support.live_foreman import listen, port_of, reactor, start_foreman
from support.new_jobs import job_for


@define
class Notes:
    """An observer that remembers what it was told."""

    requests: list[RequestRecord] = field(factory=list)
    ended: list[tuple[str, State | None, RequestRecord]] = field(factory=list)
    changed: set[str] = field(factory=set)

    def request_finished(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def job_ended(self, job: Job, state: State | None, record: RequestRecord) -> None:
        self.ended.append((job.id, state, record))

    def committed(self, changed: frozenset[str]) -> None:
        self.changed |= changed


class Broken:
    """An observer that can do nothing."""

    def request_finished(self, record: RequestRecord) -> None:
        raise KeyError(record.id)

    def job_ended(self, job: Job, state: State | None, record: RequestRecord) -> None:
        raise KeyError(job.id)

    def committed(self, changed: frozenset[str]) -> None:
        raise KeyError(*changed)


async def wait_for_end(notes: Notes, count: int) -> None:
    for _ in range(1500):
        if len(notes.ended) == count:
            return
        await deferLater(reactor, 0.005)
    raise AssertionError(f"{len(notes.ended)} of {count} jobs have ended")


@pytest_twisted.ensureDeferred
async def test_an_observer_of_the_service_hears_of_the_end_of_each_job_and_of_commits(tmp_path: Path) -> None:
    simulator, notes = Simulator(reactor, Settings()), Notes()
    listening = listen(simulator)
    foreman = await start_foreman(port_of(listening), [notes], db_path=str(tmp_path / "jobs.db"))
    try:
        simulator.misbehave("5xx", route="/api/chat", status=500)
        store = foreman.service.store
        (failed,) = await store.enqueue([job_for(model="llama3.2:3b", max_attempts=1)])
        await wait_for_end(notes, 1)
        (answered,) = await store.enqueue([job_for(model="llama3.2:3b")])
        await wait_for_end(notes, 2)
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)
    assert [(id_, state) for id_, state, _ in notes.ended] == [(failed.id, "discarded"), (answered.id, "succeeded")]
    first, second = (record for _, _, record in notes.ended)
    assert (first.caller, first.route, first.status) == ("alice", "/api/chat", 500)
    assert (second.status, second.outcome) == (200, "complete")
    assert second.tokens_out
    assert notes.changed == {failed.id, answered.id}


@pytest_twisted.ensureDeferred
async def test_an_observer_does_not_take_a_job_that_was_never_sent_for_a_complete_one(tmp_path: Path) -> None:
    simulator, notes = Simulator(reactor, Settings()), Notes()
    listening = listen(simulator)
    foreman = await start_foreman(port_of(listening), [notes], db_path=str(tmp_path / "jobs.db"))
    try:
        await foreman.service.store.enqueue([job_for(model="llama3.2:3b", payload=b"{", stream=False)])
        await wait_for_end(notes, 1)
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)
    ((_, state, record),) = notes.ended
    assert (state, record.outcome, record.status) == ("failed", "refused", 0)
    assert record.detail.startswith("its payload cannot be read")


def test_what_one_observer_raises_keeps_it_from_no_other(logged_failures: Any) -> None:
    notes = Notes()
    observers = Observers([Broken(), notes])
    record = RequestRecord("1", "alice", "/api/chat", "gate", 0.0)
    observers.request_finished(record)
    observers.committed(frozenset({"1"}))
    assert notes.requests == [record]
    assert notes.changed == {"1"}
    assert len(logged_failures.take(KeyError)) == 2
