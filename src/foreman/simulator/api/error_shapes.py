"""The JSON of errors in each API family (contract 1.4 and 1.5)."""

from __future__ import annotations

from typing import Any

from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.content_types import JSON, PLAIN_JSON
from foreman.simulator.server.exchange import Exchange, Headers
from foreman.simulator.server.router import Family

_OPENAI = {400: "invalid_request_error", 404: "not_found_error"}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def error(state: SimulatorState, family: Family, status: int, text: str, code: str | None = None) -> Any:
    """The JSON value of an error."""
    if family == "openai":
        kind = _OPENAI.get(status, "api_error")
        return {"error": {"message": text, "type": kind, "param": None, "code": code}}
    if family == "anthropic":
        kind = _ANTHROPIC.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": text}, "request_id": state.hex_id("req_")}
    return {"error": text}


def refuse(state: SimulatorState, exchange: Exchange, family: Family, refused: Refused, extra_headers: Headers) -> None:
    """Send an error response; ``extra`` are headers that the route had already set."""
    text = refused.text
    if isinstance(refused, Malformed) and refused.empty:
        text = Malformed.texts[family != "ollama"]
    native = family == "ollama" or refused.native
    body = encode(error(state, "ollama" if native else family, refused.status, text, refused.code))
    # The compaction layer shapes its errors like the middleware.
    early = native or isinstance(refused, Malformed) or refused.code is not None
    if not early:
        body += b"\n"
    if refused.flushed:
        exchange.start(refused.status, PLAIN_JSON + extra_headers)
        exchange.write(body)
        exchange.finish()
    else:
        exchange.respond(refused.status, (JSON if early else PLAIN_JSON) + extra_headers, body)
