"""The tokens of the settings, and the token file, which is checked for changes every second."""

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

#: Between two checks of the file, in seconds. A revoked token is accepted for no longer than that; for twice as long where
#: the file was edited in place (see ``TokenFile.check``).
CHECK_INTERVAL = 1.0


@frozen
class FileState:
    """Identifies one state of a file.

    :ivar file: device and inode, which change when another file replaces it;
    :ivar times: when its content and its inode changed last, in nanoseconds; :ivar size: in bytes.
    """

    file: tuple[int, int]
    times: tuple[int, int]
    size: int


def tokens_of(config: Config) -> Tokens:
    """The tokens of the settings and of the token file.

    :raises ValueError: when the file cannot be read.
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
    """Checks the token file while foreman runs, so that ``foreman token revoke`` takes effect within a second.

    :ivar on_tokens: called with the tokens after the file was read.
    """

    _clock: IReactorTime
    _config: Config
    _on_tokens: Callable[[Tokens], None]
    _read_state: FileState | None = field(default=None, init=False)
    _last_state: FileState | None = field(default=None, init=False)
    _problem: str = field(default="", init=False)
    _loop: LoopingCall = field(init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._read_state = self._state()
        self._loop = LoopingCall(self.check)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Begin to check the file."""
        if self._config.tokens_file is not None:
            self._loop.start(CHECK_INTERVAL, now=False)

    def stop(self) -> None:
        """Stop checking the file."""
        if self._loop.running:
            self._loop.stop()

    def check(self) -> None:
        """Read the file if it has changed since it was read, or could not be opened then."""
        if self._config.tokens_file is None:
            return
        now, before = self._state(), self._last_state
        self._last_state = now
        if now is not None and now == self._read_state:
            return
        # A file that is edited in place is empty for a moment, which would end all requests: it must be unchanged between
        # two checks. A file that was moved into its place, as by foreman token, is read at once.
        replaced = (
            now is not None and now.size > 0 and self._read_state is not None and now.file != self._read_state.file
        )
        try:
            if now is None or replaced or now == before:
                self._read(logged=self._problem)
        except Exception:  # noqa: BLE001 - after a check that failed there must be another one
            self._log.failure("checking FOREMAN_TOKENS_FILE failed")

    def read(self) -> None:
        """Read the file; if it cannot be read, the tokens stay as they are."""
        if self._config.tokens_file is not None:
            self._read(logged="")

    def _read(self, logged: str) -> None:
        """Read the file; the problem ``logged`` is not logged again."""
        # Before the file is read: a change in the meantime is found by the next check.
        state = self._state()
        try:
            tokens = tokens_of(self._config)
        except ValueError as problem:
            self._read_state, self._problem = None if isinstance(problem, Unreadable) else state, str(problem)
            if self._problem != logged:
                self._log.error("FOREMAN_TOKENS_FILE: {problem}; the tokens stay as they were", problem=self._problem)
            return
        self._read_state, self._problem = state, ""
        self._on_tokens(tokens)

    def _state(self) -> FileState | None:
        path: Path | None = self._config.tokens_file
        try:
            found = os.stat(path) if path is not None else None  # noqa: PTH116 - cheaper than Path.stat, every second
        except OSError:
            found = None
        if found is None:
            return None
        return FileState((found.st_dev, found.st_ino), (found.st_mtime_ns, found.st_ctime_ns), found.st_size)
