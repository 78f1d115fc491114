"""Examples of requests and answers. The tests validate each against its schema, and send those that are requests."""

from __future__ import annotations

from typing import Any

ID = "01KBTWZ5M0XJ3Q9V7D2E8R4A6C"
_MODEL = "llama3.2:3b"

NEW_JOB: dict[str, Any] = {
    "endpoint": "/api/chat",
    "payload": {"model": _MODEL, "messages": [{"role": "user", "content": "Write a poem about a queue"}]},
    "metadata": {"run": "nightly"},
}
JOB: dict[str, Any] = {
    "id": ID,
    "state": "succeeded",
    "endpoint": "/api/chat",
    "model": _MODEL,
    "owner": "alice",
    "priority": 5,
    "metadata": {"run": "nightly"},
    "run_at": "2026-11-28T10:00:00.000Z",
    "deadline": None,
    "attempt": 1,
    "max_attempts": 5,
    "idempotency_key": None,
    "created_at": "2026-11-28T10:00:00.000Z",
    "started_at": "2026-11-28T10:00:03.214Z",
    "finished_at": "2026-11-28T10:00:08.511Z",
    "position": None,
    "error": None,
    "usage": {"prompt_tokens": 31, "completion_tokens": 120, "cached_tokens": 12, "load_ms": 0, "total_ms": 5297},
    "artifacts": [
        {"name": "response", "type": "application/json; charset=utf-8", "bytes": 812},
        {"name": "stream", "type": "application/x-ndjson", "bytes": 13906},
    ],
}
ARTIFACT: dict[str, Any] = {
    "name": "response",
    "type": "application/json; charset=utf-8",
    "bytes": 812,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_at": "2026-11-28T10:00:08.511Z",
}
EVENT: dict[str, Any] = {
    "id": 17,
    "at": "2026-11-28T10:00:03.214Z",
    "type": "running",
    "attempt": 1,
    "error": None,
}
PROBLEM: dict[str, Any] = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "priority: must be a whole number from 0 to 9",
    "errors": [{"pointer": "/priority", "detail": "must be a whole number from 0 to 9"}],
}
NO_SUCH_REQUEST = f"you have no queued or running request '{ID}'"
QUEUE: dict[str, Any] = {
    "turns": 1,
    "running": [
        {
            "id": "01M85QHVFK3YAWY26YPS1XES2H",
            "caller": "alice",
            "model": _MODEL,
            "route": "/api/chat",
            "since": "2026-11-24T03:01:41.171Z",
            "seconds": 3.2,
            "state": "answering",
            "overtime": False,
            "job": None,
        }
    ],
    "waiting": [
        {
            "id": "01M85QHWB2N4T9ZC8Q7RDVK5M0",
            "caller": "bob",
            "model": "qwen3:8b",
            "route": "/v1/chat/completions",
            "since": "2026-11-24T03:01:43.171Z",
            "seconds": 1.2,
            "position": 1,
            "estimate": {"low": 4.1, "high": 9.0},
        }
    ],
    "embedding": {"running": 0, "cap": 8},
    "jobs": {"running": [], "queued": 3, "scheduled": 0, "store": "ok"},
}
