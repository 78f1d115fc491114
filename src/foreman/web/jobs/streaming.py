"""Following a job: its events and the lines of its answer, live and resumed, none lost and none sent twice."""

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
from foreman.web.jobs.artifact_reader import LINES_PIECE_BYTES, ArtifactReader, ReaderLimit
from foreman.web.jobs.flow_control import FlowControl
from foreman.web.jobs.problems import Problem, no_such_job
from foreman.web.jobs.serialization import event_value
from foreman.web.jobs.wakeups import Wakeups
from foreman.web.server.heartbeat import HEARTBEAT_INTERVAL, STREAM_HEADERS
from foreman.web.server.request import ClientRequest
from foreman.worker.live_output import LiveOutput

#: How many events are read from the store at once.
EVENTS_PER_READ = 500
#: A line number after every line of an attempt and after the report of its end.
_END_OF_ATTEMPT = 2**62
_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_LINE_ID = re.compile(r"([0-9]{1,9})-(?:([0-9]{1,18})|end)", re.ASCII)


class RunningJobs(Protocol):
    """The jobs that run in this process."""

    def output_of(self, id_: str) -> LiveOutput | None:
        """The live lines of a job that runs here.

        They exist by the time the store notifies of the job's claim, and end once the outcome of the attempt is stored.
        """

    def cancel(self, id_: str) -> None:
        """Stop a running job; the worker then records that it was cancelled."""


@define(eq=False)
class EventWriter:
    """Writes an answer to one reader, as NDJSON or as SSE.

    :ivar resumed: the reader reconnected, and has a part of the answer already; :ivar headers: added to an NDJSON answer.
    """

    _clock: IReactorTime
    request: ClientRequest
    _flow_control: FlowControl
    resumed: bool
    headers: RawHeaders = field(factory=list)
    _sse: bool = field(init=False)
    _written_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sse = accepts_sse(self.request)
        self._written_at = self._clock.seconds()

    def begin(self) -> None:
        """Write the head of the answer, unless it is written already."""
        if not self.request.startedWriting:
            content_type = b"text/event-stream" if self._sse else b"application/x-ndjson"
            headers = [(b"Content-Type", content_type), (b"Date", self.request.http_date()), *STREAM_HEADERS]
            kind = "sse" if self._sse else "ndjson"
            self.request.begin(200, b"OK", [*headers, *(() if self._sse else self.headers)], kind)

    async def write_line(self, line: bytes, id_: str, event: str = "") -> None:
        """Write one line of JSON, once the reader is ready for it.

        :param id_: of the SSE event; :param event: the type of the SSE event, if any.
        """
        await self._flow_control.ready()
        self.begin()
        text = line.strip(b" \r\n")
        if self._sse:
            event_line = b"event: %b\n" % event.encode("ascii") if event else b""
            self.request.write(b"id: %b\n%bdata: %b\n\n" % (id_.encode("ascii"), event_line, text.replace(b"\r", b" ")))
        else:
            self.request.write(text + b"\n")
        self._written_at = self._clock.seconds()

    def artifact_reader(self, store: JobStore, stored: StoredArtifact) -> ArtifactReader:
        """Reads an artifact that consists of lines, at the pace of this reader."""
        return ArtifactReader(
            store, self._flow_control, stored, self.request.caller, range(stored.info.bytes), LINES_PIECE_BYTES
        )

    def until_heartbeat(self) -> float:
        """Seconds until the next heartbeat is due."""
        return max(0.0, self._written_at + HEARTBEAT_INTERVAL - self._clock.seconds())

    def write_heartbeat_if_due(self) -> None:
        """Write a heartbeat (an SSE comment, or a space before the next NDJSON line) if one is due."""
        if self.until_heartbeat() < 0.01:
            self.request.write(b":\n\n" if self._sse else b" ")
            self._written_at = self._clock.seconds()

    def end(self) -> None:
        """End the answer: nothing more will be written."""
        if self._sse and self.resumed and not self.request.startedWriting:
            # After a 200 a browser would reconnect, again and again.
            self.request.begin(204, b"No Content", [(b"Date", self.request.http_date())], "other")
        else:
            self.begin()


