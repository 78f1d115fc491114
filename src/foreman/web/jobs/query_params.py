"""The query parameters of ``/jobs``: filters, pages, and which jobs to prune."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast
from urllib.parse import parse_qsl, urlencode

from attrs import frozen
from ulid import ULID

from foreman import errors
from foreman.jobs.job import ACTIVE, ENDED, STATES, JobLane, State
from foreman.jobs.queries import Filter
from foreman.util import timestamps
from foreman.web.jobs.problems import Problem
from foreman.web.server.request import ClientRequest

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
METADATA_PREFIX = "metadata."
LIST_PARAMETERS = (
    "state", "model", "endpoint", "lane", "owner", "created_after", "created_before", "limit", "before",
)  # fmt: skip
#: The parameters of ``DELETE /jobs``.
PRUNE_PARAMETERS = ("state", "ended_before")
_MAX_PARAMETERS = 50
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_INVALID_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: An unescaped plus means a blank in a query.
_UNESCAPED_PLUS = re.compile(r" (?=[0-9]{2}:[0-9]{2}\Z)")


@frozen
class PageRequest:
    """The page of the list of jobs that is requested.

    :ivar before: the id of a job; the page begins with the next older one; :ivar limit: of jobs.
    """

    filter: Filter
    before: str | None
    limit: int
    _parameters: Mapping[str, str]

    def next_after(self, last: str) -> str:
        """The path of the page after the one whose last job is ``last``."""
        return f"/jobs?{urlencode({**self._parameters, 'before': last})}"


def ulid(text: str) -> ULID | None:
    """``text`` as a ULID; None where it is none."""
    folded = text.upper()
    return ULID.from_str(folded) if text.isascii() and _ULID.fullmatch(folded) else None


def read(request: ClientRequest, known: Sequence[str], *, prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The query parameters of a request.

    :param known: the names that are allowed; :param prefixes: of further names that are allowed.
    :raises Problem: for a malformed query, or an unknown parameter: a filter with a typing error would list all jobs.
    """
    query = request.target.partition(b"?")[2].decode("latin-1")
    try:
        if _INVALID_ESCAPE.search(query):
            raise ValueError  # noqa: TRY301 - as what parse_qsl raises
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict")
    except ValueError:
        raise Problem(
            400,
            f"the query must be percent-encoded UTF-8, with at most {_MAX_PARAMETERS} parameters",
        ) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known and not name.startswith(prefixes or ("\0",)):
            available = ", ".join([*known, *(f"{prefix}NAME" for prefix in prefixes)]) or "none"
            raise Problem(
                400, f"{errors.excerpt(name)} is not a parameter of this route; the parameters are: {available}"
            )
        if name in found:
            raise Problem(400, f"{name}: must be given only once")
        found[name] = value
    return found


def page_request(request: ClientRequest, *, sees_all: bool) -> PageRequest:
    """The page of jobs that is requested.

    :param sees_all: whether the caller sees the jobs of others.
    :raises Problem: for an invalid parameter.
    """
    parameters = read(request, LIST_PARAMETERS, prefixes=(METADATA_PREFIX,))
    owner = parameters.get("owner")
    if not sees_all and owner not in {None, request.caller}:
        raise Problem(403, "owner: only admins may list the jobs of others")
    before = parameters.get("before")
    before_id = None if before is None else ulid(before)
    if before is not None and before_id is None:
        raise Problem(400, "before: must be the id of a job")
    filter_ = Filter(
        states=_states(parameters.get("state")),
        model=parameters.get("model"),
        endpoint=parameters.get("endpoint"),
        lane=_lane(parameters.get("lane")),
        owner=owner if sees_all else request.caller,
        created_after=_timestamp(parameters, "created_after"),
        created_before=_timestamp(parameters, "created_before"),
        metadata={
            name.removeprefix(METADATA_PREFIX): text
            for name, text in parameters.items()
            if name.startswith(METADATA_PREFIX)
        },
    )
    return PageRequest(
        filter_, None if before_id is None else str(before_id), _limit(parameters.get("limit")), parameters
    )


def prune_filter(request: ClientRequest, now: int) -> tuple[tuple[State, ...], int]:
    """The states of the jobs to delete, and the time before which they ended (milliseconds since the epoch).

    :param now: milliseconds since the epoch; jobs that end later are kept.
    :raises Problem: for an invalid parameter.
    """
    parameters = read(request, PRUNE_PARAMETERS)
    states = _states(parameters.get("state"))
    if not states or not set(states) <= set(ENDED):
        raise Problem(400, f"state: is required: one or several of {', '.join(ENDED)}, or ended for all of them")
    before = _timestamp(parameters, "ended_before")
    return states, now + 1 if before is None else min(before, now + 1)


def _states(text: str | None) -> tuple[State, ...]:
    if text is None:
        return ()
    states: dict[State, None] = {}
    for word in text.split(","):
        if word in STATES:
            states[word] = None
        elif word in {"active", "ended"}:
            states |= dict.fromkeys(ACTIVE if word == "active" else ENDED)
        else:
            raise Problem(
                400,
                f"state: {errors.excerpt(word)} is not a state; use {', '.join(STATES)}, active or ended",
            )
    return tuple(states)


def _lane(text: str | None) -> JobLane | None:
    if text not in {None, "gate", "embedding"}:
        raise Problem(400, "lane: must be gate or embedding")
    return cast("JobLane | None", text)


def _timestamp(parameters: Mapping[str, str], name: str) -> int | None:
    if name not in parameters:
        return None
    read = timestamps.parse(_UNESCAPED_PLUS.sub("+", parameters[name]))
    if read is None:
        raise Problem(400, f"{name}: {timestamps.EXPECTED}")
    return read


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    digits = text.lstrip("0")
    if not re.fullmatch(r"[0-9]{1,3}", digits, re.ASCII) or not 1 <= int(digits) <= MAX_LIMIT:
        raise Problem(400, f"limit: must be a whole number from 1 to {MAX_LIMIT}")
    return int(digits)
