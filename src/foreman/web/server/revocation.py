"""Ends the requests of a token that was revoked: a stream may run for hours after its token was checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from foreman import errors
from foreman.auth.tokens import Tokens
from foreman.proxy.access_record import outcome_of
from foreman.proxy.observer import Observer
from foreman.web.server.connection import ClientConnection
from foreman.web.server.phases import Phase
from foreman.web.server.request import ClientRequest


def end_revoked(
    connections: Iterable[ClientConnection],
    tokens: Tokens,
    stop: Callable[[str, errors.ForemanError], bool],
    observer: Observer,
) -> int:
    """End every request whose token is no longer one of ``tokens``, or has lost its role.

    :param stop: ends the inference of a request by its id, and gives its client the reason; False where there is none.
    :return: how many requests were ended.
    """
    ended = 0
    for connection in list(connections):
        if connection.phase is Phase.CLOSING:
            continue  # its last answer has ended, and was logged, even if the client has not read all of it
        for request in list(connection.requests):
            if (
                request.holder is None
                or request.finished
                or request.refusal is not None
                or tokens.is_valid(request.holder)
            ):
                continue
            _end(connection, request, errors.Revoked("the token of this request was revoked"), stop, observer)
            ended += 1
    return ended


def _end(
    connection: ClientConnection,
    request: ClientRequest,
    problem: errors.ForemanError,
    stop: Callable[[str, errors.ForemanError], bool],
    observer: Observer,
) -> None:
    if stop(request.id, problem):
        request.cancel()  # it may wait for something that ``stop`` does not know of
    elif connection.phase is Phase.BODY:
        connection.refuse(401, str(problem))
    else:
        if request.startedWriting:
            record = request.new_record(status=request.code)
            record.outcome, record.detail = outcome_of(problem), str(problem)
            observer.request_finished(record)
        request.terminate(problem)
