"""Concurrent clients that use every operation on jobs, and record each response."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from itertools import count
from math import inf
from typing import Any

from attrs import define, field

from crash import prompts
from crash.recorder import Outcome, Recorder, Request, Span

#: How long a response may take, in seconds: longer than any ``?wait=`` that is requested.
PATIENCE = 30.0
#: With more unfinished jobs than this the clients read instead of submitting.
MAX_BACKLOG = 40


@define(eq=False)
class Client:
    """One client, with one connection at a time.

    :ivar name: unique in the whole run; :ivar port: of the daemon; :ivar serving: set while requests may be sent.
    """

    name: str
    port: int
    recorder: Recorder
    serving: threading.Event
    rng: random.Random
    _numbers: count[int] = field(factory=count, init=False)
    _connection: HTTPConnection | None = field(default=None, init=False)

    def run(self, is_over: Callable[[], bool]) -> None:
        """Send requests until ``is_over()``."""
        operations = self._operations()
        names, weights = list(operations), [weight for _, weight in operations.values()]
        while not is_over():
            if not self.serving.wait(0.1):
                continue
            busy = self.recorder.backlog > MAX_BACKLOG
            name = self.rng.choices(names, weights)[0]
            if busy and name in {"single", "keyed", "array", "header"}:
                name = "list"
            operations[name][0]()
        self._disconnect()

    def _operations(self) -> dict[str, tuple[Callable[[], None], int]]:
        return {
            "single": (lambda: self._submit(1, keyed=False), 10),
            "keyed": (lambda: self._submit(1, keyed=True), 10),
            "array": (lambda: self._submit(self.rng.randint(2, 5), keyed=self.rng.random() < 0.5), 5),
            "header": (self._respond_async, 8),
            "repeat": (self._repeat, 10),
            "other body": (self._other_body, 2),
            "cancel": (self._cancel, 6),
            "retry": (self._retry, 6),
            "delete": (self._delete, 5),
            "put": (self._put, 8),
            "look": (self._look, 6),
            "wait": (self._wait, 5),
            "list": (self._list, 5),
            "answer": (self._answer, 8),
            "follow": (self._follow, 3),
        }

    # submitting

    def _submit(self, jobs: int, *, keyed: bool) -> None:
        made = [self._job(keyed=keyed) for _ in range(jobs)]
        value: Any = [job for job, _ in made] if jobs > 1 else made[0][0]
        keys = tuple(job.get("idempotency_key") for job, _ in made)
        body = json.dumps(value).encode()
        self.send(Request("/jobs", body, (), tuple(prompt for _, prompt in made), keys))

    def _job(self, *, keyed: bool) -> tuple[dict[str, Any], str]:
        name = f"{self.name}-{next(self._numbers)}"
        prompt = prompts.make(name, self.rng)
        endpoint = self.rng.choice(prompts.ENDPOINTS)
        model = prompts.EMBEDDER if endpoint == "/api/embed" else self.rng.choice(prompts.CHAT_MODELS)
        job = {"endpoint": endpoint, "payload": prompts.payload(endpoint, prompt, model), "max_attempts": 1}
        job["priority"] = self.rng.randrange(10)
        if keyed:
            job["idempotency_key"] = f"key {name}"
        if self.rng.random() < 0.1:
            job["run_at"] = _soon(self.rng.uniform(0.05, 0.5))
        if self.rng.random() < 0.05:
            job["deadline"] = _soon(self.rng.uniform(0.3, 2))
        if self.rng.random() < 0.2:
            job["metadata"] = {"name": name}
        return job, prompt

    def _respond_async(self) -> None:
        job, prompt = self._job(keyed=True)
        keyed = self.rng.random() < 0.6
        key = job["idempotency_key"] if keyed else None
        headers = (("Prefer", "respond-async"), *((("Idempotency-Key", key),) if key else ()))
        body = json.dumps({**job["payload"], "stream": False}).encode()
        # A retry of these would wait for foreman's own delays, which is too long here.
        if prompts.Prompt.read(prompt).behaviour in {"fail", "break"}:
            return
        self.send(Request(job["endpoint"], body, headers, (prompt,), (key,)))

    def _repeat(self) -> None:
        request = self.recorder.repeatable(self.rng)
        if request is not None:
            self.send(request)

    def _other_body(self) -> None:
        request = self.recorder.repeatable(self.rng)
        if request is not None and len(request.keys) == 1:
            job, prompt = self._job(keyed=True)
            job["idempotency_key"] = request.keys[0]
            self.send(Request("/jobs", json.dumps(job).encode(), (), (prompt,), request.keys))

    def send(self, request: Request) -> None:
        """Submit the jobs of ``request``, and record the response."""
        span = self._request("POST", request.path, request.body, dict(request.headers))
        if span is None:
            return
        jobs = span.value.get("jobs", [span.value]) if span.outcome == "acked" else []
        self.recorder.enqueued(request, span, [job["id"] for job in jobs])
        for job in jobs:
            self.recorder.saw(job, span)

    # changing

    def _cancel(self) -> None:
        self._change("cancel", self.recorder.open_id(self.rng))

    def _retry(self) -> None:
        self._change("retry", self.recorder.ended_id(self.rng, "cancelled", "failed", "discarded"))

    def _change(self, kind: Any, id_: str | None) -> None:
        span = None if id_ is None else self._request("POST", f"/jobs/{id_}/{kind}")
        if span is None or id_ is None:
            return
        self.recorder.changed(kind, id_, span)
        if span.outcome == "acked":
            self.recorder.saw(span.value, span)

    def _delete(self) -> None:
        id_ = self.recorder.ended_id(self.rng, "succeeded", "cancelled", "failed", "discarded")
        span = None if id_ is None else self._request("DELETE", f"/jobs/{id_}")
        if span is not None and id_ is not None:
            self.recorder.changed("delete", id_, span)

    def _put(self) -> None:
        id_ = self.recorder.any_id(self.rng)
        name = f"mine-{self.rng.randrange(3)}"
        data = self.rng.randbytes(self.rng.choice((10, 500, 20_000)))
        span = None if id_ is None else self._request("PUT", f"/jobs/{id_}/artifacts/{name}", data)
        if span is not None and id_ is not None:
            self.recorder.put(id_, name, data, span)

    # reading

    def _look(self) -> None:
        self._see(self.recorder.any_id(self.rng), "")

    def _wait(self) -> None:
        self._see(self.recorder.open_id(self.rng), f"?wait={self.rng.choice((0, 0.1, 1))}")

    def _see(self, id_: str | None, query: str) -> None:
        span = None if id_ is None else self._request("GET", f"/jobs/{id_}{query}")
        if span is None or id_ is None:
            return
        if span.status == 200:
            self.recorder.saw(span.value, span)
        elif span.status == 404:
            self.recorder.saw_gone(id_, span)

    def _list(self) -> None:
        state = self.rng.choice(("", "&state=ended", "&state=ended", "&state=active", "&state=succeeded,failed"))
        span = self._request("GET", f"/jobs?limit={self.rng.choice((5, 100))}{state}")
        if span is not None and span.status == 200:
            for job in span.value["jobs"]:
                self.recorder.saw(job, span)

    def _answer(self) -> None:
        id_ = self.recorder.ended_id(self.rng, "succeeded")
        span = None if id_ is None else self._request("GET", f"/jobs/{id_}/artifacts/response")
        if span is not None and id_ is not None and span.status in {200, 404}:
            self.recorder.saw_artifact(id_, "response", span.value if span.status == 200 else None, span)

    def _follow(self) -> None:
        id_ = self.recorder.any_id(self.rng)
        if id_ is not None:
            self._request("GET", f"/jobs/{id_}/{self.rng.choice(('stream', 'events'))}")

    # the connection

    def _request(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Span | None:
        """Send one request; None when it could not be sent."""
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                self._connection.connect()
        except OSError:
            self._disconnect()
            time.sleep(0.003)
            return None
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            answer = self._connection.getresponse()
            data = answer.read()
        except TimeoutError:
            self._disconnect()
            return Span(began, inf, "unknown", 0, None)
        except (OSError, HTTPException):
            self._disconnect()
            return Span(began, time.monotonic(), "unknown", 0, None)
        if answer.will_close:
            self._disconnect()
        outcome: Outcome = "acked" if answer.status < 300 else "refused" if answer.status < 500 else "unknown"
        if method == "POST" and answer.status == 404:
            outcome = "unknown"  # it was done, but another client deleted the job before it was shown
        is_json = answer.getheader("Content-Type", "").startswith("application/json") and "/artifacts/" not in path
        value = json.loads(data) if is_json else data
        return Span(began, time.monotonic(), outcome, answer.status, value)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
