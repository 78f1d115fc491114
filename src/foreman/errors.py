"""What can go wrong, named by what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

#: Why the target could not be reached or could not be understood. The words are part of the answer of ``/healthz``.
Why = Literal["refused", "timeout", "dns", "tls", "reset", "garbage", "silence", "status"]


#: As much of somebody else's words as goes into a sentence, in characters.
_LONGEST = 300


def one_line(text: object, longest: int = _LONGEST) -> str:
    """Text in one line that a terminal only prints; where it is longer than ``longest``, its beginning."""
    whole = str(text)
    line = " ".join(whole[: longest + 1].split())
    cut = line if len(whole) <= longest else f"{line[:longest].rstrip()}…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


class ForemanError(Exception):
    """What foreman itself says went wrong; ``str()`` is a sentence for the person who reads it."""


class ConfigError(ForemanError):
    """Settings that cannot be used.

    :ivar problems: one sentence for each problem, each beginning with the variable's name.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class InvalidName(ForemanError):
    """A model name that Ollama would refuse; ``str()`` is the text that Ollama answers."""


class BadBody(ForemanError):
    """A request body that Ollama would refuse at once; ``str()`` is the text that Ollama answers."""


class TargetError(ForemanError):
    """The target did not give an answer."""


class ConnectionError(TargetError):  # noqa: A001 - the field's word; always used as errors.ConnectionError
    """No answer came: the target could not be reached, or broke off before its headers were whole.

    :ivar why: one word, see ``Why``.
    """

    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.why: Why = why


class HTTPError(TargetError):
    """The target answered with a status that is not a success.

    :ivar status: the HTTP status; :ivar text: Ollama's own words where it gave any, or a whole page where something else
        answers; ``str()`` has only its beginning.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the target answered {status}: {one_line(text)}")
        self.status = status
        self.text = text


class QueueFull(ForemanError):
    """The waiting room has no place left."""


class Draining(ForemanError):
    """foreman is stopping and takes nothing new."""


class Cancelled(ForemanError):
    """Somebody cancelled the request by hand."""


class Revoked(ForemanError):
    """The token of the request was revoked while it waited or ran."""


class ReaderStalled(ForemanError):
    """Whoever reads an answer took nothing for too long."""


#: How much of what somebody sent is repeated to them or in the log, in characters.
MAX_REPEATED = 80


def shortened(text: str, most: int) -> str:
    """``text``, or its beginning where it is longer than ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def excerpt(text: str, most: int = MAX_REPEATED) -> str:
    """``text`` in quotes for a sentence, ``shortened`` to ``most`` characters."""
    return repr(shortened(text, most))
