"""``/api/blobs``: uploads are checked as they come, and nothing of them is kept but digest, size and kind."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from attrs import define, field, frozen

from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.error_shapes import refuse
from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.interfaces import Taker

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})\Z")


@frozen
class Blob:
    """What is remembered of an upload; ``start`` are its first four bytes."""

    size: int
    start: bytes


def digest_in(text: str) -> str:
    """The 64 digits of a digest.

    :raises Refused: for a text that is none.
    """
    match = _DIGEST.match(text)
    if match is None:
        raise Refused(400, "invalid digest format")
    return match[1].lower()


def _asked(exchange: Exchange) -> str:
    return exchange.path.rpartition("/")[2]


@define(eq=False)
class _Upload:
    """A blob that is arriving."""

    _state: SimulatorState
    _exchange: Exchange
    _digest: str
    _hash: Any = field(factory=hashlib.sha256)
    _size: int = 0
    _start: bytes = b""

    def take(self, data: bytes) -> None:
        """A part of it."""
        self._hash.update(data)
        self._size += len(data)
        if len(self._start) < 4:
            self._start += data[:4]

    def taken(self) -> None:
        """All of it: it is what it was said to be, or not."""
        got = self._hash.hexdigest()
        if got == self._digest:
            self._state.blobs[got] = Blob(self._size, self._start[:4])
            self._exchange.respond(201)
        else:
            text = f'digest mismatch, expected "sha256:{self._digest}", got "sha256:{got}"'
            refuse(self._state, self._exchange, "ollama", Refused(400, text), [])


def receive(state: SimulatorState, exchange: Exchange) -> Taker | None:
    """Whoever takes an upload; ``None`` for one that is not wanted, since it is there already or has no proper digest."""
    try:
        digest = digest_in(_asked(exchange))
    except Refused:
        return None
    return None if digest in state.blobs else _Upload(state, exchange, digest)


async def upload(_: SimulatorState, exchange: Exchange) -> None:
    """``POST /api/blobs/:digest`` for one that is not wanted."""
    digest_in(_asked(exchange))
    exchange.respond(200)


async def exists(state: SimulatorState, exchange: Exchange) -> None:
    """``HEAD /api/blobs/:digest``."""
    asked = _asked(exchange)
    if digest_in(asked) not in state.blobs:
        raise Refused(404, f'blob "{asked}" not found')
    exchange.respond(200)
