"""``foreman install-service``: let systemd or launchd run this foreman for good."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click
from attrs import frozen
from click.core import ParameterSource

from foreman.cli.commands.settings import as_environment
from foreman.cli.supervisors import launchd, systemd
from foreman.cli.supervisors.launchd import LABEL, plist
from foreman.cli.supervisors.service import Service, foreman_executable
from foreman.cli.supervisors.systemd import unit
from foreman.cli.ui.exit_status import FAILED, SUCCESS, USAGE_ERROR
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import ParsedParam, SettingVariableOption, absolute_path
from foreman.config.parsers import seconds, unquoted
from foreman.errors import one_line


@frozen
class Plan:
    """What is written where, and what a person types then.

    :ivar file: what the supervisor reads; :ivar settings: the file with the environment; :ivar undo_steps: what a person
        types after the file was removed, so that what runs stops.
    """

    file: Path
    text: str
    settings: Path
    steps: tuple[str, ...]
    undo_steps: tuple[str, ...]


#: What stands in every file that this command has written.
_MARK = "foreman install-service"


@click.command(
    "install-service",
    cls=HelpfulCommand,
    short_help="Let systemd or launchd run foreman.",
    examples=[
        "foreman install-service",
        "foreman install-service --token-file ~/.config/foreman/token",
        "sudo /opt/foreman/bin/foreman install-service --system",
        "foreman install-service --print | less",
        "foreman install-service --remove",
    ],
    exit_statuses={
        SUCCESS: "the file is written, or was there already; with --remove: it is removed",
        FAILED: "it cannot be written or removed, or was changed by hand",
        USAGE_ERROR: "the command was written wrongly",
    },
)
@click.option("--system", is_flag=True, help="For the system, not for you alone; needs root. Linux only.")
@click.option("--print", "only_print", is_flag=True, help="Print the file, and write nothing.")
@click.option(
    "--force", is_flag=True, help="Overwrite or remove a file that was changed, or that foreman did not write."
)
@click.option("--remove", is_flag=True, help="Remove the file; settings and jobs stay.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with a token that every caller must have; where it is not given, the one of the file that is there stays.",
)
@click.option(
    "--drain-timeout",
    cls=SettingVariableOption,
    type=ParsedParam("DURATION", lambda text: seconds(unquoted(text))),
    envvar="FOREMAN_DRAIN_TIMEOUT",
    default="30s",
    show_default=True,
    show_envvar=True,
    help="How long running answers may take at the end; the supervisor waits 10 s longer.",
)
def command(
    *, system: bool, only_print: bool, force: bool, remove: bool, token_file: Path | None, drain_timeout: float
) -> None:
    """Write the file by which systemd (Linux) or launchd (macOS) runs this foreman, and a file for its settings.

    Nothing is started: what to type for that is said at the end. A file that has something else in it is left alone. An
    option that is not given stays as it was when the file was written; --remove first to begin anew.
    """
    if remove and only_print:
        raise click.UsageError(
            "--print shows the file that would be written, and --remove writes none: give one of them"
        )
    program = foreman_executable()
    if program is None:
        if not remove:
            raise click.ClickException(
                "the foreman command is not installed: there is no file that a supervisor could run"
            )
        program = Path("foreman")  # for --remove the text of the file, which names the program, is not used
    token = None if token_file is None else absolute_path(token_file)
    try:
        home = Path("/") if system else absolute_path(Path("~"))
        planned = partial(plan, sys.platform, home, os.environ, program, system=system)
        kept_token, kept_drain = previous_options(planned(drain_timeout, token).file, sys.platform)
        before = planned(kept_drain or drain_timeout, kept_token).text
        source = click.get_current_context().get_parameter_source("drain_timeout")
        if source == ParameterSource.DEFAULT and kept_drain is not None:
            drain_timeout = kept_drain
        token = token or kept_token
        made = planned(drain_timeout, token)
    except ValueError as problem:
        raise click.UsageError(str(problem)) from None
    if only_print:
        click.echo(made.text, nl=False)
        return
    if remove:
        _remove(made, force=force)
        return
    _write(made, before, force=force)
    for warning in warnings(program, token, system=system):
        click.echo(f"note: {warning}", err=True)
    click.echo("\nNext:")
    for step in made.steps:
        click.echo(f"  {step}")


def plan(
    platform: str,
    home: Path,
    environ: Mapping[str, str],
    program: Path,
    drain: float,
    token: Path | None,
    *,
    system: bool,
) -> Plan:
    """What to write on ``platform`` (as ``sys.platform`` names it) for a ``program`` that is to run.

    :param drain: seconds that running answers may take at the end; :param token: the file with a token for all, if any.
    :raises ValueError: with a sentence, where foreman cannot be installed so.
    """
    # The XDG specification: what is not absolute is to be ignored.
    chosen = environ.get("XDG_CONFIG_HOME", "")
    mine = Path(chosen) if chosen.startswith("/") else home / ".config"
    settings = (Path("/etc") if system else mine) / "foreman" / "foreman.env"
    for path in (program, settings) if token is None else (program, settings, token):
        _check_path(path)
    service = Service(program, settings, drain, token)
    if platform == "linux":
        folder = Path("/etc/systemd/system") if system else mine / "systemd" / "user"
        control = "systemctl" if system else "systemctl --user"
        return Plan(
            folder / "foreman.service",
            unit(service, system=system),
            settings,
            _systemd_steps(service, system=system),
            (f"{control} stop foreman", f"{control} daemon-reload"),
        )
    if platform != "darwin":
        raise ValueError(f"neither systemd nor launchd is known on {platform}")
    if system:
        raise ValueError("on macOS foreman runs as your agent, where Ollama runs too; leave --system out")
    library = home / "Library"
    text = plist(service, library / "Logs" / "foreman.log")
    file = library / "LaunchAgents" / f"{LABEL}.plist"
    undo_steps = (f"launchctl bootout gui/$(id -u)/{LABEL}     # stops it",)
    return Plan(file, text, settings, _launchd_steps(service, file), undo_steps)


def previous_options(file: Path, platform: str) -> tuple[Path | None, float | None]:
    """The file with a token and the seconds of drain with which ``file`` was written before; None for what is not known."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeError):
        return None, None
    if _MARK not in text:
        return None, None
    token, drain = launchd.read_options(text) if platform == "darwin" else systemd.read_options(text)
    try:
        return Path(token) if token else None, seconds(drain) if drain else None
    except ValueError:
        return Path(token) if token else None, None


