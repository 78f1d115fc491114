"""A route that takes its time: Klein finds it, and is out of the way from then on.

For a route that it waits for, Klein keeps 4 kB of Deferreds and closures, and thousands may wait. A route may return a
resource, too; when Klein has had that rendered, it keeps nothing.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from foreman.web.server.request import ClientRequest


class DetachedResponse(Resource):
    """What such a route returns: ``work`` answers the request, and has no failures of its own."""

    isLeaf = True

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        super().__init__()
        self._work = work

    def render(self, request: ClientRequest) -> int:
        """Klein has nothing more to do with ``request``."""
        request.answer_by(self._work)
        return NOT_DONE_YET
