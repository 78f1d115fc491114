"""Who holds which token: what is kept of tokens, and the file of named ones.

A token itself is never kept: the file has its SHA-256, which is enough for random tokens of 128 bits and more.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256

from attrs import field, frozen

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Who holds FOREMAN_AUTH_TOKEN and FOREMAN_ADMIN_TOKEN goes by these names in logs and as an owner.
RESERVED = ("token", "admin")
_ROLES = {"admin": True, "user": False}

_FILE_HEAD = "# foreman's tokens: name, SHA-256 of the token, role (user, or admin: may manage models)\n"


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


def check_name(name: str) -> str:
    """A name for a token.

    :raises ValueError: with a phrase that says which names are allowed.
    """
    if name in RESERVED:
        raise ValueError("is foreman's own word for whoever has the token of its settings")
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            "must be 1 to 64 letters, digits, dots, dashes or underscores, and begin with a letter or digit"
        )
    return name


def read_file(text: str) -> tuple[Holder, ...]:
    """The holders that a file of tokens names.

    :raises ValueError: with a phrase that names the first line that cannot be read.
    """
    holders: dict[str, Holder] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or _DIGEST.fullmatch(words[1]) is None or words[2] not in _ROLES:
            raise ValueError(f"has no name, SHA-256 in hex and role (user or admin) in line {number}")
        try:
            name = check_name(words[0])
        except ValueError as problem:
            raise ValueError(f"has a name in line {number} that {problem}") from None
        if name in holders:
            raise ValueError(f"has the name {name} twice, again in line {number}")
        holders[name] = Holder(name, bytes.fromhex(words[1]), _ROLES[words[2]])
    return tuple(holders.values())


def write_file(holders: Iterable[Holder], text: str = "") -> str:
    """The text of a file that names ``holders``, behind what stands in it already; comments there stay."""
    rows = [f"{holder.name} {holder.digest.hex()} {'admin' if holder.admin else 'user'}\n" for holder in holders]
    before = text or _FILE_HEAD
    return before + ("" if before.endswith("\n") else "\n") + "".join(rows)


def without_holder(text: str, name: str) -> str:
    """The text of a file of tokens without the line of ``name``."""
    return "\n".join(line for line in text.split("\n") if line.partition("#")[0].split()[:1] != [name])


@frozen
class Tokens:
    """All tokens that open the door; a name may have several, so that a new one can replace an old one step by step.

    :ivar required: whether one is asked for at all.
    """

    holders: tuple[Holder, ...] = ()
    required: bool = False
    _digests: frozenset[bytes] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_digests", frozenset(holder.digest for holder in self.holders))

    @property
    def has_admin(self) -> bool:
        """Whether managing models is for admins alone: it is as soon as there is one."""
        return any(holder.admin for holder in self.holders)

    def who(self, credential: bytes) -> Holder | None:
        """Whose ``credential`` is. It is compared with every token, always, so that the time tells nothing."""
        given = sha256(credential).digest()
        found = None
        for holder in self.holders:
            if hmac.compare_digest(given, holder.digest):
                found = holder
        return found

    def knows(self, text: bytes) -> bool:
        """Whether ``text`` is one of the tokens; for what is not given as a credential, and may be anything."""
        return sha256(text).digest() in self._digests

    def still_has(self, holder: Holder) -> bool:
        """Whether the token of ``holder`` still opens the door, and for as much as before."""
        return any(one.digest == holder.digest and one.admin >= holder.admin for one in self.holders)
