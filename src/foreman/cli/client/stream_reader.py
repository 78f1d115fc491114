"""Print a job's answer as it comes, and go on where it broke off."""

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

#: So long nothing may come before it is tried on a new connection, in seconds; nothing is lost by that.
SILENCE_TIMEOUT = 90.0


@define(eq=False)
class AnswerPrinter:
    """Prints the words of an answer as they come.

    :ivar written: whether any were; :ivar last: where the last line stands, to go on behind it.
    """

    _terminal: bool = field(factory=stdout_is_terminal)
    written: bool = False
    last: str = ""
    _attempt: str = ""
    _thinks: bool = False
    _ends_line: bool = True

    def take(self, event: str, id_: str, data: str) -> None:
        """Print one line of the stream."""
        if id_:
            self._begin(id_.partition("-")[0])
            self.last = id_
        try:
            value = lenient_json.read(data)
        except (ValueError, RecursionError):
            return
        if event == "attempt" and isinstance(value, dict):
            self._begin(str(value.get("attempt")))
        elif event != "error":  # why it ended is told by the job, too
            self._print(*chunk_text(value))

    def end(self) -> None:
        """End the line that was begun."""
        if not self._ends_line:
            click.echo()
            self._ends_line = True

    def _begin(self, attempt: str) -> None:
        if self.written and self._attempt not in {"", attempt}:
            self.end()
            click.echo(f"-- what came so far is void: try {printable(attempt)} begins", err=True)
            self.written = False
        self._attempt = attempt

    def _print(self, thinking: str, words: str) -> None:
        # What a model thinks is no part of its answer, but a person likes to see that something happens.
        if thinking and self._terminal:
            click.secho(printable(thinking), dim=True, nl=False)
            self._thinks = True
        if words:
            if self._thinks:
                click.echo("\n")
                self._thinks = False
            click.echo(printable(words) if self._terminal else encode_utf8(words), nl=False)
            self.written = True
        if thinking or words:
            self._ends_line = (words or thinking).endswith("\n")
            sys.stdout.flush()


def event_reader(take: Callable[[str, str, str], None]) -> Callable[[bytes], None]:
    """What is given the lines of an event stream, and hands over each event's type, id and data."""
    fields = {"event": "", "id": "", "data": ""}

    def read(line: bytes) -> None:
        if line:
            name, _, value = line.decode("utf-8", "replace").partition(":")
            if name in fields:
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and fields[name] else value
            return
        if fields["data"]:
            take(fields["event"], fields["id"], fields["data"])
        fields.update(event="", id="", data="")

    return read


async def follow_job(foreman: ForemanClient, id_: str, words: AnswerPrinter) -> Job:
    """Print what the job answers as it comes; the job once it has ended.

    :raises Unanswered: if there is no such job (any more), or foreman is away for too long.
    """
    while True:
        with progress() as shown:
            job = await wait_for_job(foreman, id_, shown, step=INTERACTIVE_WAIT, enough=lambda _: True)
            if job.get("endpoint") not in FOLLOWABLE:
                return await wait_for_job(foreman, id_, shown, step=UNATTENDED_WAIT)
            shown.saw(job)
            # The stream waits for the job to run; where it stands until then is for who looks.
            watching = Deferred.fromCoroutine(_watch(foreman, id_, shown)) if shown.is_open else succeed(None)
            try:
                over = await _read(foreman, id_, words, shown)
            finally:
                watching.cancel()
            words.end()
            if over is not None:  # it has no lines (any more): what it answers is found in its response
                words.written = False
                return await wait_for_job(foreman, id_, shown, step=INTERACTIVE_WAIT)
        job = await wait_for_job(foreman, id_, Progress(), step=INTERACTIVE_WAIT, longest=INTERACTIVE_WAIT)
        if has_ended(job):
            return job


async def _watch(foreman: ForemanClient, id_: str, shown: Progress) -> None:
    """Keep what is shown of a job that waits as it is, until that is over."""
    with suppress(CancelledError, RequestFailed):
        while shown.is_open:
            await deferLater(foreman.clock, INTERACTIVE_WAIT)
            answer = await foreman.fetch("GET", job_path(id_))
            if answer.status == 200 and shown.is_open:
                shown.saw(job_from(foreman, answer))


async def _read(foreman: ForemanClient, id_: str, words: AnswerPrinter, shown: Progress) -> Response | None:
    patience = Retrier(foreman, shown)

    def take(event: str, id_: str, data: str) -> None:
        patience.answered()
        shown.close()
        words.take(event, id_, data)

    async def asking() -> Response | None:
        after = f"?{urlencode({'after': words.last})}" if words.last else ""
        path = job_path(id_, "stream") + after
        return await foreman.lines(path, event_reader(take), accept="text/event-stream", silence=SILENCE_TIMEOUT)

    async def told() -> Response | None:
        try:
            return await asking()
        except Unreachable as problem:
            if patience.tries == 1:  # the first try may have found a connection that had only gone silent
                shown.close()
                words.end()
                click.echo(f"-- {problem}; it goes on as soon as that is possible", err=True)
            raise

    return await patience.ask(told)
