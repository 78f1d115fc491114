"""Who may come in, and how far: every decision that the head of a request allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.web.http import datetimeToString
from ulid import ULID

from foreman.auth.credentials import UnfitCredential, contains, credential, stands_in, without_copies
from foreman.auth.throttle import GuessThrottle
from foreman.auth.tokens import Tokens
from foreman.config.settings import Config
from foreman.protocol.headers import RawHeaders, has_passed
from foreman.protocol.request_path import origin_form, take_prefix
from foreman.protocol.routes import (
    CLOSED,
    Family,
    Lane,
    Redirect,
    Refusal,
    Route,
    allowed_methods,
    classify,
    classify_behind_prefix,
    is_of_jobs,
    is_own,
    is_whole_route,
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
    tokens: Tokens
    guards: OriginPolicy
    wall_clock: Callable[[], float]
    new_id: Callable[[], ULID]
    access_log: AccessLog
    mark: bytes = b""
    _base: bytes = field(init=False)
    _brake: GuessThrottle = field(factory=GuessThrottle, init=False)
    _date: bytes = field(default=b"", init=False)
    _date_second: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._base = self.config.target.path.encode("ascii")

    def decide(self, visit: ClientRequest) -> Reply | None:
        """Look at the head of a request, note on ``visit`` what it says, and refuse it where it must not come in.

        :return: what to answer instead, or None to let it in.
        """
        found, is_misplaced = self.welcome(visit)
        reply = (
            self._check_framing(visit)
            or self._check_loop(visit)
            or self._check_tunnel(visit, found)
            or self._check_names(visit, found)
            or self._check_token(visit, found, is_misplaced)
            or self._check_path(visit, found)
            or self._check_expectation(visit)
        )
        if visit.method == b"CONNECT":
            visit.doubtful = True  # what follows is meant for a tunnel
        return reply

    def welcome(self, visit: ClientRequest) -> tuple[Route | Redirect | Refusal, bool]:
        """Give a request its id and its way, and its caller a name until a token gives it another.

        :return: the decision on its address, and whether somebody's token stands in there. Then the log does not name its path,
            but nothing else that its client sees may depend on that before it has shown a token: it could try tokens.
        """
        visit.id = str(self.new_id())
        visit.caller = str(getattr(visit.client, "host", "") or "local")
        prefix, visit.target = take_prefix(origin_form(visit.uri))
        if prefix is not None:
            visit.prefix = prefix
            found, visit.target = classify_behind_prefix(visit.method, visit.target, self._base)
        else:
            found = classify(visit.method, visit.target, self._base)
        visit.way = found if isinstance(found, Route) else Route(Lane.FOREMAN, _family(visit.target), "-")
        seen = _seen_by_others(found, visit.target)
        is_misplaced = self.tokens.required and stands_in(seen, self.tokens.knows)
        if is_misplaced:
            visit.way = evolve(visit.way, path="-")
        return found, is_misplaced

    def _refuse(self, visit: ClientRequest, status: int, message: str) -> Reply:
        return error_reply(visit.family, status, message, visit.request_id)

    def _check_framing(self, visit: ClientRequest) -> Reply | None:
        problem = self._framing_problem(visit)
        if problem is None:
            return None
        visit.doubtful = True
        return self._refuse(visit, 400, problem)

    def _framing_problem(self, visit: ClientRequest) -> str | None:
        old = visit.clientproto == b"HTTP/1.0"
        hosts = visit.headers_named(b"host")
        if len(hosts) > 1 or not (hosts or old):
            return "a request must have one Host header (RFC 9112 section 3.2)"
        named = authority(visit.uri)
        visit.authority = hosts[0] if named is None and hosts else named or b""
        if named is not None and named[:1] in (b"", b":"):
            return "an http address must name a host (RFC 9110 section 4.2.1)"
        if named is not None and hosts and hosts[0].lower() != named.lower():
            return "Host must be the server that the address names (RFC 9112 section 3.2)"
        if old and visit.headers_named(b"transfer-encoding"):
            return "Transfer-Encoding is of HTTP/1.1 (RFC 9112 section 6.1)"
        return None

    def _check_loop(self, visit: ClientRequest) -> Reply | None:
        via = visit.headers_named(b"via")
        if not (via and self.mark and has_passed(via, self.mark)):
            return None
        text = (
            "this request has come back to the foreman that sent it: FOREMAN_TARGET_URL leads to foreman, not to Ollama"
        )
        return self._refuse(visit, 508, text)

    def _check_path(self, visit: ClientRequest, found: Route | Redirect | Refusal) -> Reply | None:
        if isinstance(found, Refusal):
            return self._refuse(visit, found.status, found.text)
        if isinstance(found, Redirect):
            return redirect_reply(visit.method, found.status, found.location)
        if found.path == "*":
            return Reply(200, [], b"")
        if is_own(found.path):
            return None if is_of_jobs(found.path) else self._check_method(visit, found.path)
        if visit.method == b"OPTIONS" and self.guards.is_local_name(visit.authority):
            return Reply(204, _allow(found.path), b"")  # as Ollama does for names, and not for addresses
        return None

    def _check_tunnel(self, visit: ClientRequest, found: Route | Redirect | Refusal) -> Reply | None:
        """Nobody gets a tunnel: what Go answers before Ollama looks at the Host."""
        if visit.method != b"CONNECT" or visit.target.startswith(b"/") or found is CLOSED:
            return None
        headers = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"X-Content-Type-Options", b"nosniff")]
        return Reply(404, headers, b"404 page not found\n")

    def _check_method(self, visit: ClientRequest, path: str) -> Reply | None:
        """foreman's own routes answer for themselves: the target knows none of them. Those of jobs see to it themselves."""
        methods = allowed_methods(path)
        if visit.method.decode("latin-1") in methods:
            return None
        if not methods:
            return self._refuse(visit, 404, f"there is nothing at {path}")
        allowed = ", ".join(methods)
        allow = [(b"Allow", allowed.encode("ascii"))]
        return error_reply(visit.family, 405, f"here are {allowed}", visit.request_id, headers=allow)

    def _check_names(self, visit: ClientRequest, found: Route | Redirect | Refusal) -> Reply | None:
        host = visit.authority
        if not self.tokens.required:
            own_address = str(getattr(visit.host, "host", ""))
            if not self.guards.host_allowed(host, own_address):
                text = (
                    "this Host name is not known here; to allow it, add it to FOREMAN_ALLOWED_HOSTS, or require a token"
                )
                return self._refuse(visit, 403, text)
        origins = visit.headers_named(b"origin")
        if not origins or not origins[0]:
            return None
        is_preflight = visit.method == b"OPTIONS" and found is not CLOSED
        allow = _allow(found.path) if is_preflight and isinstance(found, Route) else []
        if len(origins) > 1 or not self.guards.origin_allowed(origins[0], host):
            return Reply(403, allow, b"")
        if is_preflight and not same_origin(origins[0], host):
            requested = visit.headers_named(b"access-control-request-headers")
            return Reply(204, [*self.guards.preflight_headers(origins[0], requested), *allow], b"")
        visit.extra_headers = self.guards.cors_headers(origins[0], host)
        return None

    def _check_token(self, visit: ClientRequest, found: Route | Redirect | Refusal, is_misplaced: bool) -> Reply | None:
        if not self.tokens.required:
            return None
        if visit.way.path in _OPEN_PATHS and visit.method in (b"GET", b"HEAD"):
            return None
        authorization, api_key = visit.headers_named(b"authorization"), visit.headers_named(b"x-api-key")
        try:
            given = credential(visit.prefix, authorization, api_key)
        except UnfitCredential as problem:
            return self._unauthorized(visit, str(problem))
        if given is None:
            return self._unauthorized(visit, "a token is required: Authorization: Bearer <token>, or x-api-key")
        holder = self.tokens.who(given)
        if holder is None:
            return self._slow_down(visit) or self._unauthorized(visit, "this token is not known here")
        visit.caller, visit.holder = holder.name, holder
        if is_misplaced or contains(_seen_by_others(found, visit.target), given):
            visit.way = evolve(visit.way, path="-")
            return self._refuse(visit, _OUT_OF_PLACE.status, _OUT_OF_PLACE.text)
        visit.raw_headers = without_copies(visit.raw_headers, given)
        if visit.way.lane is Lane.MANAGEMENT and self.tokens.only_admins_manage and not holder.admin:
            return self._refuse(visit, 403, _FOR_ADMINS if self.tokens.has_admin else _NO_ADMIN_LEFT)
        return None

    def _slow_down(self, visit: ClientRequest) -> Reply | None:
        """Note an unknown token; where its client has sent too many, tell it to wait."""
        wait = self._brake.guessed(address_of(visit.caller), visit.began_at)
        if not wait:
            return None
        visit.doubtful = True  # each guess costs a connection
        text = "this token is not known here, and too many unknown tokens came from your address; try again later"
        retry = [(b"Retry-After", b"%d" % wait)]
        return error_reply(visit.family, 429, text, visit.request_id, headers=retry)

    def _unauthorized(self, visit: ClientRequest, message: str) -> Reply:
        agent = (visit.headers_named(b"user-agent") or [b""])[0]
        if visit.target.startswith(b"/api/") and agent.startswith(b"ollama/"):
            # The stock CLI hides the text of a 401 and asks to sign in to ollama.com; it shows that of a 403.
            text = f"{message}; with this program, put it into the address: OLLAMA_HOST=http://<host>:<port>/k/<token>"
            return self._refuse(visit, 403, text)
        return self._refuse(visit, 401, message)

    def _check_expectation(self, visit: ClientRequest) -> Reply | None:
        expected = visit.headers_named(b"expect")
        if not expected or visit.clientproto == b"HTTP/1.0":
            return None
        if [value.lower() for value in expected] != [b"100-continue"]:
            visit.doubtful = True  # a client that does not know 417 sends its body
            return Reply(417, [], b"")
        visit.expects_continue = True
        return None

    def http_date(self) -> bytes:
        """Now, as a ``Date`` header; made anew once a second."""
        now = int(self.wall_clock())
        if now != self._date_second:
            self._date_second, self._date = now, datetimeToString(now)
        return self._date

    def log_refusal(self, visit: ClientRequest, reply: Reply) -> None:
        """Note a request that was answered at the door."""
        if reply.status != 429:  # of those the brake says how many they are
            self.access_log.answered_here(visit.id, visit.caller, visit.way, reply.status, visit.began_at)


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
    return query if is_whole_route(found.path) else path + b"?" + query


def _family(target: bytes) -> Family:
    """Whose errors whoever asks for a path reads that cannot be read whole."""
    if target.startswith(b"/v1/messages"):
        return "anthropic"
    if target.partition(b"?")[0] in {b"/jobs", b"/openapi.json"} or target.startswith(b"/jobs/"):
        return "foreman"
    return "openai" if target.startswith(b"/v1/") else "ollama"
