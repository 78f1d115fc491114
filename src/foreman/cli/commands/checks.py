"""What ``foreman check`` looks at: would a foreman with these settings work on this machine, now?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - what ``within`` raises
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from foreman.cli.client.client import ForemanClient, answered, make_agent
from foreman.cli.client.errors import RequestFailed
from foreman.config.listen_address import is_private, url_of
from foreman.config.settings import Config
from foreman.errors import ConnectionError as TargetAway
from foreman.errors import ForemanError, HTTPError
from foreman.protocol import lenient_json
from foreman.store.errors import StoreInUse, StoreRefused, StoreUnavailable
from foreman.store.sqlite.opening import check_library, examine
from foreman.system.listening import why_not
from foreman.tap import fitting, raise_descriptor_limit
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for
from foreman.target.inventory import Inventory
from foreman.target.model_list import POLL_TIMEOUT
from foreman.target.models import Availability
from foreman.target.state import ANSWERS_WRONGLY
from foreman.util.deadline import within
from foreman.util.file_permissions import database_problems

#: No clock is right that shows a time before this code was written.
_EARLIEST_DATE = datetime(2026, 11, 1, tzinfo=UTC)
#: By how many seconds two clocks may differ before it is worth a word.
_MAX_CLOCK_SKEW = 60.0
#: How long whoever has the port may take to say that it is foreman, in seconds.
_HEALTH_TIMEOUT = 1.0
#: Less room than this is worth a word, in bytes.
_LOW_DISK_SPACE = 1_000_000_000
#: Endpoints whose sockets come from whoever starts foreman.
_INHERITED = {"systemd", "fd", "stdio"}


#: ``bad``: it would not work; ``note``: it would, but somebody should know.
State = Literal["ok", "note", "bad"]


@frozen
class CheckResult:
    """What was found of one thing.

    :ivar text: for people, in one sentence.
    """

    name: str
    state: State
    text: str


async def run_checks(reactor: Any, config: Config, wall_clock: Callable[[], float]) -> list[CheckResult]:
    """Every finding, in the order in which people are shown them.

    :param wall_clock: seconds since the epoch.
    """
    client = TargetClient(
        reactor, endpoint_for(reactor, config.target, config.connect_timeout), config.target, config.target_token
    )
    inventory = Inventory(reactor, client, config.poll_interval)
    found = [await check_target(reactor, client, inventory)]
    if config.embedder_model is not None:
        found.append(check_embedder(inventory, config.embedder_model))
    date = next((value for name, value in _headers(inventory) if name.lower() == b"date"), None)
    return [
        *found,
        await check_port(reactor, config.listen),
        check_store(config),
        check_access(config),
        check_clock(wall_clock(), None if date is None else date.decode("latin-1")),
        check_descriptors(config, raise_descriptor_limit()),
    ]


async def check_target(reactor: Any, client: TargetClient, inventory: Inventory) -> CheckResult:
    """Whether the target answers, with which version, and what it has."""
    url = client.address.shown
    await inventory.refresh()
    if inventory.degraded is not None:
        detail, status = f"{url}: {_without_page(inventory.degraded.detail)}", inventory.degraded.status
        refused = status in {401, 403}
        if status in {503, 508}:
            detail += await _loop_hint(client)
        cure = "; does it want a token? FOREMAN_TARGET_TOKEN is sent to it" if refused else ""
        if inventory.degraded.reason == "reset" and client.address.scheme == "http":
            cure = "; if it wants TLS, its address begins with https://"
        if inventory.degraded.reason in ANSWERS_WRONGLY:
            if await _foreman_as_target(reactor, client):
                cure += "; it is a foreman itself: give the address of Ollama"
            elif client.address.path and not refused:
                path = client.address.shown.removeprefix(evolve(client.address, path="").url)
                cure += f"; Ollama's own address has no path: leave out {path}"
        return CheckResult("target", "bad", detail + cure)
    try:
        version = await within(Deferred.fromCoroutine(client.version()), POLL_TIMEOUT, reactor)
    except (TargetAway, HTTPError, KeyError, TimeoutError) as problem:
        return CheckResult("target", "bad", f"{url} lists models, but not its version: {problem}")
    text = (
        f"{url} is Ollama {version} with {_counted(len(inventory.installed), 'model')}, {len(inventory.running)} loaded"
    )
    if await _foreman_as_target(reactor, client):
        return CheckResult(
            "target", "note", f"{text}; but it is a foreman itself, in front of that Ollama: requests wait twice"
        )
    missing = "".join(f"; it gives no list at {path}: {why}" for path, why in inventory.missing.items())
    return CheckResult("target", "ok" if inventory.installed and not missing else "note", text + missing)


def _without_page(detail: str) -> str:
    """What the inventory says of the target, without the page that something else than Ollama answers."""
    begin, _, page = detail.partition(": ")
    if begin.startswith("the target answered ") and page.lstrip().startswith("<"):
        return f"{begin} with a web page, as Ollama does not; is it something else?"
    return detail


async def _foreman_as_target(reactor: Any, client: TargetClient) -> bool:
    """Whether the target answers ``/healthz`` as foreman does; Ollama has no such route."""
    try:
        _, body = await within(Deferred.fromCoroutine(client.fetch(b"GET", "/healthz")), POLL_TIMEOUT, reactor)
        health = lenient_json.read(body)
    except (TargetAway, HTTPError, TimeoutError, ValueError, RecursionError):
        return False
    return isinstance(health, dict) and {"status", "degraded"} <= health.keys()


async def _loop_hint(client: TargetClient) -> str:
    """A word on it where what answers as the target sends its requests back to itself."""
    try:
        await client.version()
    except HTTPError as problem:
        return f"; {problem.text}" if problem.status == 508 else ""
    except (TargetAway, KeyError):
        return ""
    return ""


def check_embedder(inventory: Inventory, model: str) -> CheckResult:
    """Whether the model that is to be kept loaded is there; ``inventory`` has been refreshed."""
    try:
        standing = inventory.find(model)
    except ForemanError as problem:
        return CheckResult("embedder", "bad", f"FOREMAN_EMBEDDER_MODEL: {problem}")
    if standing is Availability.INSTALLED:
        return CheckResult("embedder", "ok", f"{model} is installed")
    if standing is Availability.UNKNOWN:
        return CheckResult("embedder", "note", f"whether {model} is installed is not known")
    return CheckResult("embedder", "bad", f"{model} is not installed; get it with: ollama pull {model}")


async def check_port(reactor: Any, listen: str) -> CheckResult:
    """Whether foreman could listen there: it is tried, for a moment."""
    if listen.partition(":")[0] in _INHERITED:
        return CheckResult("port", "note", f"{listen} comes from whoever starts foreman, and cannot be tried here")
    try:
        listening = await serverFromString(reactor, listen).listen(_RefusingFactory())
    except CannotListenError as problem:
        url = url_of(listen)
        if url is not None and (health := await _foreman_at(reactor, url)):
            return CheckResult("port", "note", f"a foreman listens on {listen} already, and says {health}")
        return CheckResult("port", "bad", why_not(listen, problem))
    except Exception as problem:  # noqa: BLE001 - plugins and files of keys fail in ways of their own
        return CheckResult("port", "bad", why_not(listen, problem))
    await listening.stopListening()
    return CheckResult("port", "ok", f"{listen} is free")


class _RefusingFactory(Factory):
    """Answers nobody: whoever connects in that moment is turned away."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        return None


