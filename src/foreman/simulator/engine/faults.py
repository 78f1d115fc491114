"""The faults that a response can have, and at which position; ``server.fault_injection`` makes them happen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from attrs import fields_dict, frozen

#: The word of each fault. In this order: broken off, wrong framing, wrong content, wrong heads, other responses.
FaultKind = Literal[
    "reset",
    "close",
    "stall",
    "cut-framing",
    "close-delimited",
    "two-lengths",
    "no-done",
    "error-line",
    "long-line",
    "garbage",
    "gzip-unasked",
    "slow-headers",
    "no-headers",
    "endless-headers",
    "early-hints",
    "bad-status",
    "5xx",
    "redirect",
]
#: What each fault does, for ``foreman simulate --help``.
DESCRIPTIONS: Mapping[FaultKind, str] = {
    "reset": "reset the connection (RST)",
    "close": "close the connection inside the body",
    "stall": "send nothing more, keep the model busy",
    "cut-framing": "an invalid chunk size, or fewer bytes than promised",
    "close-delimited": "HTTP/1.0 without any framing",
    "two-lengths": "two contradicting Content-Length headers",
    "no-done": "leave out the end marker of the stream",
    "error-line": "an error instead of the rest of the stream",
    "long-line": "insert a line of 9 million bytes, or of size",
    "garbage": "bytes that are not HTTP",
    "gzip-unasked": "compress, although the client did not ask for it",
    "slow-headers": "send the head byte by byte",
    "no-headers": "accept the request, but never respond",
    "endless-headers": "send header lines without end",
    "early-hints": "send 1,000 interim responses (103) first, or size of them",
    "bad-status": "an invalid status code, 99",
    "5xx": "an error response, status 500",
    "redirect": "a redirect, status 307",
}

#: The header by which a request asks for a fault of its own; its value is what ``parse`` reads.
HEADER = "simulator-misbehave"


@frozen
class Fault:
    """One fault.

    ``reset`` (RST), ``close`` (inside the framing), ``stall`` (no more bytes, while the model stays busy), ``cut-framing``
    (an invalid chunk size, or a body shorter than its length) and ``garbage`` (bytes that are not HTTP) happen at the
    position. Without a position they happen after the first line or event, or in the middle of a response that is sent at
    once; ``garbage`` then replaces the whole response. ``close-delimited`` sends a response without framing, truncated at
    the position if there is one. ``no-done`` leaves out the end marker, or everything from the position on. ``error-line``
    (an error instead of the rest) and ``long-line`` (a line of ``size`` bytes) come at the position, or after the first line.

    :ivar at_byte: the position in bytes of the response, head included; :ivar at_line: the position in lines or events.
    :ivar times: how many requests get the fault, 0 for all.
    :ivar route: the path whose requests get the fault, ``*`` for every path; by default all requests for a model.
    :ivar status: of ``5xx`` (default 500), ``redirect`` (307) and ``bad-status`` (99).
    :ivar text: the body of ``5xx``, the text of ``error-line`` and ``garbage``, the location of ``redirect``.
    :ivar size: bytes of a ``long-line`` (default 9 million), number of ``early-hints`` (1,000).
    :ivar pace: seconds between the bytes of ``slow-headers`` or the blocks of ``endless-headers``.
    """

    what: FaultKind
    at_byte: int | None = None
    at_line: int | None = None
    times: int = 1
    route: str | None = None
    status: int | None = None
    text: str = ""
    size: int = 0
    pace: float = 0.02

    def concerns(self, path: str, *, asks_a_model: bool) -> bool:
        """Whether the fault applies to a request."""
        return asks_a_model if self.route is None else self.route in {"*", path}


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "at_byte": (int, type(None)),
    "at_line": (int, type(None)),
    "times": int,
    "route": (str, type(None)),
    "status": (int, type(None)),
    "text": str,
    "size": int,
    "pace": (int, float),
}


def _fault(value: Any) -> Fault:
    if isinstance(value, str):
        value = {"what": value}
    if not isinstance(value, dict) or value.get("what") not in get_args(FaultKind):
        raise ValueError(f'does not name a fault: "what" must be one of {", ".join(get_args(FaultKind))}')
    for name, member in value.items():
        if name not in fields_dict(Fault):
            raise ValueError(f'"{name}" is not known')
        if name != "what" and (not isinstance(member, _TYPES[name]) or isinstance(member, bool)):
            raise ValueError(f'"{name}" is of the wrong type')
    return Fault(**value)


def parse(text: str) -> tuple[Fault, ...]:
    """The faults in a text: a ``FaultKind``, a JSON object with the fields of ``Fault``, a list of these, or nothing.

    :raises ValueError: with a sentence that says what is wrong.
    """
    text = text.strip()
    if not text:
        return ()
    try:
        value = json.loads(text) if text[:1] in {"{", "["} else text
    except ValueError as error:
        raise ValueError(f"that is not JSON: {error}") from None
    return tuple(_fault(item) for item in value) if isinstance(value, list) else (_fault(value),)
