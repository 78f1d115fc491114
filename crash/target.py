"""A simulated Ollama in one thread: it has a few routes, answers with checksums, and records each arrival."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any, Self

from attrs import define, field
from benchmarks.processes import HOST

from crash import prompts
from crash.history import Arrival
from crash.prompts import Prompt


def _listed(name: str, capability: str) -> dict[str, Any]:
    return {"name": name, "model": name, "size": 1000, "digest": "d" * 64, "capabilities": [capability]}


_MODELS = [_listed(name, "completion") for name in prompts.CHAT_MODELS] + [_listed(prompts.EMBEDDER, "embedding")]
_KNOWN: dict[str, Any] = {
    "/api/tags": {"models": _MODELS},
    # All of them are loaded, so that no request waits for a load.
    "/api/ps": {"models": [{**model, "size_vram": 1000, "expires_at": "2099-01-01T00:00:00Z"} for model in _MODELS]},
    "/api/version": {"version": "0.24.0"},
}


@define(eq=False)
class Target:
    """The simulated Ollama, while this is entered as a context manager.

    :ivar arrivals: every request with a prompt, in the order of arrival.
    """

    port: int = field(default=0, init=False)
    arrivals: list[Arrival] = field(factory=list, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _count: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, self.port))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the daemon was killed
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether another may follow on the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        path = lines[0].split(" ")[1]
        lengths = [int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")]
        body = await reader.readexactly(lengths[0]) if lengths else b""
        if path in _KNOWN:
            _whole(writer, 200, _KNOWN[path])
            await writer.drain()
            return True
        self._count += 1
        number, text = self._count, prompts.text_of(body)
        self.arrivals.append(Arrival(text, number, time.monotonic(), time.time_ns() // 1_000_000))
        prompt = Prompt.read(text)
        if prompt.behaviour in {"refuse", "fail"}:
            _whole(writer, 400 if prompt.behaviour == "refuse" else 500, {"error": f"told to {prompt.behaviour}"})
        elif path.startswith("/v1/") or path == "/api/embed":
            await asyncio.sleep(prompt.pace * prompts.PIECES / 1000)
            _whole(writer, 200, _in_one_piece(path, text, number), cut=prompt.behaviour == "break")
        else:
            await _in_lines(writer, path, text, number)
        await writer.drain()
        return False


def _whole(writer: asyncio.StreamWriter, status: int, value: Any, *, cut: bool = False) -> None:
    body = json.dumps(value).encode()
    writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
    writer.write(body[: len(body) // 2] if cut else body)


def _in_one_piece(path: str, text: str, number: int) -> dict[str, Any]:
    if path == "/api/embed":
        return {"model": prompts.EMBEDDER, "embeddings": [prompts.numbers(text, number)]}
    message = {"role": "assistant", "content": prompts.answer(text, number)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


async def _in_lines(writer: asyncio.StreamWriter, path: str, text: str, number: int) -> None:
    prompt, whole = Prompt.read(text), prompts.answer(text, number)
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
    )
    size = len(whole) // prompts.PIECES + 1
    for place in range(0, len(whole), size):
        await asyncio.sleep(prompt.pace / 1000)
        if prompt.behaviour == "break" and place:
            return
        _line(writer, path, whole[place : place + size], done=False)
        await writer.drain()
    _line(writer, path, "", done=True)
    writer.write(b"0\r\n\r\n")


def _line(writer: asyncio.StreamWriter, path: str, part: str, *, done: bool) -> None:
    value: dict[str, Any] = {"model": "m", "created_at": "2026-11-28T10:00:00Z"}
    value |= {"response": part} if path == "/api/generate" else {"message": {"role": "assistant", "content": part}}
    value |= {"done": done}
    if done:
        value |= {"done_reason": "stop", "total_duration": 1000, "prompt_eval_count": 1, "eval_count": 1}
    line = json.dumps(value).encode() + b"\n"
    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
