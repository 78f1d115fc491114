"""How errors look in each family of routes (contract 1.4 and 1.5)."""

from __future__ import annotations

from typing import Any, Literal

from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.exchange import Exchange, Headers

Family = Literal["ollama", "openai", "anthropic"]

JSON: Headers = [("Content-Type", "application/json; charset=utf-8")]
PLAIN_JSON: Headers = [("Content-Type", "application/json")]
NDJSON: Headers = [("Content-Type", "application/x-ndjson")]
#: ``/v1/messages`` and ``/v1/responses`` set these before they know whether there will be a stream.
STREAMING: Headers = [("Cache-Control", "no-cache"), ("Connection", "keep-alive")]
SSE: Headers = [("Content-Type", "text/event-stream")]

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


def refuse(state: SimulatorState, exchange: Exchange, family: Family, refused: Refused, extra: Headers) -> None:
    """Answer with an error; ``extra`` are headers that the route had already set."""
    text = refused.text
    if isinstance(refused, Malformed) and refused.empty:
        text = Malformed.texts[family != "ollama"]
    native = family == "ollama" or refused.native
    body = encode(error(state, "ollama" if native else family, refused.status, text, refused.code))
    # The layer of compaction words its refusals as the middleware does.
    early = native or isinstance(refused, Malformed) or refused.code is not None
    if not early:
        body += b"\n"
    if refused.flushed:
        exchange.start(refused.status, PLAIN_JSON + extra)
        exchange.write(body)
        exchange.finish()
    else:
        exchange.respond(refused.status, (JSON if early else PLAIN_JSON) + extra, body)
