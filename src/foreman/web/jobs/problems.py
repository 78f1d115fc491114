"""What goes wrong with jobs, as RFC 9457 has it: one table, in the shape of /jobs and in that of each family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field, frozen

from foreman import errors
from foreman.errors import shortened
from foreman.protocol import go_json
from foreman.protocol.endpoints import Family
from foreman.protocol.headers import RawHeaders
from foreman.store.errors import StoreUnavailable, TooManyJobs
from foreman.web.server.responses import PROBLEM_JSON, Reply, error_reply, problem_value
from foreman.web.server.statuses import status_of

#: When to try again, in seconds: the store is looked after every few seconds; a line of jobs becomes shorter slowly.
SOON, LATER = 5, 30
#: How many flaws of a body are named, and how long what is said of each may be, in characters.
MAX_NAMED = 20
LONGEST_POINTER, LONGEST_DETAIL = 200, 500
#: How long the sentence of a problem may be, in characters; one of Ollama's own errors fits.
LONGEST_PROBLEM = 4000


@frozen
class FieldError:
    """One thing that is wrong with what was sent; ``pointer`` says where (RFC 6901)."""

    pointer: str
    detail: str
    status: int = 400


class Problem(errors.ForemanError):
    """What is asked cannot be done.

    :ivar status: of HTTP; :ivar field_errors: what is wrong with the body; :ivar headers: that say more.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        field_errors: Sequence[FieldError] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(shortened(detail, LONGEST_PROBLEM))
        self.status = status
        self.field_errors = tuple(field_errors)
        self.headers: RawHeaders = list(headers)


@define(eq=False)
class FieldErrors:
    """Everything that is wrong with a body: the first MAX_NAMED are kept, the others are counted.

    A body can have a flaw in each of its bytes; what is answered and kept must not grow with that.
    """

    named: list[FieldError] = field(factory=list, init=False)
    count: int = field(default=0, init=False)
    _statuses: set[int] = field(factory=set, init=False)

    def add(self, field_error: FieldError) -> None:
        """Note one more."""
        self.count += 1
        self._statuses.add(field_error.status)
        if len(self.named) < MAX_NAMED:
            pointer, detail = (
                shortened(field_error.pointer, LONGEST_POINTER),
                shortened(field_error.detail, LONGEST_DETAIL),
            )
            self.named.append(FieldError(pointer, detail, field_error.status))

    def extend(self, others: FieldErrors) -> None:
        """Note those of ``others`` behind one's own."""
        count = self.count + others.count
        for field_error in others.named:
            self.add(field_error)
        self.count = count
        self._statuses |= others._statuses

    def problem(self) -> Problem:
        """The problem of a body with these; there is one at least."""
        status = next(iter(self._statuses)) if len(self._statuses) == 1 else 400
        first = self.named[0]
        text = f"{first.pointer[1:]}: {first.detail}" if first.pointer else first.detail
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        left = self.count - len(self.named)
        rest = [FieldError("", f"and {left} more", status)] if left else []
        return Problem(status, text + more, [*self.named, *rest])


def invalid_fields(field_errors: Iterable[FieldError]) -> Problem:
    """The problem of a body with ``field_errors``."""
    found = FieldErrors()
    for field_error in field_errors:
        found.add(field_error)
    return found.problem()


def no_such_job(id_: str) -> Problem:
    """Whether there is no such job or it is somebody else's, nobody is told."""
    return Problem(404, f"there is no job {errors.excerpt(id_)} of yours")


def problem_of(failure: errors.ForemanError) -> Problem:
    """Any failure as a problem."""
    if isinstance(failure, Problem):
        return failure
    status = status_of(failure)
    seconds = next((seconds for kind, seconds in _RETRY_AFTER.items() if isinstance(failure, kind)), 0)
    may_retry = seconds and status != 507  # a full disk does not become empty by itself
    headers = [(b"Retry-After", b"%d" % seconds)] if may_retry else []
    return Problem(status, str(failure), headers=headers)


_RETRY_AFTER: dict[type[errors.ForemanError], int] = {StoreUnavailable: SOON, errors.Draining: SOON, TooManyJobs: LATER}


def problem_reply(problem: Problem) -> Reply:
    """The answer of foreman's own routes."""
    value: dict[str, Any] = problem_value(problem.status, str(problem))
    if problem.field_errors:
        value["errors"] = [
            {"pointer": field_error.pointer, "detail": field_error.detail} for field_error in problem.field_errors
        ]
    return Reply(problem.status, [(b"Content-Type", PROBLEM_JSON), *problem.headers], go_json.encode(value))


def family_reply(family: Family, problem: Problem, request_id: str) -> Reply:
    """The answer in the shape of the family whose route was asked, so that its clients know it."""
    if family == "foreman":
        return problem_reply(problem)
    return error_reply(family, problem.status, str(problem), request_id, headers=problem.headers)