def _systemd_steps(service: Service, *, system: bool) -> tuple[str, ...]:
    control, journal = ("systemctl", "journalctl") if system else ("systemctl --user", "journalctl --user")
    steps = [
        f"$EDITOR {service.settings}",
        f"{control} daemon-reload",
        f"{control} enable --now foreman",
        f"{journal} -u foreman -f     # its log",
        f"{service.command} ps",
    ]
    if not system:
        steps.insert(3, "loginctl enable-linger     # so that it also runs while you are not logged in")
    return tuple(steps)


def _launchd_steps(service: Service, file: Path) -> tuple[str, ...]:
    return (
        f"$EDITOR {service.settings}",
        f"launchctl bootstrap gui/$(id -u) {file}",
        "tail -f ~/Library/Logs/foreman.log",
        f"{service.command} ps",
        f"launchctl kickstart -k gui/$(id -u)/{LABEL}     # after each change",
    )


def _read_text(file: Path) -> str | None:
    """What is written in ``file``, None where it is not there; bytes that are no UTF-8 are replaced."""
    return file.read_text("utf-8", errors="replace") if file.exists() else None


def _remove(made: Plan, *, force: bool) -> None:
    """Remove what the supervisor reads, if it is foreman's; what is a person's own stays."""
    try:
        text = _read_text(made.file)
        if text is None and made.file.is_symlink() and not force:
            leads = f"{made.file} is a link to {made.file.readlink()}, which is not there"
            raise click.ClickException(f"{leads}; --force removes it")
        if text is None and not made.file.is_symlink():
            click.echo(f"{made.file} is not there")
            return
        if text is not None and _MARK not in text and not force:
            raise click.ClickException(f"{made.file} was not written by foreman install-service; --force removes it")
        made.file.unlink()
        # What "systemctl enable" has left: without the file it cannot be disabled any more.
        for folder in made.file.parent.glob("*.target.wants"):
            if (link := folder / made.file.name).is_symlink():
                link.unlink()
    except OSError as problem:
        raise click.ClickException(f"{made.file} cannot be removed: {problem.strerror}") from None
    click.echo(f"removed {made.file}; {made.settings} and the jobs are left as they are")
    click.echo("\nNext:")
    for step in made.undo_steps:
        click.echo(f"  {step}")


