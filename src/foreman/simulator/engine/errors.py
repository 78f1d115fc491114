"""The errors of requests, which each API family puts into its own shape (contract 1.5)."""

from __future__ import annotations

from typing import ClassVar

BUSY = "server busy, please try again.  maximum pending requests exceeded"
CRASHED = "an error was encountered while running the model: unexpected EOF"
REPEATED = "prediction aborted, token repeat limit reached"
CLIENT_GONE = "error reading llama-server response: context canceled"


class Refused(Exception):
    """A request that gets an error response.

    :ivar status: the HTTP status; :ivar text: Ollama's own text.
    :ivar flushed: the response has no length, since Ollama had begun it as a stream (contract 1.4).
    :ivar native: Ollama's own shape is used on every route; :ivar code: the ``code`` in OpenAI's shape.
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
    """A malformed body, which ``/v1`` refuses before it looks at the model.

    :ivar empty: there was no body at all, for which the families have different texts.
    """

    texts: ClassVar[dict[bool, str]] = {True: "EOF", False: "missing request body"}

    def __init__(self, text: str, *, empty: bool = False, code: str | None = None) -> None:
        super().__init__(400, text, code=code)
        self.empty = empty


class Crashed(Exception):
    """The process that runs the model has died."""
