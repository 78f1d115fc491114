"""Classify a request by its method and path: its lane and family, a redirect, or a refusal (contract 1.2, 1.3).

In Ollama, Go's ServeMux redirects an unclean path to the clean one; behind it, the gin router matches the path after
decoding it once. foreman forwards the path as it was sent. Therefore it redirects or refuses every path that could mean
one thing to foreman and another to Ollama.
"""

from __future__ import annotations

import re

from attrs import frozen

from foreman.protocol.closed_paths import is_closed
from foreman.protocol.endpoints import ENDPOINTS, Family, Lane, endpoint_of, family_of, is_of_jobs, paths
from foreman.protocol.request_path import AS_SENT, BAD_ESCAPE, clean, escape, hides_credential, to_ascii, unescape


@frozen
class Route:
    """How a request is handled.

    :ivar family: the format of its errors; :ivar path: percent-decoded once, without query.
    """

    lane: Lane
    family: Family
    path: str


@frozen
class Redirect:
    """The answer of Ollama's routers to a path that is not clean, or has one slash too many.

    :ivar location: path and query.
    """

    status: int
    location: bytes


@frozen
class Refusal:
    """The request is refused; ``text`` is Ollama's where Ollama would refuse it, too."""

    status: int
    text: str


_READ = ("HEAD", "GET")
_POST = ("POST",)

#: Routes whose last segment is variable, and their methods.
_FREE_ROUTES: dict[str, tuple[str, ...]] = {
    "/queue/": ("DELETE",),
    "/api/blobs/": ("HEAD", "POST"),
    "/api/user/keys/": ("DELETE",),
    "/v1/models/": ("GET",),
}
#: The routes of jobs, by the rest of the path.
_JOB_ROUTES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r""), ("HEAD", "GET", "POST", "DELETE")),
    (re.compile(r"/[^/]+"), ("HEAD", "GET", "DELETE")),
    (re.compile(r"/[^/]+/(?:events|stream|artifacts)"), _READ),
    (re.compile(r"/[^/]+/(?:cancel|retry)"), _POST),
    (re.compile(r"/[^/]+/artifacts/[^/]+"), ("HEAD", "GET", "PUT")),
)
_JOBS = "/jobs"
#: The paths of foreman's own without a variable segment. ``/`` is not among them: foreman answers it, but it is Ollama's.
_OWN = frozenset(paths(lambda endpoint: endpoint.lane is Lane.FOREMAN)) - {"/"}
#: These paths, and all below them, are management under any method: what a newer Ollama adds there may need permission, too.
_MANAGED = ("/api/blobs", "/api/user", "/api/experimental", "/api/usage", "/api/config", "/metrics")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What a request-target must not contain (RFC 9112 section 3.2): spaces, control characters, a fragment.
_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f#]")
_NOT_FOUND = Refusal(404, "404 page not found")
_BAD_REQUEST = Refusal(400, "400 Bad Request")
#: The first half is Ollama's text.
CLOSED = Refusal(
    403, "Codex proxy only accepts loopback requests; foreman passes none of them on: ask Ollama on its own machine"
)
_TOO_LONG = Refusal(414, "414 URI Too Long")
#: The longest request-target that is redirected, in bytes: a redirect contains it twice, escaped. No route is nearly as long.
_LONGEST_REDIRECTED = 4096


def classify(method: bytes, target: bytes, base: bytes = b"") -> Route | Redirect | Refusal:
    """Classify a request.

    :param target: the request-target as sent, in origin form, after ``request_path.take_prefix``; :param base: what precedes
        it in the request to the target.
    """
    if is_closed(base + target):
        return CLOSED
    if method == b"CONNECT":
        return _NOT_FOUND
    if target == b"*" and method == b"OPTIONS":
        return Route(Lane.METADATA, "ollama", "*")
    if _FORBIDDEN.search(target) or not target.startswith(b"/"):
        return _BAD_REQUEST
    raw, separator, query = target.partition(b"?")
    if BAD_ESCAPE.search(raw):
        return _BAD_REQUEST
    decoded = unescape(raw)
    escaped = raw if AS_SENT.fullmatch(raw) else escape(decoded)
    if hides_credential(decoded):
        return _NOT_FOUND
    if (cleaned := clean(escaped)) != escaped:
        if len(target) > _LONGEST_REDIRECTED:
            return _TOO_LONG
        return Redirect(307, escape(cleaned) + to_ascii(separator + query if query else b""))
    return _route(method.decode("latin-1"), decoded, to_ascii(separator + query))


def classify_behind_prefix(method: bytes, target: bytes, base: bytes = b"") -> tuple[Route | Redirect | Refusal, bytes]:
    """Classify a request that had a credential in front of its path.

    Where Ollama's routers would redirect, the request goes directly to the new path. A client could not follow the redirect:
    a Location without the credential leads to a refusal, and one with it would put a secret where proxies log it. Relative
    references would not help, since Python's ``urljoin`` resolves them wrongly behind an empty segment.

    :param target, base: as for ``classify``.
    :return: the decision, which is never a redirect, and the request-target that it is about.
    """
    found = classify(method, target, base)
    while isinstance(found, Redirect):  # at most twice: to the clean path, and to the one without a slash at its end
        target = found.location
        found = classify(method, target, base)
    return found, target


def allowed_methods(path: str) -> tuple[str, ...]:
    """The methods of a path, in the order of Ollama's ``Allow``; none where the path is unknown."""
    if path in ENDPOINTS:
        return ENDPOINTS[path].methods
    if is_of_jobs(path):
        rest = path.removeprefix(_JOBS)
        return next((methods for pattern, methods in _JOB_ROUTES if pattern.fullmatch(rest)), ())
    head, slash, last = path.rpartition("/")
    return _FREE_ROUTES.get(head + slash, ()) if last else ()


def is_own(path: str) -> bool:
    """Whether a path is foreman's own, so that no request for it is forwarded to the target."""
    return path in _OWN or path.startswith("/queue/") or is_of_jobs(path)


def is_known_path(path: str) -> bool:
    """Whether a path is a known one without a variable segment."""
    return path in ENDPOINTS


def _route(method: str, decoded: bytes, query: bytes) -> Route | Redirect | Refusal:
    try:
        path = decoded.decode("utf-8")
    except UnicodeDecodeError:
        return _BAD_REQUEST
    if _CONTROL.search(path):
        return _BAD_REQUEST
    if clean(decoded) != decoded:
        # Escaped dot segments or slashes: Ollama has no such route, but a proxy in between may resolve them.
        return _NOT_FOUND
    if path.endswith("/") and path != "/" and not is_of_jobs(path) and _is_one_slash_off(method, path[:-1]):
        if len(decoded) + len(query) > _LONGEST_REDIRECTED:
            return _TOO_LONG
        return Redirect(301 if method == "GET" else 307, escape(decoded[:-1]) + query)
    return Route(_lane(method, path), family_of(path), path)


def _is_one_slash_off(method: str, path: str) -> bool:
    return method in allowed_methods(path) and endpoint_of(path).versions == "all"


def _lane(method: str, path: str) -> Lane:
    if path.startswith(_MANAGED) and any(path == root or path.startswith(f"{root}/") for root in _MANAGED):
        return Lane.MANAGEMENT
    if is_own(path):
        return Lane.FOREMAN
    endpoint = endpoint_of(path)
    return endpoint.lane if method in endpoint.methods or endpoint.lane is Lane.MANAGEMENT else Lane.METADATA
