"""What the simulator says no with; each family of routes then has its own shape for it (contract 1.5)."""

from __future__ import annotations

from typing import ClassVar

BUSY = "server busy, please try again.  maximum pending requests exceeded"
CRASHED = "an error was encountered while running the model: unexpected EOF"
REPEATED = "prediction aborted, token repeat limit reached"
LEFT = "error reading llama-server response: context canceled"


class Refused(Exception):
    """A request that gets an error.

    :ivar status: the HTTP status; :ivar text: Ollama's own words.
    :ivar flushed: the answer has no length, since Ollama had begun it as a stream (contract 1.4).
    :ivar native: the shape is the native one on every route; :ivar code: what OpenAI's shape has as its code.
    """

    def __init__(
        self, status: int, text: str, *, flushed: bool = False, native: bool = False, code: str | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.flushed = flushed
        self.native = native
        self.code = code


class Malformed(Refused):
    """A body that cannot be read: on ``/v1`` it is refused before anything looks at the model.

    :ivar empty: there was no body at all, for which the families have different words.
    """

    texts: ClassVar[dict[bool, str]] = {True: "EOF", False: "missing request body"}

    def __init__(self, text: str, *, empty: bool = False, code: str | None = None) -> None:
        super().__init__(400, text, code=code)
        self.empty = empty


class Crashed(Exception):
    """The process that runs the model has died."""
