"""Tokens, who holds them, and the file of named tokens.

A token itself is never stored: the file has its SHA-256, which is safe for random tokens of 128 bits and more.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256

from attrs import evolve, field, frozen

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: The names of the holders of FOREMAN_AUTH_TOKEN and FOREMAN_ADMIN_TOKEN, in logs and as owners of jobs.
RESERVED = ("token", "admin")
_ROLES = {"admin": True, "user": False}

#: When a token was made, as written in the file: date and time in UTC.
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
#: How many hex digits of its digest identify a token among those of its holder.
_ID_LENGTH = 8

_FILE_HEAD = (
    "# foreman's tokens: name, SHA-256 of the token, role (user, or admin: may manage models), when it was made\n"
)


@frozen
class Holder:
    """The holder of one token; a name may have several tokens, so that one can replace another without a gap.

    :ivar digest: SHA-256 of the token; :ivar admin: may manage models; :ivar created: when it was made, as written in
        the file; empty where that is not known.
    """

    name: str
    digest: bytes
    admin: bool = False
    created: str = field(default="", eq=False)

    @property
    def id(self) -> str:
        """Identifies this token among those of its holder: the beginning of its digest in hex."""
        return self.digest.hex()[:_ID_LENGTH]


def digest(token: str) -> bytes:
    """The digest of a token, which is stored in place of it."""
    return sha256(token.encode("utf-8")).digest()


def check_name(name: str) -> str:
    """Check the name of a token's holder, and return it.

    :raises ValueError: with a phrase that says which names are allowed.
    """
    if name in RESERVED:
        raise ValueError("is reserved for the holder of a token in the settings")
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            "must be 1 to 64 letters, digits, dots, dashes or underscores, and begin with a letter or digit"
        )
    return name


def parse_file(text: str) -> tuple[Holder, ...]:
    """Parse a file of tokens: one holder for each line with a token; a name may have several lines.

    :raises ValueError: with a phrase that names the first invalid line.
    """
    holders: dict[tuple[str, bytes], Holder] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = _words(line)
        if not words:
            continue
        sound = len(words) in {3, 4} and _DIGEST.fullmatch(words[1]) is not None and words[2] in _ROLES
        if not sound or (len(words) == 4 and _CREATED.fullmatch(words[3]) is None):
            raise ValueError(
                f"has an invalid line {number}: a line must have a name, a SHA-256 in hex, a role (user or admin) and optionally "
                "a time, such as 2026-11-28T12:00:00Z"
            )
        try:
            name = check_name(words[0])
        except ValueError as problem:
            raise ValueError(f"has a name in line {number} that {problem}") from None
        hashed = bytes.fromhex(words[1])
        if (name, hashed) in holders:
            raise ValueError(f"has the same token of {name} twice, the second time in line {number}")
        holders[name, hashed] = Holder(name, hashed, _ROLES[words[2]], words[3] if len(words) == 4 else "")
    return tuple(holders.values())


def format_file(holders: Iterable[Holder], text: str = "") -> str:
    """The text of a token file with ``holders`` appended to ``text``, its content so far; comments are kept."""
    rows = [
        " ".join([holder.name, holder.digest.hex(), "admin" if holder.admin else "user", holder.created]).rstrip()
        + "\n"
        for holder in holders
    ]
    before = text or _FILE_HEAD
    return before + ("" if before.endswith("\n") else "\n") + "".join(rows)


def without_holder(text: str, name: str, id_: str | None = None) -> str:
    """The text of a token file without the lines of ``name``; with ``id_``, without the line of that token only."""

    def stays(line: str) -> bool:
        words = _words(line)
        return words[:1] != [name] or (id_ is not None and words[1][:_ID_LENGTH] != id_)

    return "\n".join(line for line in text.split("\n") if stays(line))


def _words(line: str) -> list[str]:
    return line.partition("#")[0].split()


@frozen
class Tokens:
    """All valid tokens; a name may have several, so that a new one can replace an old one step by step.

    :ivar required: whether clients must send one; :ivar had_admin: whether there was an admin since foreman started.
    """

    holders: tuple[Holder, ...] = ()
    required: bool = False
    had_admin: bool = False
    _is_admin: dict[bytes, bool] = field(init=False, repr=False, eq=False)

    @_is_admin.default
    def _roles(self) -> dict[bytes, bool]:
        """For the digest of each token, whether it belongs to an admin."""
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
        """Whether only admins may manage models: so it is from the first admin on, even after the last one is gone."""
        return self.had_admin or self.has_admin

    def replacing(self, before: Tokens) -> Tokens:
        """These tokens in a foreman that had those ``before``."""
        return evolve(self, had_admin=before.only_admins_manage)

    def holder_of(self, credential: bytes) -> Holder | None:
        """The holder of ``credential``, or None. It is always compared with every token, so that the time reveals nothing."""
        given = sha256(credential).digest()
        found = None
        for holder in self.holders:
            if hmac.compare_digest(given, holder.digest):
                found = holder
        return found

    def is_token(self, text: bytes) -> bool:
        """Whether ``text``, which was not sent as a credential, is one of the tokens."""
        return sha256(text).digest() in self._is_admin

    def is_valid(self, holder: Holder) -> bool:
        """Whether the token of ``holder`` is still valid, with no less permission than before."""
        is_admin = self._is_admin.get(holder.digest)
        return is_admin is not None and is_admin >= holder.admin
