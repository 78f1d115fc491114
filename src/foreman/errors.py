"""foreman's exceptions, each named after what happened, and functions that shorten texts of others for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

#: Why the target could not be reached or understood. The words are part of the answer of ``/healthz``.
FailureReason = Literal["refused", "timeout", "dns", "tls", "reset", "garbage", "silence", "status"]
#: Those that occur before the connection is ready: the target has received nothing of the request.
NOT_CONNECTED: frozenset[FailureReason] = frozenset({"refused", "timeout", "dns", "tls"})

#: How much of a text of others a message quotes, in characters.
_MAX_LINE = 300


def one_line(text: object, longest: int = _MAX_LINE) -> str:
    """``text`` in one line without control characters; where it has more than ``longest`` characters, its beginning."""
    whole = str(text)
    line = " ".join(whole[: longest + 1].split())
    cut = line if len(whole) <= longest else f"{line[:longest].rstrip()}…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


class ForemanError(Exception):
    """A failure that foreman reports; ``str()`` is a sentence for the person who reads it."""


class ConfigError(ForemanError):
    """The settings cannot be used.

    :ivar problems: one sentence for each problem, each beginning with the variable's name.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class InvalidName(ForemanError):
    """Ollama would refuse the model name; ``str()`` is Ollama's text."""


class BadBody(ForemanError):
    """Ollama would refuse the request body at once; ``str()`` is Ollama's text."""


class TargetError(ForemanError):
    """The target gave no answer, or an error."""


class ConnectionError(TargetError):  # noqa: A001 - the field's word; always used as errors.ConnectionError
    """There is no answer: the target could not be reached, or closed the connection before its headers were complete.

    :ivar why: one word, see ``FailureReason``.
    """

    def __init__(self, why: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.why: FailureReason = why


class HTTPError(TargetError):
    """The target answered with a status that is not a success.

    :ivar status: the HTTP status; :ivar text: Ollama's own text where it gave one, or a whole page where something else
        answered; ``str()`` has only its beginning.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the target answered {status}: {one_line(text)}")
        self.status = status
        self.text = text


class QueueFull(ForemanError):
    """The queue has no place left."""


class Draining(ForemanError):
    """foreman is stopping and accepts no new work."""


class Cancelled(ForemanError):
    """A user cancelled the request."""


class Revoked(ForemanError):
    """The token of the request was revoked while the request waited or ran."""


class ReaderStalled(ForemanError):
    """The reader of an answer read nothing for too long."""


#: How much of a text that a client sent is repeated in an error or in the log, in characters.
MAX_EXCERPT = 80


def shortened(text: str, limit: int) -> str:
    """``text``, or its beginning where it is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def excerpt(text: str, limit: int = MAX_EXCERPT) -> str:
    """``text`` in quotes for a sentence, ``shortened`` to ``limit`` characters."""
    return repr(shortened(text, limit))
