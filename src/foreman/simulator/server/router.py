"""Finds the handler of a request, and redirects and refuses like gin and Go's mux (contract 1.3 and 3)."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Literal

from attrs import frozen

from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.exchange import Exchange, Headers, reason

Handler = Callable[[SimulatorState, Exchange], Awaitable[None]]
Body = Literal["none", "whole", "stream"]
#: Whose error shape a route uses.
Family = Literal["ollama", "openai", "anthropic"]

_METHODS = ("HEAD", "GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")
_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - origins, nothing is bound
_SCHEMES = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_STAINLESS = (
    "Arch,Async,Custom-Poll-Interval,Helper-Method,Lang,Os,Package-Version,Poll-Helper,Retry-Count,Runtime,"
    "Runtime-Version,Timeout"
)
_PREFLIGHT: Headers = [
    (
        "Access-Control-Allow-Headers",
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,"
        + ",".join(f"X-Stainless-{name}" for name in _STAINLESS.split(",")),
    ),
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ("Access-Control-Max-Age", "43200"),
    ("Vary", "Origin"),
    ("Vary", "Access-Control-Request-Method"),
    ("Vary", "Access-Control-Request-Headers"),
]
_TEXT: Headers = [("Content-Type", "text/plain")]


@frozen
class Route:
    """A route: its handler, and how that gets the body of a request.

    :ivar path: as in gin; its last part may be a parameter, such as ``:model``; :ivar newer: only v0.34 has it.
    """

    method: str
    path: str
    handler: Handler
    body: Body = "none"
    family: Family = "ollama"
    asks_a_model: bool = False
    newer: bool = False

    def fits(self, path: str) -> bool:
        """Whether a path matches this route."""
        head, colon, _ = self.path.partition(":")
        if not colon:
            return path == self.path
        return path.startswith(head) and "/" not in path[len(head) :] and len(path) > len(head)


@frozen
class Plain:
    """A response that needs no handler."""

    status: int
    headers: Headers
    body: bytes = b""


def _cleaned(path: str) -> str:
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _redirect(exchange: Exchange, status: int, path: str) -> Plain:
    location = f"{path}?{exchange.query}" if exchange.query else path
    if exchange.method not in {"GET", "HEAD"}:
        return Plain(status, [("Location", location)])
    escaped = location.replace("&", "&amp;")
    body = f'<a href="{escaped}">{reason(status)}</a>.\n\n' if exchange.method == "GET" else ""
    return Plain(status, [("Content-Type", "text/html; charset=utf-8"), ("Location", location)], body.encode())


def _origin_allowed(origin: str) -> bool:
    scheme, found, rest = origin.partition("://")
    if found and scheme in {"http", "https"}:
        host, _, port = rest.partition(":")
        return host in _LOCAL and (port.isdigit() or not port)
    return origin.startswith(_SCHEMES)


def _host_name(value: str) -> str:
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.rpartition(":")[0] if value.count(":") == 1 else value


def _address_allowed(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def _name_allowed(host: str) -> bool:
    return host in {"", "localhost"} or host.lower().endswith((".localhost", ".local", ".internal"))


def _guard(exchange: Exchange, *, check_hosts: bool) -> Plain | None:
    """The response of the CORS and host checks; ``None`` if the request passes."""
    origin, host = exchange.header("origin"), exchange.header("host") or ""
    if origin and origin not in {f"http://{host}", f"https://{host}"}:
        if not _origin_allowed(origin):
            return Plain(403, [])
        allowed = ("Access-Control-Allow-Origin", origin)
        if exchange.method == "OPTIONS":
            return Plain(204, [*_PREFLIGHT, allowed])
        exchange.extra_headers += [allowed, ("Vary", "Origin")]
    name = _host_name(host)
    if not check_hosts or _address_allowed(name):
        return None
    if not _name_allowed(name):
        return Plain(403, [])
    return Plain(204, []) if exchange.method == "OPTIONS" else None


@lru_cache(maxsize=256)
def _fitting(routes: tuple[Route, ...], path: str) -> list[Route]:
    return [route for route in routes if route.fits(path)]


def find(routes: tuple[Route, ...], exchange: Exchange, *, check_hosts: bool) -> Route | Plain:
    """The route of a request, or the response if it has none."""
    method, path = exchange.method, exchange.path
    if exchange.target == "*":
        return Plain(200, [("Content-Length", "0")])
    if method == "CONNECT" and not exchange.target.startswith("/"):
        nosniff = ("X-Content-Type-Options", "nosniff")
        return Plain(404, [("Content-Type", "text/plain; charset=utf-8"), nosniff], b"404 page not found\n")
    if (clean := _cleaned(path)) != path:
        return _redirect(exchange, 307, clean)
    fitting = _fitting(routes, path)
    route = next((route for route in fitting if route.method == method), None)
    if route is None and path != "/" and path.endswith("/"):
        bare = path.rstrip("/")
        if any(route.method == method for route in _fitting(routes, bare)):
            prefix = (exchange.header("x-forwarded-prefix") or "").rstrip("/")
            return _redirect(exchange, 301 if method == "GET" else 307, prefix + bare)
    if route is None and fitting:
        allowed = sorted({route.method for route in fitting}, key=_METHODS.index)
        exchange.extra_headers.append(("Allow", ", ".join(allowed)))
    guarded = _guard(exchange, check_hosts=check_hosts)
    if guarded is not None:
        return guarded
    if route is not None:
        return route
    return Plain(405, _TEXT, b"405 method not allowed") if fitting else Plain(404, _TEXT, b"404 page not found")
