"""Which credential a request carries: clients put theirs into many places."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable


class TwoCredentials(Exception):
    """A request carries credentials that differ; which one is meant would be a guess."""


def credential(prefix: bytes | None, authorization: Iterable[bytes], api_key: Iterable[bytes]) -> bytes | None:
    """The one credential of a request: of the path ``/k/<token>``, ``Authorization`` (Bearer, Basic) or ``x-api-key``.

    The same credential may stand in several places, since clients do that.

    :return: None when there is none, or none of a kind that foreman reads.
    :raises TwoCredentials: when they differ.
    """
    given = {value for value in map(_from_authorization, authorization) if value}
    given.update(value.strip() for value in api_key if value.strip())
    if prefix:
        given.add(prefix)
    if len(given) > 1:
        raise TwoCredentials
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
