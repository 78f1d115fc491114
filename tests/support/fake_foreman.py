"""A fake foreman with jobs on a real port, and the commands that talk to it, all in this process."""

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
    """A job in the JSON of foreman."""
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
class ReceivedRequest:
    """A request that the fake foreman has received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@frozen
class FakeResponse:
    """A response; with ``chunks`` it is chunked, and without its last chunk if it is ``truncated``.

    :ivar open_for: how long it stays open and silent after its chunks, in seconds, unless it is released.
    """

    status: int = 200
    body: Any = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(factory=dict)
    chunks: list[bytes] | None = None
    truncated: bool = False
    open_for: float = 0.0


def problem(status: int, detail: str, **headers: str) -> FakeResponse:
    """A response with a problem (RFC 9457)."""
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail}
    return FakeResponse(
        status, body, "application/problem+json", {name.replace("_", "-"): of for name, of in headers.items()}
    )


@define(eq=False)
class FakeForeman:
    """A foreman whose answers a test chooses.

    :ivar next_states: the job in the response to each further GET, by id; :ivar artifacts: by id and name; :ivar streams: the
        responses to the next requests for a stream; :ivar events: likewise for events; :ivar overrides: the responses to a
        method and path instead of the usual ones; :ivar requests: all that it has received.
    """

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(factory=dict)
    next_states: dict[str, list[dict[str, Any]]] = field(factory=dict)
    artifacts: dict[tuple[str, str], FakeResponse] = field(factory=dict)
    streams: list[FakeResponse] = field(factory=list)
    events: list[FakeResponse] = field(factory=list)
    overrides: dict[str, list[FakeResponse]] = field(factory=dict)
    requests: list[ReceivedRequest] = field(factory=list)
    health: FakeResponse = field(factory=lambda: FakeResponse(body={"status": "ok", "degraded": False}))
    on_request: Callable[[ReceivedRequest], object] = lambda _: None
    released: threading.Event = field(factory=threading.Event)

    def release(self) -> None:
        """End every response that is still open."""
        self.released.set()

    def add_jobs(self, *jobs: dict[str, Any]) -> None:
        """Add or replace jobs."""
        self.jobs |= {entry["id"]: entry for entry in jobs}

    def paths(self, method: str) -> list[str]:
        """The paths of the requests with this method."""
        return [entry.path for entry in self.requests if entry.method == method]

    def answer(self, asked: ReceivedRequest) -> FakeResponse:
        """The response to a request, as docs/jobs.md defines it."""
        self.requests.append(asked)
        self.on_request(asked)
        overridden = self.overrides.get(f"{asked.method} {asked.path}")
        if overridden:
            return overridden.pop(0) if len(overridden) > 1 else overridden[0]
        if asked.path == "/healthz":
            return self.health
        words = [unquote(word) for word in asked.path.split("/")[1:]]
        if words == ["jobs"]:
            return self._submit(asked) if asked.method == "POST" else self._list(asked)
        id_ = words[1]
        if id_ not in self.jobs:
            return problem(404, "there is no such job of yours")
        return self._of_job(asked, id_, words[2:])

    def _submit(self, asked: ReceivedRequest) -> FakeResponse:
        new = job(THIRD, **{name: value for name, value in asked.json.items() if name != "payload"})
        new["model"] = asked.json["payload"].get("model")
        self.add_jobs(new)
        return FakeResponse(201, new, headers={"Location": f"/jobs/{THIRD}"})

    def _list(self, asked: ReceivedRequest) -> FakeResponse:
        limit = int(asked.query.get("limit", 50))
        before = asked.query.get("before", "~")
        ids = sorted((id_ for id_ in self.jobs if id_ < before), reverse=True)
        following = f"/jobs?limit={limit}&before={ids[limit - 1]}" if len(ids) > limit else None
        return FakeResponse(body={"jobs": [self.jobs[id_] for id_ in ids[:limit]], "next": following})

    def _of_job(self, asked: ReceivedRequest, id_: str, more: list[str]) -> FakeResponse:
        entry = self.jobs[id_]
        match asked.method, more:
            case "GET", []:
                if self.next_states.get(id_):
                    self.jobs[id_] = self.next_states[id_].pop(0)
                return FakeResponse(body=self.jobs[id_])
            case "DELETE", []:
                if entry["state"] not in ENDED:
                    return problem(409, f"it is {entry['state']}")
                del self.jobs[id_]
                return FakeResponse(204)
            case "POST", ["cancel"]:
                if entry["state"] in ENDED - {"cancelled"}:
                    return problem(409, f"it has ended already: {entry['state']}")
                entry["state"] = "cancelled"
                return FakeResponse(body=entry)
            case "POST", ["retry"]:
                if entry["state"] not in ENDED - {"succeeded"}:
                    return problem(409, f"it is {entry['state']}")
                entry["state"] = "queued"
                return FakeResponse(body=entry)
            case "GET", ["stream"]:
                return self.streams.pop(0) if self.streams else problem(404, "it has no stream")
            case "GET", ["events"]:
                return self.events.pop(0)
            case "GET", ["artifacts"]:
                return FakeResponse(body={"artifacts": entry["artifacts"]})
            case "GET", ["artifacts", name]:
                return self.artifacts.get((id_, name)) or problem(404, "it has no such artifact")
        return problem(405, "no")


@contextmanager
def serving(fake: FakeForeman) -> Iterator[FakeForeman]:
    """Serve it on a port of the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            split = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send(fake.answer(ReceivedRequest(self.command, split.path, query, dict(self.headers), body)))

        def _send(self, chat_event: FakeResponse) -> None:
            body = chat_event.body if isinstance(chat_event.body, bytes) else json.dumps(chat_event.body).encode()
            self.close_connection = True
            self.send_response(chat_event.status)
            for name, value in {
                **chat_event.headers,
                "Content-Type": chat_event.content_type,
                "Connection": "close",
            }.items():
                self.send_header(name, value)
            if chat_event.chunks is None:
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in chat_event.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if chat_event.open_for:
                self.wfile.flush()
                fake.released.wait(chat_event.open_for)
            elif not chat_event.truncated:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        yield fake
        server.shutdown()
        thread.join()


