"""What foreman reads of Ollama's own JSON; everything else passes as bytes.

The shapes are those of contract 2.5; unknown fields are ignored, missing ones have defaults, since versions differ. A list
is read entry by entry where one of them is odd, so that what can be read of the others counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
from attrs import frozen

#: What a list may have of commas, and of lists and objects: one of 10,000 models has some 250,000 and 40,000. What it is
#: read into takes memory by these.
MAX_COMMAS, MAX_OPENED = 300_000, 60_000
#: Longer than any number of Go's.
_LONGEST_INT = 21


class Installed(msgspec.Struct):
    """One model of ``/api/tags``; ``size`` in bytes. ``remote_host`` is set on a stub of a cloud model.

    :ivar capabilities: a list of words, from an Ollama that tells them; anything else is no reason to refuse its list.
    """

    name: str
    size: int = 0
    digest: str = ""
    remote_model: str = ""
    remote_host: str = ""
    capabilities: Any = None


class Running(msgspec.Struct):
    """One model of ``/api/ps``; sizes in bytes, ``expires_at`` as RFC 3339."""

    name: str
    size: int = 0
    size_vram: int = 0
    digest: str = ""
    expires_at: str = ""


Model = TypeVar("Model", Installed, Running)


@frozen
class Listed(Generic[Model]):
    """What was read of a list.

    :ivar skipped: how many of its entries could not be read.
    """

    models: Sequence[Model]
    skipped: int = 0


def read_tags(body: bytes) -> Listed[Installed]:
    """The answer of ``/api/tags``.

    :raises ValueError: when it is no list of models as Ollama's; its text says what is wrong.
    """
    return _read(body, Installed)


def read_ps(body: bytes) -> Listed[Running]:
    """The answer of ``/api/ps``; raises like ``read_tags``."""
    return _read(body, Running)


def _read(body: bytes, kind: type[Model]) -> Listed[Model]:
    if body.count(b",") > MAX_COMMAS or body.count(b"{") + body.count(b"[") > MAX_OPENED:
        raise ValueError("it is too long to be a list of models")
    try:
        return Listed(_decoders[kind].decode(body).models or [])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # Python's own reader knows half pairs of UTF-16, and one odd entry does not cost it the others.
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_int=_int, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"it is no JSON: {problem}") from None
    entries = value.get("models", 0) if isinstance(value, dict) else 0
    if not isinstance(entries, list):  # a null was read above, as Go's empty list
        raise ValueError("it has no list of models")  # noqa: TRY004 - whoever asks knows one exception
    models = [model for model in (_one(entry, kind) for entry in entries) if model is not None]
    if entries and not models:
        raise ValueError("none of its models has a name")
    return Listed(models, len(entries) - len(models))


def _one(entry: Any, kind: type[Model]) -> Model | None:
    """What can be read of one entry; None where that is not even its name."""
    if not isinstance(entry, dict):
        return None
    name = next((found for found in (entry.get("name"), entry.get("model")) if _is_text(found)), None)
    if name is None:
        return None
    model = kind(name)
    for member in kind.__struct_fields__[1:]:
        default, value = getattr(model, member), entry.get(member)
        if default is None or type(value) is type(default):
            setattr(model, member, value)
    return model


def _is_text(value: Any) -> bool:
    """Whether it is a text that can be written down: half a pair of UTF-16 cannot."""
    return isinstance(value, str) and value != "" and value == value.encode("utf-8", "replace").decode("utf-8")


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) < _LONGEST_INT else None


class _Tags(msgspec.Struct):
    models: list[Installed] | None


class _Ps(msgspec.Struct):
    models: list[Running] | None


_decoders: dict[type, Any] = {Installed: msgspec.json.Decoder(_Tags), Running: msgspec.json.Decoder(_Ps)}
