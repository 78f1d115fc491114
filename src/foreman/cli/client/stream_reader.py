"""Print a job's answer as it streams in, and resume after a lost connection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlencode

import click
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater

from foreman.cli.client.client import ForemanClient, Response
from foreman.cli.client.errors import RequestFailed, Unreachable
from foreman.cli.client.jobs import Job, job_from, job_path
from foreman.cli.client.polling import INTERACTIVE_WAIT, UNATTENDED_WAIT, Retrier, wait_for_job
from foreman.cli.ui.exit_status import has_ended
from foreman.cli.ui.job_text import chunk_text, encode_utf8, printable, stdout_is_terminal
from foreman.cli.ui.progress import Progress, progress
from foreman.protocol import lenient_json
from foreman.protocol.endpoints import FOLLOWABLE

#: After so many seconds without a byte the stream is resumed on a new connection; nothing is lost by that.
SILENCE_TIMEOUT = 90.0


@define(eq=False)
class AnswerPrinter:
    """Prints the text of an answer as it streams in.

    :ivar written: whether any text was printed; :ivar last_id: the id of the last event, to resume after it.
    """

    _terminal: bool = field(factory=stdout_is_terminal)
    written: bool = False
    last_id: str = ""
    _attempt: str = ""
    _in_thinking: bool = False
    _at_line_start: bool = True

    def receive(self, event: str, id_: str, data: str) -> None:
        """Print one event of the stream."""
        if id_:
            self._begin(id_.partition("-")[0])
            self.last_id = id_
        try:
            value = lenient_json.read(data)
        except (ValueError, RecursionError):
            return
        if event == "attempt" and isinstance(value, dict):
            self._begin(str(value.get("attempt")))
        elif event != "error":  # the job itself says why it ended
            self._print(*chunk_text(value))

    def end_line(self) -> None:
        """Print a newline if the last line has none."""
        if not self._at_line_start:
            click.echo()
            self._at_line_start = True

    def _begin(self, attempt: str) -> None:
        if self.written and self._attempt not in {"", attempt}:
            self.end_line()
            click.echo(f"-- discard the text above: attempt {printable(attempt)} begins", err=True)
            self.written = False
        self._attempt = attempt

    def _print(self, thinking: str, text: str) -> None:
        # Thinking is not part of the answer, but it shows a person that the model is at work.
        if thinking and self._terminal:
            click.secho(printable(thinking), dim=True, nl=False)
            self._in_thinking = True
        if text:
            if self._in_thinking:
                click.echo("\n")
                self._in_thinking = False
            click.echo(printable(text) if self._terminal else encode_utf8(text), nl=False)
            self.written = True
        if thinking or text:
            self._at_line_start = (text or thinking).endswith("\n")
            sys.stdout.flush()


def event_reader(receive: Callable[[str, str, str], None]) -> Callable[[bytes], None]:
    """A function that takes the lines of an event stream and passes each event's type, id and data to ``receive``."""
    fields = {"event": "", "id": "", "data": ""}

    def read(line: bytes) -> None:
        if line:
            name, _, value = line.decode("utf-8", "replace").partition(":")
            if name in fields:
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and fields[name] else value
            return
        if fields["data"]:
            receive(fields["event"], fields["id"], fields["data"])
        fields.update(event="", id="", data="")

    return read


async def follow_job(foreman: ForemanClient, id_: str, printer: AnswerPrinter) -> Job:
    """Print the answer of a job as it streams in; return the job once it has ended.

    :raises RequestFailed: if the job does not exist (any more), or foreman is unreachable for too long.
    """
    while True:
        with progress() as display:
            job = await wait_for_job(foreman, id_, display, max_hold=INTERACTIVE_WAIT, is_done=lambda _: True)
            if job.get("endpoint") not in FOLLOWABLE:
                return await wait_for_job(foreman, id_, display, max_hold=UNATTENDED_WAIT)
            display.update(job)
            # The stream sends nothing until the job runs; until then its position is polled for the progress display.
            watching = Deferred.fromCoroutine(_watch(foreman, id_, display)) if display.is_visible else succeed(None)
            try:
                refusal = await _read(foreman, id_, printer, display)
            finally:
                watching.cancel()
            printer.end_line()
            if refusal is not None:  # the job has no stream (any more): its answer is in its response
                printer.written = False
                return await wait_for_job(foreman, id_, display, max_hold=INTERACTIVE_WAIT)
        job = await wait_for_job(foreman, id_, Progress(), max_hold=INTERACTIVE_WAIT, time_limit=INTERACTIVE_WAIT)
        if has_ended(job):
            return job


async def _watch(foreman: ForemanClient, id_: str, display: Progress) -> None:
    """Keep the progress display of a queued job up to date until it is closed."""
    with suppress(CancelledError, RequestFailed):
        while display.is_visible:
            await deferLater(foreman.clock, INTERACTIVE_WAIT)
            answer = await foreman.fetch("GET", job_path(id_))
            if answer.status == 200 and display.is_visible:
                display.update(job_from(foreman, answer))


async def _read(foreman: ForemanClient, id_: str, printer: AnswerPrinter, display: Progress) -> Response | None:
    retrier = Retrier(foreman, display)

    def receive(event: str, id_: str, data: str) -> None:
        retrier.reset()
        display.close()
        printer.receive(event, id_, data)

    async def request_stream() -> Response | None:
        after = f"?{urlencode({'after': printer.last_id})}" if printer.last_id else ""
        path = job_path(id_, "stream") + after
        return await foreman.stream_lines(
            path, event_reader(receive), accept="text/event-stream", silence=SILENCE_TIMEOUT
        )

    async def request_and_report() -> Response | None:
        try:
            return await request_stream()
        except Unreachable as problem:
            if retrier.failures == 1:  # the first failure may only be a connection that had fallen silent
                display.close()
                printer.end_line()
                click.echo(f"-- {problem}; retrying", err=True)
            raise

    return await retrier.run(request_and_report)
