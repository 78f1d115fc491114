"""The exit statuses of every command, and what each means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: For every command; 2 is click's own status for a usage error.
SUCCESS, FAILED, USAGE_ERROR = 0, 1, 2
#: For the commands that talk to a running foreman: the token is rejected; the server is not foreman; there is no such
#: request, job or model.
NOT_ALLOWED, NOT_FOREMAN, NOT_FOUND = 3, 4, 5

#: What they mean for the commands that talk to a running foreman.
CLIENT_STATUSES = {
    SUCCESS: "success",
    FAILED: "foreman does not answer, or reports an error",
    USAGE_ERROR: "wrong usage of the command",
    NOT_ALLOWED: "foreman rejects the token, or requires one",
    NOT_FOREMAN: "the server at the URL is not foreman",
}

#: For the commands that wait for a job.
JOB_FAILED, JOB_DISCARDED, JOB_CANCELLED, NOT_ENDED = 6, 7, 8, 9

_OF_STATE = {"succeeded": SUCCESS, "failed": JOB_FAILED, "discarded": JOB_DISCARDED, "cancelled": JOB_CANCELLED}

#: For the commands that take the id of a job.
JOB_STATUSES = CLIENT_STATUSES | {NOT_FOUND: "there is no such job, or it belongs to someone else"}
#: For the commands that wait for jobs.
WAIT_STATUSES = JOB_STATUSES | {
    SUCCESS: "the job succeeded",
    JOB_FAILED: "the job failed: Ollama rejects it, and would again",
    JOB_DISCARDED: "the job was discarded: out of attempts, or past its deadline",
    JOB_CANCELLED: "the job was cancelled",
    NOT_ENDED: "the job has not ended yet",
    130: "stopped by ctrl-C; the job continues",
}


def has_ended(job: Mapping[str, Any]) -> bool:
    """Whether the state of ``job`` is final."""
    return job.get("state") in _OF_STATE


def status_of_job(job: Mapping[str, Any]) -> int:
    """The exit status of a command that waited for ``job``."""
    return _OF_STATE.get(str(job.get("state")), NOT_ENDED)


def highest(statuses: Iterable[int]) -> int:
    """The exit status of a command that was given several jobs."""
    return max(statuses, default=SUCCESS)
