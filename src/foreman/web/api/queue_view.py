"""The queue as ``GET /queue`` shows it to people and scripts; never the content of a request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime

from foreman.proxy.target import Target
from foreman.scheduling.estimates import Range
from foreman.scheduling.policy import Ticket
from foreman.store.errors import StoreUnavailable
from foreman.store.job_store import JobStore
from foreman.util.clock import Monotonic


@define(eq=False)
class QueueView:
    """Shows the running requests, the queue, and the counts of jobs.

    :ivar wall_clock: seconds since the epoch.
    """

    _clock: IReactorTime
    _wall_clock: Callable[[], float]
    _target: Target
    _store: JobStore | None = None

    async def value(self) -> dict[str, Any]:
        """The JSON value of ``GET /queue``."""
        jobs = await self._jobs()
        target = self._target
        now, wall_now = self._clock.seconds(), self._wall_clock()
        running = []
        for turn in target.gate.running:
            state = target.queue_status.state_of(turn)
            job = turn.ticket.id if turn.ticket.is_job else None
            overtime = target.queue_status.is_overtime(turn)
            entry = {**self._entry(turn.ticket, now - turn.began_at), "state": state, "overtime": overtime, "job": job}
            if state == "loading":
                entry["usual_load"] = _rounded(target.queue_status.usual_load(turn.ticket))
            running.append(entry)
        waiting = [
            {**self._entry(ticket, wall_now - ticket.queued_at), "position": position, "estimate": _range(wait)}
            for position, (ticket, wait) in enumerate(target.queue_status.queue(), 1)
        ]
        embedding = {"running": len(target.embeddings.running), "cap": target.embeddings.turns}
        queue = {"turns": target.gate.turns, "running": running, "waiting": waiting, "embedding": embedding}
        return queue if jobs is None else {**queue, "jobs": jobs}

    def store_problem(self) -> tuple[str, str] | None:
        """The ``reason`` of ``/healthz`` for a store that fails, and since when (RFC 3339); None while it works."""
        if self._store is None or self._store.condition in {"ok", "off"}:
            return None
        return f"store_{self._store.condition}", self.timestamp(Monotonic(self._store.unavailable_since))

    async def _jobs(self) -> dict[str, Any] | None:
        if self._store is None:
            return None
        condition = self._store.condition
        try:
            counts = await self._store.counts()
        except StoreUnavailable:
            return {"running": [], "queued": 0, "scheduled": 0, "store": condition}
        running = [
            {
                "id": job.id,
                "model": job.model,
                "endpoint": job.endpoint,
                "owner": job.owner,
                "seconds": round(max(0, self._store.now() - (job.started_at or 0)) / 1000, 3),
            }
            for job in counts.running
        ]
        return {"running": running, "queued": counts.queued, "scheduled": counts.scheduled, "store": condition}

    def timestamp(self, moment: Monotonic) -> str:
        """A time of the monotonic clock as RFC 3339 in UTC."""
        return self._ago(self._clock.seconds() - moment)

    def _entry(self, ticket: Ticket, seconds: float) -> dict[str, Any]:
        return {
            "id": ticket.id,
            "caller": ticket.caller,
            "model": ticket.model,
            "route": ticket.route,
            "since": self._ago(seconds),
            "seconds": round(seconds, 3),
        }

    def _ago(self, seconds: float) -> str:
        moment = datetime.fromtimestamp(self._wall_clock() - seconds, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _range(wait: Range | None) -> dict[str, float] | None:
    return None if wait is None else {"low": round(wait.low, 1), "high": round(wait.high, 1)}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
