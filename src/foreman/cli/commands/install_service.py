"""``foreman install-service``: install this foreman as a service of systemd or launchd."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click
from attrs import frozen
from click.core import ParameterSource

from foreman.cli.atomic_file import write_atomically
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
    """The files to write, and the commands to run afterwards.

    :ivar file: the unit or property list; :ivar text: its content; :ivar settings: the environment file; :ivar steps: the
        commands that start the service; :ivar undo_steps: those that stop it after the file was removed.
    """

    file: Path
    text: str
    settings: Path
    steps: tuple[str, ...]
    undo_steps: tuple[str, ...]


#: A text in every file that this command has written.
_MARK = "foreman install-service"


@click.command(
    "install-service",
    cls=HelpfulCommand,
    short_help="Install foreman as a service of systemd or launchd.",
    examples=[
        "foreman install-service",
        "foreman install-service --token-file ~/.config/foreman/token",
        "sudo /opt/foreman/bin/foreman install-service --system",
        "foreman install-service --print | less",
        "foreman install-service --remove",
    ],
    exit_statuses={
        SUCCESS: "the file is written, or up to date; with --remove: it is removed",
        FAILED: "the file cannot be written or removed, or was changed by hand",
        USAGE_ERROR: "wrong usage of the command",
    },
)
@click.option("--system", is_flag=True, help="Install for the system instead of your user; needs root. Linux only.")
@click.option("--print", "only_print", is_flag=True, help="Print the file instead of writing it.")
@click.option(
    "--force", is_flag=True, help="Overwrite or remove a file that was changed by hand or not written by foreman."
)
@click.option("--remove", is_flag=True, help="Remove the file; settings and jobs are kept.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with a token that every caller must send; by default the one of the installed file is kept.",
)
@click.option(
    "--drain-timeout",
    cls=SettingVariableOption,
    type=ParsedParam("DURATION", lambda text: seconds(unquoted(text))),
    envvar="FOREMAN_DRAIN_TIMEOUT",
    default="30s",
    show_default=True,
    show_envvar=True,
    help="How long running answers may take at shutdown; the supervisor waits 10 s longer.",
)
def command(
    *, system: bool, only_print: bool, force: bool, remove: bool, token_file: Path | None, drain_timeout: float
) -> None:
    """Write the file with which systemd (Linux) or launchd (macOS) runs this foreman, and a file for its settings.

    Nothing is started: the commands for that are printed at the end. A file with other content is not overwritten. Options
    that are not given keep their values from the installed file; use --remove first to start over.
    """
    if remove and only_print:
        raise click.UsageError("--print and --remove cannot be used together")
    program = foreman_executable()
    if program is None:
        if not remove:
            raise click.ClickException(
                "the foreman command is not installed: there is no program that a supervisor could run"
            )
        program = Path("foreman")  # --remove does not use the text of the file, which names the program
    token = None if token_file is None else absolute_path(token_file)
    try:
        home = Path("/") if system else absolute_path(Path("~"))
        planned = partial(plan, sys.platform, home, os.environ, program, system=system)
        kept_token, kept_drain = previous_options(planned(drain_timeout, token).file, sys.platform)
        previous_text = planned(kept_drain or drain_timeout, kept_token).text
        source = click.get_current_context().get_parameter_source("drain_timeout")
        if source == ParameterSource.DEFAULT and kept_drain is not None:
            drain_timeout = kept_drain
        token = token or kept_token
        new_plan = planned(drain_timeout, token)
    except ValueError as problem:
        raise click.UsageError(str(problem)) from None
    if only_print:
        click.echo(new_plan.text, nl=False)
        return
    if remove:
        _remove(new_plan, force=force)
        return
    _write(new_plan, previous_text, force=force)
    for warning in warnings(program, token, system=system):
        click.echo(f"note: {warning}", err=True)
    click.echo("\nNext:")
    for step in new_plan.steps:
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
    """The files to write on ``platform`` (a value of ``sys.platform``) for the program ``program``.

    :param drain: how long running answers may take at shutdown, in seconds; :param token: the file with the token, if any.
    :raises ValueError: with a sentence, if foreman cannot be installed this way.
    """
    # The XDG specification: a relative path is to be ignored.
    chosen = environ.get("XDG_CONFIG_HOME", "")
    user_config = Path(chosen) if chosen.startswith("/") else home / ".config"
    settings = (Path("/etc") if system else user_config) / "foreman" / "foreman.env"
    for path in (program, settings) if token is None else (program, settings, token):
        _check_path(path)
    service = Service(program, settings, drain, token)
    if platform == "linux":
        folder = Path("/etc/systemd/system") if system else user_config / "systemd" / "user"
        control = "systemctl" if system else "systemctl --user"
        return Plan(
            folder / "foreman.service",
            unit(service, system=system),
            settings,
            _systemd_steps(service, system=system),
            (f"{control} stop foreman", f"{control} daemon-reload"),
        )
    if platform != "darwin":
        raise ValueError(f"there is neither systemd nor launchd on {platform}")
    if system:
        raise ValueError("on macOS foreman runs as an agent of your user, like Ollama; omit --system")
    library = home / "Library"
    text = plist(service, library / "Logs" / "foreman.log")
    file = library / "LaunchAgents" / f"{LABEL}.plist"
    undo_steps = (f"launchctl bootout gui/$(id -u)/{LABEL}     # stops it",)
    return Plan(file, text, settings, _launchd_steps(service, file), undo_steps)


def previous_options(file: Path, platform: str) -> tuple[Path | None, float | None]:
    """The token file and the drain timeout in seconds with which ``file`` was written before; None for each that is unknown."""
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
        steps.insert(3, "loginctl enable-linger     # run it also while you are logged out")
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
    """The content of ``file``, None if it does not exist; invalid UTF-8 is replaced."""
    return file.read_text("utf-8", errors="replace") if file.exists() else None


def _remove(new_plan: Plan, *, force: bool) -> None:
    """Remove the unit or property list if foreman wrote it; settings and jobs are kept."""
    try:
        text = _read_text(new_plan.file)
        if text is None and new_plan.file.is_symlink() and not force:
            leads = f"{new_plan.file} is a link to {new_plan.file.readlink()}, which does not exist"
            raise click.ClickException(f"{leads}; --force removes it")
        if text is None and not new_plan.file.is_symlink():
            click.echo(f"{new_plan.file} does not exist")
            return
        if text is not None and _MARK not in text and not force:
            raise click.ClickException(
                f"{new_plan.file} was not written by foreman install-service; --force removes it"
            )
        new_plan.file.unlink()
        # The links of "systemctl enable": without the file it cannot be disabled any more.
        for folder in new_plan.file.parent.glob("*.target.wants"):
            if (link := folder / new_plan.file.name).is_symlink():
                link.unlink()
    except OSError as problem:
        raise click.ClickException(f"{new_plan.file} cannot be removed: {problem.strerror}") from None
    click.echo(f"removed {new_plan.file}; {new_plan.settings} and the jobs are kept")
    click.echo("\nNext:")
    for step in new_plan.undo_steps:
        click.echo(f"  {step}")


def _write(new_plan: Plan, previous_text: str, *, force: bool) -> None:
    """Write both files; the settings only if they do not exist yet, since they belong to the user.

    :param previous_text: the content with the previous options: a file with this content was not changed by hand.
    """
    current_file = new_plan.file
    try:
        current = _read_text(new_plan.file)
        if current == new_plan.text:
            click.echo(f"{new_plan.file} is up to date")
        elif current not in {None, previous_text} and not force:
            assert current is not None
            lines = difflib.unified_diff(
                current.splitlines(), new_plan.text.splitlines(), "installed", "new", "", "", 1, ""
            )
            click.echo("\n".join(lines))
            raise click.ClickException(f"{new_plan.file} was changed, as shown above; --force overwrites it")
        else:
            _write_file(new_plan.file, new_plan.text, 0o644)
            click.echo(f"wrote {new_plan.file}")
        current_file = new_plan.settings
        if new_plan.settings.exists():
            click.echo(f"{new_plan.settings} has your settings; it is not changed")
        else:
            new_plan.settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_file(new_plan.settings, as_environment(), 0o600)
            click.echo(f"wrote {new_plan.settings}, with every setting commented out")
    except PermissionError:
        raise click.ClickException(f"{current_file} cannot be written; --system needs root (sudo)") from None
    except OSError as problem:
        raise click.ClickException(f"{current_file} cannot be written: {problem.strerror}") from None


def _write_file(file: Path, text: str, mode: int) -> None:
    """Write ``text`` to ``file`` atomically, and make its directory if it does not exist."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file = Path(os.path.realpath(file))  # a symbolic link is kept
    if file.exists() and not file.is_file():  # "systemctl mask" makes a link to /dev/null
        raise OSError(errno.EINVAL, f"{file} is not a regular file")
    write_atomically(file, text, lambda new: os.fchmod(new, mode))


def _check_path(path: Path) -> None:
    """Check that ``path`` can be written into a unit or property list and is read back unchanged.

    :raises ValueError: with a sentence, if it cannot.
    """
    text = str(path)
    try:
        why = "" if unquoted(text) == text else "ends with a blank or a line break"
    except ValueError as problem:
        why = str(problem)
    if why:
        raise ValueError(f"the name of the file {one_line(ascii(text))} {why}; rename the file")


def warnings(program: Path, token: Path | None, *, system: bool) -> list[str]:
    """Sentences about what will keep the service from starting."""
    found = []
    if ".venvs" in program.parts:
        found.append(
            f"{program} is in a source checkout, and changes with it; "
            "docs/running.md says how to install foreman on its own"
        )
    closed = [folder for folder in program.resolve().parents if not folder.stat().st_mode & 0o001] if system else []
    if closed:
        found.append(
            f"{closed[-1]} is not accessible to other users, so the service cannot start {program}; install foreman in /opt"
        )
    if token is not None and not token.is_file():
        found.append(f"{token} does not exist yet; foreman does not start without it")
    return found
