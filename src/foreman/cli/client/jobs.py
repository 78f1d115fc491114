"""Requests about jobs: each returns the result, or raises an error that says why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from foreman.cli.client.client import REQUEST_TIMEOUT, ForemanClient, Response
from foreman.cli.client.errors import RequestFailed, error_detail
from foreman.cli.ui.console import objects, plain
from foreman.cli.ui.exit_status import FAILED, NOT_FOUND
from foreman.cli.ui.filter_options import MAX_PAGE_SIZE

Job = Mapping[str, Any]

#: A full id: a ULID.
_FULL_ID = re.compile(r"[0-9A-Za-z]{26}")
#: How many pages of 200 jobs are searched for the end of an id.
_MAX_PAGES = 5
#: From so many characters on the end of an id is unique in practice: the search stops at the first match.
_UNIQUE_LENGTH = 6


def job_path(id_: str, *more: str) -> str:
    """The path of a job, or of something that belongs to it."""
    return "/".join(["/jobs", quote(id_, safe=""), *(quote(name, safe="") for name in more)])


def refusal(foreman: ForemanClient, answer: Response, what: str) -> RequestFailed:
    """The error for a response that is not what was asked for; ``what`` begins its sentence."""
    if answer.status == 404 and not isinstance(answer.body, dict):
        return RequestFailed(FAILED, f"{foreman.url} has no jobs (404); is it an older foreman?")
    status = NOT_FOUND if answer.status == 404 else FAILED
    again = answer.header("Retry-After")
    later = f"; try again in {plain(again)} s" if again.isdigit() else ""
    return RequestFailed(status, plain(f"{what} ({answer.status}{error_detail(answer.body)}){later}"))


def no_such_job(foreman: ForemanClient, answer: Response, id_: str) -> RequestFailed:
    """The error for a job that cannot be read."""
    if answer.status == 404 and isinstance(answer.body, dict):
        return RequestFailed(NOT_FOUND, f"there is no job {plain(id_)}, or it belongs to someone else")
    return refusal(foreman, answer, f"the job {plain(id_)} cannot be read")


def job_from(foreman: ForemanClient, answer: Response) -> Job:
    """The job in a response.

    :raises RequestFailed: if there is none.
    """
    body = answer.body
    if not isinstance(body, dict) or not isinstance(body.get("id"), str) or "state" not in body:
        raise RequestFailed(FAILED, f"{foreman.url} did not return a job ({answer.status}{error_detail(body)})")
    return body


async def fetch_job(foreman: ForemanClient, id_: str, wait: int = 0) -> Job:
    """Fetch one job, as soon as it has ended, after ``wait`` seconds at the latest.

    :raises RequestFailed: if it does not exist, or the request fails.
    """
    query = f"?wait={wait}" if wait else ""
    answer = await foreman.fetch("GET", job_path(id_) + query, time_limit=wait + REQUEST_TIMEOUT)
    if answer.status != 200:
        raise no_such_job(foreman, answer, id_)
    return job_from(foreman, answer)


async def fetch_page(foreman: ForemanClient, path: str) -> tuple[list[Job], str | None]:
    """Fetch one page of jobs, the newest first; return them and the path of the next page.

    :raises RequestFailed: if the request fails.
    """
    answer = await foreman.fetch("GET", path)
    body = answer.body
    if answer.status != 200 or not isinstance(body, dict) or not isinstance(body.get("jobs"), list):
        raise refusal(foreman, answer, f"{foreman.url} did not return a list of jobs")
    next_page = body.get("next")
    return objects(body["jobs"]), next_page if isinstance(next_page, str) and next_page.startswith("/jobs?") else None


async def resolve_ids(foreman: ForemanClient, given: Sequence[str]) -> list[str]:
    """The full ids of jobs, in the same order.

    :param given: full ids, or the ends of ids of the newest jobs.
    :raises RequestFailed: if one of them matches no job, or several.
    """
    suffixes = {suffix.upper() for suffix in given if not _FULL_ID.fullmatch(suffix)}
    found: dict[str, list[str]] = {suffix: [] for suffix in suffixes}
    path: str | None = f"/jobs?limit={MAX_PAGE_SIZE}"
    for _ in range(_MAX_PAGES):
        if path is None or all(found[suffix] and len(suffix) >= _UNIQUE_LENGTH for suffix in suffixes):
            break
        jobs, path = await fetch_page(foreman, path)
        for suffix in suffixes:
            found[suffix] += [id_ for job in jobs if (id_ := str(job.get("id"))).upper().endswith(suffix)]
    for suffix, ids in found.items():
        if not ids:
            raise RequestFailed(
                NOT_FOUND, f"none of the newest jobs has an id that ends with {plain(suffix)}; see foreman jobs"
            )
        if len(ids) > 1:
            names = ", ".join(map(plain, ids[:5])) + (", …" if len(ids) > 5 else "")
            raise RequestFailed(NOT_FOUND, f"{len(ids)} jobs have an id that ends with {plain(suffix)}: {names}")
    return list(
        dict.fromkeys(found[suffix.upper()][0] if suffix.upper() in found else suffix.upper() for suffix in given)
    )


async def resolve_id(foreman: ForemanClient, given: str) -> str:
    """The full id of one job, as ``resolve_ids`` finds it.

    :raises RequestFailed: if no job matches, or several do.
    """
    (id_,) = await resolve_ids(foreman, [given])
    return id_
