"""Waiting in view: what a client gets to see while its chat waits for its turn and for its model.

For a grace time nothing is sent, so that the common case keeps Ollama's exact status codes. Then an answer to a stream is
begun, and a filler goes out at intervals until the target's first byte: clients and proxies give up on silence (Node after
300 s, URLSession after 60 s, Cline after 30 s without a head). An unstreamed answer gets spaces in front of its JSON, much
later, since after that only a broken transfer can tell of a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from foreman.protocol import go_json
from foreman.protocol.endpoints import endpoint_of
from foreman.protocol.framing import BodyFraming
from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_body import RequestBody
from foreman.scheduling.queue_status import QueuePosition
from foreman.util.deadline import Deadline
from foreman.web.server.request import ClientRequest

#: Between two fillers, in seconds; half of the shortest patience that is known (ollama4j gives up after 10 s).
BETWEEN_FILLERS = 10.0

#: How long the first sign of life waits after a pause of foreman itself, in seconds: what the target has sent meanwhile
#: may be an error, whose status is lost once the answer is begun.
AFTER_PAUSE = 0.5

#: How the User-Agent of Ollama's own client in Go begins, which the ``ollama`` command uses. When it is interrupted, it
#: takes spaces that are not followed by a line yet for a line, and fails; ``ollama run`` ends with its conversation.
_OLLAMA = b"ollama/"

STREAM_HEADERS: RawHeaders = [(b"X-Accel-Buffering", b"no"), (b"Cache-Control", b"no-cache")]


@frozen
class HeartbeatPolicy:
    """When waiting is shown, and how; seconds, 0 for never.

    :ivar after: for a stream; 0 turns every notice off; :ivar after_unary: for an unstreamed answer;
    :ivar objects: whole NDJSON objects with empty content instead of spaces, for clients that parse chunk by chunk.
    """

    after: float
    after_unary: float
    objects: bool = False

    def grace(self, *, stream: bool) -> float:
        """How long a client sees nothing; 0: to the end, so that the wire is the target's to the byte."""
        return self.after if stream or not self.after else self.after_unary


@define(eq=False)
class QueueHeartbeat:
    """Shows one client that its request waits.

    :ivar begun: the head of the answer is sent, so that a failure can no longer have a status.
    """

    _clock: IReactorTime
    _wall_clock: Callable[[], float]
    _request: ClientRequest
    _asked: RequestBody
    _notices: HeartbeatPolicy
    _objects: bool = field(init=False)
    begun: bool = field(default=False, init=False)
    _place: Callable[[], QueuePosition] = field(default=lambda: QueuePosition(0, None), init=False)
    _grace: Deadline = field(init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._grace = Deadline(self._clock, AFTER_PAUSE)
        # Now, since the visit forgets its headers while it waits.
        self._objects = self._notices.objects or any(
            name.lower() == b"user-agent" and value.lower().startswith(_OLLAMA)
            for name, value in self._request.raw_headers
        )

    @property
    def kind(self) -> BodyFraming:
        """How the answer will come, which its request tells."""
        if not self._asked.stream:
            return "other"
        return "ndjson" if self._request.family == "ollama" else "sse"

    def start(self, place: Callable[[], QueuePosition]) -> None:
        """The request was checked and waits now; ``place`` tells where it stands."""
        self._place = place
        after = self._notices.grace(stream=self._asked.stream)
        if after:
            waited = self._clock.seconds() - self._request.received_at
            self._grace.set(max(0.0, after - waited), self._begin)

    def stop(self) -> None:
        """The answer begins, or there will be none."""
        self._grace.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self.begun = True
        place = self._place()
        headers: RawHeaders = [(b"Content-Type", self._content_type()), (b"Date", self._request.http_date())]
        if self._asked.stream:
            headers += STREAM_HEADERS
        headers.append((b"X-Foreman-Position", b"%d" % place.position))
        if place.wait is not None:
            headers.append((b"X-Foreman-Wait", b"%d" % round(place.wait.high)))
        self._request.begin(200, b"OK", headers, self.kind)
        self._fill()

    def _fill(self) -> None:
        after = self._notices.grace(stream=self._asked.stream)
        self._timer = self._clock.callLater(min(BETWEEN_FILLERS, 2 * after), self._fill)
        self._request.write(self._filler())

    def _filler(self) -> bytes:
        if self.kind == "sse":
            place = self._place()
            wait = b"" if place.wait is None else b" wait=%d" % round(place.wait.high)
            return b": position=%d%b\n\n" % (place.position, wait)
        if self.kind == "ndjson" and self._objects:
            return self._empty_object()
        return b" "

    def _empty_object(self) -> bytes:
        now = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat().replace("+00:00", "Z")
        value: dict[str, object] = {"model": self._asked.model, "created_at": now}
        return go_json.encode({**value, **endpoint_of(self._request.route.path).empty_line, "done": False}) + b"\n"

    def _content_type(self) -> bytes:
        if self.kind == "ndjson":
            return b"application/x-ndjson"
        if self.kind == "sse":
            return b"text/event-stream"
        return b"application/json; charset=utf-8" if self._request.family == "ollama" else b"application/json"
