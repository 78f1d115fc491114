"""Why a running foreman gave no usable answer."""

from __future__ import annotations

from foreman.cli.ui.standard_streams import MAX_MESSAGE
from foreman.errors import one_line
from foreman.protocol.error_text import error_member

#: The longest reason that is taken from an answer, in characters: others write into it.
MAX_REASON = 500


class RequestFailed(Exception):
    """Foreman gave no usable answer; ``str()`` is a sentence for a person.

    :ivar exit_status: the exit status of the command.
    """

    def __init__(self, exit_status: int, sentence: str) -> None:
        super().__init__(one_line(sentence, MAX_MESSAGE))
        self.exit_status = exit_status


class Unreachable(RequestFailed):
    """The connection failed or was lost: a retry may succeed."""


def error_detail(body: object) -> str:
    """The text of an error in the shape of any family, or of a problem (RFC 9457), after a colon; empty if there is none."""
    error = error_member(body) or (body.get("detail") if isinstance(body, dict) else None)
    return f": {one_line(error, MAX_REASON)}" if isinstance(error, str) else ""
