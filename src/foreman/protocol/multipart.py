"""Read one field of a ``multipart/form-data`` body (RFC 7578), without reading the files in it.

Only the syntax that clients use is understood; anything else counts as unreadable.
"""

from __future__ import annotations

import re

from foreman.protocol.go_json import Body
from foreman.util.slices import Slices

#: How many parts are examined, and how many bytes a value may have.
MAX_PARTS = 64
MAX_BYTES = 4096
#: How much of a file that stands before the field is searched at once, in bytes: some 3 ms.
_WINDOW = 1024 * 1024
#: RFC 2046 section 5.1.1 allows 70 bytes.
_LONGEST_BOUNDARY = 200
#: How many blanks may follow a boundary.
_MAX_BLANKS = 100

# Each run of bytes is possessive, and adjacent runs share no byte: text that does not match costs one pass.
_PARAMETERS = rb'(?:[ \t]*+;[ \t]*+[A-Za-z]++=(?:"[^"\\\r\n]*+"|[^"\\;\s]++))*'
_CONTENT_TYPE = re.compile(rb"[ \t]*+multipart/form-data(" + _PARAMETERS + rb")[ \t;]*+", re.IGNORECASE)
_HEAD = re.compile(rb"((?:[^\r\n]{1,1000}+\r\n){0,16})\r\n")
_DISPOSITION = re.compile(rb"content-disposition:[ \t]*+form-data(" + _PARAMETERS + rb")[ \t]*+", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*+([A-Za-z]++)=(?:"([^"]*+)"|([^";\s]++))')


def field(name: str, body: Body, content_type: bytes) -> Slices[str | None]:
    """The value of the first field ``name``; None where there is none, or the form cannot be read."""
    described = _CONTENT_TYPE.fullmatch(content_type)
    boundary = described and _parameters(described[1]).get(b"boundary")
    if not boundary or len(boundary) > _LONGEST_BOUNDARY:
        return None
    mark = rb"--" + re.escape(boundary)
    border = re.compile(rb"\r\n" + mark + rb"(?:(--)|[ \t]{0,%d}\r\n)" % _MAX_BLANKS)
    opening = re.compile(mark + rb"[ \t]{0,%d}\r\n" % _MAX_BLANKS).match(body)
    start = opening.end() if opening else len(body)
    for _ in range(MAX_PARTS):
        head = _HEAD.match(body, start)
        end = head and (yield from _search(border, body, head.end(), len(boundary)))
        if not head or not end:
            return None
        if _is_called(name.encode("ascii"), bytes(head[1])):
            return _text(body[head.end() : end.start()])
        if end[1] is not None:
            return None
        start = end.end()
    return None


def _search(border: re.Pattern[bytes], body: Body, at: int, length: int) -> Slices[re.Match[bytes] | None]:
    """The first match of ``border`` from ``at`` on; its boundary has ``length`` bytes."""
    overlap = length + _MAX_BLANKS + 10  # a border may begin in one window and end in the next
    while (found := border.search(body, at, at + _WINDOW + overlap)) is None:
        at += _WINDOW
        if at >= len(body):
            return None
        yield
    return found


def _is_called(name: bytes, head: bytes) -> bool:
    for line in head.split(b"\r\n"):
        if disposition := _DISPOSITION.fullmatch(line):
            parameters = _parameters(disposition[1])
            return parameters.get(b"name") == name and b"filename" not in parameters
    return False


def _parameters(text: bytes) -> dict[bytes, bytes]:
    return {match[1].lower(): match[2] or match[3] or b"" for match in _PARAMETER.finditer(text)}


def _text(value: Body) -> str | None:
    if len(value) > MAX_BYTES:
        return None
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return None
