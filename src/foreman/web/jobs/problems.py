"""Errors of jobs as problems (RFC 9457), and the replies that report them, in the shape of each API family."""

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

#: The text for an unexpected failure.
INTERNAL_ERROR = "internal error in foreman; the log has the details"
#: ``Retry-After``, in seconds: the store is checked every few seconds; a queue of jobs becomes shorter slowly.
RETRY_SOON, RETRY_LATER = 5, 30
_RETRY_AFTER: dict[type[errors.ForemanError], int] = {
    StoreUnavailable: RETRY_SOON,
    errors.Draining: RETRY_SOON,
    TooManyJobs: RETRY_LATER,
}
#: How many errors of a body are listed, and the longest pointer and text of each, in characters.
MAX_LISTED = 20
MAX_POINTER, MAX_DETAIL = 200, 500
#: The longest ``detail`` of a problem, in characters; an error of Ollama's fits.
MAX_PROBLEM_DETAIL = 4000


@frozen
class FieldError:
    """One error of a request body; ``pointer`` is the JSON pointer of the value (RFC 6901)."""

    pointer: str
    detail: str
    status: int = 400


class Problem(errors.ForemanError):
    """A request that cannot be fulfilled; ``str()`` is the ``detail``.

    :ivar status: of HTTP; :ivar field_errors: the errors of the body; :ivar headers: additional headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        field_errors: Sequence[FieldError] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(shortened(detail, MAX_PROBLEM_DETAIL))
        self.status = status
        self.field_errors = tuple(field_errors)
        self.headers: RawHeaders = list(headers)


@define(eq=False)
class FieldErrors:
    """The errors of a body: the first MAX_LISTED are kept, the others only counted.

    A body can have an error in each of its bytes; neither the answer nor the memory may grow with that.
    """

    listed: list[FieldError] = field(factory=list, init=False)
    count: int = field(default=0, init=False)
    _statuses: set[int] = field(factory=set, init=False)

    def add(self, field_error: FieldError) -> None:
        """Add an error."""
        self.count += 1
        self._statuses.add(field_error.status)
        if len(self.listed) < MAX_LISTED:
            pointer, detail = (
                shortened(field_error.pointer, MAX_POINTER),
                shortened(field_error.detail, MAX_DETAIL),
            )
            self.listed.append(FieldError(pointer, detail, field_error.status))

    def extend(self, others: FieldErrors) -> None:
        """Add all errors of ``others``."""
        count = self.count + others.count
        for field_error in others.listed:
            self.add(field_error)
        self.count = count
        self._statuses |= others._statuses

    def problem(self) -> Problem:
        """The problem of a body with these errors, of which there is at least one."""
        status = next(iter(self._statuses)) if len(self._statuses) == 1 else 400
        first = self.listed[0]
        text = f"{first.pointer[1:]}: {first.detail}" if first.pointer else first.detail
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        left = self.count - len(self.listed)
        rest = [FieldError("", f"and {left} more", status)] if left else []
        return Problem(status, text + more, [*self.listed, *rest])


def invalid_fields(field_errors: Iterable[FieldError]) -> Problem:
    """The problem of a body with ``field_errors``."""
    found = FieldErrors()
    for field_error in field_errors:
        found.add(field_error)
    return found.problem()


def no_such_job(id_: str) -> Problem:
    """The problem for a job that does not exist or is somebody else's: the same, so that ids cannot be probed."""
    return Problem(404, f"you have no job {errors.excerpt(id_)}")


def problem_of(failure: errors.ForemanError) -> Problem:
    """The problem for any failure."""
    if isinstance(failure, Problem):
        return failure
    status = status_of(failure)
    seconds = next((seconds for kind, seconds in _RETRY_AFTER.items() if isinstance(failure, kind)), 0)
    may_retry = seconds and status != 507  # a full disk does not become empty by itself
    headers = [(b"Retry-After", b"%d" % seconds)] if may_retry else []
    return Problem(status, str(failure), headers=headers)


def problem_reply(problem: Problem) -> Reply:
    """The reply of ``/jobs``: ``application/problem+json``."""
    value: dict[str, Any] = problem_value(problem.status, str(problem))
    if problem.field_errors:
        value["errors"] = [
            {"pointer": field_error.pointer, "detail": field_error.detail} for field_error in problem.field_errors
        ]
    return Reply(problem.status, [(b"Content-Type", PROBLEM_JSON), *problem.headers], go_json.encode(value))


def family_reply(family: Family, problem: Problem, request_id: str) -> Reply:
    """The reply in the error shape of the route's family, which its clients understand."""
    if family == "foreman":
        return problem_reply(problem)
    return error_reply(family, problem.status, str(problem), request_id, headers=problem.headers)
