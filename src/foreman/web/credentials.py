"""Which credential a request carries: clients put theirs into many places."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

#: What may stand in front of a path. A short one would be found by chance, and other bytes change on their way: programs
#: escape, fold and cut paths. A token that does not look like this opens the door as a header only.
_FIT_FOR_A_PATH = re.compile(rb"[A-Za-z0-9._~-]{16,}")


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
