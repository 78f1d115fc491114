"""What may go wrong with an answer, and where; ``spoil`` makes it happen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from attrs import fields_dict, frozen

#: In the order: breaking off, wrong framing, wrong content, wrong heads, other answers.
What = Literal[
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

#: The header by which a request asks for its own misfortune: a word of ``What``, or a JSON object.
HEADER = "simulator-misbehave"


@frozen
class Misbehaviour:
    """One thing that goes wrong.

    ``reset`` (RST), ``close`` (inside the framing), ``stall`` (silence for ever, the model stays busy), ``cut-framing`` (a chunk size
    that is none, or a body shorter than its length) and ``garbage`` (bytes that are not HTTP) happen at their place;
    without one after the first line or event, or in the middle of an answer that is sent at once, ``garbage`` at the very
    beginning. ``close-delimited`` sends an answer without any framing, cut at its place if it has one. ``no-done`` leaves the end
    marker out, or everything from its place on; ``error-line`` (an error instead of the rest) and ``long-line`` (one of
    ``size`` bytes) come at their place, or after the first line.

    :ivar at_byte: after how many bytes of the answer, head included; :ivar at_line: after how many lines or events.
    :ivar times: to how many requests it happens, 0 for every one.
    :ivar route: to requests for which path, ``*`` for all; without it to all that a model has to answer.
    :ivar status: of ``5xx`` (500), ``redirect`` (307) and ``bad-status`` (99).
    :ivar text: of ``5xx``, ``error-line`` and ``garbage``; where ``redirect`` leads.
    :ivar size: bytes of a ``long-line`` (9 million), number of ``early-hints`` (1,000).
    :ivar pace: seconds between the bytes of ``slow-headers`` or the blocks of ``endless-headers``.
    """

    what: What
    at_byte: int | None = None
    at_line: int | None = None
    times: int = 1
    route: str | None = None
    status: int | None = None
    text: str = ""
    size: int = 0
    pace: float = 0.02

    def concerns(self, path: str, *, asks_a_model: bool) -> bool:
        """Whether it may happen to a request."""
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


def _one(value: Any) -> Misbehaviour:
    if isinstance(value, str):
        value = {"what": value}
    if not isinstance(value, dict) or value.get("what") not in get_args(What):
        raise ValueError(f'"what" must be one of {", ".join(get_args(What))}')
    for name, member in value.items():
        if name not in fields_dict(Misbehaviour):
            raise ValueError(f'"{name}" is not known')
        if name != "what" and (not isinstance(member, _TYPES[name]) or isinstance(member, bool)):
            raise ValueError(f'"{name}" is of the wrong type')
    return Misbehaviour(**value)


def parse(text: str) -> tuple[Misbehaviour, ...]:
    """What a text asks for: a word of ``What``, a JSON object with the fields of ``Misbehaviour``, or a list of either;
    an empty text for nothing.

    :raises ValueError: with a sentence that says what is wrong.
    """
    text = text.strip()
    if not text:
        return ()
    try:
        value = json.loads(text) if text[:1] in {"{", "["} else text
    except ValueError as error:
        raise ValueError(f"that is not JSON: {error}") from None
    return tuple(_one(item) for item in value) if isinstance(value, list) else (_one(value),)
