"""Answers unknown paths and methods below ``/jobs`` as problems, before Klein's router could answer them in HTML."""

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
    """Passes on the methods that a path has. The router would take ``get`` for ``GET``, and answer other methods in HTML."""

    isLeaf = True

    def __init__(self, routes: IResource, reply: Callable[[ClientRequest, Reply], None]) -> None:
        super().__init__()
        self._routes = routes
        self._reply = reply

    def render(self, request: ClientRequest) -> Any:
        """Pass ``request`` on to its route, or answer it with 404 or 405."""
        methods = allowed_methods(request.route.path)
        if request.method.decode("latin-1") in methods:
            return self._routes.render(request)
        if methods:
            allowed = ", ".join(methods)
            method = shortened(request.method.decode("latin-1"), MAX_EXCERPT)
            text = f"this path does not have the method {method}; it has {allowed}"
            problem = Problem(405, text, headers=[(b"Allow", allowed.encode("ascii"))])
        else:
            problem = Problem(404, f"there is nothing at {shortened(request.route.path, MAX_EXCERPT)}")
        self._reply(request, problem_reply(problem))
        return NOT_DONE_YET