async def _foreman_at(reactor: Any, url: str) -> str:
    """What a foreman at ``url`` says of itself, empty if there is none."""
    try:
        health = await answered(reactor, ForemanClient(url, make_agent(reactor)), ForemanClient.health, _HEALTH_TIMEOUT)
    except RequestFailed:
        return ""
    return f"{health.get('status')}{', degraded' if health.get('degraded') else ''}"


def check_access(config: Config) -> CheckResult:
    """Who may come in."""
    if config.auth_token or config.admin_token or config.tokens_file:
        return CheckResult("door", "ok", "a token is asked for")
    if is_private(config.listen):
        return CheckResult("door", "ok", "no token is asked for, and only this machine can connect")
    return CheckResult("door", "note", "no token is asked for: whoever can connect may chat, and remove models")


def check_store(config: Config) -> CheckResult:
    """Whether jobs can be kept."""
    path = config.db_path
    assert path is not None
    try:
        check_library()
        return _store_at(path, config.disk_reserve)
    except StoreUnavailable as problem:
        return CheckResult("store", "bad", str(problem))
    except OSError as problem:  # a folder that may not be entered, or the working directory is gone
        return CheckResult("store", "bad", f"{path} cannot be used: {problem.strerror or problem}")


def _store_at(path: Path, reserve: int) -> CheckResult:
    there = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} cannot be written to, so that no jobs would be taken; FOREMAN_DB_PATH says where to keep them"
        return CheckResult("store", "bad", text)
    if path.exists():
        try:
            examine(path)
        except StoreInUse:
            return CheckResult("store", "note", f"a foreman keeps its jobs in {path} already")
        except (StoreRefused, StoreUnavailable) as problem:
            return CheckResult("store", "bad", str(problem))
    free, said = shutil.disk_usage(there).free, list(database_problems(path))
    if free < reserve:
        said.insert(
            0, f"{path}: the disk has {free} bytes left, less than FOREMAN_DISK_RESERVE: no jobs would be taken"
        )
    elif free < _LOW_DISK_SPACE:
        said.insert(0, f"{path}: the disk has only {free // 10**6} MB left for jobs")
    if said:
        return CheckResult("store", "bad" if free < reserve else "note", "; and ".join(said))
    return CheckResult("store", "ok", f"jobs are kept in {path}" if path.exists() else f"jobs will be kept in {path}")


