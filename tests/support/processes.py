"""Real processes for tests: foreman and its target, each with a log; none of them outlives its test.

Run as a program, this module is the target: a simulator that keeps a journal of its requests.
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

#: How long a test waits at most, in seconds; long, since only a failing test waits so long.
TIMEOUT = 20.0
SCRIPTS = Path(sysconfig.get_path("scripts"))
SERVE = (str(SCRIPTS / "foreman"), "serve")
LOOPBACK = "127.0.0.1"


def until(condition: Callable[[], T | None], what: str = "", *, patience: float = TIMEOUT) -> T:
    """Wait until ``condition`` returns something true, and return that.

    :raises AssertionError: naming ``what``, if it never does.
    """
    deadline = time.monotonic() + patience
    while not (outcome := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.005)
    return outcome


def free_port() -> int:
    """A port that is free, and outside the range from which the system assigns ports."""
    while True:
        port = random.randint(15_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind((LOOPBACK, port))
            return port


class InThread(Generic[T]):
    """A blocking call in a thread, so that a failing test does not hang."""

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
        """What the call returned or raised."""
        self._thread.join(patience)
        assert self._outcome, f"the call still waits after {patience:g} s"
        value, problem = self._outcome[0]
        if problem is not None:
            raise problem
        return value  # type: ignore[return-value]


# -- requests


class Call:
    """One request on a connection of its own, whose response is read when the test says so.

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
        """Wait for bytes and read them; returns whether more may come."""
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        self.received += data
        if not data:
            self.leave()
        return bool(data)

    def read_until(self, marker: bytes) -> None:
        """Read until ``marker`` has been received."""
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
    """One request and its whole response."""
    with Call(port, method, path, payload, headers) as call:
        return call.rest()


def chat(text: str, *, model: str = "llama3.2:3b", **more: Any) -> dict[str, Any]:
    """The payload of a chat for a route of any family; ``tokens`` limits the response."""
    tokens = more.pop("tokens", 60)
    limits = {"max_tokens": tokens, "options": {"num_predict": tokens}}
    return {"model": model, "messages": [{"role": "user", "content": text}], **limits, **more}


#: A model that generates until its limit.
ENDLESS_MODEL = "tiny-slow"


def endless_chat(text: str, **more: Any) -> dict[str, Any]:
    """The payload of a streamed chat that does not end by itself."""
    return chat(text, model=ENDLESS_MODEL, tokens=10_000_000, stream=True, **more)


def is_complete(response: raw_http.Response) -> bool:
    """Whether a client would take the response for a complete one."""
    markers = (b'"done":true', b"data: [DONE]", b"event: message_stop", b"event: response.completed")
    told = any(marker in response.body for marker in markers) or b'"finish_reason":"stop"' in response.body
    return response.status == 200 and not response.torn and told


# -- processes


