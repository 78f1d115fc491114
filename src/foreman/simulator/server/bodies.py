"""Who takes the bodies of requests: whole ones, with what ``/v1`` allows of compression (contract 1.5)."""

from __future__ import annotations

from collections.abc import Callable

import zstandard
from attrs import define, field

from foreman.simulator.engine.errors import Malformed
from foreman.simulator.server.exchange import Exchange

_MOST = 20 << 20


def inflated(exchange: Exchange, body: bytes) -> bytes:
    """The body as the routes read it: on ``/v1`` Ollama undoes zstd, and nothing else anywhere.

    :raises Malformed: where that fails, or makes too much of it.
    """
    if not exchange.path.startswith("/v1/") or exchange.header("content-encoding") != "zstd":
        return body
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            whole = reader.read(_MOST + 1)
    except zstandard.ZstdError:
        raise Malformed("invalid input: magic number mismatch") from None
    if len(whole) > _MOST:
        raise Malformed("http: request body too large")
    return whole


@define(eq=False)
class Whole:
    """Collects a body, then lets the route answer."""

    _exchange: Exchange
    _answer: Callable[[], None]
    _parts: list[bytes] = field(factory=list)

    def take(self, data: bytes) -> None:
        """A part of it."""
        self._parts.append(data)

    def taken(self) -> None:
        """All of it."""
        self._exchange.body = b"".join(self._parts)
        self._answer()
