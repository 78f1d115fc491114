"""What ``foreman check`` has found of one thing."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

#: ``bad``: it would not work; ``note``: it would, but somebody should know.
State = Literal["ok", "note", "bad"]


@frozen
class CheckResult:
    """What was found of one thing.

    :ivar text: for people, in one sentence.
    """

    name: str
    state: State
    text: str
