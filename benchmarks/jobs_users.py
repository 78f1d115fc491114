"""The users of a soak test: they chat, follow jobs and leave, cancel and retry jobs, store artifacts and delete jobs."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter, deque
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Self

from attrs import define, field

from benchmarks.processes import HOST, ask

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many of the newest jobs the users know.
KNOWN = 500
#: How long a user waits for the next piece of a response, in seconds.
PATIENCE = 20


@define(eq=False)
class Users:
    """Threads that use the daemon at ``port`` until ``stop``.

    :ivar seen: how often each operation was done, with its status.
    """

    port: int
    seed: int
    seen: Counter[str] = field(factory=Counter, init=False)
    _known: deque[str] = field(factory=lambda: deque(maxlen=KNOWN), init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def __enter__(self) -> Self:
        actions: tuple[tuple[Callable[[random.Random], None], float], ...] = (
            (self._chat, 0.3), (self._follow, 0.1), (self._follow, 0.1), (self._follow, 0.1), (self._change, 0.1),
            (self._read, 0.2),
        )  # fmt: skip
        for number, (action, pause) in enumerate(actions):
            thread = threading.Thread(target=self._repeat, args=(action, pause, self.seed + number), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all threads, and wait for them."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def add_jobs(self, ids: list[str]) -> None:
        """Add the ids of new jobs."""
        self._known.extend(ids)

    def _repeat(self, action: Callable[[random.Random], None], pause: float, seed: int) -> None:
        rng = random.Random(seed)
        while not self._over.wait(pause * 2 * rng.random()):
            try:
                action(rng)
            except (OSError, HTTPException, ValueError) as problem:
                self._saw(f"{action.__name__.strip('_')}: {type(problem).__name__}")

    def _saw(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1

    def _any_job(self, rng: random.Random) -> str | None:
        with suppress(IndexError):
            return rng.choice(self._known)
        return None

    # what the users do

    def _chat(self, rng: random.Random) -> None:
        payload = {
            "model": "llama3.2:3b",
            "messages": [{"role": "user", "content": "Hello"}],
            "options": {"num_predict": 20},
        }
        connection = HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/api/chat", json.dumps(payload))
            answer = connection.getresponse()
            if rng.random() < 0.2:
                self._saw("chats left")
                return
            whole = b'"done":true' in answer.read()
            self._saw("chats" if whole else "chats without an end")
        finally:
            connection.close()

    def _follow(self, rng: random.Random) -> None:
        id_, what = self._any_job(rng), rng.choice(("stream", "events"))
        if id_ is None:
            return
        headers = {"Accept": "text/event-stream"} if rng.random() < 0.5 else {}
        connection = HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/jobs/{id_}/{what}", headers=headers)
            answer = connection.getresponse()
            if rng.random() < 0.5:
                answer.read1(200)
                self._saw(f"followers of {what} that left")
            else:
                answer.read()
                self._saw(f"followers of {what}")
        except TimeoutError:  # the job is far back in the queue
            self._saw(f"followers of {what} that timed out")
        finally:
            connection.close()

    def _change(self, rng: random.Random) -> None:
        id_, what = self._any_job(rng), rng.choice(("cancel", "retry", "keep", "delete"))
        if id_ is None:
            return
        method, path = {
            "cancel": ("POST", f"/jobs/{id_}/cancel"),
            "retry": ("POST", f"/jobs/{id_}/retry"),
            "keep": ("PUT", f"/jobs/{id_}/artifacts/note{rng.randrange(3)}"),
            "delete": ("DELETE", f"/jobs/{id_}"),
        }[what]
        status, _ = ask(self.port, method, path, {"note": "x" * rng.randrange(4000)} if what == "keep" else None)
        self._saw(f"{what} {status}")
        if what == "cancel" and status == 200 and rng.random() < 0.7:  # often a cancelled job is retried at once
            self._saw(f"retry {ask(self.port, 'POST', f'/jobs/{id_}/retry')[0]}")

    def _read(self, rng: random.Random) -> None:
        path = rng.choice(
            ("/jobs", "/jobs?state=failed,discarded", "/jobs?metadata.day=7", "/queue", "job", "response")
        )
        if path in {"job", "response"}:
            id_ = self._any_job(rng)
            path = f"/jobs/{id_}" + ("?wait=1" if path == "job" else "/artifacts/response")
        status, _ = ask(self.port, "GET", path)
        self._saw(f"reads {status}")
