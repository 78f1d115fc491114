"""The exit statuses of every command, and what each means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: What every command can end with. A wrong option is click's own 2.
SUCCESS, FAILED, USAGE_ERROR = 0, 1, 2
#: What the commands that ask a running foreman end with besides: it wants another token; something else answers there;
#: it knows no such thing.
NOT_ALLOWED, NOT_FOREMAN, NOT_FOUND = 3, 4, 5

#: For the commands that ask a running foreman.
CLIENT_STATUSES = {
    SUCCESS: "done",
    FAILED: "foreman does not answer, or cannot",
    USAGE_ERROR: "the command was written wrongly",
    NOT_ALLOWED: "foreman wants another token",
    NOT_FOREMAN: "what answers there is not foreman",
}

#: Beside what every command that asks a foreman can end with.
JOB_FAILED, JOB_DISCARDED, JOB_CANCELLED, NOT_ENDED = 6, 7, 8, 9

_OF_STATE = {"succeeded": SUCCESS, "failed": JOB_FAILED, "discarded": JOB_DISCARDED, "cancelled": JOB_CANCELLED}

#: For the commands that look for a job.
JOB_STATUSES = CLIENT_STATUSES | {NOT_FOUND: "there is no such job, or it is somebody else's"}
#: For the commands that wait for one.
WAIT_STATUSES = JOB_STATUSES | {
    SUCCESS: "it succeeded",
    JOB_FAILED: "it failed: Ollama refuses it, and would again",
    JOB_DISCARDED: "it was given up: out of attempts, or too late",
    JOB_CANCELLED: "it was cancelled",
    NOT_ENDED: "it has not ended yet",
    130: "ctrl-C; the job goes on",
}


def has_ended(job: Mapping[str, Any]) -> bool:
    """Whether its state is a final one."""
    return job.get("state") in _OF_STATE


def status_of_job(job: Mapping[str, Any]) -> int:
    """What a command that waited for ``job`` ends with."""
    return _OF_STATE.get(str(job.get("state")), NOT_ENDED)


def highest(statuses: Iterable[int]) -> int:
    """The status of a command that was given several jobs."""
    return max(statuses, default=SUCCESS)
