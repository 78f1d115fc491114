"""Answers a request outside of Klein, so that a waiting request does not cost Klein's memory.

Klein keeps 4 kB of Deferreds and closures for each route that it waits for, and thousands of requests may wait. A route
may instead return a resource: once that is rendered, Klein keeps nothing.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from foreman.web.server.request import ClientRequest


class DetachedResponse(Resource):
    """The resource that such a route returns: ``work`` answers the request, and handles all its failures."""

    isLeaf = True

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        super().__init__()
        self._work = work

    def render(self, request: ClientRequest) -> int:
        """Start the work; Klein has nothing more to do with ``request``."""
        request.answer_by(self._work)
        return NOT_DONE_YET
