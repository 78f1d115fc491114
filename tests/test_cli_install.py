"""``foreman install-service``: the right file at the right place, and nobody's changes lost."""

from __future__ import annotations

import errno
import os
import plistlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from foreman.cli.commands import install_service
from foreman.cli.commands.install_service import plan, previous_options
from foreman.cli.commands.settings import as_environment
from foreman.cli.supervisors.service import foreman_executable
from support.processes import SCRIPTS, clean_environment

HOME = Path("/home/al")
PROGRAM = Path("/opt/foreman/bin/foreman")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what is written here is for Linux")


def install(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it as somebody who lives in ``home``."""
    environ = {name: value for name, value in clean_environment({}).items() if not name.startswith("XDG_")}
    return subprocess.run(
        [str(SCRIPTS / "foreman"), "install-service", *options],
        stdin=subprocess.DEVNULL,
        env=environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_for_a_person_on_linux_it_goes_where_the_persons_manager_looks() -> None:
    made = plan("linux", HOME, {}, PROGRAM, 30, None, system=False)
    assert made.file == HOME / ".config/systemd/user/foreman.service"
    assert made.settings == HOME / ".config/foreman/foreman.env"
    assert "systemctl --user enable --now foreman" in made.steps
    assert "\nExecStart=/opt/foreman/bin/foreman serve\n" in made.text
    assert "\nEnvironmentFile=-/home/al/.config/foreman/foreman.env\n" in made.text
    elsewhere = plan("linux", HOME, {"XDG_CONFIG_HOME": "/elsewhere"}, PROGRAM, 30, None, system=False)
    assert elsewhere.file == Path("/elsewhere/systemd/user/foreman.service")


def test_for_the_system_it_goes_where_the_administrators_units_are() -> None:
    made = plan("linux", HOME, {"XDG_CONFIG_HOME": "/elsewhere"}, PROGRAM, 30, None, system=True)
    assert made.file == Path("/etc/systemd/system/foreman.service")
    assert made.settings == Path("/etc/foreman/foreman.env")
    assert "systemctl enable --now foreman" in made.steps


def test_on_macos_it_is_an_agent_of_the_person() -> None:
    made = plan("darwin", HOME, {}, PROGRAM, 30, HOME / "token", system=False)
    assert made.file == HOME / "Library/LaunchAgents/dev.foreman.plist"
    agent = plistlib.loads(made.text.encode())
    assert str(PROGRAM) in agent["ProgramArguments"]
    assert str(made.settings) in agent["ProgramArguments"]
    assert f"launchctl bootstrap gui/$(id -u) {made.file}" in made.steps


@pytest.mark.parametrize(("platform", "system"), [("darwin", True), ("win32", False), ("freebsd14", True)])
def test_where_it_is_not_known_how_it_says_so(platform: str, system: bool) -> None:
    with pytest.raises(ValueError, match=r"macOS|neither systemd nor launchd"):
        plan(platform, HOME, {}, PROGRAM, 30, None, system=system)


def test_the_command_is_the_one_of_this_installation() -> None:
    assert foreman_executable() == SCRIPTS / "foreman"


@on_linux
def test_it_writes_unit_and_settings_says_what_it_did_and_what_comes_next(tmp_path: Path) -> None:
    run = install(tmp_path)
    assert run.returncode == 0, run.stderr
    unit, settings = tmp_path / ".config/systemd/user/foreman.service", tmp_path / ".config/foreman/foreman.env"
    assert f"ExecStart={SCRIPTS}/foreman serve" in unit.read_text()
    assert settings.read_text() == as_environment()
    assert settings.stat().st_mode & 0o077 == 0
    assert f"wrote {unit}\n" in run.stdout
    assert f"wrote {settings}" in run.stdout
    assert "systemctl --user daemon-reload" in run.stdout.partition("Next:")[2]


@on_linux
def test_a_second_time_nothing_changes(tmp_path: Path) -> None:
    install(tmp_path)
    settings = tmp_path / ".config/foreman/foreman.env"
    settings.write_text("FOREMAN_TURNS=2\n")
    run = install(tmp_path)
    assert run.returncode == 0
    assert "is up to date" in run.stdout
    assert settings.read_text() == "FOREMAN_TURNS=2\n"


@on_linux
def test_a_file_that_was_changed_is_only_overwritten_by_force(tmp_path: Path) -> None:
    install(tmp_path)
    unit = tmp_path / ".config/systemd/user/foreman.service"
    before = unit.read_text()
    unit.write_text(before.replace("RestartSec=5", "RestartSec=60"))
    refused = install(tmp_path)
    assert refused.returncode == 1
    assert "-RestartSec=60\n+RestartSec=5\n" in refused.stdout
    assert "--force" in refused.stderr
    assert "RestartSec=60" in unit.read_text()
    assert install(tmp_path, "--force").returncode == 0
    assert unit.read_text() == before


@on_linux
def test_options_that_are_not_given_again_stay_as_they_were(tmp_path: Path) -> None:
    token = tmp_path / 'my "50%" token'
    token.write_text("correct-horse-battery")
    assert install(tmp_path, "--token-file", str(token), "--drain-timeout", "2m").returncode == 0
    unit = tmp_path / ".config/systemd/user/foreman.service"
    before = unit.read_text()
    again = install(tmp_path)
    assert (again.returncode, again.stderr.partition("note:")[0]) == (0, "")
    assert "is up to date" in again.stdout
    changed = install(tmp_path, "--drain-timeout", "1m")
    assert changed.returncode == 0
    assert unit.read_text() == before.replace("=120s", "=60s").replace("=130", "=70")
    unit.write_text(before + "\n# mine\n")
    assert install(tmp_path).returncode == 1
    assert install(tmp_path, "--force").returncode == 0
    assert unit.read_text() == before


@pytest.mark.parametrize(("platform", "system"), [("linux", False), ("linux", True), ("darwin", False)])
@pytest.mark.parametrize("token", [None, Path('/a \\ "b" & <c> 50%/token')], ids=["no token", "an odd token"])
def test_the_options_are_read_from_the_file_that_was_written(
    tmp_path: Path, platform: str, system: bool, token: Path | None
) -> None:
    file = tmp_path / "file"
    file.write_text(plan(platform, HOME, {}, PROGRAM, 90.5, token, system=system).text, "utf-8")
    assert previous_options(file, platform) == (token, 90.5)
    file.write_text("[Service]\nEnvironment=FOREMAN_AUTH_TOKEN_FILE=/mine\n")
    assert previous_options(file, platform) == (None, None)
    assert previous_options(tmp_path / "nowhere", platform) == (None, None)


@on_linux
def test_printing_writes_nothing(tmp_path: Path) -> None:
    run = install(tmp_path, "--print", "--system", "--drain-timeout", "2m", "--token-file", "token")
    assert run.returncode == 0
    assert run.stdout.startswith("# foreman as a system service")
    assert "TimeoutStopSec=130" in run.stdout
    assert f"LoadCredential=auth-token:{Path.cwd() / 'token'}" in run.stdout
    assert not list(tmp_path.iterdir())


@on_linux
@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"a\nExecStartPre=/bin/touch owned", "line break"), (b"a\r", "line break"), (b"caf\xe9", "not UTF-8"),
        (b"a ", "ends with a blank"), (b"a'", "quotation mark"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [(), ("--print",), ("--system", "--print")])
def test_a_file_with_a_name_that_a_unit_cannot_have_is_refused(
    tmp_path: Path, name: bytes, why: str, options: tuple[str, ...]
) -> None:
    run = install(tmp_path, *options, "--token-file", "/tmp/" + os.fsdecode(name))
    assert (run.returncode, run.stdout) == (2, "")
    assert why in run.stderr
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="rename the file"):
        plan("darwin", HOME, {}, PROGRAM, 30, Path("/tmp/" + os.fsdecode(name)), system=False)


@on_linux
def test_a_disk_that_is_full_leaves_no_part_of_a_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = plan("linux", tmp_path, {}, PROGRAM, 30, None, system=False)
    made.file.parent.mkdir(parents=True)
    made.file.write_text("of before")
    monkeypatch.setattr(os, "fsync", full)
    for force, path in ((True, made.file), (False, made.settings)):
        if not force:
            made.file.write_text(made.text)
        before = made.file.read_text()
        with pytest.raises(click.ClickException) as raised:
            install_service._write(made, "", force=force)
        assert raised.value.message == f"{path} cannot be written: No space left on device"
        assert [file for file in tmp_path.rglob("*") if file.is_file()] == [made.file]
        assert made.file.read_text() == before


@on_linux
def test_a_link_that_leads_nowhere_is_there_and_is_removed_by_force(tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/foreman.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/nowhere/foreman.service")
    refused = install(tmp_path, "--remove")
    assert refused.returncode == 1
    assert f"{unit} is a link to /nowhere/foreman.service, which does not exist" in refused.stderr
    removed = install(tmp_path, "--remove", "--force")
    assert (removed.returncode, f"removed {unit}" in removed.stdout) == (0, True)
    assert not unit.is_symlink()


@on_linux
def test_nothing_is_made_where_a_link_leads_and_no_device_is_replaced(tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/foreman.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to(tmp_path / "nowhere" / "foreman.service")
    assert "cannot be written: No such file" in install(tmp_path, "--force").stderr
    assert not (tmp_path / "nowhere").exists()
    unit.unlink()
    os.mkfifo(tmp_path / "pipe")
    unit.symlink_to(tmp_path / "pipe")
    made = plan("linux", tmp_path, {}, PROGRAM, 30, None, system=False)
    with pytest.raises(OSError, match="not a regular file"):
        install_service._write_file(made.file, made.text, 0o644)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".config", tmp_path / "pipe"]


@on_linux
def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    unit, real = tmp_path / ".config/systemd/user/foreman.service", tmp_path / "dotfiles.service"
    unit.parent.mkdir(parents=True)
    real.write_text("old")
    unit.symlink_to(real)
    assert install(tmp_path, "--force").returncode == 0
    assert unit.is_symlink()
    assert "foreman serve" in real.read_text()


@on_linux
def test_quotation_marks_around_the_variable_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREMAN_DRAIN_TIMEOUT", '"2m"')
    run = CliRunner().invoke(install_service.command, ["--print"], env={"HOME": str(tmp_path)})
    assert (run.exit_code, "TimeoutStopSec=130" in run.stdout) == (0, True)


@on_linux
def test_a_token_that_is_not_there_yet_is_noted(tmp_path: Path) -> None:
    run = install(tmp_path, "--token-file", str(tmp_path / "token"))
    assert run.returncode == 0
    assert f"{tmp_path}/token does not exist yet" in run.stderr
    assert f"\nEnvironment=FOREMAN_AUTH_TOKEN_FILE={tmp_path}/token\n" in (
        (tmp_path / ".config/systemd/user/foreman.service").read_text()
    )


@on_linux
def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file where a folder should be")
    run = install(tmp_path)
    assert run.returncode == 1
    assert "cannot be written" in run.stderr
    assert "Traceback" not in run.stderr


@on_linux
def test_it_is_removed_again_and_settings_stay(tmp_path: Path) -> None:
    assert "does not exist" in install(tmp_path, "--remove").stdout
    install(tmp_path)
    folder = tmp_path / ".config/systemd/user"
    wants = folder / "default.target.wants"
    wants.mkdir()
    (wants / "foreman.service").symlink_to(folder / "foreman.service")
    run = install(tmp_path, "--remove")
    assert run.returncode == 0, run.stderr
    assert f"removed {folder}/foreman.service" in run.stdout
    assert "systemctl --user stop foreman" in run.stdout.partition("Next:")[2]
    assert not (folder / "foreman.service").exists()
    assert list(wants.iterdir()) == []
    assert (tmp_path / ".config/foreman/foreman.env").exists()


@on_linux
def test_somebody_elses_file_of_that_name_is_only_removed_by_force(tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/foreman.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    refused = install(tmp_path, "--remove")
    assert (refused.returncode, unit.exists(), "--force" in refused.stderr) == (1, True, True)
    assert install(tmp_path, "--remove", "--force").returncode == 0
    assert not unit.exists()


@on_linux
def test_printing_and_removing_exclude_each_other(tmp_path: Path) -> None:
    install(tmp_path)
    run = install(tmp_path, "--remove", "--print")
    assert (run.returncode, run.stdout, "cannot be used together" in run.stderr) == (2, "", True)
    assert (tmp_path / ".config/systemd/user/foreman.service").exists()


@on_linux
@pytest.mark.parametrize("option", ["--remove", "--force"])
def test_a_file_that_is_not_text_is_somebody_elses(tmp_path: Path, option: str) -> None:
    unit = tmp_path / ".config/systemd/user/foreman.service"
    unit.parent.mkdir(parents=True)
    unit.write_bytes(b"[Service]\n# \xff\xfe\n")
    refused = install(tmp_path, *({option} - {"--force"}))
    assert (refused.returncode, "--force" in refused.stderr, "unexpected" in refused.stderr) == (1, True, False)
    assert unit.read_bytes() == b"[Service]\n# \xff\xfe\n"
    assert install(tmp_path, *{option, "--force"}).returncode == 0
    assert not unit.exists() or unit.read_bytes() != b"[Service]\n# \xff\xfe\n"


@on_linux
def test_it_is_removed_although_the_program_is_not_installed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.setattr(install_service, "foreman_executable", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert "is not installed" in CliRunner().invoke(install_service.command, []).output
    run = CliRunner().invoke(install_service.command, ["--remove"])
    assert run.exit_code == 0, run.output
    assert not (tmp_path / ".config/systemd/user/foreman.service").exists()


def test_a_program_in_a_checkout_is_noted() -> None:
    (warning,) = install_service.warnings(Path("/home/al/foreman/.venvs/run/bin/foreman"), None, system=False)
    assert "is in a source checkout" in warning


def test_a_program_that_others_cannot_reach_is_noted_for_the_system(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    program = closed / "foreman"
    program.touch(mode=0o755)
    (warning,) = install_service.warnings(program, None, system=True)
    assert "is not accessible to other users" in warning
    assert install_service.warnings(program, None, system=False) == []
