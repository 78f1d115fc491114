"""End what is under way for a token that was revoked: a stream may run for hours after its only look at the token."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from foreman import errors
from foreman.auth.tokens import Tokens
from foreman.proxy.access_record import RequestRecord, outcome_of
from foreman.web.server.access_log import AccessLog
from foreman.web.server.connection import ClientConnection
from foreman.web.server.request import ClientRequest


def end_revoked(
    doors: Iterable[ClientConnection],
    tokens: Tokens,
    stop: Callable[[str, errors.ForemanError], bool],
    access_log: AccessLog,
) -> int:
    """End every request whose token is none of ``tokens`` any more, or has lost its role.

    :param stop: ends the inference of a request by its id, and tells its client why; False where there is none.
    :return: how many requests were ended.
    """
    ended = 0
    for door in list(doors):
        for visit in list(door.requests):
            if visit.holder is None or visit.finished or visit.refusal is not None or tokens.still_has(visit.holder):
                continue
            _end(door, visit, errors.Revoked("the token of this request was revoked"), stop, access_log)
            ended += 1
    return ended


def _end(
    door: ClientConnection,
    visit: ClientRequest,
    problem: errors.ForemanError,
    stop: Callable[[str, errors.ForemanError], bool],
    access_log: AccessLog,
) -> None:
    if stop(visit.id, problem):
        visit.cancel()  # where it waits for something that ``stop`` does not know of
    elif door.in_body:
        door.refuse(401, str(problem))
    else:
        if visit.startedWriting:
            way = visit.way
            record = RequestRecord(visit.id, visit.caller, way.path, way.lane.value, visit.began_at, status=visit.code)
            record.outcome, record.detail = outcome_of(problem), str(problem)
            access_log.write(record)
        visit.turn_away(problem)
