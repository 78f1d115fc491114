"""Real processes for tests: foreman, its target and their callers, each with its log, none of which outlives its test.

Run as a program this module is the target: a simulator that writes down what it sees.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from attrs import define, field

from support import raw_http

T = TypeVar("T")

#: What a test waits for at most, in seconds; long, since only a failing test waits so long.
TIMEOUT = 20.0
SCRIPTS = Path(sysconfig.get_path("scripts"))
SERVE = (str(SCRIPTS / "foreman"), "serve")
LOOPBACK = "127.0.0.1"


def until(condition: Callable[[], T | None], what: str = "", *, patience: float = TIMEOUT) -> T:
    """What ``condition`` gives, as soon as that counts as true.

    :raises AssertionError: naming ``what``, when it never does.
    """
    deadline = time.monotonic() + patience
    while not (outcome := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.005)
    return outcome


def free_port() -> int:
    """A port on which nobody listens, nor soon will: one that the system does not give to whoever asks for any."""
    while True:
        port = random.randint(15_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind((LOOPBACK, port))
            return port


class InThread(Generic[T]):
    """A blocking call in a thread of its own, so that a test that fails does not hang."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._outcome: list[tuple[T | None, BaseException | None]] = []
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append((self._call(), None))
        except BaseException as problem:  # noqa: BLE001 - raised again where the test waits
            self._outcome.append((None, problem))

    def result(self, patience: float = TIMEOUT) -> T:
        """What the call gave, or raised."""
        self._thread.join(patience)
        assert self._outcome, f"the call still waits after {patience:g} s"
        value, problem = self._outcome[0]
        if problem is not None:
            raise problem
        return value  # type: ignore[return-value]


# -- asking


class Call:
    """One request on a connection of its own, whose answer is read as slowly as the test likes.

    :ivar received: what has been read so far.
    """

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        payload: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        self.method = method
        self.received = b""
        self._closed = False
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect((LOOPBACK, port))
            body = b"" if payload is None else json.dumps(payload).encode()
            more = [("Connection", "close"), *(headers or {}).items()]
            self._socket.sendall(raw_http.request(method, path, body, more))
        except BaseException:
            self._socket.close()
            raise

    def read(self) -> bool:
        """Read what is there, waiting for it; whether more may come."""
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        self.received += data
        if not data:
            self.leave()
        return bool(data)

    def read_until(self, marker: bytes) -> None:
        """Read on until ``marker`` has come."""
        while marker not in self.received:
            assert self.read(), f"ended without {marker!r}: {self.received!r}"

    def rest(self) -> raw_http.Response:
        """Read to the end of the connection."""
        pieces = [self.received]
        while not self._closed:
            self.received = b""
            self.read()
            pieces.append(self.received)
        self.received = b"".join(pieces)
        response = raw_http.parse(self.received, self.method, closed=True)
        assert response is not None
        return response

    def leave(self) -> None:
        """Close the connection."""
        self._closed = True
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def ask(
    port: int, method: str, path: str, payload: object = None, headers: Mapping[str, str] | None = None
) -> raw_http.Response:
    """One request and its whole answer."""
    with Call(port, method, path, payload, headers) as call:
        return call.rest()


def chat(text: str, *, model: str = "llama3.2:3b", **more: Any) -> dict[str, Any]:
    """The payload of a chat on any family's route; ``tokens`` is how long the answer may become."""
    tokens = more.pop("tokens", 60)
    limits = {"max_tokens": tokens, "options": {"num_predict": tokens}}
    return {"model": model, "messages": [{"role": "user", "content": text}], **limits, **more}


#: A model that goes on talking for as long as it may.
ENDLESS_MODEL = "tiny-slow"


def endless_chat(text: str, **more: Any) -> dict[str, Any]:
    """The payload of a streamed chat that does not end by itself."""
    return chat(text, model=ENDLESS_MODEL, tokens=10_000_000, stream=True, **more)


def is_complete(response: raw_http.Response) -> bool:
    """Whether a client would take the answer for a whole one."""
    markers = (b'"done":true', b"data: [DONE]", b"event: message_stop", b"event: response.completed")
    told = any(marker in response.body for marker in markers) or b'"finish_reason":"stop"' in response.body
    return response.status == 200 and not response.torn and told


# -- processes


