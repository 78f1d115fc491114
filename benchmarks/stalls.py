"""``python -m benchmarks.stalls``: the longest turn of the reactor for every route, with the largest input that it accepts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import zstandard
from rich.console import Console
from rich.table import Table

from benchmarks.processes import HOST, free_port, process, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Case = Callable[[int], object]

#: The longest turn allowed, in milliseconds.
AIM = 50.0
MIB = 1024 * 1024
HEAD = 60_000
#: How many models the target has, and how many of them are loaded.
MODELS, LOADED = 5_000, 64


# the target


def _models(count: int) -> bytes:
    details = {
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "1B",
        "quantization_level": "Q4",
    }
    return json.dumps({
        "models": [
            {"name": f"m{number}:latest", "model": f"m{number}:latest", "modified_at": "2026-01-01T00:00:00Z", "size": 1,
             "digest": f"{number:064x}", "details": details, "expires_at": "2027-01-01T00:00:00Z", "size_vram": 1}
            for number in range(count)
        ]
    }).encode()  # fmt: skip


def _line(content: str, *, done: bool = False) -> bytes:
    return (
        json.dumps({"model": "m", "message": {"role": "assistant", "content": content}, "done": done}).encode() + b"\n"
    )


#: The answer for a model of this name: the content type, and the body in pieces.
ANSWERS: dict[str, tuple[str, Callable[[], Iterator[bytes]]]] = {
    "m0": ("application/x-ndjson", lambda: iter([_line("hello"), _line("", done=True)])),
    "m1": ("application/x-ndjson", lambda: iter([_line("a" * 7 * MIB), _line("", done=True)])),
    "m2": ("application/x-ndjson", lambda: iter([_line("a" * 40 * MIB), _line("", done=True)])),
    "m3": ("application/x-ndjson", lambda: iter([_line("a") * 100_000, _line("", done=True)])),
    "m4": ("application/json", lambda: iter([_line("a" * 60 * MIB, done=True)])),
    "m5": ("application/json", lambda: iter([b'{"embeddings":[[' + b"0.123456," * 6_000_000 + b"0]]}"])),
    "m6": ("text/event-stream", lambda: iter([b"data: " + _line("a") + b"\n"] * 50_000 + [b"data: [DONE]\n\n"])),
    "m7": ("application/x-ndjson", lambda: iter([b"[" * 3 * MIB, b"\n", _line("", done=True)])),
    "m8": ("application/json", lambda: iter([b"[" * 900_000])),
}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lists: dict[bytes, bytes]) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        start = await reader.read(min(length, 65536)) if length else b""
        left = length - len(start)
        while left > 0 and (piece := await reader.read(min(left, MIB))):
            left -= len(piece)
        name = next((name for name in reversed(ANSWERS) if f'"{name}"'.encode() in start), "m0")
        kind, pieces = ANSWERS[name]
        if path in lists:
            kind, pieces = "application/json", lambda: iter([lists[path]])
        elif path == b"/api/version":
            kind, pieces = "application/json", lambda: iter([b'{"version":"0.34.4"}'])
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for piece in pieces():
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    writer.close()


def target() -> int:
    """A simulated Ollama with huge answers, in a thread of this process; its port."""
    port, lists = free_port(), {b"/api/tags": _models(MODELS), b"/api/ps": _models(LOADED)}

    async def serve() -> None:
        await (await asyncio.start_server(partial(_serve, lists=lists), HOST, port)).serve_forever()

    threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    return port


# the requests


def send(port: int, head: bytes, body: bytes = b"", *, wait: float = 60.0) -> bytes:
    """Send one request; return the first bytes of the response, which is read to its end."""
    with socket.create_connection((HOST, port), timeout=wait) as connection:
        with suppress(OSError):
            connection.sendall(head)
            connection.sendall(body)
        first = b""
        with suppress(OSError):
            while piece := connection.recv(MIB):
                first = first or piece[:200]
        return first


def post(path: str, body: bytes, port: int, *headers: str, method: str = "POST") -> bytes:
    """One request with a body, on a new connection."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return send(port, "\r\n".join([*lines, "", ""]).encode("latin-1"), body)


