"""Answers and errors of foreman's own, in the error format of the request's family (contract 1.5)."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.web.http import datetimeToString

from foreman import errors
from foreman.protocol import go_json
from foreman.protocol.endpoints import Family
from foreman.protocol.headers import RawHeaders
from foreman.web.server.statuses import status_of

PHRASES: dict[int, bytes] = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    206: b"Partial Content",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    413: b"Request Entity Too Large",
    414: b"Request URI Too Long",
    415: b"Unsupported Media Type",
    416: b"Range Not Satisfiable",
    417: b"Expectation Failed",
    422: b"Unprocessable Entity",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    507: b"Insufficient Storage",
    508: b"Loop Detected",
    301: b"Moved Permanently",
    307: b"Temporary Redirect",
}

_NATIVE_JSON = b"application/json; charset=utf-8"
_JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


@frozen
class Reply:
    """A whole answer of foreman's own; ``Content-Length`` and ``Date`` are added where it is sent."""

    status: int
    headers: RawHeaders
    body: bytes


@define(eq=False)
class HttpDate:
    """The ``Date`` header, made anew once a second.

    :ivar wall_clock: seconds since the epoch.
    """

    _wall_clock: Callable[[], float]
    _second: int = field(default=0, init=False)
    _date: bytes = field(default=b"", init=False)

    def now(self) -> bytes:
        """Its value now."""
        now = int(self._wall_clock())
        if now != self._second:
            self._second, self._date = now, datetimeToString(now)
        return self._date


def json_reply(status: int, value: Any, headers: RawHeaders | None = None) -> Reply:
    """``value`` as a JSON answer."""
    return Reply(status, [(b"Content-Type", _NATIVE_JSON), *(headers or [])], go_json.encode(value))


def problem_value(status: int, message: str) -> dict[str, Any]:
    """The JSON of an error of foreman's own routes (RFC 9457)."""
    title = PHRASES.get(status, b"Error").decode("ascii")
    return {"type": "about:blank", "title": title, "status": status, "detail": message}


def error_value(family: Family, status: int, message: str, request_id: str) -> dict[str, Any]:
    """The JSON of an error; ``request_id`` is for Anthropic's shape: 24 hex digits."""
    if family == "openai":
        kind = _OPENAI_TYPES.get(status, "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}
    if family == "anthropic":
        kind = _ANTHROPIC_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{request_id}"}
    return problem_value(status, message) if family == "foreman" else {"error": message}


def error_reply(
    family: Family,
    status: int,
    message: str,
    request_id: str,
    *,
    headers: RawHeaders | None = None,
    early: bool = False,
) -> Reply:
    """An error before the first byte of an answer.

    :param early: an error that Ollama finds before it looks for the model: on ``/v1`` such errors have a charset and no
        newline, later ones a newline and no charset (contract 1.4).
    """
    body = go_json.encode(error_value(family, status, message, request_id))
    if status == 401:
        headers = [*(headers or []), (b"WWW-Authenticate", b'Bearer realm="foreman"')]  # RFC 9110 section 15.5.2
    if family == "foreman":
        return Reply(status, [(b"Content-Type", PROBLEM_JSON), *(headers or [])], body)
    late = family != "ollama" and not early
    content_type = _JSON if late else _NATIVE_JSON
    return Reply(status, [(b"Content-Type", content_type), *(headers or [])], body + b"\n" if late else body)


def failure_reply(family: Family, problem: errors.ForemanError, request_id: str, retry_after: int) -> Reply:
    """The answer to a request that failed before its first byte; ``retry_after`` in seconds, sent with 502 and 503."""
    status = status_of(problem)
    headers = [(b"Retry-After", b"%d" % retry_after)] if status in (502, 503) else []
    early = isinstance(problem, errors.BadBody)
    return error_reply(family, status, str(problem), request_id, headers=headers, early=early)


def redirect_reply(method: bytes, status: int, location: bytes) -> Reply:
    """A redirect as Go's ``http.Redirect`` writes it."""
    headers = [(b"Location", location)]
    if method not in (b"GET", b"HEAD"):
        return Reply(status, headers, b"")
    href = html.escape(location.decode("ascii", "replace")).encode("ascii", "replace")
    body = b'<a href="%b">%b</a>.\n\n' % (href, PHRASES[status])
    return Reply(status, [(b"Content-Type", b"text/html; charset=utf-8"), *headers], body)


def final_error(kind: str, family: Family, problem: errors.ForemanError, request_id: str) -> bytes | None:
    """The line or event that ends an answer of ``kind`` so that it is visibly broken.

    :return: None where there can be none, and only cutting the connection shows it.
    """
    # A refusal of the target that comes after a heartbeat keeps its text and type; its status can no longer be sent.
    status, text = (problem.status, problem.text) if isinstance(problem, errors.HTTPError) else (500, str(problem))
    if kind == "ndjson":
        return go_json.encode({"error": text}) + b"\n"
    if kind == "sse":
        # In the event stream of a job an error has the form of an NDJSON line.
        error = {"error": text} if family == "foreman" else error_value(family, status, text, request_id)
        value = go_json.encode(error)
        has_name = family in ("anthropic", "foreman")
        return b"event: error\ndata: %b\n\n" % value if has_name else b"data: %b\n\n" % value
    return None


def piece_end(kind: str) -> bytes:
    """What ends a line or an event that was sent only in part."""
    return b"\n\n" if kind == "sse" else b"\n"
