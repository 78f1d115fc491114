"""Observers of finished work, such as an access log, metrics or a ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from foreman.jobs.job import Job, State
from foreman.proxy.access_record import RequestRecord


class Observer(Protocol):
    """Receives notifications about finished work.

    Each method is called in the reactor's thread, must return at once, and must not change what it is given.
    """

    def request_finished(self, record: RequestRecord) -> None:
        """A request over HTTP was answered, or given up."""

    def job_ended(self, job: Job, state: State | None, record: RequestRecord) -> None:
        """An attempt of a job has ended.

        :param job: as it was claimed; :param state: its state after the attempt, which is no final one where the job is
            tried again; None where the outcome could not be stored; :param record: the attempt's request to the target.
        """

    def committed(self, changed: frozenset[str]) -> None:
        """The store has committed a batch; ``changed`` are the ids of the jobs that were written."""


@frozen
class Observers:
    """Several observers as one: each is called, in order; what one of them raises is logged."""

    _observers: Sequence[Observer] = ()
    _log = Logger()

    def request_finished(self, record: RequestRecord) -> None:
        """Call each observer."""
        self._notify(lambda observer: observer.request_finished(record))

    def job_ended(self, job: Job, state: State | None, record: RequestRecord) -> None:
        """Call each observer."""
        self._notify(lambda observer: observer.job_ended(job, state, record))

    def committed(self, changed: frozenset[str]) -> None:
        """Call each observer."""
        self._notify(lambda observer: observer.committed(changed))

    def _notify(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:  # noqa: BLE001 - no request may fail because an observer does
                self._log.failure("an observer failed")
