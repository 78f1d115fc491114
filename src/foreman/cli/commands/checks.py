"""The checks of ``foreman check``: would foreman work with these settings on this machine, now?"""

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

from foreman.cli.client.client import ForemanClient, make_agent, run_request
from foreman.cli.client.errors import RequestFailed
from foreman.cli.database_files import check_library, examine
from foreman.config.listen_address import is_private, url_of
from foreman.config.settings import Config
from foreman.errors import ConnectionError as TargetAway
from foreman.errors import ForemanError, HTTPError
from foreman.protocol import lenient_json
from foreman.store.errors import StoreInUse, StoreRefused, StoreUnavailable
from foreman.system.listening import listen_error
from foreman.tap import raise_descriptor_limit, within_descriptor_limit
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for
from foreman.target.inventory import Inventory
from foreman.target.model_list import POLL_TIMEOUT
from foreman.target.models import Availability
from foreman.target.state import ANSWERS_WRONGLY
from foreman.util.deadline import within
from foreman.util.file_permissions import database_problems

#: When this code was written: a clock that shows an earlier time is wrong.
_EARLIEST_DATE = datetime(2026, 11, 1, tzinfo=UTC)
#: How much two clocks may differ without a note, in seconds.
_MAX_CLOCK_SKEW = 60.0
#: How long a server on the port may take to show that it is foreman, in seconds.
_HEALTH_TIMEOUT = 1.0
#: Less free space than this gets a note, in bytes.
_LOW_DISK_SPACE = 1_000_000_000
#: Endpoints whose sockets are inherited from the process that starts foreman.
_INHERITED = {"systemd", "fd", "stdio"}


#: ``bad``: foreman would not work; ``note``: it would, but with a limitation.
State = Literal["ok", "note", "bad"]


@frozen
class CheckResult:
    """The result of one check.

    :ivar text: one sentence for people.
    """

    name: str
    state: State
    text: str


async def run_checks(reactor: Any, config: Config, wall_clock: Callable[[], float]) -> list[CheckResult]:
    """Run every check; return the results in the order of the output.

    :param wall_clock: seconds since the epoch.
    """
    client = TargetClient(
        reactor, endpoint_for(reactor, config.target, config.connect_timeout), config.target, config.target_token
    )
    inventory = Inventory(reactor, client, config.poll_interval)
    results = [await check_target(reactor, client, inventory)]
    if config.embedder_model is not None:
        results.append(check_embedder(inventory, config.embedder_model))
    date = next((value for name, value in _headers(inventory) if name.lower() == b"date"), None)
    return [
        *results,
        await check_port(reactor, config.listen),
        check_store(config),
        check_access(config),
        check_clock(wall_clock(), None if date is None else date.decode("latin-1")),
        check_descriptors(config, raise_descriptor_limit()),
    ]


async def check_target(reactor: Any, client: TargetClient, inventory: Inventory) -> CheckResult:
    """Check whether the target answers, with which version and models."""
    url = client.address.masked_url
    await inventory.refresh()
    if inventory.degraded is not None:
        detail, status = f"{url}: {_without_page(inventory.degraded.detail)}", inventory.degraded.status
        refused = status in {401, 403}
        if status in {503, 508}:
            detail += await _loop_hint(client)
        hint = "; does it require a token? Set FOREMAN_TARGET_TOKEN" if refused else ""
        if inventory.degraded.reason == "reset" and client.address.scheme == "http":
            hint = "; if it requires TLS, use an https:// address"
        if inventory.degraded.reason in ANSWERS_WRONGLY:
            if await _foreman_as_target(reactor, client):
                hint += "; it is a foreman itself: use the address of Ollama"
            elif client.address.path and not refused:
                path = client.address.masked_url.removeprefix(evolve(client.address, path="").url)
                hint += f"; Ollama's own address has no path: remove {path}"
        return CheckResult("target", "bad", detail + hint)
    try:
        version = await within(Deferred.fromCoroutine(client.version()), POLL_TIMEOUT, reactor)
    except (TargetAway, HTTPError, KeyError, TimeoutError) as problem:
        return CheckResult("target", "bad", f"{url} lists its models, but not its version: {problem}")
    text = (
        f"{url} is Ollama {version} with {_counted(len(inventory.installed), 'model')}, {len(inventory.running)} loaded"
    )
    if await _foreman_as_target(reactor, client):
        return CheckResult(
            "target", "note", f"{text}; but it is a foreman itself, in front of that Ollama: requests would queue twice"
        )
    missing = "".join(f"; there is no list at {path}: {why}" for path, why in inventory.missing.items())
    return CheckResult("target", "ok" if inventory.installed and not missing else "note", text + missing)


def _without_page(detail: str) -> str:
    """The detail of the inventory, without the web page that a server other than Ollama returns."""
    begin, _, page = detail.partition(": ")
    if begin.startswith("the target answered ") and page.lstrip().startswith("<"):
        return f"{begin} with a web page; is it Ollama?"
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
    """A hint if the target forwards its requests back to itself."""
    try:
        await client.version()
    except HTTPError as problem:
        return f"; {problem.text}" if problem.status == 508 else ""
    except (TargetAway, KeyError):
        return ""
    return ""


