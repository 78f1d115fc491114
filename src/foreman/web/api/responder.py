"""Answers the client of one relayed request, from the first heartbeat to the last byte."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IPushProducer

from foreman import errors
from foreman.protocol.error_text import error_text
from foreman.protocol.headers import RawHeaders
from foreman.proxy.access_record import RequestRecord
from foreman.scheduling.queue_status import QueuePosition
from foreman.web.server.heartbeat import STREAM_HEADERS, QueueHeartbeat
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import failure_reply

#: How much of an error of the target is read for its text, in bytes.
MAX_ERROR_BODY = 64 * 1024


@define(eq=False)
class ClientResponder:
    """Passes the answer of the target, or a failure, to the client.

    :ivar heartbeat: sends heartbeats while the request is queued; None where it never gets any.
    """

    _request: ClientRequest
    _record: RequestRecord
    _heartbeat: QueueHeartbeat | None
    _error_status: int = field(default=0, init=False)
    _error_body: bytes = field(default=b"", init=False)

    @property
    def _head_is_sent(self) -> bool:
        return self._heartbeat is not None and self._heartbeat.head_is_sent

    def queued(self, position: Callable[[], QueuePosition]) -> None:
        """The request is valid and queued; ``position`` returns its position."""
        if self._heartbeat is not None:
            self._heartbeat.start(position)

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: str) -> None:
        """Write the head, with the headers that foreman adds; after a heartbeat it has been sent already."""
        self.stop_waiting()
        if self._head_is_sent:
            self._error_status = status if status >= 400 else 0
            return
        record = self._record
        waited = 0.0 if record.turn_at is None else record.turn_at - record.started_at
        since_turn = (record.head_at or 0.0) - (record.turn_at or record.started_at)
        timing = b"queue;dur=%.1f, target;dur=%.1f" % (waited * 1000, since_turn * 1000)
        added = [(b"Server-Timing", timing)]
        if kind != "other":
            names = {name.lower() for name, _ in headers}
            added += [pair for pair in STREAM_HEADERS if pair[0].lower() not in names]
        self._request.begin(status, phrase, [*headers, *added], kind)

    def write(self, piece: bytes) -> None:
        """Write the next piece of the answer, as one chunk."""
        if not self._error_status:
            self._request.write(piece)
        elif len(self._error_body) < MAX_ERROR_BODY:
            self._error_body += piece

    def finish(self) -> None:
        """End the answer; an error of the target after a heartbeat becomes an error event or line."""
        if self._error_status:
            self._request.break_off(
                errors.HTTPError(self._error_status, error_text(self._error_body)), between_pieces=True
            )
        else:
            self._request.finish()

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """Break the answer off, because it cannot be completed."""
        self._request.break_off(problem, between_pieces=between_pieces)

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Set what is paused while the client reads slowly."""
        self._request.set_producer(producer)

    def stop_waiting(self) -> None:
        """Stop the heartbeats."""
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def fail(self, problem: errors.ForemanError, retry_after: int) -> int:
        """Answer with a failure that came before the answer of the target.

        :param retry_after: in seconds, sent where retrying helps.
        :return: the status that the client got.
        """
        request = self._request
        if request.startedWriting:
            request.break_off(problem, between_pieces=self._head_is_sent)
            return request.code
        reply = failure_reply(request.family, problem, request.request_id, retry_after)
        request.answer(reply)
        return reply.status
