"""Those who live with a daemon for a day: they chat, follow jobs and leave, cancel, try again, keep things and forget them."""

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

#: How many of the newest jobs are known.
KNOWN = 500
#: Seconds that somebody waits for the next piece of an answer.
PATIENCE = 20


@define(eq=False)
class Crowd:
    """Threads that ask the daemon at ``port`` until ``stop``.

    :ivar seen: how often what was done, and with which status.
    """

    port: int
    seed: int
    seen: Counter[str] = field(factory=Counter, init=False)
    _known: deque[str] = field(factory=lambda: deque(maxlen=KNOWN), init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def __enter__(self) -> Self:
        lives: tuple[tuple[Callable[[random.Random], None], float], ...] = (
            (self._chat, 0.3), (self._follow, 0.1), (self._follow, 0.1), (self._follow, 0.1), (self._meddle, 0.1),
            (self._look, 0.2),
        )  # fmt: skip
        for number, (life, pause) in enumerate(lives):
            thread = threading.Thread(target=self._live, args=(life, pause, self.seed + number), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """All go home."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def heard_of(self, ids: list[str]) -> None:
        """There are new jobs."""
        self._known.extend(ids)

    def _live(self, life: Callable[[random.Random], None], pause: float, seed: int) -> None:
        chance = random.Random(seed)
        while not self._over.wait(pause * 2 * chance.random()):
            try:
                life(chance)
            except (OSError, HTTPException, ValueError) as problem:
                self._saw(f"{life.__name__.strip('_')}: {type(problem).__name__}")

    def _saw(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1

    def _one(self, chance: random.Random) -> str | None:
        with suppress(IndexError):
            return chance.choice(self._known)
        return None

    # what they do

    def _chat(self, chance: random.Random) -> None:
        payload = {
            "model": "llama3.2:3b",
            "messages": [{"role": "user", "content": "Hello"}],
            "options": {"num_predict": 20},
        }
        connection = HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/api/chat", json.dumps(payload))
            answer = connection.getresponse()
            if chance.random() < 0.2:
                self._saw("chats left")
                return
            whole = b'"done":true' in answer.read()
            self._saw("chats" if whole else "chats without an end")
        finally:
            connection.close()

    def _follow(self, chance: random.Random) -> None:
        id_, what = self._one(chance), chance.choice(("stream", "events"))
        if id_ is None:
            return
        headers = {"Accept": "text/event-stream"} if chance.random() < 0.5 else {}
        connection = HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/jobs/{id_}/{what}", headers=headers)
            answer = connection.getresponse()
            if chance.random() < 0.5:
                answer.read1(200)
                self._saw(f"followers of {what} that left")
            else:
                answer.read()
                self._saw(f"followers of {what}")
        except TimeoutError:  # the job stands far back in the queue
            self._saw(f"followers of {what} that lost patience")
        finally:
            connection.close()

    def _meddle(self, chance: random.Random) -> None:
        id_, what = self._one(chance), chance.choice(("cancel", "retry", "keep", "delete"))
        if id_ is None:
            return
        method, path = {
            "cancel": ("POST", f"/jobs/{id_}/cancel"),
            "retry": ("POST", f"/jobs/{id_}/retry"),
            "keep": ("PUT", f"/jobs/{id_}/artifacts/note{chance.randrange(3)}"),
            "delete": ("DELETE", f"/jobs/{id_}"),
        }[what]
        status, _ = ask(self.port, method, path, {"note": "x" * chance.randrange(4000)} if what == "keep" else None)
        self._saw(f"{what} {status}")
        if what == "cancel" and status == 200 and chance.random() < 0.7:  # on second thoughts
            self._saw(f"retry {ask(self.port, 'POST', f'/jobs/{id_}/retry')[0]}")

    def _look(self, chance: random.Random) -> None:
        path = chance.choice(
            ("/jobs", "/jobs?state=failed,discarded", "/jobs?metadata.day=7", "/queue", "job", "response")
        )
        if path in {"job", "response"}:
            id_ = self._one(chance)
            path = f"/jobs/{id_}" + ("?wait=1" if path == "job" else "/artifacts/response")
        status, _ = ask(self.port, "GET", path)
        self._saw(f"looks {status}")
