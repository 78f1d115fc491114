"""A pretended foreman that has jobs, and the commands in front of it: all in this process, as quick as a function."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from attrs import define, field, frozen
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from foreman.cli.client import client, polling
from foreman.cli.main import cli
from support.live_foreman import reactor

ENDED = {"succeeded", "failed", "discarded", "cancelled"}
FIRST, SECOND, THIRD = "01KBTWZ5M0XJ3Q9V7D2E8R4A6C", "01KBTX00000000000007D2E8RZ", "01KBTX11111111111111XES2HA"


def job(id_: str, state: str = "queued", **more: Any) -> dict[str, Any]:
    """A job as foreman shows it."""
    return {
        "id": id_,
        "state": state,
        "endpoint": "/api/chat",
        "model": "llama3.2:3b",
        "owner": "alice",
        "priority": 5,
        "metadata": {},
        "run_at": "2026-11-28T10:00:00.000Z",
        "deadline": None,
        "attempt": 1 if state in {"running", *ENDED} else 0,
        "max_attempts": 5,
        "idempotency_key": None,
        "created_at": "2026-11-28T10:00:00.000Z",
        "started_at": "2026-11-28T10:00:05.000Z" if state in {"running", *ENDED} else None,
        "finished_at": "2026-11-28T10:00:08.200Z" if state in ENDED else None,
        "position": 3 if state == "queued" else None,
        "error": None,
        "usage": None,
        "artifacts": [],
        **more,
    }


@frozen
class Asked:
    """What a pretended foreman was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@frozen
class Said:
    """An answer: in chunks where ``pieces`` are given, and broken off behind them where it is ``cut``.

    :ivar stays: so many seconds it goes on without a word, or until it is released.
    """

    status: int = 200
    body: Any = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(factory=dict)
    pieces: list[bytes] | None = None
    cut: bool = False
    stays: float = 0.0


def problem(status: int, detail: str, **headers: str) -> Said:
    """A refusal as RFC 9457 has it."""
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail}
    return Said(status, body, "application/problem+json", {name.replace("_", "-"): of for name, of in headers.items()})


@define(eq=False)
class Pretended:
    """A foreman that does what a test says.

    :ivar becomes: what a job is at each further question; :ivar artifacts: by id and name; :ivar streams: of each further
        question for a stream; :ivar events: likewise; :ivar instead: what is answered to a method and path instead.
    """

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(factory=dict)
    becomes: dict[str, list[dict[str, Any]]] = field(factory=dict)
    artifacts: dict[tuple[str, str], Said] = field(factory=dict)
    streams: list[Said] = field(factory=list)
    events: list[Said] = field(factory=list)
    instead: dict[str, list[Said]] = field(factory=dict)
    asked: list[Asked] = field(factory=list)
    health: Said = field(factory=lambda: Said(body={"status": "ok", "degraded": False}))
    now: Callable[[Asked], object] = lambda _: None
    released: threading.Event = field(factory=threading.Event)

    def release(self) -> None:
        """Let every answer end that goes on without a word."""
        self.released.set()

    def has(self, *jobs: dict[str, Any]) -> None:
        """Have these jobs from now on."""
        self.jobs |= {one["id"]: one for one in jobs}

    def paths(self, method: str) -> list[str]:
        """What it was asked by this method."""
        return [one.path for one in self.asked if one.method == method]

    def answer(self, asked: Asked) -> Said:
        """What docs/jobs.md says."""
        self.asked.append(asked)
        self.now(asked)
        planned = self.instead.get(f"{asked.method} {asked.path}")
        if planned:
            return planned.pop(0) if len(planned) > 1 else planned[0]
        if asked.path == "/healthz":
            return self.health
        words = [unquote(word) for word in asked.path.split("/")[1:]]
        if words == ["jobs"]:
            return self._hand_over(asked) if asked.method == "POST" else self._list(asked)
        id_ = words[1]
        if id_ not in self.jobs:
            return problem(404, "there is no such job of yours")
        return self._of_job(asked, id_, words[2:])

    def _hand_over(self, asked: Asked) -> Said:
        new = job(THIRD, **{name: value for name, value in asked.json.items() if name != "payload"})
        new["model"] = asked.json["payload"].get("model")
        self.has(new)
        return Said(201, new, headers={"Location": f"/jobs/{THIRD}"})

    def _list(self, asked: Asked) -> Said:
        limit = int(asked.query.get("limit", 50))
        before = asked.query.get("before", "~")
        ids = sorted((id_ for id_ in self.jobs if id_ < before), reverse=True)
        following = f"/jobs?limit={limit}&before={ids[limit - 1]}" if len(ids) > limit else None
        return Said(body={"jobs": [self.jobs[id_] for id_ in ids[:limit]], "next": following})

    def _of_job(self, asked: Asked, id_: str, more: list[str]) -> Said:
        one = self.jobs[id_]
        match asked.method, more:
            case "GET", []:
                if self.becomes.get(id_):
                    self.jobs[id_] = self.becomes[id_].pop(0)
                return Said(body=self.jobs[id_])
            case "DELETE", []:
                if one["state"] not in ENDED:
                    return problem(409, f"it is {one['state']}")
                del self.jobs[id_]
                return Said(204)
            case "POST", ["cancel"]:
                if one["state"] in ENDED - {"cancelled"}:
                    return problem(409, f"it has ended already: {one['state']}")
                one["state"] = "cancelled"
                return Said(body=one)
            case "POST", ["retry"]:
                if one["state"] not in ENDED - {"succeeded"}:
                    return problem(409, f"it is {one['state']}")
                one["state"] = "queued"
                return Said(body=one)
            case "GET", ["stream"]:
                return self.streams.pop(0) if self.streams else problem(404, "it has no stream")
            case "GET", ["events"]:
                return self.events.pop(0)
            case "GET", ["artifacts"]:
                return Said(body={"artifacts": one["artifacts"]})
            case "GET", ["artifacts", name]:
                return self.artifacts.get((id_, name)) or problem(404, "it has no such artifact")
        return problem(405, "no")


