"""Jobs to put into a store."""

from __future__ import annotations

import json
from typing import Any

from foreman.jobs.job import NewJob
from foreman.protocol.endpoints import Lane
from foreman.protocol.routes import Route, classify

HELLO = [{"role": "user", "content": "hi"}]


def new_job(**given: Any) -> NewJob:
    """A job to be submitted, with plain values for what is not given."""
    plain: dict[str, Any] = {
        "endpoint": "/api/chat", "lane": "gate", "family": "ollama", "model": "m", "owner": "o", "payload": b"{}",
        "stream": True, "fingerprint": "f",
    }  # fmt: skip
    return NewJob(**{**plain, **given})


def job_for(endpoint: str = "/api/chat", model: str = "llama3", *, lane: Any = None, **more: Any) -> NewJob:
    """A job as it is handed over."""
    found = classify(b"POST", endpoint.encode())
    assert isinstance(found, Route)
    payload = more.pop("payload", json.dumps({"model": model, "messages": HELLO, "input": "x"}).encode())
    return NewJob(
        endpoint=endpoint,
        lane=lane or ("embedding" if found.lane is Lane.EMBEDDING else "gate"),
        family=found.family,
        model=model,
        owner="alice",
        payload=payload,
        stream=more.pop("stream", endpoint in {"/api/chat", "/api/generate"}),
        fingerprint="f",
        **more,
    )
