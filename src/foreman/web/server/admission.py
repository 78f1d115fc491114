"""Who may come in, and how far: every decision that the head of a request allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.web.http import datetimeToString
from ulid import ULID

from foreman.auth.credentials import InvalidCredential, contains_credential, contains_token, credential, without_copies
from foreman.auth.policy import AuthPolicy
from foreman.auth.throttle import GuessThrottle
from foreman.auth.tokens import Tokens
from foreman.config.settings import Config
from foreman.protocol.endpoints import Lane, family_of, is_of_jobs
from foreman.protocol.headers import RawHeaders, has_passed_through
from foreman.protocol.request_path import origin_form, take_prefix
from foreman.protocol.routes import (
    CLOSED,
    Redirect,
    Refusal,
    Route,
    allowed_methods,
    classify,
    classify_behind_prefix,
    is_known_path,
    is_own,
)
from foreman.web.server.access_log import AccessLog
from foreman.web.server.connections import address_of
from foreman.web.server.http_syntax import authority
from foreman.web.server.origins import OriginPolicy, same_origin
from foreman.web.server.responses import Reply, error_reply, redirect_reply

if TYPE_CHECKING:
    from foreman.web.server.request import ClientRequest

#: Paths that ask for no token: probes of clients and supervisors carry none.
_OPEN_PATHS = ("/", "/healthz")
_OUT_OF_PLACE = Refusal(
    400,
    "this address has a token where proxies may log it; send it as a header, or once as /k/<token>",
)
_FOR_ADMINS = "only admins may manage models here, and see Ollama's use and settings (FOREMAN_ADMIN_TOKEN)"
_NO_ADMIN_LEFT = (
    "managing models is for admins here, and the token of the last one was taken away; make another with foreman token new "
    "NAME --admin, or start foreman again without an admin, so that everybody may"
)


@define(eq=False)
class Admission:
    """The rules of the door.

    :ivar wall_clock: seconds since the epoch; :ivar new_id: makes the id of a request; :ivar mark: this foreman's
        pseudonym in ``Via``; empty, it knows nothing of its own.
    """

    config: Config
    auth: AuthPolicy
    guards: OriginPolicy
    wall_clock: Callable[[], float]
    new_id: Callable[[], ULID]
    access_log: AccessLog
    mark: bytes = b""
    _base: bytes = field(init=False)
    _throttle: GuessThrottle = field(factory=GuessThrottle, init=False)
    _date: bytes = field(default=b"", init=False)
    _date_second: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._base = self.config.target.path.encode("ascii")

    @property
    def tokens(self) -> Tokens:
        """The tokens that are valid now."""
        return self.auth.tokens

    def decide(self, request: ClientRequest) -> Reply | None:
        """Look at the head of a request, note on ``request`` what it says, and refuse it where it must not come in.

        :return: what to answer instead, or None to let it in.
        """
        found, is_misplaced = self.welcome(request)
        reply = (
            self._check_framing(request)
            or self._check_loop(request)
            or self._check_tunnel(request, found)
            or self._check_names(request, found)
            or self._check_token(request, found, is_misplaced)
            or self._check_path(request, found)
            or self._check_expectation(request)
        )
        if request.method == b"CONNECT":
            request.doubtful = True  # what follows is meant for a tunnel
        return reply

    def welcome(self, request: ClientRequest) -> tuple[Route | Redirect | Refusal, bool]:
        """Give a request its id and its way, and its caller a name until a token gives it another.

        :return: the decision on its address, and whether somebody's token stands in there. Then the log does not name its path,
            but nothing else that its client sees may depend on that before it has shown a token: it could try tokens.
        """
        request.id = str(self.new_id())
        request.caller = str(getattr(request.client, "host", "") or "local")
        prefix, request.target = take_prefix(origin_form(request.uri))
        if prefix is not None:
            request.prefix = prefix
            found, request.target = classify_behind_prefix(request.method, request.target, self._base)
        else:
            found = classify(request.method, request.target, self._base)
        path = request.target.partition(b"?")[0].decode("latin-1")
        request.route = found if isinstance(found, Route) else Route(Lane.FOREMAN, family_of(path), "-")
        seen = _seen_by_others(found, request.target)
        is_misplaced = self.tokens.required and contains_token(seen, self.tokens.is_token)
        if is_misplaced:
            request.route = evolve(request.route, path="-")
        return found, is_misplaced

    def _refuse(self, request: ClientRequest, status: int, message: str) -> Reply:
        return error_reply(request.family, status, message, request.request_id)

    def _check_framing(self, request: ClientRequest) -> Reply | None:
        problem = self._framing_problem(request)
        if problem is None:
            return None
        request.doubtful = True
        return self._refuse(request, 400, problem)

    def _framing_problem(self, request: ClientRequest) -> str | None:
        old = request.clientproto == b"HTTP/1.0"
        hosts = request.headers_named(b"host")
        if len(hosts) > 1 or not (hosts or old):
            return "a request must have one Host header (RFC 9112 section 3.2)"
        named = authority(request.uri)
        request.authority = hosts[0] if named is None and hosts else named or b""
        if named is not None and named[:1] in (b"", b":"):
            return "an http address must name a host (RFC 9110 section 4.2.1)"
        if named is not None and hosts and hosts[0].lower() != named.lower():
            return "Host must be the server that the address names (RFC 9112 section 3.2)"
        if old and request.headers_named(b"transfer-encoding"):
            return "Transfer-Encoding is of HTTP/1.1 (RFC 9112 section 6.1)"
        return None

    def _check_loop(self, request: ClientRequest) -> Reply | None:
        via = request.headers_named(b"via")
        if not (via and self.mark and has_passed_through(via, self.mark)):
            return None
        text = (
            "this request has come back to the foreman that sent it: FOREMAN_TARGET_URL leads to foreman, not to Ollama"
        )
        return self._refuse(request, 508, text)

    def _check_path(self, request: ClientRequest, found: Route | Redirect | Refusal) -> Reply | None:
        if isinstance(found, Refusal):
            return self._refuse(request, found.status, found.text)
        if isinstance(found, Redirect):
            return redirect_reply(request.method, found.status, found.location)
        if found.path == "*":
            return Reply(200, [], b"")
        if is_own(found.path):
            return None if is_of_jobs(found.path) else self._check_method(request, found.path)
        if request.method == b"OPTIONS" and self.guards.is_local_name(request.authority):
            return Reply(204, _allow(found.path), b"")  # as Ollama does for names, and not for addresses
        return None

    def _check_tunnel(self, request: ClientRequest, found: Route | Redirect | Refusal) -> Reply | None:
        """Nobody gets a tunnel: what Go answers before Ollama looks at the Host."""
        if request.method != b"CONNECT" or request.target.startswith(b"/") or found is CLOSED:
            return None
        headers = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"X-Content-Type-Options", b"nosniff")]
        return Reply(404, headers, b"404 page not found\n")

    def _check_method(self, request: ClientRequest, path: str) -> Reply | None:
        """foreman's own routes answer for themselves: the target knows none of them. Those of jobs see to it themselves."""
        methods = allowed_methods(path)
        if request.method.decode("latin-1") in methods:
            return None
        if not methods:
            return self._refuse(request, 404, f"there is nothing at {path}")
        allowed = ", ".join(methods)
        allow = [(b"Allow", allowed.encode("ascii"))]
        return error_reply(request.family, 405, f"here are {allowed}", request.request_id, headers=allow)

    def _check_names(self, request: ClientRequest, found: Route | Redirect | Refusal) -> Reply | None:
        host = request.authority
        if not self.tokens.required:
            own_address = str(getattr(request.host, "host", ""))
            if not self.guards.host_allowed(host, own_address):
                text = (
                    "this Host name is not known here; to allow it, add it to FOREMAN_ALLOWED_HOSTS, or require a token"
                )
                return self._refuse(request, 403, text)
        origins = request.headers_named(b"origin")
        if not origins or not origins[0]:
            return None
        is_preflight = request.method == b"OPTIONS" and found is not CLOSED
        allow = _allow(found.path) if is_preflight and isinstance(found, Route) else []
        if len(origins) > 1 or not self.guards.origin_allowed(origins[0], host):
            return Reply(403, allow, b"")
        if is_preflight and not same_origin(origins[0], host):
            requested = request.headers_named(b"access-control-request-headers")
            return Reply(204, [*self.guards.preflight_headers(origins[0], requested), *allow], b"")
        request.extra_headers = self.guards.cors_headers(origins[0], host)
        return None

    def _check_token(
        self, request: ClientRequest, found: Route | Redirect | Refusal, is_misplaced: bool
    ) -> Reply | None:
        if not self.tokens.required:
            return None
        if request.route.path in _OPEN_PATHS and request.method in (b"GET", b"HEAD"):
            return None
        authorization, api_key = request.headers_named(b"authorization"), request.headers_named(b"x-api-key")
        try:
            given = credential(request.prefix, authorization, api_key)
        except InvalidCredential as problem:
            return self._unauthorized(request, str(problem))
        if given is None:
            return self._unauthorized(request, "a token is required: Authorization: Bearer <token>, or x-api-key")
        holder = self.tokens.holder_of(given)
        if holder is None:
            return self._slow_down(request) or self._unauthorized(request, "this token is not known here")
        request.caller, request.holder = holder.name, holder
        if is_misplaced or contains_credential(_seen_by_others(found, request.target), given):
            request.route = evolve(request.route, path="-")
            return self._refuse(request, _OUT_OF_PLACE.status, _OUT_OF_PLACE.text)
        request.raw_headers = without_copies(request.raw_headers, given)
        if request.route.lane is Lane.MANAGEMENT and self.tokens.only_admins_manage and not holder.admin:
            return self._refuse(request, 403, _FOR_ADMINS if self.tokens.has_admin else _NO_ADMIN_LEFT)
        return None

    def _slow_down(self, request: ClientRequest) -> Reply | None:
        """Note an unknown token; where its client has sent too many, tell it to wait."""
        wait = self._throttle.count_guess(address_of(request.caller), request.began_at)
        if not wait:
            return None
        request.doubtful = True  # each guess costs a connection
        text = "this token is not known here, and too many unknown tokens came from your address; try again later"
        retry = [(b"Retry-After", b"%d" % wait)]
        return error_reply(request.family, 429, text, request.request_id, headers=retry)

    def _unauthorized(self, request: ClientRequest, message: str) -> Reply:
        agent = (request.headers_named(b"user-agent") or [b""])[0]
        if request.target.startswith(b"/api/") and agent.startswith(b"ollama/"):
            # The stock CLI hides the text of a 401 and asks to sign in to ollama.com; it shows that of a 403.
            text = f"{message}; with this program, put it into the address: OLLAMA_HOST=http://<host>:<port>/k/<token>"
            return self._refuse(request, 403, text)
        return self._refuse(request, 401, message)

    def _check_expectation(self, request: ClientRequest) -> Reply | None:
        expected = request.headers_named(b"expect")
        if not expected or request.clientproto == b"HTTP/1.0":
            return None
        if [value.lower() for value in expected] != [b"100-continue"]:
            request.doubtful = True  # a client that does not know 417 sends its body
            return Reply(417, [], b"")
        request.expects_continue = True
        return None

    def http_date(self) -> bytes:
        """Now, as a ``Date`` header; made anew once a second."""
        now = int(self.wall_clock())
        if now != self._date_second:
            self._date_second, self._date = now, datetimeToString(now)
        return self._date

    def log_refusal(self, request: ClientRequest, reply: Reply) -> None:
        """Note a request that was answered at the door."""
        if reply.status != 429:  # of those the brake says how many they are
            self.access_log.answered_here(request.id, request.caller, request.route, reply.status, request.began_at)


def _allow(path: str) -> RawHeaders:
    methods = ", ".join(allowed_methods(path))
    return [(b"Allow", methods.encode("ascii"))] if methods else []


def _seen_by_others(found: Route | Redirect | Refusal, target: bytes) -> bytes:
    """The part of an address that reaches the target, the log or a ``Location`` and is not one of the words of a route."""
    if isinstance(found, Refusal):
        return b""
    path, _, query = target.partition(b"?")
    if isinstance(found, Redirect):
        return target
    if found.lane in (Lane.FOREMAN, Lane.INVENTORY):
        query = b""
    return query if is_known_path(found.path) else path + b"?" + query
