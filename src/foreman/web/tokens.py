"""Who may come in: credentials out of a request, and whose they are."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from hashlib import sha256

from attrs import frozen


class TwoCredentials(Exception):
    """A request carries credentials that differ; which one is meant would be a guess."""


@frozen
class Holder:
    """Who a token belongs to.

    :ivar digest: SHA-256 of the token; :ivar admin: may manage models.
    """

    name: str
    digest: bytes
    admin: bool = False


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return sha256(token.encode("utf-8")).digest()


@frozen
class Tokens:
    """All tokens that open the door; none at all means that it stands open."""

    holders: tuple[Holder, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a token is asked for at all."""
        return bool(self.holders)

    def who(self, credential: bytes) -> Holder | None:
        """Whose ``credential`` is. It is compared with every token, always, so that the time tells nothing."""
        given = sha256(credential).digest()
        found = None
        for holder in self.holders:
            if hmac.compare_digest(given, holder.digest):
                found = holder
        return found


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
