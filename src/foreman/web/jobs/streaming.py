"""Following a job: what happens to it and what it says, live and resumed, without a line lost or doubled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from foreman import errors
from foreman.jobs.artifacts import PARTIAL, STREAM, StoredArtifact
from foreman.jobs.job import ACTIVE, Job
from foreman.jobs.queries import Event
from foreman.protocol import go_json
from foreman.protocol.endpoints import FOLLOWABLE
from foreman.protocol.headers import RawHeaders
from foreman.store.job_store import JobStore
from foreman.util.waiters import cancelling
from foreman.web.jobs.artifact_reader import PIECE_OF_LINES, ArtifactReader, Readers
from foreman.web.jobs.flow_control import FlowControl
from foreman.web.jobs.problems import Problem, no_such_job
from foreman.web.jobs.serialization import event_value
from foreman.web.jobs.wakeups import Wakeups
from foreman.web.server.heartbeat import HEARTBEAT_INTERVAL, STREAM_HEADERS
from foreman.web.server.request import ClientRequest
from foreman.worker.live_output import LiveOutput

#: How many events are read at once.
AT_ONCE = 500
#: Behind every line of a try, and behind what was said about its end.
_BEHIND_ALL = 2**62
_EVENT = re.compile(r"[0-9]{1,18}", re.ASCII)
_LINE = re.compile(r"([0-9]{1,9})-(?:([0-9]{1,18})|end)", re.ASCII)


class RunningJobs(Protocol):
    """Who runs the jobs."""

    def output_of(self, id_: str) -> LiveOutput | None:
        """The live lines of a job that runs here.

        They are there when the bell of the job has rung for its claim, and end when what became of the try is stored.
        """

    def cancel(self, id_: str) -> None:
        """Stop a job that runs; its claim then ends it."""


@define(eq=False)
class EventWriter:
    """One reader, of lines of JSON or of events of SSE.

    :ivar resumed: the reader had some of it before.
    """

    _clock: IReactorTime
    request: ClientRequest
    _flow_control: FlowControl
    resumed: bool
    headers: RawHeaders = field(factory=list)
    _sse: bool = field(init=False)
    _said_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sse = wants_events(self.request)
        self._said_at = self._clock.seconds()

    def begin(self) -> None:
        """Write the head, where it is not written."""
        if not self.request.startedWriting:
            content_type = b"text/event-stream" if self._sse else b"application/x-ndjson"
            headers = [(b"Content-Type", content_type), (b"Date", self.request.http_date()), *STREAM_HEADERS]
            kind = "sse" if self._sse else "ndjson"
            self.request.begin(200, b"OK", [*headers, *(() if self._sse else self.headers)], kind)

    async def say(self, line: bytes, id_: str, event: str = "") -> None:
        """One line of JSON."""
        await self._flow_control.ready()
        self.begin()
        text = line.strip(b" \r\n")
        if self._sse:
            named = b"event: %b\n" % event.encode("ascii") if event else b""
            self.request.write(b"id: %b\n%bdata: %b\n\n" % (id_.encode("ascii"), named, text.replace(b"\r", b" ")))
        else:
            self.request.write(text + b"\n")
        self._said_at = self._clock.seconds()

    def pieces(self, store: JobStore, stored: StoredArtifact) -> ArtifactReader:
        """An artifact of lines, at the pace of this reader."""
        return ArtifactReader(
            store, self._flow_control, stored, self.request.caller, range(stored.info.bytes), PIECE_OF_LINES
        )

    def until_filler(self) -> float:
        """How long may pass without a sign, in seconds."""
        return max(0.0, self._said_at + HEARTBEAT_INTERVAL - self._clock.seconds())

    def fill_where_due(self) -> None:
        """A sign of life, which is no line."""
        if self.until_filler() < 0.01:
            self.request.write(b":\n\n" if self._sse else b" ")
            self._said_at = self._clock.seconds()

    def end(self) -> None:
        """There is no more."""
        if self._sse and self.resumed and not self.request.startedWriting:
            self.request.begin(204, b"No Content", [(b"Date", self.request.http_date())], "other")  # else it comes back
        else:
            self.begin()


@define
class StreamCursor:
    """How far one reader is: behind line ``line`` of the try ``attempt``.

    :ivar heard: the try that was followed to its end, so that the store has no more of it.
    """

    _feed: EventWriter
    attempt: int
    line: int
    heard: int | None = None

    async def lines(self, attempt: int, lines: Sequence[bytes]) -> None:
        """Say the rest of a try; more lines may come while the reader takes these."""
        if await self._is_at(attempt):
            while self.line < len(lines):
                await self._say(lines[self.line])

    async def stored(self, attempt: int, pieces: ArtifactReader) -> None:
        """Say the rest of a try that is in the store."""
        if not await self._is_at(attempt):
            return
        number = 0
        unfinished: list[bytes] = []
        while piece := await pieces.next():
            before, end, behind = piece.rpartition(b"\n")
            if not end:
                unfinished.append(piece)
                continue
            for line in b"".join((*unfinished, before)).split(b"\n"):
                number += 1
                if number > self.line:
                    await self._say(line)
            unfinished = [behind]
        if number >= self.line and (last := b"".join(unfinished)):
            await self._say(last)

    async def _is_at(self, attempt: int) -> bool:
        """Whether the reader has not all of a try; where it is a new one, this is said."""
        if attempt > self.attempt:
            await self._feed.say(go_json.encode({"attempt": attempt}), f"{attempt}-0", "attempt")
            self.attempt, self.line = attempt, 0
        return attempt == self.attempt

    async def _say(self, line: bytes) -> None:
        if not line.isspace() and line:  # a blank line ends an event, and breaks those who read NDJSON
            await self._feed.say(line, f"{self.attempt}-{self.line + 1}")
        self.line += 1

    async def error(self, text: str) -> None:
        """Say why it ended."""
        if self.line < _BEHIND_ALL:
            await self._feed.say(go_json.encode({"error": text}), f"{self.attempt}-end", "error")


@define(eq=False)
class JobStreams:
    """Serves those who follow.

    :ivar stall_timeout: how long a reader may take nothing, in seconds.
    """

    _clock: IReactorTime
    _store: JobStore
    _worker: RunningJobs
    _wakeups: Wakeups
    _readers: Readers
    _stall_timeout: float

    async def events(self, request: ClientRequest, job: Job, after: str | None, *, follows: bool) -> None:
        """Tell what has happened to ``job``, and while it ``follows`` what happens, until it has ended.

        :raises Problem: for an ``after`` that is no event's id.
        """
        if after is not None and not _EVENT.fullmatch(after):
            raise Problem(400, "after: must be the id of an event")
        await self._serve(
            request, after, lambda feed: self._events(feed, job.id, int(after or 0), request.caller, follows=follows)
        )

    async def stream(self, request: ClientRequest, job: Job, after: str | None) -> None:
        """Pass on the lines of ``job``, until it has ended.

        :raises Problem: for a job without lines, or an ``after`` that is none of its lines.
        """
        if job.endpoint not in FOLLOWABLE:
            raise Problem(404, f"{job.endpoint} has no stream; its answer is an artifact when it is there")
        current = job.fence + 1 if job.state in {"scheduled", "queued"} else job.fence
        attempt, line = current, 0
        if after is not None:
            found = _LINE.fullmatch(after)
            if found is None or int(found[1]) > job.fence + 1:  # of the next try a reader may know that it comes
                raise Problem(400, "after: must be TRY-LINE, as in the ids of the events of this stream")
            attempt, line = int(found[1]), _BEHIND_ALL if found[2] is None else int(found[2])
        headers = [(b"X-Foreman-Attempt", b"%d" % current)]
        await self._serve(
            request, after, lambda feed: self._lines(feed, StreamCursor(feed, attempt, line), job.id), headers
        )

    async def _serve(
        self,
        request: ClientRequest,
        after: str | None,
        work: Callable[[EventWriter], Any],
        headers: RawHeaders | None = None,
    ) -> None:
        flow_control = FlowControl(self._clock, self._stall_timeout)
        feed = EventWriter(self._clock, request, flow_control, after is not None, headers or [])
        if request.method == b"HEAD":
            feed.begin()
        else:
            request.set_producer(flow_control)
            try:
                await work(feed)
            finally:
                request.set_producer(None)
        request.finish()

    async def _events(self, feed: EventWriter, id_: str, after: int, caller: str, *, follows: bool) -> None:
        while True:
            with cancelling(self._store.notifications.when_changed(id_)) as bell:
                # First the job: what it has become is among the events that are read after it.
                job = await self._store.get(id_)
                events = await self._store.events(id_, after, AT_ONCE, caller)
                for event in events:
                    await feed.say(go_json.encode(event_value(event)), str(event.id))
                    after = event.id
                if len(events) == AT_ONCE:
                    continue
                if job is None or not follows or (job.ended and _is_last(events)):
                    break
                await self._pause(feed, bell)
        if job is None:
            raise no_such_job(id_)  # deleted under the eyes of its reader
        feed.end()

    async def _lines(self, feed: EventWriter, tail: StreamCursor, id_: str) -> None:
        while True:
            with cancelling(self._store.notifications.when_changed(id_)) as bell:
                job = await self._store.get(id_)
                if job is None:
                    raise no_such_job(id_)
                if job.ended:
                    break
                output = self._worker.output_of(id_)
                if output is None or output.ended:
                    await self._pause(feed, bell)
                    continue
            await self._live(feed, tail, output)
        await self._rest(feed, tail, job)
        feed.end()

    async def _live(self, feed: EventWriter, tail: StreamCursor, output: LiveOutput) -> None:
        """The lines of a try while they come. It ends when what became of the try is stored."""
        while True:
            await tail.lines(output.attempt, output.lines)
            if output.ended:
                tail.heard = output.attempt
                return
            await self._pause(feed, output.when_more(len(output.lines)))

    async def _rest(self, feed: EventWriter, tail: StreamCursor, job: Job) -> None:
        succeeded = job.state == "succeeded"
        found = await self._store.get_artifact(job.id, STREAM if succeeded else PARTIAL, feed.request.caller)
        if found is not None and found.attempt != tail.heard:
            with self._readers.one_more(feed.request.caller):
                await tail.stored(found.attempt, feed.pieces(self._store, found))
        if not succeeded:
            error = job.error
            await tail.error(job.state if error is None or job.state == "cancelled" else error.message)

    async def _pause(self, feed: EventWriter, bell: Deferred[None]) -> None:
        """Wait for ``bell``, not longer than until the reader needs a sign.

        :raises errors.Draining: when foreman stops.
        """
        feed.begin()
        await self._wakeups.first_of(bell, seconds=feed.until_filler())
        if self._wakeups.closed:
            raise errors.Draining("foreman is stopping; come back, and go on behind what you have")
        feed.fill_where_due()


def wants_events(request: ClientRequest) -> bool:
    """Whether the answer is to be events of SSE."""
    accepted = b",".join(request.headers_named(b"accept")).lower()
    return any(one.partition(b";")[0].strip() == b"text/event-stream" for one in accepted.split(b","))


def _is_last(events: Sequence[Event]) -> bool:
    """Whether what was read last is how it ended; a retry may have followed."""
    return not events or events[-1].type not in ACTIVE
