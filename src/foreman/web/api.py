"""Every URL that foreman answers; what it does not know goes to the target as it is."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from attrs import define
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from foreman import asked, errors
from foreman.asked import Asked
from foreman.headers import RawHeaders, to_client
from foreman.inference import Inference, Question
from foreman.lanes import Lane
from foreman.ollama.body import FileBody
from foreman.ollama.inventory import Listing
from foreman.record import Record
from foreman.schedule import Ticket
from foreman.web.accesslog import AccessLog
from foreman.web.answers import Reply, error_reply, failure_reply, json_reply
from foreman.web.visit import Visit

#: A chat that has waited this long for its first byte is worth a warning, in seconds.
LONG_LOAD = 15 * 60.0

_STREAM_HEADERS: RawHeaders = [(b"X-Accel-Buffering", b"no"), (b"Cache-Control", b"no-cache")]


@define(eq=False)
class Api:
    """The routes.

    :ivar wall_clock: seconds since the epoch; :ivar poll_interval: seconds, what a client is told to wait while the
        target is away; :ivar draining: foreman is stopping.
    """

    _clock: IReactorTime
    _wall_clock: Callable[[], float]
    _inference: Inference
    _access_log: AccessLog
    _poll_interval: float
    draining: bool = False
    app = Klein()
    _log = Logger()

    # foreman's own

    @app.route("/", methods=["GET", "HEAD"])
    def root(self, request: Visit) -> None:
        """Byte-identical to Ollama's, for the probes of its clients."""
        self._reply(request, Reply(200, [(b"Content-Type", b"text/plain; charset=utf-8")], b"Ollama is running"))

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(self, request: Visit) -> None:
        """Whether foreman and its target are well."""
        value: dict[str, Any] = {"status": "draining" if self.draining else "ok", "degraded": False}
        degraded = self._inference.inventory.degraded
        overdue = self._inference.overdue(LONG_LOAD)
        if degraded is not None:
            value |= {"degraded": True, "reason": degraded.reason, "since": self._when(degraded.since)}
        elif overdue is not None:
            value |= {"reason": "slow", "since": self._when(overdue)}
        self._reply(request, json_reply(503 if self.draining else 200, value))

    @app.route("/queue", methods=["GET"])
    def queue(self, request: Visit) -> None:
        """Who has a turn, and who waits, in order; never what they ask."""
        now = self._clock.seconds()
        inference = self._inference
        running = [
            {
                **self._shown(turn.ticket, now - turn.since),
                "state": inference.state_of(turn),
            }
            for turn in inference.gate.running
        ]
        wall = self._wall_clock()
        waiting = [
            {**self._shown(ticket, wall - ticket.since), "position": position}
            for position, ticket in enumerate(inference.gate.waiting, 1)
        ]
        embedding = {"running": len(inference.embeddings.running), "cap": inference.embeddings.turns}
        value = {"turns": inference.gate.turns, "running": running, "waiting": waiting, "embedding": embedding}
        self._reply(request, json_reply(200, value))

    # from the inventory

    @app.route("/api/tags", methods=["GET", "HEAD"])
    async def tags(self, request: Visit) -> None:
        """The models that are installed, as the target listed them last."""
        await self._inference.inventory.fresh()
        self._listing(request, self._inference.inventory.tags)

    @app.route("/api/ps", methods=["GET"])
    async def ps(self, request: Visit) -> None:
        """The models that are loaded, as the target listed them last."""
        if request.method == b"HEAD":  # werkzeug lets it in with GET; Ollama does not have it
            await self._ask(request, None)
            return
        await self._inference.inventory.fresh()
        self._listing(request, self._inference.inventory.ps)

    # to the target

    @app.route("/api/chat", methods=["POST"])
    @app.route("/api/generate", methods=["POST"])
    @app.route("/v1/chat/completions", methods=["POST"])
    @app.route("/v1/completions", methods=["POST"])
    @app.route("/v1/responses", methods=["POST"])
    @app.route("/v1/messages", methods=["POST"])
    @app.route("/v1/audio/transcriptions", methods=["POST"])
    @app.route("/api/embed", methods=["POST"])
    @app.route("/api/embeddings", methods=["POST"])
    @app.route("/v1/embeddings", methods=["POST"])
    async def infer(self, request: Visit) -> None:
        """Chats take turns; embeddings pass beside them."""
        wanted = _read_body(request)
        await self._ask(request, wanted)

    @app.route("/", methods=None)
    @app.route("/<path:_>", methods=None)
    async def forward(self, request: Visit, _: str = "") -> None:
        """Everything else goes through at once; the target says what it is."""
        await self._ask(request, None)

    async def _ask(self, request: Visit, wanted: Asked | None) -> None:
        way = request.way
        model = wanted.model if wanted is not None else None
        record = Record(request.id, request.caller, way.path, way.lane.value, request.began_at, model)
        ticket = Ticket(request.id, request.caller, model, way.path, self._wall_clock())
        try:
            await self._inference.run(_question(request, wanted), _Client(request, record), record, ticket)
        except CancelledError:
            record.outcome = "client left"
            raise
        except errors.ForemanError as problem:
            record.outcome = "target failed" if isinstance(problem, errors.TargetError) else "refused"
            record.detail = str(problem)
            record.status = self._fail(request, problem)
        finally:
            self._access_log.write(record)
        if way.lane is Lane.MANAGEMENT and record.status < 300:
            self._inference.inventory.refresh()

    # failures

    @app.handle_errors(CancelledError)
    def client_left(self, request: IRequest, failure: Failure) -> None:
        """Nobody is there any more to be answered."""

    @app.handle_errors(errors.ForemanError)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """What went wrong has a name."""
        self._fail(cast("Visit", request), cast("errors.ForemanError", failure.value))

    @app.handle_errors(Exception)
    def surprised(self, request: IRequest, failure: Failure) -> None:
        """What nobody foresaw is logged whole, and answered without details."""
        visit = cast("Visit", request)
        self._log.failure("answering {path} failed", failure, path=visit.way.path)
        self._fail(visit, errors.ForemanError("foreman failed to answer this; its log says why"))

    def _fail(self, request: Visit, problem: errors.ForemanError) -> int:
        if request.startedWriting:
            request.break_off(problem, between_pieces=False)
            return request.code
        reply = failure_reply(request.family, problem, request.request_id, max(1, round(self._poll_interval)))
        request.answer(reply)
        return reply.status

    # answers

    def _reply(self, request: Visit, reply: Reply) -> None:
        request.answer(reply)
        self._log_own(request, reply.status)

    def _log_own(self, request: Visit, status: int) -> None:
        way = request.way
        record = Record(request.id, request.caller, way.path, way.lane.value, request.began_at, status=status)
        self._access_log.write(record)

    def _listing(self, request: Visit, listing: Listing | None) -> None:
        if listing is None:
            text = "foreman has not reached its target yet: no models are known"
            headers = [(b"Retry-After", b"%d" % max(1, round(self._poll_interval)))]
            self._reply(request, error_reply("ollama", 503, text, request.request_id, headers=headers))
            return
        request.begin(200, b"OK", to_client(listing.headers), "other")
        request.write(listing.body)
        request.finish()
        self._log_own(request, 200)

    def _shown(self, ticket: Ticket, seconds: float) -> dict[str, Any]:
        return {
            "id": ticket.id,
            "caller": ticket.caller,
            "model": ticket.model,
            "route": ticket.route,
            "since": _rfc3339(self._wall_clock() - seconds),
            "seconds": round(seconds, 3),
        }

    def _when(self, clock_seconds: float) -> str:
        return _rfc3339(self._wall_clock() - (self._clock.seconds() - clock_seconds))