@define
class StreamCursor:
    """The position of one reader: after line ``line`` of attempt ``attempt``.

    :ivar completed_attempt: the attempt that was followed live to its end; nothing of it is left to read from the store.
    """

    _writer: EventWriter
    attempt: int
    line: int
    completed_attempt: int | None = None

    async def lines(self, attempt: int, lines: Sequence[bytes]) -> None:
        """Write the remaining lines of a running attempt; ``lines`` may grow while they are written."""
        if await self._start_attempt(attempt):
            while self.line < len(lines):
                await self._write_line(lines[self.line])

    async def stored(self, attempt: int, artifact: ArtifactReader) -> None:
        """Write the remaining lines of an attempt from the store."""
        if not await self._start_attempt(attempt):
            return
        number = 0
        unfinished: list[bytes] = []
        while piece := await artifact.next():
            before, newline, rest = piece.rpartition(b"\n")
            if not newline:
                unfinished.append(piece)
                continue
            for line in b"".join((*unfinished, before)).split(b"\n"):
                number += 1
                if number > self.line:
                    await self._write_line(line)
            unfinished = [rest]
        if number >= self.line and (last := b"".join(unfinished)):
            await self._write_line(last)

    async def _start_attempt(self, attempt: int) -> bool:
        """Move to ``attempt`` if it is newer, and tell the reader; returns whether the reader is at this attempt."""
        if attempt > self.attempt:
            await self._writer.write_line(go_json.encode({"attempt": attempt}), f"{attempt}-0", "attempt")
            self.attempt, self.line = attempt, 0
        return attempt == self.attempt

    async def _write_line(self, line: bytes) -> None:
        if not line.isspace() and line:  # a blank line would end an SSE event, and breaks readers of NDJSON
            await self._writer.write_line(line, f"{self.attempt}-{self.line + 1}")
        self.line += 1

    async def error(self, text: str) -> None:
        """Write why the job ended without success."""
        if self.line < _END_OF_ATTEMPT:
            await self._writer.write_line(go_json.encode({"error": text}), f"{self.attempt}-end", "error")