@define(eq=False)
class ChildProcess:
    """A process that a test has started.

    :ivar log: the file with its standard output and error.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Its standard output and error so far."""
        return self.log.read_text("utf-8", "replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, patience: float = TIMEOUT) -> int:
        """Wait for its end; returns the exit status, or minus the signal that killed it."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {patience:g} s:\n{self.output()}") from None

    def memory(self, what: str = "VmRSS") -> int:
        """Its memory in bytes; with ``VmHWM`` the peak since ``reset_peak_memory``."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        (line,) = [line for line in status.splitlines() if line.startswith(f"{what}:")]
        return int(line.split()[1]) * 1024

    def reset_peak_memory(self) -> None:
        """Reset the peak that ``memory("VmHWM")`` returns."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", "ascii")

    def responds(self, port: int, path: str) -> bool:
        """Whether a GET on ``path`` gets a response; fails if the process has ended."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output()}"
        try:
            return ask(port, "GET", path).status > 0
        except OSError:
            return False


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child: without the settings of the user, with ``settings`` as FOREMAN_* instead."""
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
    """A process that runs in ``folder``; it is killed at the end, with all its children."""
    name = f"{Path(command[0]).name}-{time.monotonic_ns()}"
    log = folder / f"{name}.log"
    # Each has its own jobs: a store belongs to one foreman at a time.
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
    """A running foreman.

    :ivar token: for its own routes, if they require one.
    """

    port: int
    token: str | None = None
    _calls: list[Call] = field(factory=list)

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def ask(
        self, method: str, path: str, payload: object = None, headers: Mapping[str, str] | None = None
    ) -> raw_http.Response:
        """One request with its token, and the whole response."""
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
        """A request whose response is not read yet; its connection is closed at the end of the test at the latest."""
        credentials = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        call = Call(self.port, method, path, payload, credentials | dict(headers or {}), receive_buffer=receive_buffer)
        self._calls.append(call)
        return call

    def call(self, path: str, payload: object) -> Call:
        """A POST whose response is not read yet."""
        return self.open("POST", path, payload)

    def get(self, path: str) -> Any:
        """The JSON of a GET."""
        return json.loads(self.ask("GET", path).body)

    def close_calls(self) -> None:
        """Close the connections of all requests."""
        for call in self._calls:
            call.leave()

    def wait_for_queue(self, count: int) -> None:
        """Wait until this many requests are in the queue."""
        until(lambda: len(self.get("/queue")["waiting"]) == count, f"{count} waiting")

    def log_lines(self, *parts: str) -> list[str]:
        """The lines of its log that contain all of ``parts``; waits for the first, which is written after the response."""
        return until(
            lambda: [line for line in self.output().splitlines() if all(part in line for part in parts)],
            f"a log line with {parts}",
        )


@contextmanager
def run_foreman(folder: Path, target: str, command: Sequence[str] = SERVE, **settings: str) -> Iterator[ForemanProcess]:
    """foreman in front of ``target`` (a URL), when it is ready; ``settings`` are its variables in lower case."""
    port = free_port()
    settings = {"listen": f"{LOOPBACK}:{port}", "target_url": target} | settings
    with run_process(command, folder, settings) as child:
        daemon = ForemanProcess(child.process, child.log, port, settings.get("auth_token"))
        until(lambda: daemon.responds(port, "/healthz"), "foreman answers")
        try:
            yield daemon
        finally:
            daemon.close_calls()


# -- the target


@define(eq=False)
class ReceivedRequest:
    """One request to the target.

    :ivar at, over: when its head arrived, and when the response was complete or the connection lost, by ``time.monotonic``.
    :ivar outcome: ``open``, ``answered`` or ``left``.
    """

    path: str
    headers: Mapping[str, str]
    received_at: float
    body: str = ""
    ended_at: float = 0.0
    outcome: str = "open"


@define(eq=False)
class TargetProcess(ChildProcess):
    """A simulator in processes of its own: a parent that stays, and forks a new one for each start."""

    port: int
    journal: Path
    _life: int = 0
    _requests: dict[tuple[int, int], ReceivedRequest] = field(factory=dict)
    _read: int = 0

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        before = self._life
        assert self.process.stdin is not None
        self.process.stdin.write(b"start\n")
        self.process.stdin.flush()
        until(lambda: self._follow() != before, "the target starts")
        until(lambda: self.responds(self.port, "/api/version"), "the target answers")

    def kill(self) -> None:
        """Kill it, like a crash: the system closes the connections."""
        os.kill(self._life, signal.SIGKILL)
        until(lambda: not _lives(self._life), "the target is gone")

    def requests(self, *marks: str) -> list[ReceivedRequest]:
        """The requests with all of ``marks`` in path or body, in order of arrival."""
        self._follow()
        return [
            each for each in self._requests.values() if all(mark in each.path or mark in each.body for mark in marks)
        ]

    def abandoned(self, *marks: str) -> ReceivedRequest:
        """The request with ``marks`` whose client disconnected before the response; waits for it."""
        return until(
            lambda: next((each for each in self.requests(*marks) if each.outcome == "left"), None), f"{marks} leaves"
        )

    def inject_fault(self, what: str, **more: Any) -> None:
        """Inject a fault into the response to the next request for a model."""
        answer = ask(self.port, "POST", "/simulator/misbehave", {"what": what, **more})
        assert answer.status == 200, answer.body

    def running(self) -> int:
        """How many inferences run."""
        return int(json.loads(ask(self.port, "GET", "/simulator").body)["running"])

    def _follow(self) -> int:
        """Read the new lines of the journal; returns the id of the running process."""
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
                    self._requests[key] = ReceivedRequest(event["path"], event["headers"], event["at"])
                case "body":
                    self._requests[key].body = event["body"]
                case outcome:
                    self._requests[key].outcome, self._requests[key].ended_at = outcome, event["at"]
        return self._life


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def run_target(folder: Path, *, running: bool = True, **settings: Any) -> Iterator[TargetProcess]:
    """A target, ready unless ``running`` is false; ``settings`` are those of the simulator (``Settings``)."""
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
    """Fork a simulator for each line of standard input; the parent has everything imported."""
    from foreman.simulator import Settings, Simulator

    class JournalingSimulator(Simulator):
        """A simulator that journals its requests at once, since it may be killed at any moment."""

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
