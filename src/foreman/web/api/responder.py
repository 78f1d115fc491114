"""The client of one request as the asker of an inference: what it is told, from waiting to the last byte."""

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

#: How much of a refusal is read for its text, in bytes.
REFUSAL_BYTES = 64 * 1024


@define(eq=False)
class ClientResponder:
    """Tells a client what becomes of its request.

    :ivar view: shows the client that it waits; None where waiting is never shown.
    """

    _request: ClientRequest
    _record: RequestRecord
    _view: QueueHeartbeat | None
    _refused: int = field(default=0, init=False)
    _refusal: bytes = field(default=b"", init=False)

    @property
    def _head_is_sent(self) -> bool:
        return self._view is not None and self._view.head_is_sent

    def waits(self, place: Callable[[], QueuePosition]) -> None:
        """The request was found good, and stands in line; ``place`` tells where."""
        if self._view is not None:
            self._view.start(place)

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: str) -> None:
        """Write the head, with what foreman adds to it; where waiting was shown, it is sent already."""
        self.stop_waiting()
        if self._head_is_sent:
            self._refused = status if status >= 400 else 0
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
        """The next piece, as one chunk."""
        if not self._refused:
            self._request.write(piece)
        elif len(self._refusal) < REFUSAL_BYTES:
            self._refusal += piece

    def finish(self) -> None:
        """The answer is whole."""
        if self._refused:
            self._request.break_off(errors.HTTPError(self._refused, error_text(self._refusal)), between_pieces=True)
        else:
            self._request.finish()

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer cannot be finished."""
        self._request.break_off(problem, between_pieces=between_pieces)

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Who is to be paused when the client reads slowly."""
        self._request.set_producer(producer)

    def stop_waiting(self) -> None:
        """Nothing more is shown of waiting."""
        if self._view is not None:
            self._view.stop()

    def fail(self, problem: errors.ForemanError, retry_after: int) -> int:
        """Answer a failure that came before the target's answer.

        :param retry_after: seconds, said where trying again helps.
        :return: the status that the client was given.
        """
        request = self._request
        if request.startedWriting:
            request.break_off(problem, between_pieces=self._head_is_sent)
            return request.code
        reply = failure_reply(request.family, problem, request.request_id, retry_after)
        request.answer(reply)
        return reply.status
