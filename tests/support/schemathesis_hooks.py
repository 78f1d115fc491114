"""Hooks that schemathesis loads: which models exist, and which requests would wait."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

MODEL = "llama3.2:3b"
#: The longest wait, in seconds: a job that is scheduled for later does not end.
LONGEST = 0.05
#: Links lead on from single jobs only, so that stateful tests submit no arrays.
SINGLE = os.environ.get("PROBING") == "stories"


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Replace valid model names with an installed model; else no job would ever run."""
    if SINGLE and isinstance(body, list) and body:
        body = body[0]
    for job in body if isinstance(body, list) else [body]:
        payload = job.get("payload") if isinstance(job, dict) else None
        if isinstance(payload, dict) and isinstance(payload.get("model"), str) and payload["model"]:
            payload["model"] = MODEL
    return body


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Do not wait for events that may be far off."""
    if not isinstance(query, dict):
        return query
    if isinstance(query.get("wait"), int | float) and query["wait"] > LONGEST:
        query["wait"] = LONGEST
    if context.operation.path.endswith("/events") and query.get("follow", "1") == "1":
        query["follow"] = "0"
    return query
