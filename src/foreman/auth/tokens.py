"""Who holds which token: what is kept of tokens, and the file of named ones.

A token itself is never kept: the file has its SHA-256, which is enough for random tokens of 128 bits and more.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256

from attrs import evolve, field, frozen

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Who holds FOREMAN_AUTH_TOKEN and FOREMAN_ADMIN_TOKEN goes by these names in logs and as an owner.
RESERVED = ("token", "admin")
_ROLES = {"admin": True, "user": False}

#: When a token was made, as it stands in the file: a day and a time in UTC.
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
#: So many digits of its digest name a token among those of its holder.
_ID_LENGTH = 8

_FILE_HEAD = (
    "# foreman's tokens: name, SHA-256 of the token, role (user, or admin: may manage models), when it was made\n"
)


@frozen
class Holder:
    """Who a token belongs to; somebody may hold several, so that one can replace another without a gap.

    :ivar digest: SHA-256 of the token; :ivar admin: may manage models; :ivar created: when it was made, as it stands in
        the file; empty where that is not known.
    """

    name: str
    digest: bytes
    admin: bool = False
    created: str = field(default="", eq=False)

    @property
    def id(self) -> str:
        """What names this token where its holder has several: the beginning of its digest in hex."""
        return self.digest.hex()[:_ID_LENGTH]


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
    """The holders that a file of tokens names, one for each token: a name may have several lines.

    :raises ValueError: with a phrase that names the first line that cannot be read.
    """
    holders: dict[tuple[str, bytes], Holder] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = _words(line)
        if not words:
            continue
        sound = len(words) in {3, 4} and _DIGEST.fullmatch(words[1]) is not None and words[2] in _ROLES
        if not sound or (len(words) == 4 and _CREATED.fullmatch(words[3]) is None):
            raise ValueError(
                f"has no name, SHA-256 in hex, role (user or admin) and, if at all, time (2026-11-28T12:00:00Z) "
                f"in line {number}"
            )
        try:
            name = check_name(words[0])
        except ValueError as problem:
            raise ValueError(f"has a name in line {number} that {problem}") from None
        hashed = bytes.fromhex(words[1])
        if (name, hashed) in holders:
            raise ValueError(f"has the same token of {name} twice, again in line {number}")
        holders[name, hashed] = Holder(name, hashed, _ROLES[words[2]], words[3] if len(words) == 4 else "")
    return tuple(holders.values())


def write_file(holders: Iterable[Holder], text: str = "") -> str:
    """The text of a file that names ``holders``, behind what stands in it already; comments there stay."""
    rows = [
        " ".join([one.name, one.digest.hex(), "admin" if one.admin else "user", one.created]).rstrip() + "\n"
        for one in holders
    ]
    before = text or _FILE_HEAD
    return before + ("" if before.endswith("\n") else "\n") + "".join(rows)


def without_holder(text: str, name: str, id_: str | None = None) -> str:
    """The text of a file of tokens without the lines of ``name``; with ``id_`` without the one of that token."""

    def stays(line: str) -> bool:
        words = _words(line)
        return words[:1] != [name] or (id_ is not None and words[1][:_ID_LENGTH] != id_)

    return "\n".join(line for line in text.split("\n") if stays(line))


def _words(line: str) -> list[str]:
    return line.partition("#")[0].split()


@frozen
class Tokens:
    """All tokens that open the door; a name may have several, so that a new one can replace an old one step by step.

    :ivar required: whether one is asked for at all; :ivar had_admin: whether there was an admin since foreman started.
    """

    holders: tuple[Holder, ...] = ()
    required: bool = False
    had_admin: bool = False
    _is_admin: dict[bytes, bool] = field(init=False, repr=False, eq=False)

    @_is_admin.default
    def _roles(self) -> dict[bytes, bool]:
        """By the digest of each token: whether it is one of an admin."""
        roles: dict[bytes, bool] = {}
        for holder in self.holders:
            roles[holder.digest] = roles.get(holder.digest, False) or holder.admin
        return roles

    @property
    def has_admin(self) -> bool:
        """Whether there is an admin."""
        return any(holder.admin for holder in self.holders)

    @property
    def only_admins_manage(self) -> bool:
        """Whether managing models is for admins alone: it is as soon as there is one, and stays so without any."""
        return self.had_admin or self.has_admin

    def after(self, before: Tokens) -> Tokens:
        """These tokens, taken over by a foreman that had those ``before``."""
        return evolve(self, had_admin=before.only_admins_manage)

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
        return sha256(text).digest() in self._is_admin

    def still_has(self, holder: Holder) -> bool:
        """Whether the token of ``holder`` still opens the door, and for as much as before."""
        is_admin = self._is_admin.get(holder.digest)
        return is_admin is not None and is_admin >= holder.admin