@define(eq=False)
class Commands:
    """Runs commands of foreman in the reactor of the tests.

    :ivar terminals: the streams that are terminals, such as ``<stdout>``.
    """

    _fake: FakeForeman
    terminals: Collection[str] = ()

    async def __call__(self, *words: str, stdin: str | bytes | None = None, **environ: str) -> Result:
        """Run a command in a thread of its own, where it waits for the reactor."""
        environ = {"FOREMAN_URL": self._fake.url, "FOREMAN_TOKEN": "", "COLUMNS": "140"} | environ

        def run() -> Result:
            return CliRunner().invoke(cli, list(words), input=stdin, env=environ, prog_name="foreman")

        return await deferToThread(run)


def commands(patch: pytest.MonkeyPatch, fake: FakeForeman) -> Commands:
    """A runner of commands that talk to ``fake``."""

    def with_reactor(work: Callable[[Any], Any]) -> Any:
        return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(work(reactor)))

    made = Commands(fake)
    patch.setattr(client, "run_with_reactor", with_reactor)
    patch.setattr(polling, "_RETRY_DELAYS", (0.01,))
    patch.setattr(polling, "_MIN_INTERVAL", 0.01)
    patch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda stream: stream.name in made.terminals)
    for name in ("FOREMAN_AUTH_TOKEN", "NO_COLOR"):
        patch.delenv(name, raising=False)
    return made


def ndjson(*events: dict[str, Any]) -> list[bytes]:
    """NDJSON, one chunk per line."""
    return [json.dumps(event).encode() + b"\n" for event in events]


def event(data: dict[str, Any], id_: str = "", kind: str = "") -> bytes:
    """One server-sent event."""
    fields = ([f"id: {id_}"] if id_ else []) + ([f"event: {kind}"] if kind else []) + [f"data: {json.dumps(data)}"]
    return ("\n".join(fields) + "\n\n").encode()


def chat_event(text: str, id_: str) -> bytes:
    """One chunk of a chat as an event."""
    return event({"model": "llama3.2:3b", "message": {"role": "assistant", "content": text}, "done": False}, id_)
