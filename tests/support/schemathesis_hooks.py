"""What schemathesis cannot know when it looks at foreman: which models there are, and what waits. Its process imports it."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

MODEL = "llama3.2:3b"
#: Nobody waits for longer, in seconds: a job that is for later does not end.
LONGEST = 0.05
#: Of an array no link leads on, so that the stories are told of single jobs.
SINGLE = os.environ.get("PROBING") == "stories"


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Ask for a model that is there wherever one is asked for as it should be; else no job would ever run."""
    if SINGLE and isinstance(body, list) and body:
        body = body[0]
    for job in body if isinstance(body, list) else [body]:
        payload = job.get("payload") if isinstance(job, dict) else None
        if isinstance(payload, dict) and isinstance(payload.get("model"), str) and payload["model"]:
            payload["model"] = MODEL
    return body


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Do not wait for what may be far off, where it would be waited for."""
    if not isinstance(query, dict):
        return query
    if isinstance(query.get("wait"), int | float) and query["wait"] > LONGEST:
        query["wait"] = LONGEST
    if context.operation.path.endswith("/events") and query.get("follow", "1") == "1":
        query["follow"] = "0"
    return query
