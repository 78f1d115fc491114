"""The heartbeat: what a client is sent while its chat waits for its turn and for its model.

For a grace time nothing is sent, so that the common case keeps Ollama's exact status codes. Then the head of a streamed
answer is sent, and a heartbeat at intervals until the target's first byte: clients and proxies give up on silence (Node after
300 s, URLSession after 60 s, Cline after 30 s without a head). An answer that is not streamed gets spaces in front of its
JSON, and much later, since from then on only a broken transfer can report a failure.
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

#: The most between two heartbeats, in seconds. The shortest timeout of a client that is known is 10 s (ollama4j): that one
#: needs a shorter ``FOREMAN_WAIT_NOTICE``, which shortens this, too.
HEARTBEAT_INTERVAL = 10.0

#: How long the first heartbeat waits after a pause of foreman itself, in seconds: what the target has sent meanwhile may be
#: an error, whose status is lost once the head of the answer is sent.
GRACE_AFTER_PAUSE = 0.5

#: How the User-Agent of Ollama's own client in Go begins, which the ``ollama`` command uses. When it is interrupted, it
#: takes spaces without a line after them for a line, and fails; ``ollama run`` then ends, and its conversation is lost.
_OLLAMA = b"ollama/"

STREAM_HEADERS: RawHeaders = [(b"X-Accel-Buffering", b"no"), (b"Cache-Control", b"no-cache")]


@frozen
class HeartbeatPolicy:
    """After how long the first heartbeat is sent, in seconds, and what it is.

    :ivar after: of a stream; 0 turns every heartbeat off; :ivar after_unary: of an answer that is not streamed; 0: never;
    :ivar objects: whole NDJSON objects with empty content instead of spaces, for clients that parse chunk by chunk.
    """

    after: float
    after_unary: float
    objects: bool = False

    def grace(self, *, stream: bool) -> float:
        """How long a client is sent nothing; 0: until the target answers, so that it gets exactly the target's bytes."""
        return self.after if stream or not self.after else self.after_unary


@define(eq=False)
class QueueHeartbeat:
    """The heartbeat of one request that waits.

    :ivar head_is_sent: the head of the answer is sent, so that a failure can no longer have a status.
    """

    _clock: IReactorTime
    _wall_clock: Callable[[], float]
    _request: ClientRequest
    _body: RequestBody
    _policy: HeartbeatPolicy
    _objects: bool = field(init=False)
    head_is_sent: bool = field(default=False, init=False)
    _position: Callable[[], QueuePosition] = field(default=lambda: QueuePosition(0, None), init=False)
    _grace: Deadline = field(init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._grace = Deadline(self._clock, GRACE_AFTER_PAUSE)
        # Now, since the request drops its headers while it waits.
        self._objects = self._policy.objects or any(
            name.lower() == b"user-agent" and value.lower().startswith(_OLLAMA)
            for name, value in self._request.raw_headers
        )

    @property
    def kind(self) -> BodyFraming:
        """How the answer will be framed, as the request shows."""
        if not self._body.stream:
            return "other"
        return "ndjson" if self._request.family == "ollama" else "sse"

    def start(self, position: Callable[[], QueuePosition]) -> None:
        """The request was checked and waits now; ``position`` returns its position in the queue."""
        self._position = position
        after = self._policy.grace(stream=self._body.stream)
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
        self.head_is_sent = True
        position = self._position()
        headers: RawHeaders = [(b"Content-Type", self._content_type()), (b"Date", self._request.http_date())]
        if self._body.stream:
            headers += STREAM_HEADERS
        headers.append((b"X-Foreman-Position", b"%d" % position.position))
        if position.wait is not None:
            headers.append((b"X-Foreman-Wait", b"%d" % round(position.wait.high)))
        self._request.begin(200, b"OK", headers, self.kind)
        self._beat()

    def _beat(self) -> None:
        after = self._policy.grace(stream=self._body.stream)
        self._timer = self._clock.callLater(min(HEARTBEAT_INTERVAL, 2 * after), self._beat)
        self._request.write(self._heartbeat())

    def _heartbeat(self) -> bytes:
        if self.kind == "sse":
            position = self._position()
            wait = b"" if position.wait is None else b" wait=%d" % round(position.wait.high)
            return b": position=%d%b\n\n" % (position.position, wait)
        if self.kind == "ndjson" and self._objects:
            return self._empty_object()
        return b" "

    def _empty_object(self) -> bytes:
        now = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat().replace("+00:00", "Z")
        value: dict[str, object] = {"model": self._body.model, "created_at": now}
        return go_json.encode({**value, **endpoint_of(self._request.route.path).empty_line, "done": False}) + b"\n"

    def _content_type(self) -> bytes:
        if self.kind == "ndjson":
            return b"application/x-ndjson"
        if self.kind == "sse":
            return b"text/event-stream"
        return b"application/json; charset=utf-8" if self._request.family == "ollama" else b"application/json"
