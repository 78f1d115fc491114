"""The content headers of Ollama's responses (contract 1.4)."""

from __future__ import annotations

from foreman.simulator.server.exchange import Headers

JSON: Headers = [("Content-Type", "application/json; charset=utf-8")]
PLAIN_JSON: Headers = [("Content-Type", "application/json")]
NDJSON: Headers = [("Content-Type", "application/x-ndjson")]
SSE: Headers = [("Content-Type", "text/event-stream")]
#: ``/v1/messages`` and ``/v1/responses`` set these before they know whether the response will be a stream.
STREAMING: Headers = [("Cache-Control", "no-cache"), ("Connection", "keep-alive")]
