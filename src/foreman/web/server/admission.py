"""Admission: what is decided about a request from its head alone, before its body is read."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field, frozen
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
from foreman.web.server.connections import address_of
from foreman.web.server.http_syntax import authority
from foreman.web.server.origins import OriginPolicy, same_origin
from foreman.web.server.request_head import Admitted, Decision, Refused, RequestContext, RequestHead
from foreman.web.server.responses import Reply, error_reply, redirect_reply

#: Paths that need no token: probes of clients and supervisors carry none.
_OPEN_PATHS = ("/", "/healthz")
_TOKEN_IN_ADDRESS = (
    "this address has a token where proxies may log it; send the token as a header, or once as /k/<token>"  # noqa: S105 - a text
)
_FOR_ADMINS = "only admins may manage models here, or see Ollama's usage and settings (FOREMAN_ADMIN_TOKEN)"
_NO_ADMIN_LEFT = (
    "only admins may manage models here, and the token of the last one was revoked; make a new one with foreman token new "
    "NAME --admin, or restart foreman without an admin, so that everybody may manage models"
)

#: How ``classify`` classifies a request.
_Found = Route | Redirect | Refusal


@frozen(eq=False)
class _Identified:
    """A request with its id and route, before any rule was applied.

    :ivar has_token: whether a known token stands in the address. Then the log does not name its path. Nothing that the
        client sees may depend on this before it has sent a valid token: it could be used to guess tokens.
    """

    context: RequestContext
    found: _Found
    has_token: bool


@define(eq=False)
class Admission:
    """The rules of admission.

    :ivar new_id: makes the id of a request; :ivar mark: this foreman's pseudonym in ``Via``; empty, a loop is not noticed.
    """

    config: Config
    auth: AuthPolicy
    origins: OriginPolicy
    new_id: Callable[[], ULID]
    mark: bytes = b""
    _base: bytes = field(init=False)
    _throttle: GuessThrottle = field(factory=GuessThrottle, init=False)

    def __attrs_post_init__(self) -> None:
        self._base = self.config.target.path.encode("ascii")

    @property
    def tokens(self) -> Tokens:
        """The tokens that are valid now."""
        return self.auth.tokens

    def decide(self, head: RequestHead) -> Decision:
        """Admit a request, or refuse it."""
        decision = self._decide(head, self._identify(head))
        if head.method == b"CONNECT" and isinstance(decision, Refused):
            return evolve(decision, must_close=True)  # what follows is meant for a tunnel
        return decision

    def identify(self, head: RequestHead) -> RequestContext:
        """The id, route and caller of a request whose head could be read only in part."""
        return self._identify(head).context

    def _identify(self, head: RequestHead) -> _Identified:
        prefix, target = take_prefix(origin_form(head.uri))
        if prefix is not None:
            found, target = classify_behind_prefix(head.method, target, self._base)
        else:
            found = classify(head.method, target, self._base)
        if isinstance(found, Route):
            route = found
        else:
            path = target.partition(b"?")[0].decode("latin-1")
            route = Route(Lane.FOREMAN, family_of(path), "-")
        has_token = self.tokens.required and contains_token(_exposed_part(found, target), self.tokens.is_token)
        if has_token:
            route = evolve(route, path="-")
        context = RequestContext(str(self.new_id()), route, target, head.client_address or "local", prefix=prefix)
        return _Identified(context, found, has_token)

    def _decide(self, head: RequestHead, identified: _Identified) -> Decision:
        context, found = identified.context, identified.found
        host, problem = _effective_host(head)
        if problem is not None:
            return Refused(context, _error(context, 400, problem), must_close=True)
        reply = (
            self._check_loop(head, context)
            or _check_tunnel(head, context, found)
            or self._check_host(head, context, host)
            or self._check_origin(head, found, host)
        )
        if reply is not None:
            return Refused(context, reply)
        decision = self._check_token(head, identified)
        if isinstance(decision, Admitted):
            decision = self._check_path(head, found, host, decision)
        if origins := _origins(head):
            decision = evolve(decision, response_headers=self.origins.cors_headers(origins[0], host))
        return decision

    def _check_loop(self, head: RequestHead, context: RequestContext) -> Reply | None:
        via = head.headers_named(b"via")
        if not (via and self.mark and has_passed_through(via, self.mark)):
            return None
        text = (
            "this request has come back to the foreman that sent it: FOREMAN_TARGET_URL leads to foreman, not to Ollama"
        )
        return _error(context, 508, text)

    def _check_host(self, head: RequestHead, context: RequestContext, host: bytes) -> Reply | None:
        if self.tokens.required or self.origins.host_allowed(host, head.own_address):
            return None
        text = "this Host name is not known here; to allow it, add it to FOREMAN_ALLOWED_HOSTS, or require a token"
        return _error(context, 403, text)

    def _check_origin(self, head: RequestHead, found: _Found, host: bytes) -> Reply | None:
        origins = _origins(head)
        if not origins:
            return None
        is_preflight = head.method == b"OPTIONS" and found is not CLOSED
        allow = _allow(found.path) if is_preflight and isinstance(found, Route) else []
        if len(origins) > 1 or not self.origins.origin_allowed(origins[0], host):
            return Reply(403, allow, b"")
        if is_preflight and not same_origin(origins[0], host):
            requested = head.headers_named(b"access-control-request-headers")
            return Reply(204, [*self.origins.preflight_headers(origins[0], requested), *allow], b"")
        return None

    def _check_token(self, head: RequestHead, identified: _Identified) -> Decision:
        context, found = identified.context, identified.found
        is_open = context.route.path in _OPEN_PATHS and head.method in (b"GET", b"HEAD")
        if is_open or not self.tokens.required:
            return Admitted(context, head.headers)
        authorization, api_key = head.headers_named(b"authorization"), head.headers_named(b"x-api-key")
        try:
            token = credential(context.prefix, authorization, api_key)
        except InvalidCredential as problem:
            return _unauthorized(head, context, str(problem))
        if token is None:
            return _unauthorized(head, context, "a token is required: Authorization: Bearer <token>, or x-api-key")
        holder = self.tokens.holder_of(token)
        if holder is None:
            return self._throttled(head, context) or _unauthorized(head, context, "this token is not known here")
        context = RequestContext(context.id, context.route, context.target, holder.name, holder, context.prefix)
        if identified.has_token or contains_credential(_exposed_part(found, context.target), token):
            context = evolve(context, route=evolve(context.route, path="-"))
            return Refused(context, _error(context, 400, _TOKEN_IN_ADDRESS))
        if context.route.lane is Lane.MANAGEMENT and self.tokens.only_admins_manage and not holder.admin:
            return Refused(context, _error(context, 403, _FOR_ADMINS if self.tokens.has_admin else _NO_ADMIN_LEFT))
        return Admitted(context, without_copies(head.headers, token))

    def _throttled(self, head: RequestHead, context: RequestContext) -> Refused | None:
        """Count an unknown token; where its client has sent too many, refuse it with the time to wait."""
        wait = self._throttle.count_guess(address_of(context.caller), head.received_at)
        if not wait:
            return None
        text = "this token is not known here, and too many unknown tokens came from your address; try again later"
        reply = _error(context, 429, text, [(b"Retry-After", b"%d" % wait)])
        return Refused(context, reply, must_close=True)  # each guess costs a connection

    def _check_path(self, head: RequestHead, found: _Found, host: bytes, admitted: Admitted) -> Decision:
        """Check path and ``Expect`` of a request that has passed all other checks."""
        context = admitted.context
        reply = self._reply_of_path(head, context, found, host)
        if reply is not None:
            return Refused(context, reply)
        expected = head.headers_named(b"expect")
        if not expected or head.version == b"HTTP/1.0":
            return admitted
        if [value.lower() for value in expected] != [b"100-continue"]:
            return Refused(context, Reply(417, [], b""), must_close=True)  # a client that ignores 417 sends its body
        return evolve(admitted, expects_continue=True)

    def _reply_of_path(self, head: RequestHead, context: RequestContext, found: _Found, host: bytes) -> Reply | None:
        if isinstance(found, Refusal):
            return _error(context, found.status, found.text)
        if isinstance(found, Redirect):
            return redirect_reply(head.method, found.status, found.location)
        if found.path == "*":
            return Reply(200, [], b"")
        if is_own(found.path):
            return None if is_of_jobs(found.path) else _check_method(head, context, found.path)
        if head.method == b"OPTIONS" and self.origins.is_local_name(host):
            return Reply(204, _allow(found.path), b"")  # as Ollama does for names, and not for addresses
        return None


def _error(context: RequestContext, status: int, message: str, headers: RawHeaders | None = None) -> Reply:
    return error_reply(context.route.family, status, message, context.request_id, headers=headers)


def _effective_host(head: RequestHead) -> tuple[bytes, str | None]:
    """The host that a request is for, and what is wrong with its host or its framing, None for nothing."""
    is_old = head.version == b"HTTP/1.0"
    hosts = head.headers_named(b"host")
    if len(hosts) > 1 or not (hosts or is_old):
        return b"", "a request must have one Host header (RFC 9112 section 3.2)"
    in_uri = authority(head.uri)
    host = hosts[0] if in_uri is None and hosts else in_uri or b""
    problem = None
    if in_uri is not None and in_uri[:1] in (b"", b":"):
        problem = "an http address must name a host (RFC 9110 section 4.2.1)"
    elif in_uri is not None and hosts and hosts[0].lower() != in_uri.lower():
        problem = "Host must be the server that the address names (RFC 9112 section 3.2)"
    elif is_old and head.headers_named(b"transfer-encoding"):
        problem = "Transfer-Encoding is of HTTP/1.1 (RFC 9112 section 6.1)"
    return host, problem


def _origins(head: RequestHead) -> list[bytes]:
    """The values of ``Origin``; an empty one is none."""
    origins = head.headers_named(b"origin")
    return origins if origins and origins[0] else []


def _check_tunnel(head: RequestHead, context: RequestContext, found: _Found) -> Reply | None:
    """Refuse ``CONNECT`` as Go's server does, before Ollama would check ``Host``."""
    if head.method != b"CONNECT" or context.target.startswith(b"/") or found is CLOSED:
        return None
    headers = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"X-Content-Type-Options", b"nosniff")]
    return Reply(404, headers, b"404 page not found\n")


