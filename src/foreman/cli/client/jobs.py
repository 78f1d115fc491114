"""A foreman's jobs as its client asks for them: each answer is what was asked for, or a sentence why it is not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from foreman.cli.client.client import PATIENCE, Answer, Foreman
from foreman.cli.client.errors import Unanswered, said
from foreman.cli.ui.console import objects, plain
from foreman.cli.ui.exit_status import FAILED, NOT_FOUND
from foreman.cli.ui.filter_options import LARGEST_PAGE

Job = Mapping[str, Any]

#: An id in full: a ULID.
_WHOLE = re.compile(r"[0-9A-Za-z]{26}")
#: How far back the end of an id is looked for, in pages of 200 jobs.
_PAGES = 5
#: From so many characters on no second job will have the same end: the search is over with the first.
_TELLING = 6


def path_of(id_: str, *more: str) -> str:
    """Where a job is, or something of it."""
    return "/".join(["/jobs", quote(id_, safe=""), *(quote(name, safe="") for name in more)])


def refused(foreman: Foreman, answer: Answer, what: str) -> Unanswered:
    """Why ``what`` is not to be had, as far as ``answer`` tells."""
    if answer.status == 404 and not isinstance(answer.body, dict):
        return Unanswered(FAILED, f"{foreman.url} knows nothing of jobs (404); is it an older foreman?")
    status = NOT_FOUND if answer.status == 404 else FAILED
    again = answer.header("Retry-After")
    later = f"; try again in {plain(again)} s" if again.isdigit() else ""
    return Unanswered(status, plain(f"{what} ({answer.status}{said(answer.body)}){later}"))


def no_such_job(foreman: Foreman, answer: Answer, id_: str) -> Unanswered:
    """Why there is nothing about this job."""
    if answer.status == 404 and isinstance(answer.body, dict):
        return Unanswered(NOT_FOUND, f"there is no job {plain(id_)}, or it is somebody else's")
    return refused(foreman, answer, f"{plain(id_)} cannot be looked at")


def as_job(foreman: Foreman, answer: Answer) -> Job:
    """The job of an answer.

    :raises Unanswered: if there is none in it.
    """
    body = answer.body
    if not isinstance(body, dict) or not isinstance(body.get("id"), str) or "state" not in body:
        raise Unanswered(FAILED, f"{foreman.url} answers something else than a job ({answer.status}{said(body)})")
    return body


async def job_of(foreman: Foreman, id_: str, wait: int = 0) -> Job:
    """One job; after ``wait`` seconds at the latest, and before that only once it has ended.

    :raises Unanswered: if there is none, or foreman does not tell.
    """
    query = f"?wait={wait}" if wait else ""
    answer = await foreman.fetch("GET", path_of(id_) + query, patience=wait + PATIENCE)
    if answer.status != 200:
        raise no_such_job(foreman, answer, id_)
    return as_job(foreman, answer)


async def page(foreman: Foreman, path: str) -> tuple[list[Job], str | None]:
    """The jobs of one page, the newest first, and where the next page is.

    :raises Unanswered: if foreman does not tell.
    """
    answer = await foreman.fetch("GET", path)
    body = answer.body
    if answer.status != 200 or not isinstance(body, dict) or not isinstance(body.get("jobs"), list):
        raise refused(foreman, answer, f"{foreman.url} does not list jobs")
    following = body.get("next")
    return objects(body["jobs"]), following if isinstance(following, str) and following.startswith("/jobs?") else None


async def whole_ids(foreman: Foreman, wanted: Sequence[str]) -> list[str]:
    """The ids that ``wanted`` stands for, each in full or as the end of one of the newest, in the same order.

    :raises Unanswered: if one of them stands for none, or for several.
    """
    ends = {end.upper() for end in wanted if not _WHOLE.fullmatch(end)}
    found: dict[str, list[str]] = {end: [] for end in ends}
    path: str | None = f"/jobs?limit={LARGEST_PAGE}"
    for _ in range(_PAGES):
        if path is None or all(found[end] and len(end) >= _TELLING for end in ends):
            break
        jobs, path = await page(foreman, path)
        for end in ends:
            found[end] += [id_ for job in jobs if (id_ := str(job.get("id"))).upper().endswith(end)]
    for end, ids in found.items():
        if not ids:
            raise Unanswered(NOT_FOUND, f"no job of the newest has an id that ends with {plain(end)}; see foreman jobs")
        if len(ids) > 1:
            names = ", ".join(map(plain, ids[:5])) + (", …" if len(ids) > 5 else "")
            raise Unanswered(NOT_FOUND, f"{len(ids)} jobs have an id that ends with {plain(end)}: {names}")
    return list(dict.fromkeys(found[end.upper()][0] if end.upper() in found else end.upper() for end in wanted))


async def whole_id(foreman: Foreman, wanted: str) -> str:
    """The id that ``wanted`` stands for.

    :raises Unanswered: if it stands for none, or for several.
    """
    (id_,) = await whole_ids(foreman, [wanted])
    return id_