@contextmanager
def serving(pretended: Pretended) -> Iterator[Pretended]:
    """Let it answer on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            split = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send(pretended.answer(Asked(self.command, split.path, query, dict(self.headers), body)))

        def _send(self, said: Said) -> None:
            body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            self.close_connection = True
            self.send_response(said.status)
            for name, value in {**said.headers, "Content-Type": said.content_type, "Connection": "close"}.items():
                self.send_header(name, value)
            if said.pieces is None:
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in said.pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if said.stays:
                self.wfile.flush()
                pretended.released.wait(said.stays)
            elif not said.cut:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        pretended.url = f"http://127.0.0.1:{server.server_port}"
        yield pretended
        server.shutdown()
        thread.join()


@define(eq=False)
class Commands:
    """Runs commands as they are typed, in the reactor of the tests.

    :ivar terminals: which streams are one, such as ``<stdout>``.
    """

    _pretended: Pretended
    terminals: Collection[str] = ()

    async def __call__(self, *words: str, stdin: str | bytes | None = None, **environ: str) -> Result:
        """Run one; it has a thread of its own, where it waits for the reactor."""
        environ = {"FOREMAN_URL": self._pretended.url, "FOREMAN_TOKEN": "", "COLUMNS": "140"} | environ

        def run() -> Result:
            return CliRunner().invoke(cli, list(words), input=stdin, env=environ, prog_name="foreman")

        return await deferToThread(run)


def commands(patch: pytest.MonkeyPatch, pretended: Pretended) -> Commands:
    """What runs commands in front of ``pretended``."""

    def with_reactor(work: Callable[[Any], Any]) -> Any:
        return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(work(reactor)))

    made = Commands(pretended)
    patch.setattr(client, "run_with_reactor", with_reactor)
    patch.setattr(polling, "_RETRY_DELAYS", (0.01,))
    patch.setattr(polling, "_MIN_INTERVAL", 0.01)
    patch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda stream: stream.name in made.terminals)
    for name in ("FOREMAN_AUTH_TOKEN", "NO_COLOR"):
        patch.delenv(name, raising=False)
    return made


def lines(*events: dict[str, Any]) -> list[bytes]:
    """NDJSON, a chunk for each line."""
    return [json.dumps(event).encode() + b"\n" for event in events]


def event(data: dict[str, Any], id_: str = "", kind: str = "") -> bytes:
    """One event of an event stream."""
    fields = ([f"id: {id_}"] if id_ else []) + ([f"event: {kind}"] if kind else []) + [f"data: {json.dumps(data)}"]
    return ("\n".join(fields) + "\n\n").encode()


def said(text: str, id_: str) -> bytes:
    """One line of a chat as an event."""
    return event({"model": "llama3.2:3b", "message": {"role": "assistant", "content": text}, "done": False}, id_)
