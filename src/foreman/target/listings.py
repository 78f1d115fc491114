"""The lists of models that Ollama sends, as far as foreman reads them; clients get the bytes.

The shapes are those of contract 2.5; unknown fields are ignored, missing ones have defaults, since versions differ. Where
one entry cannot be decoded, the list is read entry by entry, so that the others still count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
from attrs import frozen

#: How many commas, and how many lists and objects, a list may have: they determine the memory that it takes once it is
#: decoded. A list of 10,000 models has about 250,000 and 40,000.
MAX_COMMAS, MAX_OPENED = 300_000, 60_000
#: Longer than any integer of Go's, in digits.
_TOO_MANY_DIGITS = 21


class Installed(msgspec.Struct):
    """One model of ``/api/tags``; ``size`` in bytes. ``remote_host`` is set on a stub of a cloud model.

    :ivar capabilities: a list of words, from Ollamas that have it; anything else is no reason to reject the list.
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
    """A list of models that was read.

    :ivar skipped: how many of its entries could not be read.
    """

    models: Sequence[Model]
    skipped: int = 0


def read_tags(body: bytes) -> Listed[Installed]:
    """The answer of ``/api/tags``.

    :raises ValueError: when it is not a list of models as Ollama's; its text says why.
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
    # Python's own decoder accepts unpaired surrogates, and entries of any shape.
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_int=_int, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"it is not JSON: {problem}") from None
    entries = value.get("models", 0) if isinstance(value, dict) else 0
    if not isinstance(entries, list):  # null was read above, as an empty list of Go's
        raise ValueError("it has no list of models")  # noqa: TRY004 - callers expect ValueError
    models = [model for model in (_model_of(entry, kind) for entry in entries) if model is not None]
    if entries and not models:
        raise ValueError("none of its models has a name")
    return Listed(models, len(entries) - len(models))


def _model_of(entry: Any, kind: type[Model]) -> Model | None:
    """One entry, as far as it can be read; None where it has no name."""
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
    """Whether it is a non-empty text that can be encoded: unpaired surrogates cannot."""
    return isinstance(value, str) and value != "" and value == value.encode("utf-8", "replace").decode("utf-8")


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) < _TOO_MANY_DIGITS else None


class _Tags(msgspec.Struct):
    models: list[Installed] | None


class _Ps(msgspec.Struct):
    models: list[Running] | None


_decoders: dict[type, Any] = {Installed: msgspec.json.Decoder(_Tags), Running: msgspec.json.Decoder(_Ps)}
