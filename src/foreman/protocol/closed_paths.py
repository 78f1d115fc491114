"""Which paths of the target nobody may reach through foreman, whoever asks and however the path is written.

Ollama serves ``/api/codex`` to callers on its own machine only, and looks at nothing but the address of the TCP peer
(contract 1.2). foreman is such a peer for all of its clients. What is sent there is repeated by Ollama to itself under
any method and path, or goes out to the servers of OpenAI.
"""

from __future__ import annotations

import re
from itertools import pairwise

from foreman.protocol.request_path import unescape

#: How often a path is unescaped: Ollama does it once, a proxy in front of it perhaps once more.
_PASSES = 4
_WORD = b"codex"
#: A path with this word and more segments than any route has is not worth reading.
_MAX_SEGMENTS = 100
#: Where some servers end a segment: parameters, and what an escape may have hidden.
_SEGMENT_END = re.compile(rb"[;?#]")


def is_closed(path: bytes) -> bool:
    """Whether a path leads to ``/api/codex`` or below it, in any spelling and behind any prefix.

    :param path: the raw path of a request with the target's own base path in front; a query is ignored.
    """
    path = path.partition(b"?")[0]
    for _ in range(_PASSES):
        if _names_codex(path):
            return True
        if b"%" not in path:
            return False
        path = unescape(path)
    return _names_codex(path)


def _names_codex(path: bytes) -> bool:
    path = path.lower()
    if _WORD not in path:
        return False
    parts = path.replace(b"\\", b"/").split(b"/")
    if len(parts) > _MAX_SEGMENTS:
        return True
    as_sent: list[bytes] = []
    cleaned: list[bytes] = []
    for part in parts:
        segment = _SEGMENT_END.split(part, maxsplit=1)[0].strip()
        if segment in {b"", b"."}:
            continue
        as_sent.append(segment)
        if segment == b"..":
            del cleaned[-1:]
        else:
            cleaned.append(segment)
    return any((b"api", _WORD) in pairwise(segments) for segments in (as_sent, cleaned))