@define(eq=False)
class ChildProcess:
    """A process that a test has started.

    :ivar log: the file with everything that it said.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Everything that it has said so far."""
        return self.log.read_text("utf-8", "replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, patience: float = TIMEOUT) -> int:
        """Its exit status once it has ended; minus the signal that ended it."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {patience:g} s:\n{self.said()}") from None

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes of memory that it has; ``VmHWM``: that it had at most since ``forget_peak``."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        (line,) = [line for line in status.splitlines() if line.startswith(f"{what}:")]
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        """From now on ``memory("VmHWM")`` is counted anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", "ascii")

    def listens(self, port: int, path: str) -> bool:
        """Whether a GET on ``path`` is answered; a process that has ended fails the test."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said()}"
        try:
            return ask(port, "GET", path).status > 0
        except OSError:
            return False


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child: without settings of whoever runs the tests, with ``settings`` as FOREMAN_* instead."""
    left_out = ("FOREMAN_", "COLUMNS", "STATE_DIRECTORY")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return environment | {"PYTHONUNBUFFERED": "1"} | {f"FOREMAN_{k.upper()}": v for k, v in settings.items()}


@contextmanager
def run_process(
    command: Sequence[str],
    folder: Path,
    settings: Mapping[str, str] | None = None,
    *,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ChildProcess]:
    """A process with ``folder`` as its own, and its end, by force if need be, with that of all its children."""
    name = f"{Path(command[0]).name}-{time.monotonic_ns()}"
    log = folder / f"{name}.log"
    # Each its own jobs: a store belongs to one foreman at a time.
    own = {"XDG_STATE_HOME": str(folder / f"{name}.state")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(settings or {}) | own | dict(environment or {}),
            stdin=stdin or subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield ChildProcess(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@define(eq=False)
class ForemanProcess(ChildProcess):
    """A foreman that runs.

    :ivar token: what its own routes need, if anything.
    """

    port: int
    token: str | None = None
    _calls: list[Call] = field(factory=list)

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def ask(
        self, method: str, path: str, payload: object = None, headers: Mapping[str, str] | None = None
    ) -> raw_http.Response:
        """One request, with its token, and its whole answer."""
        with self.open(method, path, payload, headers) as call:
            return call.rest()

    def open(
        self,
        method: str,
        path: str,
        payload: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> Call:
        """A request whose answer is not read yet; its connection is closed when the test is over, at the latest."""
        credentials = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        call = Call(self.port, method, path, payload, credentials | dict(headers or {}), receive_buffer=receive_buffer)
        self._calls.append(call)
        return call

    def call(self, path: str, payload: object) -> Call:
        """A POST whose answer is not read yet."""
        return self.open("POST", path, payload)

    def get(self, path: str) -> Any:
        """The JSON that a GET gives."""
        return json.loads(self.ask("GET", path).body)

    def forget_calls(self) -> None:
        """Close the connections of all that it was asked."""
        for call in self._calls:
            call.leave()

    def waiting(self, count: int) -> None:
        """Wait until so many wait for their turn."""
        until(lambda: len(self.get("/queue")["waiting"]) == count, f"{count} waiting")

    def log_lines(self, *parts: str) -> list[str]:
        """The lines of its log with all of ``parts``; waits for the first of them, which comes after the answer."""
        return until(
            lambda: [line for line in self.said().splitlines() if all(part in line for part in parts)],
            f"a log line with {parts}",
        )


@contextmanager
def run_foreman(folder: Path, target: str, command: Sequence[str] = SERVE, **settings: str) -> Iterator[ForemanProcess]:
    """foreman in front of ``target`` (a URL), ready to answer; ``settings`` by the names of its variables in lower case."""
    port = free_port()
    settings = {"listen": f"{LOOPBACK}:{port}", "target_url": target} | settings
    with run_process(command, folder, settings) as child:
        daemon = ForemanProcess(child.process, child.log, port, settings.get("auth_token"))
        until(lambda: daemon.listens(port, "/healthz"), "foreman answers")
        try:
            yield daemon
        finally:
            daemon.forget_calls()


# -- the target


@define(eq=False)
class ReceivedRequest:
    """One request that the target got.

    :ivar at, over: when its head came, and when it was answered or its connection lost, by ``time.monotonic``.
    :ivar outcome: ``open``, ``answered`` or ``left``.
    """

    path: str
    headers: Mapping[str, str]
    at: float
    body: str = ""
    over: float = 0.0
    outcome: str = "open"


@define(eq=False)
class TargetProcess(ChildProcess):
    """A simulator in processes of its own: one that stays, and makes a new one for each start."""

    port: int
    journal: Path
    _life: int = 0
    _asked: dict[tuple[int, int], ReceivedRequest] = field(factory=dict)
    _read: int = 0

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Come to life, and be ready to answer."""
        before = self._life
        assert self.process.stdin is not None
        self.process.stdin.write(b"start\n")
        self.process.stdin.flush()
        until(lambda: self._follow() != before, "the target starts")
        until(lambda: self.listens(self.port, "/api/version"), "the target answers")

    def kill(self) -> None:
        """End at once, as a crash does: the system closes the connections."""
        os.kill(self._life, signal.SIGKILL)
        until(lambda: not _lives(self._life), "the target is gone")

    def asked(self, *marks: str) -> list[ReceivedRequest]:
        """The requests with all of ``marks`` in path or body, in the order of their arrival."""
        self._follow()
        return [each for each in self._asked.values() if all(mark in each.path or mark in each.body for mark in marks)]

    def left(self, *marks: str) -> ReceivedRequest:
        """The one request with ``marks``, once the target has lost its connection unanswered."""
        return until(
            lambda: next((each for each in self.asked(*marks) if each.outcome == "left"), None), f"{marks} leaves"
        )

    def misbehave(self, what: str, **more: Any) -> None:
        """Let something go wrong with the next request for a model."""
        answer = ask(self.port, "POST", "/simulator/misbehave", {"what": what, **more})
        assert answer.status == 200, answer.body

    def running(self) -> int:
        """How many answers are being said."""
        return int(json.loads(ask(self.port, "GET", "/simulator").body)["running"])

    def _follow(self) -> int:
        """Read what has been written since; the process that lives."""
        with self.journal.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh.rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            if event["what"] == "lives":
                self._life = event["pid"]
                continue
            key = (self._life, event["number"])
            match event["what"]:
                case "asked":
                    self._asked[key] = ReceivedRequest(event["path"], event["headers"], event["at"])
                case "body":
                    self._asked[key].body = event["body"]
                case outcome:
                    self._asked[key].outcome, self._asked[key].over = outcome, event["at"]
        return self._life


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def run_target(folder: Path, *, running: bool = True, **settings: Any) -> Iterator[TargetProcess]:
    """A target, ready to answer unless ``running`` is false; ``settings`` are the simulator's (``Settings``)."""
    port, journal = free_port(), folder / f"journal-{time.monotonic_ns()}"
    journal.touch()
    command = [sys.executable, "-m", __name__, str(port), str(journal), json.dumps(settings)]
    tests = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with run_process(command, folder, stdin=subprocess.PIPE, environment=tests) as child:
        simulator = TargetProcess(child.process, child.log, port, journal)
        if running:
            simulator.start()
        yield simulator


def _be_a_target(port: int, journal: Path, settings: Mapping[str, Any]) -> None:
    """Become a simulator for each line of the input; the one that reads stays, and has everything imported."""
    from foreman.simulator import Settings, Simulator

    class JournalingSimulator(Simulator):
        """A simulator that writes down what it sees, at once, since it may be killed at any moment."""

        numbers: ClassVar[dict[Any, int]] = {}
        count = 0

        def write(self, what: str, number: int = 0, **more: Any) -> None:
            event = {"what": what, "number": number, "at": time.monotonic(), **more}
            with journal.open("a") as file:
                file.write(json.dumps(event) + "\n")

        def request_started(self, connection: Any, exchange: Any) -> Any:
            receiver = super().request_started(connection, exchange)
            number = self.numbers[exchange] = self.count = self.count + 1
            self.write("asked", number, path=exchange.target, headers=dict(exchange.headers))
            on_finish = exchange.on_finish

            def ended(status: int) -> None:
                self.write("answered", number)
                on_finish(status)

            exchange.on_finish = ended
            return receiver

        def run(self, exchange: Any, route: Any) -> None:
            self.write("body", self.numbers[exchange], body=exchange.body[:2000].decode("utf-8", "replace"))
            super().run(exchange, route)

        def connection_lost(self, connection: Any, exchange: Any) -> None:
            if exchange is not None:
                self.write("left", self.numbers[exchange])
            super().connection_lost(connection, exchange)

    for _ in sys.stdin:
        if os.fork() == 0:
            break
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        return
    from twisted.internet import reactor as installed

    reactor: Any = installed
    reactor.seconds = time.monotonic
    witness = JournalingSimulator(reactor, Settings(**settings), time.time())
    reactor.listenTCP(port, witness, interface=LOOPBACK)
    reactor.callWhenRunning(witness.write, "lives", pid=os.getpid())
    reactor.run()


if __name__ == "__main__":
    _be_a_target(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
