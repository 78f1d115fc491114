"""The path of a request: decoding, cleaning and escaping as in Go's and Ollama's routers, and the credential before it."""

from __future__ import annotations

import re
from itertools import product
from urllib.parse import quote_from_bytes

_CREDENTIAL = re.compile(rb"/k/(?!\.\.?(?:[/?]|\Z))([^/?#\x00-\x20\x7f]++)(?=[/?]|\Z)")
_ABSOLUTE = re.compile(rb"https?://(?:[A-Za-z0-9._~-]++|\[[0-9A-Fa-f:.]++\])?(?::[0-9]*+)?(?=[/?]|\Z)", re.IGNORECASE)
#: How often a credential may be percent-encoded to be found.
_MAX_ESCAPED = 3
_LONGEST_ESCAPED = 4096
#: A path without these cannot lead anywhere but below its first segment.
_INDIRECT = re.compile(rb"[%\\]|/[./]")
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BYTES = {
    (high + low).encode("ascii"): bytes.fromhex(high + low) for high, low in product("0123456789abcdefABCDEF", repeat=2)
}
#: Paths that Go's ``url.EscapedPath`` leaves as they were sent, and the characters that it does not escape itself.
AS_SENT = re.compile(rb"[A-Za-z0-9\-._~$&+,/:;=@%!'()*\[\]]*")
_PLAIN = "$&+,/:;=@"
#: Bytes outside of ASCII, escaped as by Go's ``http.Redirect``.
_ESCAPES = {byte: f"%{byte:02x}" for byte in range(0x80, 0x100)}


def origin_form(target: bytes) -> bytes:
    """A request-target in origin form: without ``http://host`` if it is in absolute form (RFC 9112 section 3.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def take_prefix(target: bytes) -> tuple[bytes | None, bytes]:
    """Split the credential ``/k/<token>`` off a request-target in origin form.

    :return: the token or None, and the rest of the request-target.
    """
    match = _CREDENTIAL.match(target)
    if match is None:
        return None, target
    rest, token = target[match.end() :], match[1]
    return unescape(token), rest if rest.startswith(b"/") else b"/" + rest


def unescape(text: bytes) -> bytes:
    """Decode percent-encoding once; a ``%`` without two hexadecimal digits behind it stays.

    ``urllib.parse.unquote_to_bytes`` gives the same result, but takes 20 ms and more for 64 kB of ``%``.
    """
    return _ESCAPE.sub(lambda escape: _BYTES[escape[1]], text)


def hides_credential(decoded: bytes) -> bool:
    """Whether a path contains ``/k/<token>`` in a spelling that ``take_prefix`` does not accept, or behind another credential.

    Such a token would reach the target and the log. Ollama has no route below ``/k/``.
    """
    if decoded.startswith((b"/api/", b"/v1/")) and not _INDIRECT.search(decoded):
        return False
    if b"%" in decoded and len(decoded) > _LONGEST_ESCAPED:
        return True  # no route is like this, and the search would take long
    for _ in range(_MAX_ESCAPED):
        once_more = unescape(decoded)
        if once_more == decoded:
            break
        decoded = once_more
    cleaned = clean(b"/" + decoded.replace(b"\\", b"/"))
    return cleaned[1:].partition(b"/")[0].decode("utf-8", "replace").casefold() == "k" and cleaned.count(b"/") > 1


def clean(path: bytes) -> bytes:
    """An absolute path without empty segments and dot segments; a slash at its end is kept (Go's ``http.cleanPath``)."""
    if b"//" not in path and b"/." not in path:
        return path
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in {b"", b"."}:
            kept.append(segment)
    return b"/" + b"/".join(kept) + (b"/" if kept and path.endswith(b"/") else b"")


def escape(path: bytes) -> bytes:
    """A path as Go writes it into a ``Location``."""
    return quote_from_bytes(path, safe=_PLAIN).encode("ascii")


def to_ascii(query: bytes) -> bytes:
    """A query as Go writes it into a ``Location``."""
    return query if query.isascii() else query.decode("latin-1").translate(_ESCAPES).encode("ascii")