@define(eq=False)
class _Client:
    """The client of one request as the asker of an inference."""

    _request: Visit
    _record: Record

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: str) -> None:
        """Write the head, with what foreman adds to it."""
        record = self._record
        waited = 0.0 if record.turn_at is None else record.turn_at - record.begun_at
        since_turn = (record.head_at or 0.0) - (record.turn_at or record.begun_at)
        timing = b"queue;dur=%.1f, target;dur=%.1f" % (waited * 1000, since_turn * 1000)
        added = [(b"Server-Timing", timing)]
        if kind != "other":
            names = {name.lower() for name, _ in headers}
            added += [pair for pair in _STREAM_HEADERS if pair[0].lower() not in names]
        self._request.begin(status, phrase, [*headers, *added], kind)

    def write(self, piece: bytes) -> None:
        """The next piece, as one chunk."""
        self._request.write(piece)

    def finish(self) -> None:
        """The answer is whole."""
        self._request.finish()

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer cannot be finished."""
        self._request.break_off(problem, between_pieces=between_pieces)

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Who is to be paused when the client reads slowly."""
        self._request.set_producer(producer)


def _read_body(request: Visit) -> Asked:
    encoding = next(iter(request.headers_named(b"content-encoding")), None)
    content_type = next(iter(request.headers_named(b"content-type")), None)
    query = request.target.partition(b"?")[2]
    body = request.body()
    if isinstance(body, bytes):
        return asked.read(request.way.path, body, encoding, content_type, query)
    body.flush()
    try:
        view = mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty chunked body has no file to map
        return asked.read(request.way.path, b"", encoding, content_type, query)
    with view:
        return asked.read(request.way.path, view, encoding, content_type, query)


def _question(request: Visit, wanted: Asked | None) -> Question:
    if request.upload is not None:
        upload = request.upload
        chunked = upload.size is None
        return Question(
            request.method,
            request.target,
            request.raw_headers,
            upload,
            upload.size,
            request.way,
            wanted,
            chunked=chunked,
        )
    body = request.body()
    length = len(body) if isinstance(body, bytes) else request.body_length()
    announced = length or request.has_length
    return Question(
        request.method,
        request.target,
        request.raw_headers,
        body if isinstance(body, bytes) else FileBody(body, length),
        length if announced else None,
        request.way,
        wanted,
    )


def _rfc3339(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
