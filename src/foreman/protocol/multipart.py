"""One field of a ``multipart/form-data`` body (RFC 7578), without reading the files that are in it.

Only what every client writes is understood; about anything else foreman says that it does not know.
"""

from __future__ import annotations

import re

from foreman.protocol.go_json import Body
from foreman.util.slices import Slices

#: Parts that are looked at, and bytes that a value may have.
MAX_PARTS = 64
MAX_BYTES = 4096
#: How much of a file that stands before the field is searched at once, in bytes: some 3 ms.
_WINDOW = 1024 * 1024
#: RFC 2046 section 5.1.1 allows 70 bytes.
_LONGEST_BOUNDARY = 200
#: Blanks that may stand behind a boundary.
_MAX_BLANKS = 100

# Each run of bytes is possessive, and no two runs side by side share a byte: whatever does not match costs one pass.
_PARAMETERS = rb'(?:[ \t]*+;[ \t]*+[A-Za-z]++=(?:"[^"\\\r\n]*+"|[^"\\;\s]++))*'
_CONTENT_TYPE = re.compile(rb"[ \t]*+multipart/form-data(" + _PARAMETERS + rb")[ \t;]*+", re.IGNORECASE)
_HEAD = re.compile(rb"((?:[^\r\n]{1,1000}+\r\n){0,16})\r\n")
_DISPOSITION = re.compile(rb"content-disposition:[ \t]*+form-data(" + _PARAMETERS + rb")[ \t]*+", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*+([A-Za-z]++)=(?:"([^"]*+)"|([^";\s]++))')


def field(name: str, body: Body, content_type: bytes) -> Slices[str | None]:
    """The text of the first field called ``name``; None where there is none, or the form cannot be read."""
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
    """The first border from ``at`` on, of a boundary of ``length`` bytes."""
    overlap = length + _MAX_BLANKS + 10  # one may begin in one window and end in the next
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
