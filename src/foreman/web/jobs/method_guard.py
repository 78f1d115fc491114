"""In front of the routes of jobs: which paths and methods there are, so that nothing that a router says comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from foreman.errors import MAX_EXCERPT, shortened
from foreman.protocol.routes import allowed_methods
from foreman.web.jobs.problems import Problem, problem_reply
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply


class MethodGuard(Resource):
    """Lets through what the routes know; a router would take ``get`` for ``GET``, and answer others in HTML."""

    isLeaf = True

    def __init__(self, routes: IResource, reply: Callable[[ClientRequest, Reply], None]) -> None:
        super().__init__()
        self._routes = routes
        self._reply = reply

    def render(self, request: ClientRequest) -> Any:
        """Answer ``request``, or have it answered."""
        methods = allowed_methods(request.route.path)
        if request.method.decode("latin-1") in methods:
            return self._routes.render(request)
        if methods:
            allowed = ", ".join(methods)
            problem = Problem(405, f"here are {allowed}", headers=[(b"Allow", allowed.encode("ascii"))])
        else:
            problem = Problem(404, f"there is nothing at {shortened(request.route.path, MAX_EXCERPT)}")
        self._reply(request, problem_reply(problem))
        return NOT_DONE_YET
