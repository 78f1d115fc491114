"""The tokens that the settings name, and a look each second at whether the file of named ones has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from foreman.auth.tokens import Holder, Tokens, digest
from foreman.config.parsers import Unreadable, read_tokens
from foreman.config.settings import Config

#: Between two looks, in seconds. A token that was revoked is accepted for so long at most; for twice as long where the
#: file was edited in place (see ``TokenFile.look``).
CHECK_INTERVAL = 1.0


@frozen
class Mark:
    """What tells one state of a file from another.

    :ivar file: device and inode, which change when another file is moved into its place;
    :ivar times: of its last change, and of that of its inode, in nanoseconds; :ivar size: in bytes.
    """

    file: tuple[int, int]
    times: tuple[int, int]
    size: int


def tokens_of(config: Config) -> Tokens:
    """The tokens that the settings name.

    :raises ValueError: when the file of tokens cannot be read.
    """
    holders: list[Holder] = []
    if config.tokens_file is not None:
        holders += read_tokens(config.tokens_file)
    if config.auth_token:
        holders.append(Holder("token", digest(config.auth_token)))
    if config.admin_token:
        holders.append(Holder("admin", digest(config.admin_token), admin=True))
    return Tokens(tuple(holders), required=bool(holders) or config.tokens_file is not None)


@define(eq=False)
class TokenFile:
    """Looks at the file while foreman runs, so that ``foreman token revoke`` counts within a second.

    :ivar take: is given the tokens when the file was read.
    """

    _clock: IReactorTime
    _config: Config
    _take: Callable[[Tokens], None]
    _mark: Mark | None = field(default=None, init=False)
    _seen: Mark | None = field(default=None, init=False)
    _problem: str = field(default="", init=False)
    _loop: LoopingCall = field(init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._mark = self._looked()
        self._loop = LoopingCall(self.look)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Look each second from now on."""
        if self._config.tokens_file is not None:
            self._loop.start(CHECK_INTERVAL, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Read the file if it is another than at the last time, or could not be opened then."""
        if self._config.tokens_file is None:
            return
        now, before = self._looked(), self._seen
        self._seen = now
        if now is not None and now == self._mark:
            return
        # One that is written in place is empty for a moment, which would end what everybody does: it must have stayed as it
        # is from one look to the next. One that was moved into its place, as foreman token does, counts at once.
        moved = now is not None and now.size > 0 and self._mark is not None and now.file != self._mark.file
        try:
            if now is None or moved or now == before:
                self._read(said=self._problem)
        except Exception:  # noqa: BLE001 - one look that failed must not be the last one
            self._log.failure("looking at FOREMAN_TOKENS_FILE failed")

    def read(self) -> None:
        """Read the file; what cannot be read leaves the tokens as they are."""
        if self._config.tokens_file is not None:
            self._read(said="")

    def _read(self, said: str) -> None:
        """Read the file; a problem that was ``error_text`` is not said again."""
        # Before the file is read: what is written meanwhile is seen at the next look.
        mark = self._looked()
        try:
            tokens = tokens_of(self._config)
        except ValueError as problem:
            self._mark, self._problem = None if isinstance(problem, Unreadable) else mark, str(problem)
            if self._problem != said:
                self._log.error("FOREMAN_TOKENS_FILE: {problem}; the tokens stay as they were", problem=self._problem)
            return
        self._mark, self._problem = mark, ""
        self._take(tokens)

    def _looked(self) -> Mark | None:
        path: Path | None = self._config.tokens_file
        try:
            found = os.stat(path) if path is not None else None  # noqa: PTH116 - the same in fewer steps, each second
        except OSError:
            found = None
        if found is None:
            return None
        return Mark((found.st_dev, found.st_ino), (found.st_mtime_ns, found.st_ctime_ns), found.st_size)
