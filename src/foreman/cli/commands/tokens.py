"""``foreman token``: create, list and revoke named tokens in the file that FOREMAN_TOKENS_FILE names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from foreman.auth.tokens import Holder, check_name, digest, format_file, parse_file, without_holder
from foreman.cli.atomic_file import write_atomically
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
    help="The tokens file.",
)
_STATUSES = {
    SUCCESS: "success",
    FAILED: "failure; the reason is printed",
    USAGE_ERROR: "wrong usage of the command",
}
#: When a change of the file takes effect.
_RELOAD_NOTE = (
    "A running foreman that reads this file applies the change within a second; one that has a copy of it "
    "(systemd's LoadCredential) applies it after a restart."
)


@click.group("token", cls=SuggestingGroup, short_help="Create, list and revoke named tokens.")
def command() -> None:
    """Manage named tokens. A caller with a token may send requests, and appears by name in the log and the queue."""


@command.command(
    "new",
    cls=HelpfulCommand,
    examples=["foreman token new alice", "foreman token new boss --admin"],
    exit_statuses=_STATUSES,
)
@click.argument("name")
@click.option("--admin", is_flag=True, help="Allow it to manage models: pull, push, create, copy, delete.")
@_file
def new(name: str, path: Path, *, admin: bool) -> None:
    """Create a token for NAME and print it. It cannot be shown again: only its digest is stored.

    If NAME has a token already, this is an additional one; both are valid until revoked. A foreman that has a copy of the
    file (systemd's LoadCredential) accepts a new token after a restart.
    """
    try:
        check_name(name)
    except ValueError as problem:
        raise click.ClickException(f"the name {name!r} {problem}") from None
    token = secrets.token_urlsafe(24)
    holder = Holder(name, digest(token), admin, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    with _locked(path):
        before = _read(path)
        others = [holder for holder in _holders(before, path) if holder.name == name]
        _write(path, format_file([holder], before))
    try:
        click.echo(token)
    except OutputLost:
        # A token that could not be printed is useless.
        with _locked(path):
            _write(path, without_holder(_read(path), name, holder.id))
        raise
    echo_stderr(
        f"This is the token of {name} ({holder.id}); it cannot be shown again. A running foreman accepts it within a second."
    )
    for holder in others:
        echo_stderr(
            f"{name} has another token, created on {_created_day(holder) or 'an unknown day'}; to revoke it: "
            f"foreman token revoke {name} --id {holder.id}"
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
    """List the tokens: their names, roles, ids and days of creation."""
    holders = _holders(_read(path), path)
    if as_json:
        click.echo(json.dumps({"tokens": [_as_json(holder) for holder in holders]}, indent=2))
        return
    from foreman.cli.ui.console import Column, console, table

    if not holders:
        click.echo(f"there are no tokens in {path}", err=True)
        return
    columns = [Column("NAME"), Column("ROLE"), Column("ID"), Column("CREATED")]
    rows = [[holder.name, "admin" if holder.admin else "user", holder.id, _created_day(holder)] for holder in holders]
    console().print(table(columns, rows))


@command.command(
    "revoke",
    cls=HelpfulCommand,
    examples=[
        "foreman token revoke alice",
        "foreman token revoke alice --id 1f3b9c04     # one of several tokens",
        "foreman token revoke boss --force     # even if no admin is left",
    ],
    exit_statuses=_STATUSES,
)
@click.argument("name")
@click.option("--id", "id_", metavar="ID", help="Revoke only the token with this ID; see foreman token list.")
@click.option("--force", is_flag=True, help="Revoke it even if no admin is left.")
@_file
def revoke(name: str, id_: str | None, path: Path, *, force: bool) -> None:
    """Revoke the tokens of NAME: all of them, or one by its ID.

    Revoking the last admin token needs --force: without an admin, everyone with a token may manage models.
    """
    with _locked(path):
        text = _read(path)
        holders = _holders(text, path)
        held = [holder for holder in holders if holder.name == name]
        revoked = [holder for holder in held if id_ is None or holder.id == id_.lower()]
        if not held:
            raise click.ClickException(f"{name} has no token in {path}")
        if not revoked:
            ids = ", ".join(holder.id for holder in held)
            raise click.ClickException(f"{name} has no token with the id {id_}; there are: {ids}")
        is_last = any(holder.admin for holder in revoked) and not any(
            holder.admin for holder in holders if holder not in revoked
        )
        if is_last and not force:
            raise click.ClickException(
                f"{name} is the last admin in {path}: without one, everyone with a token may manage models after "
                "the next start of foreman, unless FOREMAN_ADMIN_TOKEN is set; create another admin first (foreman token new NAME "
                "--admin), or use --force. Nothing was changed"
            )
        _write(path, without_holder(text, name, id_.lower() if id_ is not None else None))
    count = "The token" if len(revoked) == 1 else f"{len(revoked)} tokens"
    rest = f", {len(held) - len(revoked)} left" if len(held) > len(revoked) else ""
    echo_stderr(f"{count} of {name} {'is' if len(revoked) == 1 else 'are'} revoked{rest}. {_RELOAD_NOTE}")
    if is_last:
        echo_stderr(
            "The file has no admin any more: a running foreman lets nobody manage models, and after its next start "
            "everyone with a token, unless FOREMAN_ADMIN_TOKEN is set."
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
    """Lock the file against another ``foreman token``, so that no change is lost."""
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
    if len(text.encode()) > LARGEST_FILE:
        raise click.ClickException(f"{path} would be larger than {LARGEST_FILE} bytes, the most that foreman reads")
    try:
        write_atomically(path, text, lambda new: _keep_access(path, new))
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be written: {problem.strerror}") from None


def _keep_access(path: Path, new: int) -> None:
    """Give the file ``new`` the owner, group and mode of the one at ``path``, if that exists.

    A daemon that runs as another user needs them to read the file: one that cannot read it any more would keep the tokens
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
            f"{path} belongs to another user or group (uid {before.st_uid}, gid {before.st_gid}), and a new file would "
            "not, so foreman might be unable to read it; run this as its owner or as root. Nothing was changed"
        ) from None
