"""``foreman models``: list the models of the target and which of them are loaded, as a running foreman knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen
from rich.console import Console
from rich.text import Text

from foreman.cli.client.errors import RequestFailed, error_detail
from foreman.cli.ui.common_options import json_option, url_option
from foreman.cli.ui.console import Column, console, expiry, human_size, objects, plain, print_table, processor, table
from foreman.cli.ui.exit_status import CLIENT_STATUSES, FAILED
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.ps_view import warnings

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient

#: Longer names of models are wrapped, in characters.
_LONG_NAME = 30
_COLUMNS = (
    Column("SIZE", "right"),
    Column("CONTEXT", "right"),
    Column("CAPABILITIES", wraps=True),
    Column("LOADED"),
    Column("UNTIL"),
)
#: The column that goes on a line of its own, below the model, if the terminal is too narrow.
_CAPABILITIES = 3


@frozen
class Models:
    """The models of a target.

    :ivar url: of foreman; :ivar health: of foreman; :ivar installed: from ``/api/tags``; :ivar loaded: from ``/api/ps``.
    """

    url: str
    health: Mapping[str, Any]
    installed: Sequence[Any]
    loaded: Sequence[Any]


@click.command(
    "models",
    cls=HelpfulCommand,
    short_help="List the models, and which of them are loaded.",
    examples=["foreman models", "foreman models --json | jq -r '.models[] | select(.loaded) | .name'"],
    exit_statuses=CLIENT_STATUSES,
)
@url_option
@json_option
def command(url: str, *, as_json: bool) -> None:
    """List the models of the target: their size, their capabilities, and until when they stay loaded.

    CONTEXT is the context length in tokens: the one in use for a loaded model, the longest possible for all others.
    """
    from foreman.cli.client.client import run_client

    models = run_client("models", url, fetch_models)
    if as_json:
        click.echo(json.dumps({"url": models.url, "health": models.health, "models": as_values(models)}, indent=2))
    else:
        show(models, console(), datetime.now(UTC))


async def fetch_models(foreman: ForemanClient) -> Models:
    """Fetch what foreman knows about the models of its target.

    :raises RequestFailed: if the request fails, or foreman does not know them yet.
    """
    health = await foreman.health()
    status, tags = await foreman.request_json("GET", "/api/tags")
    _, ps = await foreman.request_json("GET", "/api/ps")
    installed, loaded = (body.get("models") if isinstance(body, dict) else None for body in (tags, ps))
    if not isinstance(installed, list) or not isinstance(loaded, list):
        raise RequestFailed(FAILED, f"{foreman.url} did not return a list of models ({status}{error_detail(tags)})")
    return Models(foreman.url, health, installed, loaded)


def as_values(models: Models) -> list[dict[str, Any]]:
    """The models as JSON, in the order of the target: ``loaded`` is null, or the model's entry of ``/api/ps``."""
    loaded = {model.get("name"): model for model in objects(models.loaded)}
    return [
        {
            "name": model.get("name"),
            "size": model.get("size"),
            "context_length": _detail(model, "context_length"),
            "capabilities": model.get("capabilities"),
            "loaded": _loaded(loaded.get(model.get("name"))),
        }
        for model in objects(models.installed)
    ]


def show(models: Models, console: Console, now: datetime) -> None:
    """Print a table: loaded models first, then the others, each by name.

    :param now: the current time, with a time zone.
    """
    for sentence in warnings(models.health, models_known=True):
        console.print(Text(sentence, style="bold yellow"), soft_wrap=not console.is_terminal)
    rows = sorted(as_values(models), key=lambda model: (model["loaded"] is None, plain(model["name"])))
    if not rows:
        console.print(Text("the target has no models; get one with: ollama pull llama3.2:3b", style="yellow"))
        return
    # A name is wrapped only if it is long: people copy it.
    name = Column("NAME", wraps=max(len(plain(model["name"])) for model in rows) > _LONG_NAME)
    cells = [_row(model, now) for model in rows]
    below: list[str] = []
    needed = console.measure(table([name, *_COLUMNS], cells), options=console.options.update(width=1000)).maximum
    if needed > console.width and not name.wraps:
        below = [str(row[_CAPABILITIES]) for row in cells]
        for row in cells:
            row[_CAPABILITIES] = ""
    print_table(console, table([name, *_COLUMNS], cells), below, indent=2)


def _row(model: Mapping[str, Any], now: datetime) -> list[str | Text]:
    loaded = model["loaded"] or {}
    capabilities = model["capabilities"]
    return [
        Text(plain(model["name"]), style="" if loaded else "dim"),
        human_size(model["size"]),
        plain(loaded.get("context_length") or model["context_length"]),
        Text(", ".join(map(plain, capabilities)) if isinstance(capabilities, list) else ""),
        Text(processor(loaded.get("size"), loaded.get("size_vram")), style="green"),
        expiry(plain(loaded.get("expires_at")), now),
    ]


def _loaded(model: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {name: model.get(name) for name in ("size", "size_vram", "context_length", "expires_at")}


def _detail(model: Mapping[str, Any], name: str) -> Any:
    details = model.get("details")
    return details.get(name) if isinstance(details, Mapping) else None
