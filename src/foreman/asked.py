"""What a request body asks for, read as Go reads it (contract 2.0, 2.6 and 2.7)."""

from __future__ import annotations

import json
import mmap
from enum import Enum
from typing import Any

from attrs import frozen

from foreman.errors import BadBody


class Errand(Enum):
    """What there is to do."""

    RUN = "run"
    LOAD = "load"
    UNLOAD = "unload"


@frozen
class Asked:
    model: str | None
    stream: bool
    errand: Errand
    sure: bool


_STREAMED = frozenset({"/api/chat", "/api/generate", "/api/pull", "/api/push", "/api/create"})


def read(
    path: str,
    body: bytes | memoryview | mmap.mmap,
    encoding: bytes | None = None,
    content_type: bytes | None = None,
) -> Asked:
    data = bytes(body)
    default = path in _STREAMED
    if not data.strip(b" \t\r\n"):
        raise BadBody("EOF" if path.startswith("/v1/") else "missing request body")
    try:
        value: Any = json.loads(data)
    except ValueError:
        return Asked(None, default, Errand.RUN, False)
    if not isinstance(value, dict):
        return Asked(None, default, Errand.RUN, False)
    errand = Errand.RUN
    if path == "/api/chat" and not value.get("messages") or path == "/api/generate" and not value.get("prompt"):
        errand = Errand.UNLOAD if value.get("keep_alive") in (0, "0", "0s", "0m") else Errand.LOAD
    stream = value.get("stream")
    return Asked(value.get("model"), default if stream is None else bool(stream), errand, True)
