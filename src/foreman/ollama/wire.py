"""What foreman reads of Ollama's own JSON; everything else passes as bytes.

The shapes are those of contract 2.5; unknown fields are ignored, missing ones have defaults, since versions differ.
"""

from __future__ import annotations

from typing import Any

import msgspec


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


class Tags(msgspec.Struct):
    """The answer of ``/api/tags``."""

    models: list[Installed] | None = None


class Ps(msgspec.Struct):
    """The answer of ``/api/ps``."""

    models: list[Running] | None = None


read_tags = msgspec.json.Decoder(Tags).decode
read_ps = msgspec.json.Decoder(Ps).decode
