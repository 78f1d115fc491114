"""What schemathesis cannot know when it looks at foreman: a model that is there. Its own process imports this."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

MODEL = "llama3.2:3b"
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
