"""A target without sockets for the modules that talk to one: it answers when the test says so."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from foreman.target.connection import TargetResponse

MODELS = (
    {"name": "llama3:latest", "model": "llama3:latest", "size": 7, "unheard_of": [1]},
    {"name": "hf.co/user/repo:Q4_K_M"},
    {"name": "host:5000/ns/m:t"},
    {"name": "Mixed/Case:TAG"},
    {"name": "far:latest", "remote_host": "https://ollama.com", "remote_model": "far"},
    {"name": "stub:cloud", "remote_host": "https://ollama.com", "remote_model": "stub"},
    {"name": "big:7b-cloud", "remote_host": "https://ollama.com", "remote_model": "big:7b"},
    {"name": "big:7b"},
)


@define
class ListingTarget:
    """Lists its models, at once or when the test says so; or fails.

    :ivar paths: the paths of the requests so far; :ivar waiting: the requests without a response.
    """

    slow: bool = False
    problem: BaseException | None = None
    tags: Any = field(factory=lambda: {"models": list(MODELS)})
    ps: Any = field(factory=lambda: {"models": [{"name": "llama3:latest"}]})
    paths: list[str] = field(factory=list)
    waiting: list[Deferred[None]] = field(factory=list)

    async def fetch(self, method: bytes, path: str, payload: Any = None) -> tuple[TargetResponse, bytes]:
        assert (method, payload) == (b"GET", None)
        self.paths.append(path)
        if self.slow:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        if self.problem is not None:
            raise self.problem
        value = self.tags if path == "/api/tags" else self.ps
        if isinstance(value, BaseException):
            raise value
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return TargetResponse(200, b"OK", [(b"X-List", path.encode())], None), body  # type: ignore[arg-type]

    def answer(self) -> None:
        """Respond to the waiting requests, both lists."""
        for _ in range(2):
            waiting, self.waiting = self.waiting, []
            for target_request in waiting:
                target_request.callback(None)

    @property
    def polls(self) -> int:
        return self.paths.count("/api/tags")


LINE = b'{"done":false,"message":{"content":"word"}}\n'


LAST = b'{"done":true,"prompt_eval_count":3,"eval_count":2,"eval_duration":500000000}\n'


NDJSON = [(b"Content-Type", b"application/x-ndjson")]


@define(eq=False)
class TargetCall:
    """One request to the target, and its response as the connection passes it on."""

    head: bytes
    body: Any
    code: int = 200
    phrase: bytes = b"OK"
    raw_headers: list[tuple[bytes, bytes]] = field(factory=lambda: list(NDJSON))
    left: bool = False
    aborted: bool = False
    ended: bool = False
    reader: Any = None
    transport: StringTransport = field(factory=StringTransport)
    response: Deferred[Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.response = Deferred(lambda _: setattr(self, "left", True))

    @property
    def is_over(self) -> bool:
        return self.left or self.aborted or self.ended

    def header(self, name: bytes) -> bytes | None:
        return {key.lower(): value for key, value in self.raw_headers}.get(name)

    def deliverBody(self, reader: Any) -> None:
        self.reader = reader
        reader.makeConnection(self.transport)

    def abort(self) -> None:
        self.aborted = not self.ended

    def begin(self, code: int = 200, headers: Any = None) -> TargetCall:
        self.code, self.raw_headers = code, NDJSON if headers is None else headers
        self.response.callback(self)
        return self

    def say(self, *pieces: bytes) -> TargetCall:
        for piece in pieces:
            self.reader.dataReceived(piece)
        return self

    def end(self, reason: Exception | None = None) -> TargetCall:
        self.ended = True
        self.reader.connectionLost(Failure(reason or ResponseDone()))
        return self


@define
class FakeTarget(ListingTarget):
    """Responds when the test says so; ``failures`` are those of the next requests."""

    calls: list[TargetCall] = field(factory=list)
    failures: list[Exception] = field(factory=list)

    def head(
        self,
        method: bytes,
        target: bytes,
        headers: Any,
        length: int | None,
        *,
        chunked: bool = False,
        version: bytes = b"1.1",
    ) -> bytes:
        return b"%b %b" % (method, target)

    async def send(self, method: bytes, head: bytes, body: Any = b"") -> Any:
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append(TargetCall(head, body))
        return await self.calls[-1].response
