"""Records the history of a run: every request of the clients, and its response. Many threads write into it."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

from attrs import define, field, frozen

from crash.history import GONE, Change, Enqueue, History, Observation, ObservedArtifact, Put
from crash.history import Outcome as Outcome  # noqa: PLC0414 - exported
from foreman.jobs.job import ENDED


@frozen
class Request:
    """A request that submits jobs; with idempotency keys it can be repeated unchanged."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    prompts: tuple[str, ...]
    keys: tuple[str | None, ...]


@frozen
class Span:
    """When a request was sent, its outcome, and the response.

    :ivar status: 0 when no response came.
    """

    began: float
    ended: float
    outcome: Outcome
    status: int
    value: Any


@define(eq=False)
class Recorder:
    """The growing history, and the choice of jobs and requests for the next operation.

    :ivar unsure: how many responses never came.
    """

    history: History = field(factory=History)
    unsure: int = 0
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _ids: list[str] = field(factory=list, init=False)
    _known: set[str] = field(factory=set, init=False)
    _open: set[str] = field(factory=set, init=False)
    _ended: dict[str, str] = field(factory=dict, init=False)
    _repeatable: list[Request] = field(factory=list, init=False)

    # recording

    def enqueued(self, request: Request, span: Span, ids: Sequence[str]) -> None:
        """Jobs were submitted, or may have been."""
        with self._lock:
            self.unsure += span.outcome == "unknown"
            self.history.enqueues.append(
                Enqueue(request.prompts, request.keys, span.began, span.ended, span.outcome, tuple(ids))
            )
            self._ids += (id_ for id_ in ids if id_ not in self._known)
            self._known.update(ids)
            self._open.update(id_ for id_ in ids if id_ not in self._ended)
            if None not in request.keys and span.outcome != "refused":
                self._repeatable.append(request)

    def saw(self, job: Any, span: Span) -> None:
        """A response showed a job."""
        with self._lock:
            self._saw(job["id"], job["state"], span)

    def saw_gone(self, id_: str, span: Span) -> None:
        """A response said that there is no such job."""
        with self._lock:
            self._saw(id_, GONE, span)

    def _saw(self, id_: str, state: str, span: Span) -> None:
        self.history.observations.append(Observation(id_, state, span.began, span.ended))
        if state in ENDED:
            self._open.discard(id_)
            # Of jobs that only a list has shown, the submitting request is unknown.
            if id_ in self._known:
                self._ended[id_] = state
        else:
            self._ended.pop(id_, None)
            if state == GONE:
                self._open.discard(id_)

    def saw_artifact(self, id_: str, name: str, data: bytes | None, span: Span) -> None:
        """An artifact was downloaded, or does not exist."""
        digest = None if data is None else sha256(data).hexdigest()
        with self._lock:
            self.history.observed_artifacts.append(ObservedArtifact(id_, name, digest, span.began, span.ended))

    def changed(self, kind: Literal["cancel", "retry", "delete"], id_: str, span: Span) -> None:
        """A job was changed, or may have been."""
        with self._lock:
            self.unsure += span.outcome == "unknown"
            self.history.changes.append(Change(kind, id_, span.began, span.ended, span.outcome))
            if kind == "delete" and span.outcome == "acked":
                self._ended.pop(id_, None)

    def put(self, id_: str, name: str, data: bytes, span: Span) -> None:
        """An artifact was stored, or may have been."""
        with self._lock:
            self.unsure += span.outcome == "unknown"
            digest = sha256(data).hexdigest()
            self.history.puts.append(Put(id_, name, digest, span.began, span.ended, span.outcome))

    # choosing

    @property
    def backlog(self) -> int:
        """How many jobs have not been seen to end."""
        return len(self._open)

    def any_id(self, rng: random.Random) -> str | None:
        """The id of a job, more often a recent one."""
        with self._lock:
            recent = self._ids[-40:] if rng.random() < 0.8 else self._ids
            return rng.choice(recent) if recent else None

    def open_id(self, rng: random.Random) -> str | None:
        """The id of a job that may not have ended."""
        with self._lock:
            return rng.choice(sorted(self._open)) if self._open else None

    def ended_id(self, rng: random.Random, *states: str) -> str | None:
        """The id of a job that has ended in one of ``states``."""
        with self._lock:
            ids = [id_ for id_, state in self._ended.items() if state in states]
            return rng.choice(ids[-60:]) if ids else None

    def repeatable(self, rng: random.Random) -> Request | None:
        """A request with keys that was sent before."""
        with self._lock:
            recent = self._repeatable[-30:] if rng.random() < 0.7 else self._repeatable
            return rng.choice(recent) if recent else None
