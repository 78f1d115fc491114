"""Why a running foreman gave no usable answer."""

from __future__ import annotations

from foreman.cli.ui.standard_streams import MAX_MESSAGE
from foreman.errors import one_line
from foreman.protocol.error_text import error_member

#: The longest reason that is taken from an answer, in characters: others write into it.
MAX_REASON = 500


class RequestFailed(Exception):
    """Why there is no answer that is worth anything.

    :ivar status: what the command ends with.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(one_line(sentence, MAX_MESSAGE))
        self.status = status


class Unreachable(RequestFailed):
    """There is no answer since there is no connection, or it broke: asking again later could help."""


def error_detail(body: object) -> str:
    """The text of an error in any family's shape, or of a problem (RFC 9457), with a colon in front."""
    error = error_member(body) or (body.get("detail") if isinstance(body, dict) else None)
    return f": {one_line(error, MAX_REASON)}" if isinstance(error, str) else ""
