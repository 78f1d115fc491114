"""``foreman token``: make, list and revoke named tokens in the file that FOREMAN_TOKENS_FILE names."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from foreman.tokens import Holder, check_name, digest, read_file, write_file

_file = click.option(
    "--file",
    "path",
    envvar="FOREMAN_TOKENS_FILE",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of tokens; FOREMAN_TOKENS_FILE says it too.",
)
_RELOAD = "A running foreman takes this over on SIGHUP."


@click.group("token", short_help="Make, list and revoke named tokens.")
def command() -> None:
    """Named tokens: who has one may come in, and appears by name in logs and queue."""


@command.command("new")
@click.argument("name")
@click.option("--admin", is_flag=True, help="It may manage models: pull, push, create, copy, delete.")
@_file
def new(name: str, path: Path, *, admin: bool) -> None:
    """Make a token for NAME and print it, once: only its digest is kept."""
    holders = _read(path)
    try:
        check_name(name)
    except ValueError as problem:
        raise click.ClickException(f"the name {name!r} {problem}") from None
    if any(holder.name == name for holder in holders):
        raise click.ClickException(f"{name} has a token already; revoke it first: foreman token revoke {name}")
    token = secrets.token_urlsafe(24)
    _write(path, [*holders, Holder(name, digest(token), admin)])
    click.echo(token)
    click.echo(f"This is the token of {name}; it is not shown again. {_RELOAD}", err=True)


@command.command("list")
@_file
def list_(path: Path) -> None:
    """List who has a token."""
    for holder in _read(path):
        click.echo(f"{holder.name}  {'admin' if holder.admin else 'user'}")


@command.command("revoke")
@click.argument("name")
@_file
def revoke(name: str, path: Path) -> None:
    """Take the token of NAME away."""
    holders = _read(path)
    left = [holder for holder in holders if holder.name != name]
    if len(left) == len(holders):
        raise click.ClickException(f"{name} has no token in {path}")
    _write(path, left)
    click.echo(f"The token of {name} is revoked. {_RELOAD}", err=True)


def _read(path: Path) -> tuple[Holder, ...]:
    try:
        return read_file(path.read_text("utf-8"))
    except FileNotFoundError:
        return ()
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise click.ClickException(f"{path} {problem}") from None


def _write(path: Path, holders: list[Holder]) -> None:
    # Written beside and moved into place, so that a daemon that reloads never sees half a file.
    beside = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(write_file(holders))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be written: {problem.strerror}") from None