@define(eq=False)
class JobStreams:
    """Serves ``/jobs/<id>/events`` and ``/jobs/<id>/stream``.

    :ivar stall_timeout: how long a reader may read nothing, in seconds.
    """

    _clock: IReactorTime
    _store: JobStore
    _worker: RunningJobs
    _wakeups: Wakeups
    _reader_limit: ReaderLimit
    _stall_timeout: float

    async def events(self, request: ClientRequest, job: Job, after: str | None, *, follows: bool) -> None:
        """Send the events of ``job`` so far and, if ``follows``, those to come, until the job has ended.

        :param after: the id of the last event that the reader has.
        :raises Problem: if ``after`` is not the id of an event.
        """
        if after is not None and not _EVENT_ID.fullmatch(after):
            raise Problem(400, "after: must be the id of an event, a whole number")
        await self._serve(
            request,
            after,
            lambda writer: self._follow_events(writer, job.id, int(after or 0), request.caller, follows=follows),
        )

    async def stream(self, request: ClientRequest, job: Job, after: str | None) -> None:
        """Send the lines of the answer of ``job``, until the job has ended.

        :param after: ``ATTEMPT-LINE`` or ``ATTEMPT-end``, the last that the reader has.
        :raises Problem: if the endpoint of the job has no stream, or ``after`` is not an id of this stream.
        """
        if job.endpoint not in FOLLOWABLE:
            raise Problem(
                404, f"jobs for {job.endpoint} have no stream; read the artifact response once the job has succeeded"
            )
        current = job.fence + 1 if job.state in {"scheduled", "queued"} else job.fence
        attempt, line = current, 0
        if after is not None:
            found = _LINE_ID.fullmatch(after)
            if found is None or int(found[1]) > job.fence + 1:  # a reader may know the number of the next attempt
                raise Problem(
                    400, "after: must be ATTEMPT-LINE or ATTEMPT-end, as in the ids of the events of this stream"
                )
            attempt, line = int(found[1]), _END_OF_ATTEMPT if found[2] is None else int(found[2])
        headers = [(b"X-Foreman-Attempt", b"%d" % current)]
        await self._serve(
            request,
            after,
            lambda writer: self._follow_lines(writer, StreamCursor(writer, attempt, line), job.id),
            headers,
        )

    async def _serve(
        self,
        request: ClientRequest,
        after: str | None,
        work: Callable[[EventWriter], Any],
        headers: RawHeaders | None = None,
    ) -> None:
        flow_control = FlowControl(self._clock, self._stall_timeout)
        writer = EventWriter(self._clock, request, flow_control, after is not None, headers or [])
        if request.method == b"HEAD":
            writer.begin()
        else:
            request.set_producer(flow_control)
            try:
                await work(writer)
            finally:
                request.set_producer(None)
        request.finish()

    async def _follow_events(self, writer: EventWriter, id_: str, after: int, caller: str, *, follows: bool) -> None:
        while True:
            with cancelling(self._store.notifications.when_changed(id_)) as notification:
                # The job is read first, so that the events read after it include the one of its state.
                job = await self._store.get(id_)
                events = await self._store.events(id_, after, EVENTS_PER_READ, caller)
                for event in events:
                    await writer.write_line(go_json.encode(event_value(event)), str(event.id))
                    after = event.id
                if len(events) == EVENTS_PER_READ:
                    continue
                if job is None or not follows or (job.ended and _is_last(events)):
                    break
                await self._pause(writer, notification)
        if job is None:
            raise no_such_job(id_)  # deleted while it was followed
        writer.end()

    async def _follow_lines(self, writer: EventWriter, cursor: StreamCursor, id_: str) -> None:
        while True:
            with cancelling(self._store.notifications.when_changed(id_)) as notification:
                job = await self._store.get(id_)
                if job is None:
                    raise no_such_job(id_)
                if job.ended:
                    break
                output = self._worker.output_of(id_)
                if output is None or output.ended:
                    await self._pause(writer, notification)
                    continue
            await self._write_live_lines(writer, cursor, output)
        await self._write_stored_lines(writer, cursor, job)
        writer.end()

    async def _write_live_lines(self, writer: EventWriter, cursor: StreamCursor, output: LiveOutput) -> None:
        """Write the lines of a running attempt as they come; return once the outcome of the attempt is stored."""
        while True:
            await cursor.lines(output.attempt, output.lines)
            if output.ended:
                cursor.completed_attempt = output.attempt
                return
            await self._pause(writer, output.when_more(len(output.lines)))

    async def _write_stored_lines(self, writer: EventWriter, cursor: StreamCursor, job: Job) -> None:
        succeeded = job.state == "succeeded"
        found = await self._store.get_artifact(job.id, STREAM if succeeded else PARTIAL, writer.request.caller)
        if found is not None and found.attempt != cursor.completed_attempt:
            with self._reader_limit.reserve(writer.request.caller):
                await cursor.stored(found.attempt, writer.artifact_reader(self._store, found))
        if not succeeded:
            error = job.error
            await cursor.error(job.state if error is None or job.state == "cancelled" else error.message)

    async def _pause(self, writer: EventWriter, notification: Deferred[None]) -> None:
        """Wait for ``notification``, at most until a heartbeat is due, and write that.

        :raises errors.Draining: when foreman stops.
        """
        writer.begin()
        await self._wakeups.first_of(notification, seconds=writer.until_heartbeat())
        if self._wakeups.closed:
            raise errors.Draining("foreman is stopping; reconnect with the last id that you received")
        writer.write_heartbeat_if_due()


def accepts_sse(request: ClientRequest) -> bool:
    """Whether the request accepts SSE (``Accept: text/event-stream``)."""
    accepted = b",".join(request.headers_named(b"accept")).lower()
    return any(item.partition(b";")[0].strip() == b"text/event-stream" for item in accepted.split(b","))


def _is_last(events: Sequence[Event]) -> bool:
    """Whether the last event read is the end of the job; if it is not, a retry has followed."""
    return not events or events[-1].type not in ACTIVE
