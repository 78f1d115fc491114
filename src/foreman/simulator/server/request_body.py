"""Buffers request bodies, and decompresses those of ``/v1`` (contract 1.5)."""

from __future__ import annotations

from collections.abc import Callable

import zstandard
from attrs import define, field

from foreman.simulator.engine.errors import Malformed
from foreman.simulator.server.exchange import Exchange

_MAX_BODY = 20 << 20


def decompressed(exchange: Exchange, body: bytes) -> bytes:
    """The body as the handlers get it: Ollama decompresses zstd on ``/v1``, and nothing elsewhere.

    :raises Malformed: if it is not zstd, or becomes too large.
    """
    if not exchange.path.startswith("/v1/") or exchange.header("content-encoding") != "zstd":
        return body
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            decompressed_body = reader.read(_MAX_BODY + 1)
    except zstandard.ZstdError:
        raise Malformed("invalid input: magic number mismatch") from None
    if len(decompressed_body) > _MAX_BODY:
        raise Malformed("http: request body too large")
    return decompressed_body


@define(eq=False)
class BodyBuffer:
    """Buffers a body, then calls the handler."""

    _exchange: Exchange
    _answer: Callable[[], None]
    _parts: list[bytes] = field(factory=list)

    def receive(self, data: bytes) -> None:
        """Buffer a part of the body."""
        self._parts.append(data)

    def complete(self) -> None:
        """Hand the whole body to the handler."""
        self._exchange.body = b"".join(self._parts)
        self._answer()