def _write(made: Plan, before: str, *, force: bool) -> None:
    """Write both files; the settings only where there are none yet, since they are the person's own.

    :param before: what the command would write with the options it was given before: such a file nobody has changed.
    """
    writing = made.file
    try:
        there = _read_text(made.file)
        if there == made.text:
            click.echo(f"{made.file} is there already, as it would be written")
        elif there not in {None, before} and not force:
            assert there is not None
            lines = difflib.unified_diff(there.splitlines(), made.text.splitlines(), "there", "would be", "", "", 1, "")
            click.echo("\n".join(lines))
            raise click.ClickException(f"{made.file} has something else in it, as shown; --force writes over it")
        else:
            _write_atomically(made.file, made.text, 0o644)
            click.echo(f"wrote {made.file}")
        writing = made.settings
        if made.settings.exists():
            click.echo(f"{made.settings} has your settings; it is left as it is")
        else:
            made.settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_atomically(made.settings, as_environment(), 0o600)
            click.echo(f"wrote {made.settings}, with every setting commented out")
    except PermissionError:
        raise click.ClickException(f"{writing} cannot be written; --system needs root (sudo)") from None
    except OSError as problem:
        raise click.ClickException(f"{writing} cannot be written: {problem.strerror}") from None


def _write_atomically(file: Path, text: str, mode: int) -> None:
    """Write ``text`` beside ``file``, and move it into its place: whoever reads it never sees a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file = Path(os.path.realpath(file))  # a link stays what it is
    if file.exists() and not file.is_file():  # systemctl mask makes a link to /dev/null
        raise OSError(errno.EINVAL, f"{file} is not a regular file")
    descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            os.fchmod(new.fileno(), mode)
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        Path(beside).replace(file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _check_path(path: Path) -> None:
    """Whether a supervisor's file can name ``path``, and foreman read it there.

    :raises ValueError: with a sentence, when it is not text, would begin another line, or does not mean itself.
    """
    text = str(path)
    try:
        why = "" if unquoted(text) == text else "ends with a blank or a line break"
    except ValueError as problem:
        why = str(problem)
    if why:
        raise ValueError(f"the name of the file {one_line(ascii(text))} {why}; give it another one")


def warnings(program: Path, token: Path | None, *, system: bool) -> list[str]:
    """What will keep the service from starting, in sentences."""
    found = []
    if ".venvs" in program.parts:
        found.append(
            f"{program} is in a checkout: if that is removed or changed, so is the program; "
            "docs/running.md says how to install foreman on its own"
        )
    closed = [folder for folder in program.resolve().parents if not folder.stat().st_mode & 0o001] if system else []
    if closed:
        found.append(
            f"{closed[-1]} is closed to others, so that the service cannot start {program}: install it in /opt"
        )
    if token is not None and not token.is_file():
        found.append(f"{token} is not there yet; foreman does not start without it")
    return found
