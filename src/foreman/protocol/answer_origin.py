"""Whether an answer to an inference is one that Ollama gives, or comes from something in front of it.

A reverse proxy answers for an Ollama that is stopped: with a page, a redirect, a status of its own. What Ollama gives is in
contract 1.3 to 1.5: JSON with an error, or JSON of the route.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from foreman.protocol.endpoints import endpoint_of
from foreman.protocol.error_text import error_member

#: ``ollama``: it has Ollama's shape. ``perhaps``: Ollama, or the HTTP server that it is built on, may answer so, and so
#: may a proxy. ``foreign``: Ollama never answers so.
Origin = Literal["ollama", "perhaps", "foreign"]

#: Statuses by which gateways say that they cannot reach what is behind them.
GATEWAY_STATUSES = frozenset({502, 504, *range(520, 600)})
#: Statuses with which Ollama refuses an inference, and whoever runs its cloud models (contract 1.5).
_OF_OLLAMA = frozenset({400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 499, 500, 501, 503})
#: Refusals that tell of the size of the request, whoever gives them.
_OF_SIZE = frozenset({413, 414, 431})
#: Pages and JSON of proxies are small; of a larger answer only the beginning is looked at, in bytes.
MAX_EXAMINED = 64 * 1024


def needs_target_check(status: int, content_type: bytes) -> bool:
    """Whether the head of an answer is a reason to ask the target whether it is there."""
    media = content_type.partition(b";")[0].strip().lower()
    if 200 <= status < 300:
        return media == b"text/html"
    if status == 508:  # a foreman has found a loop, and a question of foreman's would go round it, too
        return False
    return status not in _OF_OLLAMA or not _is_json(media.decode("latin-1"))


def origin(endpoint: str, status: int, content_type: str, body: bytes) -> Origin:
    """Whose answer this is, as far as it shows.

    :param endpoint: the path that was asked; of one that is not known any JSON object is accepted;
    :param body: of one that is longer than ``MAX_EXAMINED`` only a beginning that is longer, too.
    """
    media = content_type.partition(";")[0].strip().lower()
    return _of_success(endpoint, media, body) if 200 <= status < 300 else _of_refusal(status, media, body)


def says_model_missing(status: int, body: bytes) -> bool:
    """Whether a refusal says in Ollama's words that it does not have the model."""
    if status != 404:
        return False
    error = _error(body)
    return error is not None and "model" in error and "not found" in error


def _of_success(endpoint: str, media: str, body: bytes) -> Origin:
    if media in {"application/x-ndjson", "text/event-stream"}:
        return "ollama"  # whether it is whole, its end tells
    if media == "text/html":
        return "foreign"
    if media.startswith("text/") or media == "application/x-subrip":
        return "ollama" if endpoint == "" or endpoint_of(endpoint).answers_text else "foreign"
    if not body.lstrip().startswith(b"{"):
        return "foreign"
    members = endpoint_of(endpoint).answer_members
    value = _object(body) if members else None
    # What is long, or cut short, is no reason to doubt.
    return "foreign" if value is not None and members.isdisjoint(value) else "ollama"


def _of_refusal(status: int, media: str, body: bytes) -> Origin:
    if status < 400:
        return "foreign"
    if _is_json(media) and _error(body) is not None:
        sure = status in _OF_OLLAMA and (status != 404 or says_model_missing(status, body))
        return "ollama" if sure else "perhaps"
    if status in _OF_SIZE or _is_of_go(status, media, body):
        return "perhaps"
    return "foreign"


def _is_of_go(status: int, media: str, body: bytes) -> bool:
    """Whether it is what Ollama's router and HTTP server say without Ollama: contract 1.3."""
    if status in {403, 500}:
        return not body
    texts = {404: b"404 page not found", 405: b"405 method not allowed", 400: b"400 Bad Request"}
    return media == "text/plain" and body == texts.get(status)


def _is_json(media: str) -> bool:
    return media in {"application/json", "application/x-ndjson"}


def _error(body: bytes) -> str | None:
    """The error in a body of one of Ollama's shapes; None where there is none."""
    error = error_member(_object(body))
    return error if isinstance(error, str) else None


def _object(body: bytes) -> dict[str, Any] | None:
    # Python's own reader: half a pair of UTF-16 makes an answer no less Ollama's.
    try:
        value = (
            json.loads(body.decode("utf-8", "replace"), parse_int=lambda _: 0) if len(body) <= MAX_EXAMINED else None
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
