"""Strict checks of a request's syntax (RFC 9112) beyond those of Twisted's parser: its end and its host must be unambiguous."""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError, maxChunkSizeLineLength

#: No real length has more digits.
_MAX_LENGTH_DIGITS = 18
#: No registered method is half as long, in characters.
MAX_METHOD = 64
CONTROL_BYTES = "a head has no control bytes, and its lines end in CRLF (RFC 9112 section 2.2)"

#: Inside a line of a head. A tab is allowed there; CR and LF are those that do not end the line.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_C1 = re.compile("[\x80-\x9f]")
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]++(?:%[A-Za-z0-9._~-]++)?\]|[A-Za-z0-9._~!$&'()*+,;=%-]*+)(?::[0-9]*+)?",
)
#: A minor version of HTTP that does not exist yet, which is read as the latest one (RFC 9110 section 2.5).
_LATER_VERSION = re.compile(rb" HTTP/1\.[2-9]\Z")
_TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
#: What may follow the size of a chunk.
_EXTENSIONS = re.compile(
    rb"(?:;[ \t]*+" + _TOKEN + rb"[ \t]*+(?:=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb")[ \t]*+)?)*"
)
_FRAMING = (b"content-length", b"transfer-encoding", b"host")
_FIELD_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_AUTHORITY = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)


def is_clean(line: bytes) -> bool:
    """Whether a line of a head, or the beginning of one, has no control bytes (RFC 9112 section 2.2, RFC 9110 section 5.5)."""
    return _CONTROL.search(line) is None


def line_problem(line: bytes, *, is_first: bool) -> tuple[int, str] | None:
    """What is wrong with a whole line of a head, as a status and a text; None: nothing that this line alone shows."""
    if not is_clean(line):
        return 400, CONTROL_BYTES
    if is_first and line.find(b" ") > MAX_METHOD:
        return 501, "no HTTP method is this long (RFC 9112 section 3)"
    if is_first and not line.isascii():
        return 400, "a request line is ASCII; other bytes are escaped (RFC 3986 section 2)"
    if not is_first and line[:1] in (b" ", b"\t"):
        return 400, "a header may not continue on the next line (RFC 9112 section 5.2)"
    return None


def field_problem(name: bytes, value: bytes) -> str | None:
    """What is wrong with a header that says where the request ends or whom it is for, or that two readers may read
    differently; None: nothing.

    :param name: in lower case; :param value: without white space around it.
    """
    if name == b"content-length":
        if not (value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS):
            return "Content-Length must be one number (RFC 9110 section 8.6)"
    elif name == b"transfer-encoding":
        if value.lower() != b"chunked":
            return "Transfer-Encoding must be chunked, alone (RFC 9112 section 6.1)"
    elif name == b"host":
        if _HOST.fullmatch(value) is None:
            return "Host must be a name and at most a port (RFC 9112 section 3.2)"
    elif not value.isascii() and _has_line_end(value):
        return "a header has no control bytes (RFC 9110 section 5.5)"
    return None


def is_allowed_trailer(line: bytes) -> bool:
    """Whether ``line`` is a header that may follow a body: none that says where it ends or for whom it is (RFC 9110 section 6.5.1)."""
    name, colon, value = line.partition(b":")
    if not colon or _FIELD_NAME.fullmatch(name) is None or name.lower() in _FRAMING:
        return False
    return is_clean(value) and field_problem(name.lower(), value) is None


def with_known_version(line: bytes) -> bytes:
    """A request line, with HTTP/1.1 instead of a later 1.x."""
    return line[:-1] + b"1" if _LATER_VERSION.search(line, max(0, len(line) - 9)) else line


class StrictChunkedDecoder(_ChunkedTransferDecoder):
    """Twisted's decoder of chunks, which also checks that whatever follows the size of a chunk is a chunk extension.

    Some readers take ``2;`` for a chunk with an empty extension, others for no chunk (RFC 9112 section 7.1.1).
    """

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        end = self._buffer.find(b"\r\n", self._start)
        if 0 <= end < maxChunkSizeLineLength:
            line = bytes(self._buffer[:end])
            extensions = line[len(line.partition(b";")[0]) :]
            if _EXTENSIONS.fullmatch(extensions) is None:
                raise _MalformedChunkedDataError("what follows the size of a chunk is not a chunk extension")
        return super()._dataReceived_CHUNK_LENGTH()


def says_close(connection: Iterable[bytes]) -> bool:
    """Whether the values of ``Connection`` ask to close the connection after this request (RFC 9112 section 9.6)."""
    return any(option.strip(b" \t").lower() == b"close" for value in connection for option in value.split(b","))


def authority(target: bytes) -> bytes | None:
    """Host and port of a request-target in absolute form (RFC 9112 section 3.2.2); None for the other forms."""
    absolute = _AUTHORITY.match(target)
    return absolute[1] if absolute is not None else None


def _has_line_end(value: bytes) -> bool:
    # U+0085 and other C1 controls end a line for some readers. In UTF-8 their bytes are also parts of letters.
    try:
        return _C1.search(value.decode("utf-8")) is not None
    except UnicodeDecodeError:
        return _C1.search(value.decode("latin-1")) is not None
