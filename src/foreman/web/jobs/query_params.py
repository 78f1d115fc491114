"""From the query of ``GET /jobs`` to what is listed, and to the next page."""

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

USUAL, MOST = 50, 200
_METADATA = "metadata."
_KNOWN = (
    "state", "model", "endpoint", "lane", "owner", "created_after", "created_before", "limit", "before",
)  # fmt: skip
#: What a pruning is asked by.
PRUNING = ("state", "ended_before")
_MAX_PARAMETERS = 50
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: A plus that nobody escaped is a blank in a query.
_LOST_PLUS = re.compile(r" (?=[0-9]{2}:[0-9]{2}\Z)")


@frozen
class Page:
    """A page of the list."""

    wanted: Filter
    before: str | None
    limit: int
    _asked: Mapping[str, str]

    def next_after(self, last: str) -> str:
        """The path of the page that follows the job ``last``."""
        return f"/jobs?{urlencode({**self._asked, 'before': last})}"


def ulid(text: str) -> ULID | None:
    """The id that ``text`` is; None where it is none."""
    folded = text.upper()
    return ULID.from_str(folded) if text.isascii() and _ULID.fullmatch(folded) else None


def parameters(request: ClientRequest, known: Sequence[str], *, beginnings: tuple[str, ...] = ()) -> dict[str, str]:
    """What stands in the query of a request.

    :raises Problem: where it cannot be read, or says what nobody knows: a filter with a slip of the pen would list all.
    """
    query = request.target.partition(b"?")[2].decode("latin-1")
    try:
        if _BAD_ESCAPE.search(query):
            raise ValueError  # noqa: TRY301 - as what parse_qsl raises
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict")
    except ValueError:
        raise Problem(400, "the query cannot be read") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known and not name.startswith(beginnings or ("\0",)):
            there = ", ".join([*known, *(f"{beginning}NAME" for beginning in beginnings)]) or "none here"
            raise Problem(400, f"{errors.excerpt(name)} is not a parameter; there are {there}")
        if name in found:
            raise Problem(400, f"{name}: is given more than once")
        found[name] = value
    return found


def page(request: ClientRequest, *, sees_all: bool) -> Page:
    """The page that a request asks for.

    :raises Problem: for what cannot be asked.
    """
    asked = parameters(request, _KNOWN, beginnings=(_METADATA,))
    owner = asked.get("owner")
    if not sees_all and owner not in {None, request.caller}:
        raise Problem(403, "owner: the jobs of others are for admins")
    before = asked.get("before")
    before_id = None if before is None else ulid(before)
    if before is not None and before_id is None:
        raise Problem(400, "before: is not the id of a job")
    wanted = Filter(
        states=_states(asked.get("state")),
        model=asked.get("model"),
        endpoint=asked.get("endpoint"),
        lane=_lane(asked.get("lane")),
        owner=owner if sees_all else request.caller,
        created_after=_moment(asked, "created_after"),
        created_before=_moment(asked, "created_before"),
        metadata={name.removeprefix(_METADATA): text for name, text in asked.items() if name.startswith(_METADATA)},
    )
    return Page(wanted, None if before_id is None else str(before_id), _limit(asked.get("limit")), asked)


def pruned(request: ClientRequest, now: int) -> tuple[tuple[State, ...], int]:
    """The states of the jobs that are to be forgotten, and before which moment they ended.

    :param now: milliseconds since the epoch; what ends from then on is not meant.
    :raises Problem: for what cannot be asked.
    """
    asked = parameters(request, PRUNING)
    states = _states(asked.get("state"))
    if not states or not set(states) <= set(ENDED):
        raise Problem(400, f"state: one or several of {', '.join(ENDED)} must be said, or ended for all of them")
    before = _moment(asked, "ended_before")
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
                400, f"state: {errors.excerpt(word)} is not a state; there are {', '.join(STATES)}, active, ended"
            )
    return tuple(states)


def _lane(text: str | None) -> JobLane | None:
    if text not in {None, "gate", "embedding"}:
        raise Problem(400, "lane: must be gate or embedding")
    return cast("JobLane | None", text)


def _moment(asked: Mapping[str, str], name: str) -> int | None:
    if name not in asked:
        return None
    read = timestamps.parse(_LOST_PLUS.sub("+", asked[name]))
    if read is None:
        raise Problem(400, f"{name}: {timestamps.EXPECTED}")
    return read


def _limit(text: str | None) -> int:
    if text is None:
        return USUAL
    digits = text.lstrip("0")
    if not re.fullmatch(r"[0-9]{1,3}", digits, re.ASCII) or not 1 <= int(digits) <= MOST:
        raise Problem(400, f"limit: must be a whole number from 1 to {MOST}")
    return int(digits)
