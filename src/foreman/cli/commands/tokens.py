"""``foreman token``: make, list and revoke named tokens in the file that FOREMAN_TOKENS_FILE names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from foreman.auth.tokens import Holder, check_name, digest, format_file, parse_file, without_holder
from foreman.cli.ui.common_options import json_option
from foreman.cli.ui.exit_status import FAILED, SUCCESS, USAGE_ERROR
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.lazy_group import SuggestingGroup
from foreman.cli.ui.setting_options import SettingVariableOption, absolute_path
from foreman.cli.ui.standard_streams import OutputLost, echo_stderr
from foreman.config.parsers import LARGEST_FILE, read_text

_file = click.option(
    "--file",
    "path",
    cls=SettingVariableOption,
    envvar="FOREMAN_TOKENS_FILE",
    show_envvar=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda _context, _parameter, path: absolute_path(path).resolve(),
    help="The file of tokens.",
)
_STATUSES = {
    SUCCESS: "done",
    FAILED: "it failed; the reason is printed",
    USAGE_ERROR: "the command was written wrongly",
}
#: What foreman does by itself, and where it does not see the file change.
_RELOAD_NOTE = (
    "A running foreman that reads this file notices the change within a second; one that was given a copy of it "
    "(systemd's LoadCredential) does after a restart."
)


@click.group("token", cls=SuggestingGroup, short_help="Make, list and revoke named tokens.")
def command() -> None:
    """Named tokens: who has one may come in, and appears by name in logs and queue."""


@command.command(
    "new",
    cls=HelpfulCommand,
    examples=["foreman token new alice", "foreman token new boss --admin"],
    exit_statuses=_STATUSES,
)
@click.argument("name")
@click.option("--admin", is_flag=True, help="It may manage models: pull, push, create, copy, delete.")
@_file
def new(name: str, path: Path, *, admin: bool) -> None:
    """Make a token for NAME and print it, once: only its digest is kept.

    Where NAME has a token already, it is another one: both are valid until one of them is revoked. A foreman that was
    given a copy of the file (systemd's LoadCredential) knows a new token after a restart.
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
        _write(path, format_file([holder], before))
    try:
        click.echo(token)
    except OutputLost:
        # A token that nobody has seen is of no use to anybody.
        with _locked(path):
            _write(path, without_holder(_read(path), name, holder.id))
        raise
    echo_stderr(
        f"This is the token of {name} ({holder.id}); it is not shown again. A running foreman knows it within a second."
    )
    for one in others:
        echo_stderr(
            f"{name} has another token, of {_created_day(one) or 'an unknown day'}; when it is no longer used: "
            f"foreman token revoke {name} --id {one.id}"
        )


@command.command(
    "list",
    cls=HelpfulCommand,
    examples=["foreman token list", "foreman token list --json | jq -r '.tokens[].name'"],
    exit_statuses=_STATUSES,
)
@_file
@json_option
def list_(path: Path, *, as_json: bool) -> None:
    """List who has a token, and since when."""
    holders = _holders(_read(path), path)
    if as_json:
        click.echo(json.dumps({"tokens": [_as_json(holder) for holder in holders]}, indent=2))
        return
    from foreman.cli.ui.console import Column, console, table

    if not holders:
        click.echo(f"there are no tokens in {path}", err=True)
        return
    columns = [Column("NAME"), Column("ROLE"), Column("ID"), Column("CREATED")]
    rows = [[one.name, "admin" if one.admin else "user", one.id, _created_day(one)] for one in holders]
    console().print(table(columns, rows))


@command.command(
    "revoke",
    cls=HelpfulCommand,
    examples=[
        "foreman token revoke alice",
        "foreman token revoke alice --id 1f3b9c04     # one of several",
        "foreman token revoke boss --force     # although no admin is left",
    ],
    exit_statuses=_STATUSES,
)
@click.argument("name")
@click.option("--id", "id_", metavar="ID", help="Only this one of NAME's tokens; foreman token list shows it.")
@click.option("--force", is_flag=True, help="Also where no admin would be left.")
@_file
def revoke(name: str, id_: str | None, path: Path, *, force: bool) -> None:
    """Take the tokens of NAME away: all of them, or one by its ID.

    The last token of an admin is taken away with --force only: without an admin everybody with a token manages models.
    """
    with _locked(path):
        text = _read(path)
        holders = _holders(text, path)
        held = [one for one in holders if one.name == name]
        gone = [one for one in held if id_ is None or one.id == id_.lower()]
        if not held:
            raise click.ClickException(f"{name} has no token in {path}")
        if not gone:
            ids = ", ".join(one.id for one in held)
            raise click.ClickException(f"{name} has no token with the id {id_}; there are: {ids}")
        is_last = any(one.admin for one in gone) and not any(one.admin for one in holders if one not in gone)
        if is_last and not force:
            raise click.ClickException(
                f"{name} is the last admin in {path}: without one, everybody with a token manages models when foreman is "
                "started again, unless FOREMAN_ADMIN_TOKEN is set; make another admin first (foreman token new NAME "
                "--admin), or use --force. Nothing was changed"
            )
        _write(path, without_holder(text, name, id_.lower() if id_ is not None else None))
    count = "The token" if len(gone) == 1 else f"{len(gone)} tokens"
    left = f", {len(held) - len(gone)} left" if len(held) > len(gone) else ""
    echo_stderr(f"{count} of {name} {'is' if len(gone) == 1 else 'are'} revoked{left}. {_RELOAD_NOTE}")
    if is_last:
        echo_stderr(
            "There is no admin in the file any more: a foreman that runs lets nobody manage models, and one that is started "
            "again everybody with a token, unless FOREMAN_ADMIN_TOKEN is set."
        )


def _as_json(holder: Holder) -> dict[str, Any]:
    return {
        "name": holder.name,
        "role": "admin" if holder.admin else "user",
        "id": holder.id,
        "created": holder.created or None,
    }


def _created_day(holder: Holder) -> str:
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
        return read_text(path, again=True) if os.path.lexists(path) else ""
    except ValueError as problem:
        raise click.ClickException(f"{path} {problem}") from None


def _holders(text: str, path: Path) -> tuple[Holder, ...]:
    try:
        return parse_file(text)
    except ValueError as problem:
        raise click.ClickException(f"{path} {problem}") from None


def _write(path: Path, text: str) -> None:
    # Written beside and moved into place, so that a daemon that reloads never sees half a file.
    if len(text.encode()) > LARGEST_FILE:
        raise click.ClickException(f"{path} would be larger than {LARGEST_FILE} bytes, and foreman reads no more")
    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be written: {problem.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _keep_access(path, file.fileno())
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


def _keep_access(path: Path, new: int) -> None:
    """Give the file ``new`` the owner, group and mode of the one at ``path``, if it is there.

    A daemon that runs as another user reads it by these: one that could not read it any more would go on with the tokens
    that it knows, revoked ones among them.
    """
    try:
        before = path.stat()
    except FileNotFoundError:
        return
    made = os.fstat(new)
    try:
        if (before.st_uid, before.st_gid) != (made.st_uid, made.st_gid):
            os.fchown(new, before.st_uid, before.st_gid)
        os.fchmod(new, stat.S_IMODE(before.st_mode) & ~stat.S_IWOTH)
    except PermissionError:
        raise click.ClickException(
            f"{path} belongs to another user or group (uid {before.st_uid}, gid {before.st_gid}), which a new file would "
            "not, so that foreman might be unable to read it: run this as its owner, or as root. Nothing was changed"
        ) from None