def check_embedder(inventory: Inventory, model: str) -> CheckResult:
    """Check whether the model to keep loaded is installed; ``inventory`` has been refreshed."""
    try:
        availability = inventory.find(model)
    except ForemanError as problem:
        return CheckResult("embedder", "bad", f"FOREMAN_EMBEDDER_MODEL: {problem}")
    if availability is Availability.INSTALLED:
        return CheckResult("embedder", "ok", f"{model} is installed")
    if availability is Availability.UNKNOWN:
        return CheckResult("embedder", "note", f"it is not known whether {model} is installed")
    return CheckResult("embedder", "bad", f"{model} is not installed; get it with: ollama pull {model}")


async def check_port(reactor: Any, listen: str) -> CheckResult:
    """Check whether foreman can listen there, by listening for a moment."""
    if listen.partition(":")[0] in _INHERITED:
        return CheckResult(
            "port", "note", f"{listen} is inherited from the process that starts foreman and cannot be tested here"
        )
    try:
        listening = await serverFromString(reactor, listen).listen(_RefusingFactory())
    except CannotListenError as problem:
        url = url_of(listen)
        if url is not None and (health := await _foreman_at(reactor, url)):
            return CheckResult("port", "note", f"a foreman already listens on {listen}; its status is {health}")
        return CheckResult("port", "bad", listen_error(listen, problem))
    except Exception as problem:  # noqa: BLE001 - plugins and key files raise exceptions of their own
        return CheckResult("port", "bad", listen_error(listen, problem))
    await listening.stopListening()
    return CheckResult("port", "ok", f"{listen} is free")


class _RefusingFactory(Factory):
    """Refuses every connection."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        return None


async def _foreman_at(reactor: Any, url: str) -> str:
    """The status of the foreman at ``url``, empty if there is none."""
    try:
        health = await run_request(url, ForemanClient(url, make_agent(reactor)).health(), reactor, _HEALTH_TIMEOUT)
    except RequestFailed:
        return ""
    return f"{health.get('status')}{', degraded' if health.get('degraded') else ''}"


def check_access(config: Config) -> CheckResult:
    """Check who can send requests."""
    if config.auth_token or config.admin_token or config.tokens_file:
        return CheckResult("access", "ok", "a token is required")
    if is_private(config.listen):
        return CheckResult("access", "ok", "no token is required, and only this machine can connect")
    return CheckResult("access", "note", "no token is required: anyone who can connect can chat and delete models")


def check_store(config: Config) -> CheckResult:
    """Check whether jobs can be stored."""
    path = config.db_path
    assert path is not None
    try:
        check_library()
        return _store_at(path, config.disk_reserve)
    except StoreUnavailable as problem:
        return CheckResult("store", "bad", str(problem))
    except OSError as problem:  # a directory without permission, or the working directory was removed
        return CheckResult("store", "bad", f"{path} cannot be used: {problem.strerror or problem}")


def _store_at(path: Path, reserve: int) -> CheckResult:
    folder = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        text = f"{folder} is not writable: no jobs would be accepted; FOREMAN_DB_PATH sets another place"
        return CheckResult("store", "bad", text)
    if path.exists():
        try:
            examine(path)
        except StoreInUse:
            return CheckResult("store", "note", f"a running foreman uses {path}")
        except (StoreRefused, StoreUnavailable) as problem:
            return CheckResult("store", "bad", str(problem))
    free, problems = shutil.disk_usage(folder).free, list(database_problems(path))
    if free < reserve:
        problems.insert(
            0, f"{path}: the disk has {free} bytes free, less than FOREMAN_DISK_RESERVE: no jobs would be accepted"
        )
    elif free < _LOW_DISK_SPACE:
        problems.insert(0, f"{path}: the disk has only {free // 10**6} MB free")
    if problems:
        return CheckResult("store", "bad" if free < reserve else "note", "; and ".join(problems))
    return CheckResult(
        "store", "ok", f"jobs are stored in {path}" if path.exists() else f"jobs will be stored in {path}"
    )


def check_clock(now: float, date: str | None) -> CheckResult:
    """Check whether the clock can be right, and agrees with the target.

    :param now: seconds since the epoch; :param date: the ``Date`` header of the target, if any.
    """
    now_utc = datetime.fromtimestamp(now, UTC)
    if now_utc < _EARLIEST_DATE:
        return CheckResult(
            "clock",
            "bad",
            f"the clock is wrong: it shows {now_utc:%Y-%m-%d}; TLS, ids and the log would fail or be wrong",
        )
    try:
        skew = (now_utc - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError):
        return CheckResult("clock", "ok", f"{now_utc:%Y-%m-%d %H:%M:%S} UTC")
    if abs(skew) > _MAX_CLOCK_SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        text = f"this machine is {abs(skew):.0f} s {direction} the target: the times when models expire will be wrong"
        return CheckResult("clock", "note", text)
    return CheckResult("clock", "ok", f"{now_utc:%Y-%m-%d %H:%M:%S} UTC, the same as on the target")


def check_descriptors(config: Config, limit: int) -> CheckResult:
    """Check whether there are enough descriptors for the allowed connections.

    :param limit: the most files that this process may open.
    """
    allowed = within_descriptor_limit(config, limit).max_connections
    if allowed < config.max_connections:
        text = (
            f"{limit} files can be open, so there will be at most {allowed} connections, not {config.max_connections}; "
            "raise the limit (ulimit -n, LimitNOFILE=) or lower FOREMAN_MAX_CONNECTIONS"
        )
        return CheckResult("descriptors", "note", text)
    return CheckResult("descriptors", "ok", f"{limit} files can be open, enough for {allowed} connections")


def _headers(inventory: Inventory) -> Iterable[tuple[bytes, bytes]]:
    return inventory.tags.headers if inventory.tags is not None else ()


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
