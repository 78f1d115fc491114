"""``foreman token``: make, list and revoke named tokens in the file that FOREMAN_TOKENS_FILE names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from foreman.cli.asking import json_option
from foreman.cli.explained import FAILED, MISUSED, WELL, Explained
from foreman.cli.lazy import Suggesting
from foreman.cli.options import absolute
from foreman.cli.streams import OutputLost, say
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
_ENDS = {WELL: "done", FAILED: "it cannot be done; the reason is told", MISUSED: "the command was written wrongly"}
#: What foreman does by itself, and where it does not see the file change.
_TAKEN_OVER = (
    "A running foreman that reads this file notices the change within a second; one that was given a copy of it "
    "(systemd's LoadCredential) does after a restart."
)


@click.group("token", cls=Suggesting, short_help="Make, list and revoke named tokens.")
def command() -> None:
    """Named tokens: who has one may come in, and appears by name in logs and queue."""


@command.command(
    "new",
    cls=Explained,
    examples=["foreman token new alice", "foreman token new boss --admin"],
    ends=_ENDS,
)
@click.argument("name")
@click.option("--admin", is_flag=True, help="It may manage models: pull, push, create, copy, delete.")
@_file
def new(name: str, path: Path, *, admin: bool) -> None:
    """Make a token for NAME and print it, once: only its digest is kept.

    Where NAME has a token already, it is another one: both are valid until one of them is revoked.
    """
    try:
        check_name(name)
    except ValueError as problem:
        raise click.ClickException(f"the name {name!r} {problem}") from None
    token = secrets.token_urlsafe(24)
    holder = Holder(name, digest(token), admin, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    with _locked(path):
        before = _read(path)
        others = [one for one in _holders(before, path) if one.name == name]
        _write(path, write_file([holder], before))
    try:
        click.echo(token)
    except OutputLost:
        # A token that nobody has seen is of no use to anybody.
        with _locked(path):
            _write(path, without_holder(_read(path), name, holder.id))
        raise
    say(f"This is the token of {name} ({holder.id}); it is not shown again. {_TAKEN_OVER}")
    for one in others:
        say(
            f"{name} has another token, of {_day(one) or 'an unknown day'}; when it is no longer used: "
            f"foreman token revoke {name} --id {one.id}"
        )


@command.command(
    "list",
    cls=Explained,
    examples=["foreman token list", "foreman token list --json | jq -r '.tokens[].name'"],
    ends=_ENDS,
)
@_file
@json_option
def list_(path: Path, *, as_json: bool) -> None:
    """List who has a token, and since when."""
    holders = _holders(_read(path), path)
    if as_json:
        click.echo(json.dumps({"tokens": [_value(holder) for holder in holders]}, indent=2))
        return
    from foreman.cli.look import Column, console, table

    if not holders:
        click.echo(f"there are no tokens in {path}", err=True)
        return
    columns = [Column("NAME"), Column("ROLE"), Column("ID"), Column("CREATED")]
    rows = [[one.name, "admin" if one.admin else "user", one.id, _day(one)] for one in holders]
    console().print(table(columns, rows))


@command.command(
    "revoke",
    cls=Explained,
    examples=["foreman token revoke alice", "foreman token revoke alice --id 1f3b9c04     # one of several"],
    ends=_ENDS,
)
@click.argument("name")
@click.option("--id", "id_", metavar="ID", help="Only this one of NAME's tokens; foreman token list shows it.")
@_file
def revoke(name: str, id_: str | None, path: Path) -> None:
    """Take the tokens of NAME away: all of them, or one by its ID."""
    with _locked(path):
        text = _read(path)
        held = [one for one in _holders(text, path) if one.name == name]
        gone = [one for one in held if id_ is None or one.id == id_.lower()]
        if not held:
            raise click.ClickException(f"{name} has no token in {path}")
        if not gone:
            ids = ", ".join(one.id for one in held)
            raise click.ClickException(f"{name} has no token with the id {id_}; there are: {ids}")
        _write(path, without_holder(text, name, id_.lower() if id_ is not None else None))
    count = "The token" if len(gone) == 1 else f"{len(gone)} tokens"
    left = f", {len(held) - len(gone)} left" if len(held) > len(gone) else ""
    say(f"{count} of {name} {'is' if len(gone) == 1 else 'are'} revoked{left}. {_TAKEN_OVER}")


def _value(holder: Holder) -> dict[str, Any]:
    return {
        "name": holder.name,
        "role": "admin" if holder.admin else "user",
        "id": holder.id,
        "created": holder.created or None,
    }


def _day(holder: Holder) -> str:
    return holder.created.partition("T")[0]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep another ``foreman token`` from changing the file meanwhile: the change that came first would be lost."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be written: {problem.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


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
    except BaseException:  # ctrl-C
        Path(beside).unlink(missing_ok=True)
        raise
