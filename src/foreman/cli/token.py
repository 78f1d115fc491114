"""``foreman token``: make, list and revoke named tokens in the file that FOREMAN_TOKENS_FILE names."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

import click

from foreman.cli.options import absolute
from foreman.tokens import Holder, check_name, digest, read_file, without_holder, write_file

_file = click.option(
    "--file",
    "path",
    envvar="FOREMAN_TOKENS_FILE",
    show_envvar=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda _context, _parameter, path: absolute(path).resolve(),
    help="The file of tokens.",
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
    text = _read(path)
    try:
        check_name(name)
    except ValueError as problem:
        raise click.ClickException(f"the name {name!r} {problem}") from None
    if any(holder.name == name for holder in _holders(text, path)):
        raise click.ClickException(f"{name} has a token already; revoke it first: foreman token revoke {name}")
    token = secrets.token_urlsafe(24)
    _write(path, write_file([Holder(name, digest(token), admin)], text))
    click.echo(token)
    click.echo(f"This is the token of {name}; it is not shown again. {_RELOAD}", err=True)


@command.command("list")
@_file
def list_(path: Path) -> None:
    """List who has a token."""
    for holder in _holders(_read(path), path):
        click.echo(f"{holder.name}  {'admin' if holder.admin else 'user'}")


@command.command("revoke")
@click.argument("name")
@_file
def revoke(name: str, path: Path) -> None:
    """Take the token of NAME away."""
    text = _read(path)
    if all(holder.name != name for holder in _holders(text, path)):
        raise click.ClickException(f"{name} has no token in {path}")
    _write(path, without_holder(text, name))
    click.echo(f"The token of {name} is revoked. {_RELOAD}", err=True)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} is not text") from None


def _holders(text: str, path: Path) -> tuple[Holder, ...]:
    try:
        return read_file(text)
    except ValueError as problem:
        raise click.ClickException(f"{path} {problem}") from None


def _write(path: Path, text: str) -> None:
    # Written beside and moved into place, so that a daemon that reloads never sees half a file. Its owner stays: the
    # daemon may be somebody else than whoever calls this.
    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be written: {problem.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                owner = path.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except OSError as problem:
        Path(beside).unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {problem.strerror}") from None