def get(path: str, port: int, *headers: str, method: str = "GET") -> bytes:
    """One request without a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return send(port, "\r\n".join([*lines, "", ""]).encode("latin-1"))


def _bodies(size: int) -> Iterator[tuple[str, bytes]]:
    yield "a string", b'{"model":"m0","messages":[{"role":"user","content":"' + b"a" * size + b'"}]}'
    yield "escapes", b'{"model":"m0","messages":[{"role":"user","content":"' + rb"\n" * (size // 2) + b'"}]}'
    yield "values", b'{"model":"m0","messages":[1],"options":[' + b"[]," * (size // 3) + b"0]}"
    yield "members", b'{"model":"m0","messages":[1],"options":{' + b'"":0,' * (size // 5) + b'"":0}}'
    yield "brackets", b'{"model":"m0","options":' + b"[" * size
    yield "blanks", b'{"model":"m0","messages":[1]' + b" " * size + b"}"
    yield "blanks behind", b'{"model":"m0","messages":[1]}' + b" " * size
    yield "digits", b'{"model":"m0","options":' + b"1" * size
    yield "cut short", b'{"model":"m0","messages":[{"role":"user","content":"' + b"a" * size
    yield "nothing", b" " * size


def _jobs(size: int) -> Iterator[tuple[str, bytes]]:
    job = b'{"endpoint":"/api/chat","payload":{"model":"m0","messages":[{"role":"user","content":"%b"}]}}'
    yield "one", job % (b"a" * size)
    yield "escapes", job % (rb"\n" * (size // 2))
    yield "values", b'{"endpoint":"/api/chat","payload":{"model":"m0","messages":[' + b"[]," * (size // 3) + b"0]}}"
    yield "1,000 of them", b"[" + b",".join([job % (b"a" * (size // 1000 - 100))] * 1000) + b"]"
    yield "unknown members", b"[" + b",".join([b'{"x":1}'] * (size // 8)) + b"]"
    yield "members", b"{" + b",".join(b'"x%d":1' % number for number in range(size // 10)) + b"}"
    yield "empty ones", b"[" + b"{}," * (size // 3) + b"{}]"
    yield (
        "metadata",
        (
            b'{"endpoint":"/api/chat","payload":{"model":"m0","messages":[]},"metadata":{'
            + b",".join(b'"x%d":"1"' % number for number in range(size // 12))
            + b"}}"
        ),
    )
    yield "brackets", b"[" * size


def _head_cases() -> Iterator[tuple[str, Case]]:
    worst = {
        "blanks": " " * HEAD, "commas": "," * HEAD, "quotes": '"' * HEAD, "backslashes": '"' + "\\" * HEAD, "slashes": "/" * HEAD,
        "brackets": "[" * HEAD, "digits": "1" * HEAD, "letters": "a" * HEAD, "pairs": "a=b;" * (HEAD // 4), "quoted": '"a",' * (HEAD // 4),
    }  # fmt: skip
    names = (
        "Prefer Idempotency-Key Host Origin Cookie Authorization Content-Type Accept Range If-None-Match Via Expect Connection "
        "Transfer-Encoding Content-Length Access-Control-Request-Headers X-Anything User-Agent Forwarded"
    ).split()
    body = '{"model":"m0","messages":[1],"stream":false}'

    def every_value(name: str, port: int) -> None:
        for value in worst.values():
            host = [] if name == "Host" else ["Host: localhost"]
            lines = [
                "POST /api/chat HTTP/1.1",
                *host,
                f"{name}: {value}",
                f"Content-Length: {len(body)}",
                "Connection: close",
                "",
            ]
            send(port, "\r\n".join([*lines, body]).encode("latin-1"))
            get("/jobs", port, f"{name}: {value}")

    for name in names:
        yield f"a head of 60 kB: {name}", partial(every_value, name)

    def every_path(prefix: str, port: int) -> None:
        for piece in ("/", "a", "%41", "../", "./", "%2f", "&a=b", ","):
            value = piece * (HEAD // len(piece))
            get(prefix + value, port)

    for prefix in (
        "/",
        "/api/",
        "/k/",
        "/jobs/",
        "/jobs?state=",
        "/jobs?meta.a=",
        "/jobs/x/artifacts/",
        "/queue/",
        "/v1/models/",
    ):
        yield f"a path of 60 kB below {prefix}", partial(every_path, prefix)
    yield "100 headers", lambda port: get("/api/version", port, *(f"X-{number}: a" for number in range(95)))


def _crowd(port: int) -> None:
    """Queue as many chats as the queue holds, read the queue, and let all clients leave at once."""
    body = b'{"model":"m0","messages":[1]}'
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    waiting = [socket.create_connection((HOST, port)) for _ in range(500)]
    for connection in waiting:
        connection.sendall(head + body)
    for _ in range(5):
        get("/queue", port)
    for connection in waiting:
        connection.close()
    get("/healthz", port)


def _with_header(path: str, body: bytes, header: str) -> Case:
    return lambda port: post(path, body, port, header)


def cases() -> Iterator[tuple[str, Case]]:
    """Every case, with its name."""
    chats = "/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/embed"
    for name, body in _bodies(64 * MIB):
        for path in chats:
            yield f"64 MiB of {name} to {path}", partial(post, path, body)
    for name, body in _bodies(250 * MIB):
        yield f"250 MiB of {name} to /api/chat", partial(post, "/api/chat", body)
    for name, body in _bodies(19 * MIB):
        packed = zstandard.compress(body)
        yield f"19 MiB of {name}, packed", _with_header("/v1/responses", packed, "Content-Encoding: zstd")
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    kind = "Content-Type: multipart/form-data; boundary=b"
    for name, filler in (("letters", b"a"), ("lines", b"\r\n"), ("near borders", b"\r\n--"), ("parts", form)):
        data = form + filler * (100 * MIB // len(filler)) + b"\r\n--b--\r\n"
        yield f"100 MiB of audio: {name}", _with_header("/v1/audio/transcriptions", data, kind)
    for name, body in _jobs(30 * MIB):
        yield f"30 MiB of jobs: {name}", partial(post, "/jobs", body)
    for name, body in _bodies(30 * MIB):
        yield f"30 MiB of {name} as a job", _with_header("/api/chat", body, "Prefer: respond-async")
    yield (
        "250 MiB to /jobs",
        partial(post, "/jobs", b'{"endpoint":"/api/chat","payload":{"model":"' + b"a" * 250 * MIB + b'"}}'),
    )
    yield from _head_cases()
    for model in ANSWERS:
        for path in chats:
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
            yield f"the answer {model} to {path}", partial(post, path, body)
        yield f"a job with the answer {model}", partial(_job, model)
    for path in (
        "/api/tags",
        "/api/ps",
        "/queue",
        "/openapi.json",
        "/v1/models",
        "/healthz",
        "/jobs?limit=1000",
        "/jobs?state=ended",
    ):
        yield f"GET {path}", partial(get, path)
    yield "500 queued chats whose clients leave at once", _crowd


def _job(model: str, port: int) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
    answer = post("/api/chat", body, port, "Prefer: respond-async")
    place = next((line[10:].decode() for line in answer.split(b"\r\n") if line.startswith(b"Location: ")), "")
    if not place:
        return answer
    deadline = time.monotonic() + 60
    while (
        time.monotonic() < deadline and b'"succeeded"' not in (shown := get(place, port)) and b'"failed"' not in shown
    ):
        time.sleep(0.2)
    get(f"{place}/artifacts/response", port)
    get(f"{place}/artifacts/response", port, "Range: bytes=0-0")
    return get(f"{place}/stream", port)


# the run


def _turns(pid: int, file: Path) -> dict[str, Any]:
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + 30
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    turns: dict[str, Any] = json.loads(file.read_text())
    return turns


@click.command(help=__doc__)
@click.option("--only", multiple=True, metavar="TEXT", help="Only cases with TEXT in their name (repeatable).")
@click.option("--all", "every", is_flag=True, help="Show every case, not only the ones over the aim.")
def main(*, only: tuple[str, ...], every: bool) -> None:
    """Run the cases; exit status 1 when a turn was longer than the aim."""
    console = Console()
    table = Table(
        "case", "longest turn", "where it was", title="The longest turns of the reactor, in CPU time", box=None
    )
    worst = 0.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalls-")))
        turns, log, port = folder / "turns.json", folder / "foreman.log", free_port()
        settings = {
            "FOREMAN_LISTEN": f"tcp:{port}:interface={HOST}", "FOREMAN_TARGET_URL": f"http://{HOST}:{target()}",
            "FOREMAN_DB_PATH": str(folder / "foreman.db"), "FOREMAN_DISK_RESERVE": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.stalls_launch", str(turns)]
        child = stack.enter_context(process(command, log, settings))
        wait_until_ready(child, port, "/healthz", log)
        time.sleep(1)
        _turns(child.pid, turns)
        for name, case in cases():
            if only and not any(text in name for text in only):
                continue
            case(port)
            time.sleep(0.05)
            found = _turns(child.pid, turns)
            longest = 1000 * max(found["turns"], default=0.0)
            worst = max(worst, longest)
            if every or longest > AIM:
                table.add_row(name, f"{longest:.0f} ms", found["where"])
                console.print(f"{longest:6.0f} ms  {name}  {found['where']}", highlight=False, soft_wrap=True)
    console.print(f"the longest turn of all: {worst:.0f} ms (aim: {AIM:.0f})")
    sys.exit(worst > AIM)


if __name__ == "__main__":
    main()
