"""A simulator without sockets, and its clients, on a clock that the test moves."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from foreman.simulator import Settings, Simulator

CHAT: dict[str, Any] = {"model": "tiny-slow", "messages": [{"role": "user", "content": "hello"}]}


@define(eq=False)
class SimulatorClient:
    """A connection in memory."""

    simulator: Simulator
    transport: StringTransport = field(factory=StringTransport)
    protocol: Any = None

    def __attrs_post_init__(self) -> None:
        self.protocol = self.simulator.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def ask(self, path: str, body: Any = None, method: str = "POST", headers: str = "") -> SimulatorClient:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
        self.protocol.dataReceived(head.encode() + data)
        return self

    def leave(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def received(self) -> bytes:
        return bytes(self.transport.value())

    @property
    def lines(self) -> list[Any]:
        """The JSON objects that were received, each on a line of its own."""
        return [json.loads(line) for line in self.received.split(b"\n") if line.startswith(b"{")]

    @property
    def status(self) -> int:
        return int(self.received.split()[1]) if self.received else 0


class InMemorySimulator:
    """A simulator, its clock, and its clients."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.simulator = Simulator(self.clock, Settings(**settings))

    def ask(self, path: str, body: Any = None, method: str = "POST", headers: str = "") -> SimulatorClient:
        return SimulatorClient(self.simulator).ask(path, body, method, headers)

    def answer(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The JSON of a response that comes at once."""
        client = self.ask(path, body, method)
        self.clock.pump([0.0] * 5)
        return client.lines[0]

    def chat(self, words: int = 3, **more: Any) -> SimulatorClient:
        return self.ask("/api/chat", {**CHAT, "options": {"num_predict": words}, **more})
