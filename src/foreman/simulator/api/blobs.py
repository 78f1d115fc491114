"""``/api/blobs``: uploads are hashed as they arrive, and only digest, size and first bytes are kept."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from attrs import define, field, frozen

from foreman.simulator.api.error_shapes import refuse
from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.interfaces import BodyReceiver

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})\Z")


@frozen
class Blob:
    """What is kept of an upload; ``start`` are its first four bytes."""

    size: int
    start: bytes


def digest_in(text: str) -> str:
    """The 64 hexadecimal digits of a digest.

    :raises Refused: if the text is not a digest.
    """
    match = _DIGEST.match(text)
    if match is None:
        raise Refused(400, "invalid digest format")
    return match[1].lower()


def _digest_in_path(exchange: Exchange) -> str:
    return exchange.path.rpartition("/")[2]


@define(eq=False)
class _Upload:
    """An upload in progress."""

    _state: SimulatorState
    _exchange: Exchange
    _digest: str
    _hash: Any = field(factory=hashlib.sha256)
    _size: int = 0
    _start: bytes = b""

    def receive(self, data: bytes) -> None:
        """Hash a part of the upload."""
        self._hash.update(data)
        self._size += len(data)
        if len(self._start) < 4:
            self._start += data[:4]

    def complete(self) -> None:
        """Compare the digest, and respond."""
        got = self._hash.hexdigest()
        if got == self._digest:
            self._state.blobs[got] = Blob(self._size, self._start[:4])
            self._exchange.respond(201)
        else:
            text = f'digest mismatch, expected "sha256:{self._digest}", got "sha256:{got}"'
            refuse(self._state, self._exchange, "ollama", Refused(400, text), [])


def open_upload(state: SimulatorState, exchange: Exchange) -> BodyReceiver | None:
    """The receiver of an upload; ``None`` if the blob exists already or the digest is not valid."""
    try:
        digest = digest_in(_digest_in_path(exchange))
    except Refused:
        return None
    return None if digest in state.blobs else _Upload(state, exchange, digest)


async def upload(_: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/blobs/:digest`` for a blob that exists already."""
    digest_in(_digest_in_path(exchange))
    exchange.respond(200)


async def exists(state: SimulatorState, exchange: Exchange) -> None:
    """``HEAD /api/blobs/:digest``."""
    digest = _digest_in_path(exchange)
    if digest_in(digest) not in state.blobs:
        raise Refused(404, f'blob "{digest}" not found')
    exchange.respond(200)
