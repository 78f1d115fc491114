"""Distinguish Ollama's own answer to an inference from that of a proxy in front of it.

When Ollama is stopped, a reverse proxy answers in its place: with a page, a redirect, a status of its own. Ollama's own
answers are described in contract 1.3 to 1.5: JSON with an error, or the JSON of the route.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from foreman.protocol.endpoints import endpoint_of
from foreman.protocol.error_text import error_member

#: ``ollama``: it has the shape of Ollama's answers. ``unclear``: it may come from Ollama (or the HTTP server that it is
#: built on) or from a proxy. ``foreign``: Ollama never answers like this.
Origin = Literal["ollama", "unclear", "foreign"]

#: Statuses with which gateways report that they cannot reach the server behind them.
GATEWAY_STATUSES = frozenset({502, 504, *range(520, 600)})
#: Statuses with which Ollama, or the host of its cloud models, refuses an inference (contract 1.5).
_OLLAMA_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 499, 500, 501, 503})
#: Refusals because of the size of the request, from Ollama or a proxy.
_SIZE_STATUSES = frozenset({413, 414, 431})
#: Pages and JSON of proxies are small; of a larger answer only the beginning is examined, in bytes.
MAX_EXAMINED = 64 * 1024


def needs_target_check(status: int, content_type: bytes) -> bool:
    """Whether the head of an answer is a reason to check that Ollama is running."""
    media = content_type.partition(b";")[0].strip().lower()
    if 200 <= status < 300:
        return media == b"text/html"
    if status == 508:  # a foreman has found a loop, and a check would loop, too
        return False
    return status not in _OLLAMA_STATUSES or not _is_json(media.decode("latin-1"))


def origin(endpoint: str, status: int, content_type: str, body: bytes) -> Origin:
    """Who gave the answer, as far as that is visible.

    :param endpoint: the path of the request; for an unknown one, any JSON object is accepted.
    :param body: of one that is longer than ``MAX_EXAMINED``, a beginning that is longer, too, is enough.
    """
    media = content_type.partition(";")[0].strip().lower()
    return _of_success(endpoint, media, body) if 200 <= status < 300 else _of_refusal(status, media, body)


def says_model_missing(status: int, body: bytes) -> bool:
    """Whether a refusal says, in Ollama's words, that the model is not installed."""
    if status != 404:
        return False
    error = _error(body)
    return error is not None and "model" in error and "not found" in error


def _of_success(endpoint: str, media: str, body: bytes) -> Origin:
    if media in {"application/x-ndjson", "text/event-stream"}:
        return "ollama"  # whether it is complete is judged by its end
    if media == "text/html":
        return "foreign"
    if media.startswith("text/") or media == "application/x-subrip":
        return "ollama" if endpoint == "" or endpoint_of(endpoint).answers_text else "foreign"
    if not body.lstrip().startswith(b"{"):
        return "foreign"
    members = endpoint_of(endpoint).answer_members
    value = _object(body) if members else None
    # A body that is long, or cut short, cannot be parsed here and is taken for Ollama's.
    return "foreign" if value is not None and members.isdisjoint(value) else "ollama"


def _of_refusal(status: int, media: str, body: bytes) -> Origin:
    if status < 400:
        return "foreign"
    if _is_json(media) and _error(body) is not None:
        is_ollama = status in _OLLAMA_STATUSES and (status != 404 or says_model_missing(status, body))
        return "ollama" if is_ollama else "unclear"
    if status in _SIZE_STATUSES or _is_from_go(status, media, body):
        return "unclear"
    return "foreign"


def _is_from_go(status: int, media: str, body: bytes) -> bool:
    """Whether it is an answer of Ollama's router or HTTP server themselves (contract 1.3)."""
    if status in {403, 500}:
        return not body
    texts = {404: b"404 page not found", 405: b"405 method not allowed", 400: b"400 Bad Request"}
    return media == "text/plain" and body == texts.get(status)


def _is_json(media: str) -> bool:
    return media in {"application/json", "application/x-ndjson"}


def _error(body: bytes) -> str | None:
    """The text of the error in a body of one of Ollama's shapes; None where there is none."""
    error = error_member(_object(body))
    return error if isinstance(error, str) else None


def _object(body: bytes) -> dict[str, Any] | None:
    # Python's own reader accepts a lone surrogate, as Ollama's answers may have.
    try:
        value = (
            json.loads(body.decode("utf-8", "replace"), parse_int=lambda _: 0) if len(body) <= MAX_EXAMINED else None
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
