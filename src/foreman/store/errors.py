"""The errors of the job store, each named after what happened, and the conditions that the store can be in."""

from __future__ import annotations

from typing import Literal

from foreman.errors import ForemanError

#: The condition of the store, as ``/healthz`` and ``/queue`` show it.
Condition = Literal["ok", "full", "unwritable", "broken", "off"]


class StoreRefused(ForemanError):
    """The database must not be used: it is another program's, a newer foreman's, or damaged. foreman does not start."""


class StoreInUse(StoreRefused):
    """Another foreman uses the database."""


class StoreUnavailable(ForemanError):
    """The store cannot be used now; ``condition`` says why."""

    def __init__(self, condition: Condition, detail: str) -> None:
        super().__init__(detail)
        self.condition = condition


class ReadTimedOut(StoreUnavailable):
    """A read was aborted because it took too long; the store itself works."""

    def __init__(self, seconds: float) -> None:
        super().__init__("ok", f"this took longer than {seconds:g} s; ask for less, or try again later")


class TooManyReads(StoreUnavailable):
    """A read was not started because too many others wait; the store itself works."""

    def __init__(self) -> None:
        super().__init__("ok", "too many lists of jobs are being read; try again soon")


class WrongState(ForemanError):
    """The job's state does not allow this, or the job does not exist any more."""


class StaleClaim(ForemanError):
    """The job no longer belongs to this claim: nothing was written."""


class KeyReused(ForemanError):
    """The idempotency key was used for another request; ``index`` is the position of the job in the submission."""

    def __init__(self, index: int) -> None:
        super().__init__("this idempotency key was used for another request")
        self.index = index


class TooManyJobs(ForemanError):
    """As many jobs wait as are allowed, of all callers together or of this one."""


class TooMuchStored(ForemanError):
    """A caller's jobs and artifacts take up their share of the disk."""


class TooManyArtifacts(ForemanError):
    """A job has as many artifacts as are allowed."""


class ArtifactsTooLarge(ForemanError):
    """The artifacts of a job together would have more bytes than are allowed."""


class ArtifactGone(ForemanError):
    """The artifact was deleted or replaced while it was being read."""


def unavailable(condition: Condition, detail: object) -> StoreUnavailable:
    """The error for callers of a store that is in ``condition``; ``detail``, if not empty, is appended to its text."""
    sentences: dict[Condition, str] = {
        "full": "the disk of the job store is full; free some space, and try again",
        "unwritable": "the job store cannot be written now",
        "broken": "the job store has failed and is closed until foreman is restarted",
        "off": "there is no job store",
        "ok": "",
    }
    return StoreUnavailable(condition, f"{sentences[condition]} ({detail})" if detail else sentences[condition])