def check_clock(now: float, date: str | None) -> CheckResult:
    """Whether the time of day can be right, and what the target thinks of it.

    :param now: seconds since the epoch; :param date: what the target wrote into the ``Date`` header, if anything.
    """
    here = datetime.fromtimestamp(now, UTC)
    if here < _EARLIEST_DATE:
        return CheckResult("clock", "bad", f"it is not {here:%Y-%m-%d}: TLS, ids and the log would be wrong")
    try:
        apart = (here - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError):
        return CheckResult("clock", "ok", f"{here:%Y-%m-%d %H:%M:%S} UTC")
    if abs(apart) > _MAX_CLOCK_SKEW:
        way = "ahead of" if apart > 0 else "behind"
        text = f"this machine is {abs(apart):.0f} s {way} the target: when models expire will look wrong"
        return CheckResult("clock", "note", text)
    return CheckResult("clock", "ok", f"{here:%Y-%m-%d %H:%M:%S} UTC, as at the target")


def check_descriptors(config: Config, limit: int) -> CheckResult:
    """Whether as many connections are possible as are allowed.

    :param limit: how many files this process may open at most.
    """
    most = fitting(config, limit).max_connections
    if most < config.max_connections:
        text = (
            f"{limit} files may be open, so there will be {most} connections at most, not {config.max_connections}; "
            "raise the limit (ulimit -n, LimitNOFILE=) or lower FOREMAN_MAX_CONNECTIONS"
        )
        return CheckResult("descriptors", "note", text)
    return CheckResult("descriptors", "ok", f"{limit} files may be open, enough for {most} connections")


def _headers(inventory: Inventory) -> Iterable[tuple[bytes, bytes]]:
    return inventory.tags.headers if inventory.tags is not None else ()


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
