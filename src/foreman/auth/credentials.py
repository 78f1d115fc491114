"""The credential of a request, wherever its client puts it, and the search for tokens where they must not be."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator

from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_path import unescape

#: A token that may stand in front of a path. A shorter one would be found by chance, and other characters change on the
#: way: programs escape, fold and cut paths. Other tokens are only accepted in a header.
_PATH_SAFE = re.compile(rb"[A-Za-z0-9._~-]{16,}")
#: Shorter tokens are not searched for: they would be found in ordinary words.
_MIN_SEARCHED = 8
#: How many parts of an address are examined, and how often each may be percent-encoded.
_MAX_PARTS, _MAX_ESCAPED = 256, 3
#: A longer address is decoded once: more would take long, and no token stands in it by mistake.
_LONGEST_DECODED = 8192
_SEPARATORS = re.compile(rb"[/?&=;\\]")
_WORD = re.compile(rb"[A-Za-z0-9._~-]+")
#: foreman reads these headers itself; they never reach the target unchanged.
_READ_HERE = frozenset({
    b"authorization",
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"transfer-encoding",
    b"x-api-key",
})  # fmt: skip


class InvalidCredential(Exception):
    """The credential of a request cannot be used; ``str()`` says why."""


def credential(prefix: bytes | None, authorization: Iterable[bytes], api_key: Iterable[bytes]) -> bytes | None:
    """The credential of a request: from the path ``/k/<token>``, ``Authorization`` (Bearer, Basic) or ``x-api-key``.

    Clients may send the same credential in several places. In the path it must have at least 16 letters, digits, dots,
    dashes, underscores or tildes, whatever the tokens are.

    :param prefix: the credential in front of the path, unescaped.
    :return: None when there is none, or none of a kind that foreman reads.
    :raises InvalidCredential: when there are several different ones, or the one in the path is not allowed there.
    """
    given = {value for value in map(_from_authorization, authorization) if value}
    given.update(value.strip() for value in api_key if value.strip())
    if prefix is not None:
        given.add(prefix)
    if len(given) > 1:
        raise InvalidCredential("this request carries different credentials; send only one")
    if prefix is not None and _PATH_SAFE.fullmatch(prefix) is None:
        raise InvalidCredential(
            "a token in the path must have at least 16 letters, digits or . _ ~ -; send other tokens in a header"
        )
    return given.pop() if given else None


def is_path_safe(token: str) -> bool:
    """Whether a token may stand in the path: ``/k/TOKEN/…``."""
    return _PATH_SAFE.fullmatch(token.encode()) is not None


def _from_authorization(value: bytes) -> bytes | None:
    scheme, _, rest = value.strip().partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer":
        return rest
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest, validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    return None


def contains_token(address: bytes, is_known: Callable[[bytes], bool]) -> bool:
    """Whether an address contains a token, which would then reach the log and the target.

    :param address: path and query as sent, without a credential in front; :param is_known: whether a text is a token.
    """
    return any(len(part) >= _MIN_SEARCHED and is_known(part) for part in _parts(address))


def contains_credential(address: bytes, credential: bytes) -> bool:
    """Whether an address contains the credential of its own request, anywhere."""
    return len(credential) >= _MIN_SEARCHED and any(credential in spelling for spelling in _spellings(address))


def without_copies(headers: RawHeaders, credential: bytes) -> RawHeaders:
    """The headers without those that repeat the credential of the request, which the target must not see.

    Clients send it under several names (``Api-Key``), and within other headers (``Referer``).
    """
    if len(credential) < _MIN_SEARCHED or not any(credential in value or credential in name for name, value in headers):
        return headers
    return [
        (name, value)
        for name, value in headers
        if not (credential in name or (credential in value and name.lower() not in _READ_HERE))
    ]


def _spellings(address: bytes) -> Iterator[bytes]:
    """An address as it was sent, and percent-decoded repeatedly while that changes it, up to a limit."""
    yield address
    for _ in range(_MAX_ESCAPED):
        decoded = unescape(address)
        if decoded == address:
            return
        yield decoded
        if len(address) > _LONGEST_DECODED:
            return
        address = decoded


def _parts(address: bytes) -> Iterator[bytes]:
    """The parts of an address that could be a token: those between separators, and the words in them."""
    left = _MAX_PARTS
    for spelling in _spellings(address):
        for part in _SEPARATORS.split(spelling, maxsplit=_MAX_PARTS):
            yield part
            for word in _WORD.finditer(part):
                left -= 1
                if left < 0:
                    return
                if word.group() != part:
                    yield word.group()
