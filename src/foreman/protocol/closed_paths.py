"""The paths of the target that no request may reach through foreman, however they are spelled.

Ollama serves ``/api/codex`` only to clients on its own machine, and judges that by the address of the TCP peer alone
(contract 1.2), which for all of foreman's clients is foreman. Ollama repeats a request to this path to itself under any
method and path, or sends it to the servers of OpenAI.
"""

from __future__ import annotations

import re
from itertools import pairwise

from foreman.protocol.request_path import unescape

#: How often a path is unescaped: Ollama does it once, a proxy in front of it perhaps once more.
_PASSES = 4
_WORD = b"codex"
#: A path with this word and more segments than any route has is closed without examining it.
_MAX_SEGMENTS = 100
#: Characters at which some servers end a segment: they begin parameters, or were hidden by an escape.
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
