"""One request of a client, and the answer that is written to it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers
from twisted.web.iweb import INonQueuedRequestFactory
from twisted.web.server import Request
from zope.interface import provider

from foreman import errors
from foreman.auth.tokens import Holder
from foreman.protocol.endpoints import Family, Lane
from foreman.protocol.headers import RawHeaders
from foreman.protocol.routes import Route
from foreman.proxy.access_record import RequestRecord
from foreman.util.deadline import Deadline
from foreman.web.server.blob_upload import BlobUpload
from foreman.web.server.body import BodyRefused, SpooledBody
from foreman.web.server.interfaces import Connection
from foreman.web.server.origins import joined
from foreman.web.server.phases import Phase, Place
from foreman.web.server.request_head import (
    UNREAD,
    Admitted,
    Decision,
    Refused,
    RequestContext,
    RequestHead,
    index_headers,
)
from foreman.web.server.response_producer import PIECE_SIZE, ResponseProducer
from foreman.web.server.responses import PHRASES, Reply, error_reply, final_error, piece_end
from foreman.web.server.statuses import status_of

#: Paths that are answered on standby, where all places for connections are taken: supervisors and probes ask for them.
ALWAYS_ANSWERED = ("/", "/healthz")
TOO_MANY_CONNECTIONS = "too many connections; try again soon (FOREMAN_MAX_CONNECTIONS)"
#: The largest chunk that may be announced, in bytes; a larger size is a mistake or an attack.
MAX_CHUNK = 2**62

#: These go to the target as they are, behind a prefix: without it Klein would take ``get`` for ``GET``, and a path of theirs for
#: a route of foreman's own.
_PASSED_ON = frozenset({Lane.METADATA, Lane.MANAGEMENT})

_NO_HEADERS = Headers()
_NONE: RawHeaders = []  # shared by all that have none: never added to


@provider(INonQueuedRequestFactory)
class ClientRequest(Request):
    """One request: what admission decided about it, and the writing side of its answer.

    The head of an answer is written here byte by byte: Twisted's own way adds ``Server`` and ``Content-Type`` headers and
    sorts names, and costs more. What is added to Twisted's attributes is in slots: those are nearly all that an instance may
    have in its dictionary before that takes 1.3 kB more, and thousands may wait.

    :ivar context: its id, route and caller; :ivar raw_headers: names and values as they were written, without copies of the token;
    :ivar received_at: when the head was whole, in seconds of the reactor's clock; :ivar refusal: the answer to a request
        that is not admitted, else None; :ivar response_headers: added to whatever is answered; :ivar has_length: the
        client said how long the body is, or sends it in chunks; :ivar upload: a body that goes on to the target while it
        arrives; :ivar content: the body otherwise; :ivar kind: of the answer, as of ``framing.framing_of``.
    """

    channel: Connection  # type: ignore[assignment]  # what this needs of Twisted's
    content: SpooledBody
    defaultContentType = None
    args: dict[bytes, list[bytes]] = {}  # noqa: RUF012 - Twisted's name; nobody adds to it
    context: RequestContext
    raw_headers: RawHeaders
    received_at: float
    refusal: Reply | None
    response_headers: RawHeaders
    has_length: bool
    upload: BlobUpload | None
    kind: str
    _by_name: dict[bytes, list[bytes]] | None
    _work: Deferred[None] | None
    _bodiless: bool
    _sized: bool
    _broken: bool
    _is_sending: bool
    __slots__ = (
        "_bodiless",
        "_broken",
        "_by_name",
        "_is_sending",
        "_sized",
        "_work",
        "context",
        "has_length",
        "kind",
        "raw_headers",
        "received_at",
        "refusal",
        "response_headers",
        "upload",
    )

    def __init__(self, channel: Connection, *_: object) -> None:
        super().__init__(cast("Any", channel), parsePOSTFormSubmission=False)
        self.clientproto, self.kind = b"HTTP/1.1", "other"
        self.prepath, self.postpath = [], []
        self.context, self.received_at = UNREAD, 0.0
        self.raw_headers, self.response_headers, self._by_name = [], _NONE, None
        self.refusal = self.upload = self._work = None
        self.has_length = self._bodiless = self._sized = self._broken = self._is_sending = False

    # route and caller

    @property
    def id(self) -> str:
        """A ULID; empty as long as the head has not been read."""
        return self.context.id

    @property
    def route(self) -> Route:
        """Lane, family and decoded path."""
        return self.context.route

    @property
    def family(self) -> Family:
        """The error format of the route."""
        return self.context.route.family

    @property
    def target(self) -> bytes:
        """Raw path and query, without a credential in front."""
        return self.context.target

    @property
    def caller(self) -> str:
        """The name of the token; without one the client's address."""
        return self.context.caller

    @property
    def holder(self) -> Holder | None:
        """Whose token the request came with; None without one."""
        return self.context.holder

    @property
    def admin(self) -> bool:
        """Whether it came with the token of an admin."""
        return self.context.holder is not None and self.context.holder.admin

    @property
    def request_id(self) -> str:
        """24 hex digits for Anthropic's error format."""
        return self.context.request_id

    def own_path(self, path: str) -> str:
        """A path of foreman's own as this client has to request it."""
        return self.context.own_path(path)

    def headers_named(self, name: bytes) -> list[bytes]:
        """The values of every header ``name`` (lower case), in order; called only once the head is whole."""
        if self._by_name is None:
            self._by_name = index_headers(self.raw_headers)
        return self._by_name.get(name, [])

    def new_record(self, model: str | None = None, *, status: int = 0) -> RequestRecord:
        """The record of this request for the observer, to be filled in."""
        context = self.context
        route = context.route
        return RequestRecord(
            context.id, context.caller, route.path, route.lane.value, self.received_at, model, status=status
        )

    def own_record(self, status: int) -> RequestRecord:
        """The record of an answer of foreman's own, or of a refusal, neither of which reached the target."""
        record = self.new_record(status=status)
        if status >= 400:
            record.outcome, record.is_early_refusal = "refused", True
        return record

    # what arrives

    def head_received(self, method: bytes, uri: bytes, version: bytes, length: int | None) -> Decision:
        """The whole head has been read; ``length`` of the body in bytes, None when it is chunked.

        :return: what was decided about it.
        """
        head = self._take_head(method, uri, version)
        factory = self.channel.factory
        self.has_length = length is None or bool(head.headers_named(b"content-length"))
        self.content = SpooledBody(factory.config.max_body, factory.bodies)
        decision = factory.admission.decide(head)
        self.context, self.response_headers = decision.context, decision.response_headers
        self.content.caller = self.caller
        self.content.is_slow = self._is_slow
        if isinstance(decision, Admitted):
            self.raw_headers = decision.headers
            decision = self._admit_body(decision, length)
        if isinstance(decision, Refused):
            self.refusal = decision.reply
        return decision

    def _take_head(self, method: bytes, uri: bytes, version: bytes) -> RequestHead:
        self.method, self.uri, self.clientproto = method, uri, version
        self.path = uri.partition(b"?")[0]
        self.received_at = self.channel.factory.clock.seconds()
        # Twisted's own copies of the head are not read from here on, and thousands of requests may wait.
        self.requestHeaders = self.responseHeaders = _NO_HEADERS
        client, host = str(getattr(self.client, "host", "") or ""), str(getattr(self.host, "host", ""))
        head = RequestHead(method, uri, version, self.raw_headers, client, host, self.received_at)
        self._by_name = head.by_name
        return head

    def _admit_body(self, admitted: Admitted, length: int | None) -> Decision:
        """Whether there is a place for the request, and room for its body."""
        is_probe = length == 0 and self.method in (b"GET", b"HEAD") and self.route.path in ALWAYS_ANSWERED
        must_close = self.method == b"CONNECT"  # what follows is meant for a tunnel
        if self.channel.place is Place.STANDBY and not is_probe:
            reply = self._error(503, TOO_MANY_CONNECTIONS)
            return Refused(self.context, reply, self.response_headers, must_close)
        if length == 0:
            return admitted
        if self.method == b"POST" and self.route.path.startswith("/api/blobs/"):
            # A model file, which may have any size.
            self.upload = BlobUpload(IPushProducer(self.channel.transport), length)
        elif length is not None:
            try:
                self.content.expect(length)
            except BodyRefused as problem:
                reply = self._error(problem.status, str(problem))
                return Refused(self.context, reply, self.response_headers, must_close)
        return admitted

    def chunk_announced(self, length: int) -> None:
        """``length`` bytes of a chunk are still to come."""
        if length > MAX_CHUNK:
            self.channel.refuse(400, "a chunk of this size is not allowed (RFC 9112 section 7.1)")
        elif self.upload is None:
            self._hold(self.content.expect, self.content.length + length)

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        if self.refusal is not None or self.finished:
            return
        if self.upload is not None:
            self.upload.feed(data)
        else:
            self._hold(self.content.add, data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is whole."""
        if self.upload is not None:
            self.upload.end()
        else:
            self.process()

    def process(self) -> None:
        """Answer the request: with its refusal, or by its route."""
        if self.refusal is not None:
            if self.channel.place is not Place.STANDBY:  # those are counted by ``Connections``
                self._report_refusal(self.refusal)
            self.answer(self.refusal)
            return
        parts = self.route.path[1:].split("/")
        if self.route.lane in _PASSED_ON:
            parts.insert(0, "-")
        self.postpath = [part.encode("utf-8", "replace") for part in parts]
        self.render(self.channel.factory.resource_for(self.route))

    def answer_by(self, work: Coroutine[Any, Any, None]) -> None:
        """Let ``work`` answer; it is cancelled when the client leaves."""
        # What Klein and admission needed is not read from here on, and thousands of requests may wait.
        self.notifications, self._adapterCache, self.prepath, self._by_name = [], {}, [], None
        self._work = Deferred.fromCoroutine(work)

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        super().connectionLost(reason)
        self.cancel()

    def body(self) -> bytes | BinaryIO:
        """The whole body: in memory, or the file that holds it."""
        return self.content.value()

    def getRequestHostname(self) -> bytes:
        """A fixed name for Klein, which would read the ``Host`` that the client chose; every host has the same routes."""
        return b"foreman"

    # the answer

    def http_date(self) -> bytes:
        """Now, for a ``Date`` header."""
        return self.channel.factory.date.now()

    def refuse_unread(self, method: bytes, uri: bytes, status: int, message: str, *, log: bool) -> None:
        """Answer a request that could not be read to its end; a route that runs already is cancelled, as if the client had left.

        :param method, uri: as far as the head was read.
        """
        if not self.id:
            self.context = self.channel.factory.admission.identify(self._take_head(method, uri, self.clientproto))
        self.refusal = self._error(status, message)
        if log and self._work is None:
            self._report_refusal(self.refusal)
        self.answer(self.refusal)
        if self._work is not None:
            self._work.cancel()

    def answer(self, reply: Reply) -> None:
        """Send a whole answer of foreman's own."""
        length = [] if reply.status in NO_BODY_CODES else [(b"Content-Length", b"%d" % len(reply.body))]
        date = (b"Date", self.http_date())
        self.begin(reply.status, PHRASES.get(reply.status, b""), [*reply.headers, date, *length], "other")
        if len(reply.body) > PIECE_SIZE and not (self._bodiless or self._disconnected):
            factory = self.channel.factory
            cast("Any", self.channel.transport).bufferSize = PIECE_SIZE
            self._is_sending = True
            ResponseProducer(self, reply.body, Deadline(factory.clock), factory.config.stall_timeout).start()
            return
        if reply.body:
            self.write(reply.body)
        self.finish()

    def body_sent(self) -> None:
        """The whole body of ``answer`` has been written."""
        self._is_sending = False
        self.finish()

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: str) -> None:
        """Write the head of an answer; without Content-Length the body goes chunked, or ends with the connection."""
        if self._disconnected or self.startedWriting:
            return
        self.startedWriting = 1
        self.kind = kind
        self.code = status
        if self.channel.phase is Phase.BODY:
            self.channel.persistent = False
        self._bodiless = self.method == b"HEAD" or status in NO_BODY_CODES
        lines = [b"%b %d %b\r\n" % (self.clientproto, status, phrase)]
        for name, value in joined(headers, self.response_headers) if self.response_headers else headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            self._sized = self._sized or name.lower() == b"content-length"
        if not self._sized and not self._bodiless:
            if self.clientproto == b"HTTP/1.1":
                self.chunked = 1
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self.channel.persistent = False
        if not self.channel.persistent:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        self.channel.writeSequence(lines)

    def write(self, data: bytes) -> None:
        """Send a part of the body; with chunked framing one chunk."""
        if self._disconnected or self.finished or self._bodiless or not data:
            return
        self.sentLength += len(data)
        if self.chunked:
            self.channel.writeSequence((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self.channel.write(data)

    def terminate(self, problem: errors.ForemanError) -> None:
        """End the request, whatever it waits for, because of ``problem``, and cancel the route that answers it."""
        notifications, self.notifications = self.notifications, []
        for notification in notifications:
            notification.errback(Failure(CancelledError()))
        if self.startedWriting:
            self.break_off(problem, between_pieces=True)
        else:
            self.refuse_unread(self.method, self.uri, status_of(problem), str(problem), log=True)
        self.cancel()

    def cancel(self) -> None:
        """Cancel the coroutine that answers the request, if there is one."""
        if self._work is not None:
            self._work.cancel()

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """End an answer that has begun so that it does not look complete."""
        if self._disconnected or self.finished:
            return
        stalled = isinstance(problem, errors.ReaderStalled)
        ending = None
        if not (stalled or self._sized):
            ending = final_error(self.kind, self.family, problem, self.request_id)
        if ending is not None and not between_pieces:
            # A missing last chunk is a clearer sign than an error in the middle of a line; without chunks only a reset would
            # be as clear, and that may destroy what the client has not read yet.
            ending = None if self.chunked else piece_end(self.kind) + ending
        if ending is not None:
            self.write(ending)
            self.finish()
            return
        # The last chunk or the last bytes are missing, which shows it; where the answer has neither, only a reset does.
        self._broken = True
        self.channel.persistent = False
        if stalled or not (self.chunked or self._sized):
            self.channel.abort()
        else:
            self.channel.loseConnection()

    def finish(self) -> None:
        """The answer is whole. Does nothing to an answer that was broken off or is still being sent."""
        if not (self._broken or self._disconnected or self._is_sending):
            super().finish()

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Pause and resume ``producer`` as the client reads; None: no producer any more."""
        if producer is not None:
            self.registerProducer(producer, True)
        elif self.producer is not None and not self._disconnected:
            self.unregisterProducer()
        else:
            self.producer = None

    def _cleanup(self) -> None:
        if self.content is not None:
            self.content.close()  # before the next request needs its room
        super()._cleanup()

    def _is_slow(self) -> bool:
        return self.channel.factory.connections.is_slow(self.channel)

    def _hold(self, do: Callable[[Any], None], what: Any) -> None:
        try:
            do(what)
        except BodyRefused as problem:
            self.channel.refuse(problem.status, str(problem))

    def _error(self, status: int, message: str) -> Reply:
        headers = [(b"Retry-After", b"5")] if status == 503 else []
        return error_reply(self.family, status, message, self.request_id, headers=headers)

    def _report_refusal(self, reply: Reply) -> None:
        self.channel.factory.observer.request_finished(self.own_record(reply.status))
