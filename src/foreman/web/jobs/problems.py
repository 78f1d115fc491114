"""What goes wrong with jobs, as RFC 9457 has it: one table, in the shape of /jobs and in that of each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from foreman import errors
from foreman.headers import RawHeaders
from foreman.lanes import Family
from foreman.question import ModelMissing
from foreman.store.statements.enqueue import KeyReused, TooManyJobs
from foreman.store.statements.shared import WrongState
from foreman.store.trouble import StoreUnavailable
from foreman.web.answers import PROBLEM_JSON, Reply, error_reply, go_json, problem_value

#: When to try again, in seconds: the store is looked after every few seconds; a line of jobs becomes shorter slowly.
SOON, LATER = 5, 30


@frozen
class Flaw:
    """One thing that is wrong with what was sent; ``pointer`` says where (RFC 6901)."""

    pointer: str
    detail: str
    status: int = 400


class Problem(errors.ForemanError):
    """What is asked cannot be done.

    :ivar status: of HTTP; :ivar flaws: what is wrong with the body; :ivar headers: that say more.
    """

    def __init__(
        self, status: int, detail: str, flaws: Sequence[Flaw] = (), headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.flaws = tuple(flaws)
        self.headers: RawHeaders = list(headers)


def flawed(flaws: Sequence[Flaw]) -> Problem:
    """The problem of a body with ``flaws``, all of which are named."""
    statuses = {flaw.status for flaw in flaws}
    status = statuses.pop() if len(statuses) == 1 else 400
    first = f"{flaws[0].pointer[1:]}: {flaws[0].detail}" if flaws[0].pointer else flaws[0].detail
    more = f", and {len(flaws) - 1} more" if len(flaws) > 1 else ""
    return Problem(status, first + more, flaws)


def no_such_job(id_: str) -> Problem:
    """Whether there is no such job or it is somebody else's, nobody is told."""
    return Problem(404, f"there is no job {id_!r} of yours")


def problem_of(failure: errors.ForemanError) -> Problem:
    """Any failure as a problem."""
    if isinstance(failure, Problem):
        return failure
    text = str(failure)
    if isinstance(failure, StoreUnavailable):
        return Problem(507, text) if failure.condition == "full" else _again(503, text, SOON)
    if isinstance(failure, TooManyJobs):
        return _again(429, text, LATER)
    if isinstance(failure, errors.Draining):
        return _again(503, text, SOON)
    return Problem(next((code for kind, code in _STATUS.items() if isinstance(failure, kind)), 500), text)


_STATUS: dict[type[errors.ForemanError], int] = {
    WrongState: 409,
    KeyReused: 422,
    ModelMissing: 404,
    errors.BadBody: 400,
    errors.InvalidName: 400,
}


def _again(status: int, text: str, seconds: int) -> Problem:
    return Problem(status, text, headers=[(b"Retry-After", b"%d" % seconds)])


def problem_reply(problem: Problem) -> Reply:
    """The answer of foreman's own routes."""
    value: dict[str, Any] = problem_value(problem.status, str(problem))
    if problem.flaws:
        value["errors"] = [{"pointer": flaw.pointer, "detail": flaw.detail} for flaw in problem.flaws]
    return Reply(problem.status, [(b"Content-Type", PROBLEM_JSON), *problem.headers], go_json(value))


def family_reply(family: Family, problem: Problem, request_id: str) -> Reply:
    """The answer in the shape of the family whose route was asked, so that its clients know it."""
    if family == "foreman":
        return problem_reply(problem)
    return error_reply(family, problem.status, str(problem), request_id, headers=problem.headers)