def _check_method(head: RequestHead, context: RequestContext, path: str) -> Reply | None:
    """Refuse methods that a route of foreman's own does not have, instead of forwarding them. Jobs check their own."""
    methods = allowed_methods(path)
    if head.method.decode("latin-1") in methods:
        return None
    if not methods:
        return _error(context, 404, f"there is nothing at {path}")
    return _error(context, 405, f"the methods of this path are {', '.join(methods)}", _allow(path))


def _unauthorized(head: RequestHead, context: RequestContext, message: str) -> Refused:
    agent = (head.headers_named(b"user-agent") or [b""])[0]
    if context.target.startswith(b"/api/") and agent.startswith(b"ollama/"):
        # The stock CLI hides the text of a 401 and asks to sign in to ollama.com; it shows that of a 403.
        text = f"{message}; with this program, put it into the address: OLLAMA_HOST=http://<host>:<port>/k/<token>"
        return Refused(context, _error(context, 403, text))
    return Refused(context, _error(context, 401, message))


def _allow(path: str) -> RawHeaders:
    methods = ", ".join(allowed_methods(path))
    return [(b"Allow", methods.encode("ascii"))] if methods else []


def _exposed_part(found: _Found, target: bytes) -> bytes:
    """The part of an address that the target, the log or a ``Location`` gets, without the fixed words of a route."""
    if isinstance(found, Refusal):
        return b""
    path, _, query = target.partition(b"?")
    if isinstance(found, Redirect):
        return target
    if found.lane in (Lane.FOREMAN, Lane.INVENTORY):
        query = b""
    return query if is_known_path(found.path) else path + b"?" + query
