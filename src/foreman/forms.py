"""One field of a ``multipart/form-data`` body (RFC 7578), without reading the files that are in it.

Only what every client writes is understood; about anything else foreman says that it does not know.
"""

from __future__ import annotations

import re

from foreman.gojson import Body

#: Parts that are looked at, and bytes that a value may have.
MOST_PARTS = 64
MOST_BYTES = 4096
#: How far into a body is looked, in bytes: a file that stands before the field must not keep the process for long.
MOST_SEARCHED = 32 * 1024 * 1024
#: RFC 2046 section 5.1.1 allows 70 bytes.
_LONGEST_BOUNDARY = 200

# Each run of bytes is possessive, and no two runs side by side share a byte: whatever does not match costs one pass.
_PARAMETERS = rb'(?:[ \t]*+;[ \t]*+[A-Za-z]++=(?:"[^"\\\r\n]*+"|[^"\\;\s]++))*'
_CONTENT_TYPE = re.compile(rb"[ \t]*+multipart/form-data(" + _PARAMETERS + rb")[ \t;]*+", re.IGNORECASE)
_HEAD = re.compile(rb"((?:[^\r\n]{1,1000}+\r\n){0,16})\r\n")
_DISPOSITION = re.compile(rb"content-disposition:[ \t]*+form-data(" + _PARAMETERS + rb")[ \t]*+", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*+([A-Za-z]++)=(?:"([^"]*+)"|([^";\s]++))')


def field(name: str, body: Body, content_type: bytes) -> str | None:
    """The text of the first field called ``name``; None where there is none, or the form cannot be read."""
    described = _CONTENT_TYPE.fullmatch(content_type)
    boundary = described and _parameters(described[1]).get(b"boundary")
    if not boundary or len(boundary) > _LONGEST_BOUNDARY:
        return None
    mark = rb"--" + re.escape(boundary)
    border = re.compile(rb"\r\n" + mark + rb"(?:(--)|[ \t]*+\r\n)")
    opening = re.compile(mark + rb"[ \t]*+\r\n").match(body)
    start = opening.end() if opening else len(body)
    for _ in range(MOST_PARTS):
        head = _HEAD.match(body, start)
        end = head and border.search(body, head.end(), MOST_SEARCHED)
        if not head or not end:
            return None
        if _is_called(name.encode("ascii"), bytes(head[1])):
            return _text(bytes(body[head.end() : end.start()]))
        if end[1] is not None:
            return None
        start = end.end()
    return None


def _is_called(name: bytes, head: bytes) -> bool:
    for line in head.split(b"\r\n"):
        if disposition := _DISPOSITION.fullmatch(line):
            parameters = _parameters(disposition[1])
            return parameters.get(b"name") == name and b"filename" not in parameters
    return False


def _parameters(text: bytes) -> dict[bytes, bytes]:
    return {match[1].lower(): match[2] or match[3] or b"" for match in _PARAMETER.finditer(text)}


def _text(value: bytes) -> str | None:
    if len(value) > MOST_BYTES:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
