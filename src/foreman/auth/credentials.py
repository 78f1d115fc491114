"""Which credential a request carries: clients put theirs into many places."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator

from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_path import unescape

#: What may stand in front of a path. A short one would be found by chance, and other bytes change on their way: programs
#: escape, fold and cut paths. A token that does not look like this opens the door as a header only.
_FIT_FOR_A_PATH = re.compile(rb"[A-Za-z0-9._~-]{16,}")
#: Shorter ones would be found in ordinary words.
_SHORTEST_SOUGHT = 8
#: How many parts of an address are looked at, and how often each may be percent-encoded.
_MAX_PARTS, _MAX_ESCAPED = 256, 3
#: One that is longer is decoded once: more would take long, and nobody's token is in there by mistake.
_LONGEST_DECODED = 8192
_SEPARATORS = re.compile(rb"[/?&=;\\]")
_WORD = re.compile(rb"[A-Za-z0-9._~-]+")
#: These are read here, and never reach the target as they are.
_READ_HERE = frozenset({
    b"authorization",
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"transfer-encoding",
    b"x-api-key",
})  # fmt: skip


class UnfitCredential(Exception):
    """A request's credential cannot be used; ``str()`` says why."""


def credential(prefix: bytes | None, authorization: Iterable[bytes], api_key: Iterable[bytes]) -> bytes | None:
    """The one credential of a request: of the path ``/k/<token>``, ``Authorization`` (Bearer, Basic) or ``x-api-key``.

    The same credential may stand in several places, since clients do that. In the path it must have at least 16 letters,
    digits, dots, dashes, underscores or tildes, whatever the tokens are.

    :param prefix: of the path, unescaped.
    :return: None when there is none, or none of a kind that foreman reads.
    :raises UnfitCredential: when there are some that differ, or one in the path that may not stand there.
    """
    given = {value for value in map(_from_authorization, authorization) if value}
    given.update(value.strip() for value in api_key if value.strip())
    if prefix is not None:
        given.add(prefix)
    if len(given) > 1:
        raise UnfitCredential("this request carries credentials that differ; send one")
    if prefix is not None and _FIT_FOR_A_PATH.fullmatch(prefix) is None:
        raise UnfitCredential("a token in the path has at least 16 letters, digits or . _ ~ -; send others as a header")
    return given.pop() if given else None


def fits_a_path(token: str) -> bool:
    """Whether a token may stand in the path: ``/k/TOKEN/…``."""
    return _FIT_FOR_A_PATH.fullmatch(token.encode()) is not None


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


def stands_in(address: bytes, is_known: Callable[[bytes], bool]) -> bool:
    """Whether a token stands in an address, where it would reach the log and the target.

    :param address: path and query as sent, without a credential in front; :param is_known: whether something is a token.
    """
    return any(len(part) >= _SHORTEST_SOUGHT and is_known(part) for part in _parts(address))


def contains(address: bytes, credential: bytes) -> bool:
    """Whether an address contains the credential of its request, in any place."""
    return len(credential) >= _SHORTEST_SOUGHT and any(credential in spelling for spelling in _spellings(address))


def without_copies(headers: RawHeaders, credential: bytes) -> RawHeaders:
    """The headers without those that repeat the credential of their request, which the target must not see.

    Clients send it under several names (``Api-Key``), and as a part of others (``Referer``).
    """
    if len(credential) < _SHORTEST_SOUGHT or not any(
        credential in value or credential in name for name, value in headers
    ):
        return headers
    return [
        (name, value)
        for name, value in headers
        if not (credential in name or (credential in value and name.lower() not in _READ_HERE))
    ]


def _spellings(address: bytes) -> Iterator[bytes]:
    """An address as it was sent, and percent-decoded as often as that changes it, within a bound."""
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
    """What could be a token of its own: between separators, and words within that."""
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
