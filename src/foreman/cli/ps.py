"""``foreman ps``: ask a running foreman who has the turn, who waits, and what is loaded."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import click
from attrs import frozen
from rich.console import Console
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError  # noqa: A004 - Twisted's word
from twisted.internet.task import react
from twisted.web.client import Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from foreman.cli.tables import Seen, show

NOT_THERE, NOT_ALLOWED, NOT_FOREMAN = 1, 3, 4
#: How long foreman may take to answer, in seconds.
PATIENCE = 10.0


class NothingToShow(Exception):
    """Why there is nothing to show.

    :ivar status: what the command ends with.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@click.command("ps", short_help="Show who has the turn, who waits, and what is loaded.")
@click.option(
    "--url",
    envvar="FOREMAN_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where foreman is.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
def command(url: str, *, as_json: bool) -> None:
    """Show who has the turn, who waits, and what is loaded.

    A token is taken from FOREMAN_TOKEN, or else from FOREMAN_AUTH_TOKEN.

    Ends with 0; with 1 if foreman does not answer, 3 if it wants a token, 4 if something else answers.
    """
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        usable = urlsplit(url).scheme in {"http", "https"} and bool(urlsplit(url).hostname)
        _ = urlsplit(url).port
    except ValueError:
        usable = False
    if not usable:
        raise click.UsageError(f"{url!r} is not the address of a foreman, such as http://127.0.0.1:8080")
    token = os.environ.get("FOREMAN_TOKEN") or os.environ.get("FOREMAN_AUTH_TOKEN") or None
    react(lambda reactor: Deferred.fromCoroutine(_ask_and_show(reactor, url, token, as_json=as_json)))


@frozen
class Foreman:
    """A foreman as its client sees it.

    :ivar url: where it is, without a slash at the end; :ivar token: None where it wants none.
    """

    url: str
    _agent: IAgent
    token: str | None = None

    async def look(self) -> Seen:
        """What it says of itself.

        :raises NothingToShow: if it says nothing, or nothing that foreman would say.
        """
        health = await self._get("/healthz")
        self._must_be_allowed(*health)
        if not isinstance(health[1], dict) or "degraded" not in health[1]:
            raise NothingToShow(
                NOT_FOREMAN, f"what answers at {self.url} is not foreman (/healthz: {health[0]}); is it Ollama itself?"
            )
        questions = [Deferred.fromCoroutine(self._get(path)) for path in ("/queue", "/api/ps")]
        queue, ps = await gatherResults(questions, consumeErrors=True)
        self._must_be_allowed(*queue)
        if not isinstance(queue[1], dict) or not {"running", "waiting"} <= queue[1].keys():
            raise NothingToShow(
                NOT_FOREMAN, f"{self.url} does not tell its queue (/queue: {queue[0]}{_said(queue[1])})"
            )
        models = ps[1].get("models") if isinstance(ps[1], dict) else None
        return Seen(self.url, health[1], queue[1], models if isinstance(models, list) else None)

    async def _get(self, path: str) -> tuple[int, Any]:
        """Status and JSON; None instead of what is no JSON."""
        headers = Headers({"Accept": ["application/json"]})
        if self.token:
            headers.addRawHeader("Authorization", f"Bearer {self.token}")
        # A client for each question keeps no cookies (treq's jar belongs to the client).
        response = await HTTPClient(self._agent).get(self.url + path, headers=headers, allow_redirects=False)
        try:
            return response.code, json.loads(await response.content())
        except ValueError:
            return response.code, None

    def _must_be_allowed(self, status: int, body: object) -> None:
        if status not in {401, 403}:
            return
        cure = "is FOREMAN_TOKEN the right one?" if self.token else "set FOREMAN_TOKEN to foreman's token"
        raise NothingToShow(NOT_ALLOWED, f"{self.url} does not let us in ({status}{_said(body)}); {cure}")


async def _ask_and_show(reactor: Any, url: str, token: str | None, *, as_json: bool) -> None:
    try:
        seen = await ask(reactor, url, token)
    except NothingToShow as problem:
        click.echo(f"foreman ps: {problem}", err=True)
        raise SystemExit(problem.status) from None
    if as_json:
        value = {"url": seen.url, "health": seen.health, "queue": seen.queue, "models": seen.models}
        click.echo(json.dumps(value, indent=2))
        return
    # A pipe has no width: nothing needs to be cut to fit it.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    show(seen, Console(width=width, highlight=False), datetime.now(UTC))


async def ask(reactor: Any, url: str, token: str | None) -> Seen:
    """What the foreman at ``url`` says of itself.

    :param reactor: connects and measures time.
    :raises NothingToShow: if it does not answer, does not let us in, or is something else.
    """
    foreman = Foreman(url, Agent(reactor, connectTimeout=PATIENCE), token)
    try:
        return await Deferred.fromCoroutine(foreman.look()).addTimeout(PATIENCE, reactor)
    except ConnectionRefusedError:
        raise NothingToShow(
            NOT_THERE, f"nobody listens at {url}; start foreman with foreman serve, or say where it is with --url"
        ) from None
    except DNSLookupError:
        raise NothingToShow(NOT_THERE, f"the name in {url} is not known here") from None
    except TimeoutError:
        raise NothingToShow(NOT_THERE, f"{url} did not answer within {PATIENCE:.0f} s") from None
    except (ConnectError, ResponseFailed) as problem:
        raise NothingToShow(NOT_THERE, f"{url} cannot be asked: {_reason(problem)}") from None


def _reason(problem: Exception) -> str:
    reasons = getattr(problem, "reasons", None)
    return reasons[0].getErrorMessage() if reasons else str(problem)


def _said(body: object) -> str:
    """The words of an error in any family's shape, with a colon in front."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return f": {error}" if isinstance(error, str) else ""
