"""Which way a request goes, and whose errors it speaks: decided on the path as Ollama reads it (contract 1.2, 1.3).

Ollama is Go's ServeMux, which sends whoever asks for an unclean path to the clean one, in front of the gin router,
which matches the path after decoding it once. foreman forwards the path as it was sent, so whatever could mean one
thing here and another there is refused or redirected here.
"""

from __future__ import annotations

import re

from attrs import frozen

from foreman.protocol.closed_paths import is_closed
from foreman.protocol.endpoints import ENDPOINTS, Family, Lane, endpoint_of, family_of, is_of_jobs
from foreman.protocol.request_path import AS_SENT, BAD_ESCAPE, clean, escape, hides_credential, to_ascii, unescape


@frozen
class Route:
    """The way of one request.

    :ivar family: whose error shape it speaks; :ivar path: percent-decoded once, without query.
    """

    lane: Lane
    family: Family
    path: str


@frozen
class Redirect:
    """What Ollama's routers answer to a path that is nearly right.

    :ivar location: path and query.
    """

    status: int
    location: bytes


@frozen
class Refusal:
    """What nobody may ask; ``text`` as Ollama has it where it would answer the same."""

    status: int
    text: str


_READ = ("HEAD", "GET")
_POST = ("POST",)

#: The routes whose last segment is free.
_FREE_ROUTES: dict[str, tuple[str, ...]] = {
    "/queue/": ("DELETE",),
    "/api/blobs/": ("HEAD", "POST"),
    "/api/user/keys/": ("DELETE",),
    "/v1/models/": ("GET",),
}
#: Those of jobs, by what follows the first segment.
_JOB_ROUTES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r""), ("HEAD", "GET", "POST", "DELETE")),
    (re.compile(r"/[^/]+"), ("HEAD", "GET", "DELETE")),
    (re.compile(r"/[^/]+/(?:events|stream|artifacts)"), _READ),
    (re.compile(r"/[^/]+/(?:cancel|retry)"), _POST),
    (re.compile(r"/[^/]+/artifacts/[^/]+"), ("HEAD", "GET", "PUT")),
)
_JOBS = "/jobs"
_OWN = frozenset({"/healthz", "/queue", "/openapi.json"})
#: These, and everything below, are management, whatever the method: what a newer Ollama adds there may need permission too.
_MANAGED = ("/api/blobs", "/api/user", "/api/experimental", "/api/usage", "/api/config", "/metrics")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What may not stand in a request line's target (RFC 9112 section 3.2): blanks, control bytes, a fragment.
_FOREIGN = re.compile(rb"[\x00-\x20\x7f#]")
_NOT_FOUND = Refusal(404, "404 page not found")
_BAD_REQUEST = Refusal(400, "400 Bad Request")
#: The first half is Ollama's text.
CLOSED = Refusal(
    403, "Codex proxy only accepts loopback requests; foreman passes none of them on: ask Ollama on its own machine"
)
_TOO_LONG = Refusal(414, "414 URI Too Long")
#: A redirect repeats the target twice, and escapes it; no route of Ollama's is nearly as long. In bytes.
_LONGEST_REDIRECTED = 4096


def classify(method: bytes, target: bytes, base: bytes = b"") -> Route | Redirect | Refusal:
    """Decide on a request.

    :param target: the request-target as sent, in origin form, after ``paths.take_prefix``; :param base: what goes in front of
        it on the way to the target.
    """
    if is_closed(base + target):
        return CLOSED
    if method == b"CONNECT":
        return _NOT_FOUND
    if target == b"*" and method == b"OPTIONS":
        return Route(Lane.METADATA, "ollama", "*")
    if _FOREIGN.search(target) or not target.startswith(b"/"):
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
    """Decide on a request whose credential stood in front of its path.

    Where Ollama's routers would redirect, the request goes where they point. A client could not follow: a Location without
    the credential leads to a refusal, and one with it would put a secret where programs between write it down. Relative
    references are no way out, since Python's ``urljoin`` resolves them wrongly behind an empty segment.

    :param target, base: as for ``classify``.
    :return: the decision, which is never a redirect, and the target that it is about.
    """
    found = classify(method, target, base)
    while isinstance(found, Redirect):  # twice at most: to the clean path, and to the one without a slash at its end
        target = found.location
        found = classify(method, target, base)
    return found, target


def allowed_methods(path: str) -> tuple[str, ...]:
    """The methods that a path of ``Route`` is known for, in the order of Ollama's ``Allow``; none where it is unknown."""
    if path in ENDPOINTS:
        return ENDPOINTS[path].methods
    if is_of_jobs(path):
        rest = path.removeprefix(_JOBS)
        return next((methods for pattern, methods in _JOB_ROUTES if pattern.fullmatch(rest)), ())
    head, slash, last = path.rpartition("/")
    return _FREE_ROUTES.get(head + slash, ()) if last else ()


def is_own(path: str) -> bool:
    """Whether a path of ``Route`` is foreman's alone, so that no request for it goes on to the target."""
    return path in _OWN or path.startswith("/queue/") or is_of_jobs(path)


def is_known_path(path: str) -> bool:
    """Whether a path of ``Route`` is a known one without a free part."""
    return path in ENDPOINTS


def _route(method: str, decoded: bytes, query: bytes) -> Route | Redirect | Refusal:
    try:
        path = decoded.decode("utf-8")
    except UnicodeDecodeError:
        return _BAD_REQUEST
    if _CONTROL.search(path):
        return _BAD_REQUEST
    if clean(decoded) != decoded:
        # Escaped dot segments or slashes: Ollama has no such route, something between may think otherwise.
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
