"""What runs foreman for good: the files for systemd and launchd, and the steps that build the image."""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from attrs import frozen

from foreman.auth.credentials import credential
from foreman.cli.supervisors.launchd import plist
from foreman.cli.supervisors.service import Service
from foreman.cli.supervisors.systemd import unit
from foreman.config import parsers
from foreman.config.settings import SETTINGS, load
from foreman.errors import ConfigError
from foreman.protocol.request_path import take_prefix
from support.processes import clean_environment, free_port, run_process, until

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
YOU = Path("/Users/you")
AT_HOME = Service(YOU / "foreman" / "bin" / "foreman", YOU / ".config" / "foreman" / "foreman.env")
OF_ROOT = Service(Path("/opt/foreman/bin/foreman"), Path("/etc/foreman/foreman.env"))

#: The files of ``deploy/``, which are what ``foreman install-service`` writes for the usual paths.
GENERATED = {
    "foreman.service": unit(OF_ROOT, system=True),
    "dev.foreman.plist": plist(AT_HOME, YOU / "Library" / "Logs" / "foreman.log"),
}


@pytest.mark.parametrize("name", GENERATED)
def test_the_files_in_deploy_are_what_is_installed_for_the_usual_paths(name: str) -> None:
    there = (DEPLOY / name).read_text("utf-8")
    difference = "\n".join(difflib.unified_diff(there.splitlines(), GENERATED[name].splitlines(), lineterm=""))
    assert not difference, f"write them anew: python {Path(__file__).name}\n{difference}"


# -- systemd


def entries(text: str) -> dict[str, list[str]]:
    """The values of a unit by their keys."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if re.match(r"[A-Za-z]+=", line):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("system", [True, False], ids=["system", "user"])
@pytest.mark.parametrize("token", [None, "token with 100 %"], ids=["open", "token"])
def test_systemd_finds_nothing_to_complain_of(system: bool, token: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "with a blank, 100 % and a $"
    folder.mkdir()
    command = folder / "foreman"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    service = Service(command, folder / "foreman.env", token=None if token is None else folder / token)
    file = folder / "foreman.service"
    file.write_text(unit(service, system=system))
    who = [] if system else ["--user"]
    verified = subprocess.run(
        ["systemd-analyze", *who, "verify", "--man=no", str(file)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert verified.stderr == ""
    assert verified.returncode == 0


@pytest.mark.parametrize("drain", [0.0, 0.5, 30.0, 600.0])
def test_a_supervisor_is_more_patient_than_foreman(drain: float) -> None:
    service = Service(OF_ROOT.command, OF_ROOT.settings, drain)
    for system in (True, False):
        values = entries(unit(service, system=system))
        (set_to,) = values["Environment"]
        assert load(dict([set_to.split("=", 1)])).drain_timeout == drain
        assert int(values["TimeoutStopSec"][0]) >= drain + 10
    agent = plistlib.loads(plist(service, Path("/log")).encode())
    assert agent["ExitTimeOut"] >= drain + 10
    assert load(agent["EnvironmentVariables"]).drain_timeout == drain


def test_the_unit_waits_for_the_word_of_readiness_and_takes_sigterm_for_a_good_end() -> None:
    for system in (True, False):
        values = entries(unit(OF_ROOT, system=system))
        assert values["Type"] == ["notify"]
        assert values["SuccessExitStatus"] == ["143"]
        assert values["Restart"] == ["on-failure"]


def test_a_token_comes_as_a_credential_for_the_system_and_as_a_file_for_a_person() -> None:
    service = Service(OF_ROOT.command, OF_ROOT.settings, token=Path("/etc/foreman/100 %"))
    values = entries(unit(service, system=True))
    assert values["LoadCredential"] == ["auth-token:/etc/foreman/100 %%"]
    assert "FOREMAN_AUTH_TOKEN_FILE=%d/auth-token" in values["Environment"]
    values = entries(unit(service, system=False))
    assert '"FOREMAN_AUTH_TOKEN_FILE=/etc/foreman/100 %%"' in values["Environment"]
    assert "LoadCredential" not in values


def test_the_manager_of_a_person_is_not_asked_for_what_it_may_not_do() -> None:
    extra = entries(unit(OF_ROOT, system=True)).keys() - entries(unit(OF_ROOT, system=False)).keys()
    assert {"CapabilityBoundingSet", "DynamicUser", "PrivateDevices", "ProtectKernelModules"} <= extra


# -- launchd


def test_launchd_starts_foreman_with_the_settings_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "Application Support & <more>"
    folder.mkdir()
    program, settings = folder / "foreman", folder / "foreman.env"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/show.py "$@"\n')
    program.chmod(0o755)
    (tmp_path / "show.py").write_text(
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['FOREMAN_LISTEN']]))"
    )
    agent = plistlib.loads(plist(Service(program, settings, token=folder / "token"), folder / "log").encode())
    assert agent["EnvironmentVariables"]["FOREMAN_AUTH_TOKEN_FILE"] == str(folder / "token")
    assert agent["StandardOutPath"] == str(folder / "log")
    assert (agent["RunAtLoad"], agent["KeepAlive"]) == (True, True)

    def run() -> list[object]:
        environ = {"FOREMAN_LISTEN": "from before"}
        done = subprocess.run(
            agent["ProgramArguments"], stdin=subprocess.DEVNULL, env=environ, capture_output=True, text=True, check=True
        )
        shown: list[object] = json.loads(done.stdout)
        return shown

    assert run() == [["serve"], "from before"]
    settings.write_text("# where\nFOREMAN_LISTEN='tcp:8080:interface=127.0.0.1'\n")
    assert run() == [["serve"], "tcp:8080:interface=127.0.0.1"]


# -- the image


@frozen
class Step:
    """One instruction of the Dockerfile."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """What stands behind the instruction; options are left out."""
        return [word for word in shlex.split(self.text) if not word.startswith("--")]


def stages() -> list[list[Step]]:
    """The instructions of the Dockerfile, stage by stage."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    found: list[list[Step]] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            step = Step(*line.split(None, 1))
            if step.name == "FROM":
                found.append([])
            found[-1].append(step)
    return found


def one(steps: list[Step], name: str) -> Step:
    (step,) = [step for step in steps if step.name == name]
    return step


BUILD, FINAL = stages()
#: What the image's environment says.
IMAGE = dict(word.split("=", 1) for word in one(FINAL, "ENV").words)
#: Where foreman is in the image.
HOME = "/opt/foreman"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build stage leaves, made by its own steps, but in a folder instead of an image."""
    root = tmp_path_factory.mktemp("image")
    folder = root / "build"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Compiling everything takes longer than the rest, for the few modules that are then imported.
    environ = clean_environment({}) | {"PATH": path, "PIP_COMPILE": "0"}
    for step in BUILD[1:]:
        if step.name == "WORKDIR":
            folder = root / step.text.lstrip("/")
            folder.mkdir()
        elif step.name == "ENV":
            environ |= dict(word.replace(HOME, str(root) + HOME).split("=", 1) for word in step.words)
        elif step.name == "COPY":
            *sources, to = step.words
            for source in sources:
                copy(source, folder / to)
        elif step.name == "RUN" and not step.text.startswith("apt-get"):
            done = subprocess.run(
                ["sh", "-ec", step.text.replace(HOME, str(root) + HOME)],
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, f"{step.text}\n{done.stdout}{done.stderr}"
    return root / HOME.lstrip("/")


def copy(source: str, to: Path) -> None:
    """Copy a file or folder of the checkout as Docker does, with what ``.dockerignore`` lets through."""
    for path in [ROOT / source, *(ROOT / source).rglob("*")]:
        inside = path.relative_to(ROOT)
        if path.is_file() and passes(inside):
            place = to / inside.name if to.is_dir() or str(to).endswith("/") else to
            if (ROOT / source).is_dir():
                place = to / path.relative_to(ROOT / source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def passes(path: Path) -> bool:
    """Whether a file of the checkout gets to the engine: the last rule of ``.dockerignore`` that fits decides."""
    rules = [rule for rule in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not rule.startswith("#")]
    fitting = [rule for rule in rules if fits(path, rule.removeprefix("!"))]
    return not fitting or fitting[-1].startswith("!")


def fits(path: Path, pattern: str) -> bool:
    """Whether a pattern is of the path, or of a folder above it; ``**/`` is any depth."""
    above = [path, *path.parents[:-1]]
    if pattern.startswith("**/"):
        return any(fnmatch.fnmatch(one.name, pattern[3:]) for one in above)
    return any(fnmatch.fnmatch(str(one), pattern) for one in above if len(one.parts) == pattern.count("/") + 1)


def test_only_what_the_image_needs_reaches_the_engine() -> None:
    assert all(map(passes, map(Path, ["src/foreman/tap.py", "requirements/run.txt", "pyproject.toml"])))
    for name in (
        ".git/config",
        ".env",
        "tests/support/live_foreman.py",
        "requirements/test.txt",
        "src/foreman/__pycache__/tap.pyc",
    ):
        assert not passes(Path(name)), name


@pytest.mark.slow
def test_the_build_steps_leave_a_foreman_that_tells_its_version(built: Path) -> None:
    told = subprocess.run(
        [built / "bin" / "foreman", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"foreman, version \d+\.\d+\.\d+\n", told.stdout)
    where = subprocess.run(
        [built / "bin" / "python3", "-c", "import foreman.simulator, foreman.service; print(foreman.__file__)"],
        stdin=subprocess.DEVNULL,
        cwd=built,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout).is_relative_to(built)


@pytest.mark.slow
def test_nothing_stays_that_only_built_it_and_nothing_is_missing(built: Path) -> None:
    script = """
import json
from importlib.metadata import distributions, requires
from packaging.requirements import Requirement

def needed(name, extras, seen):
    for text in requires(name) or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            key = one.name.lower().replace("_", "-").replace(".", "-")
            if (key, *sorted(one.extras)) not in seen:
                seen.add((key, *sorted(one.extras)))
                needed(one.name, one.extras | {""}, seen)
    return seen

have = {one.name.lower().replace("_", "-").replace(".", "-") for one in distributions()}
print(json.dumps([sorted(have), sorted({"ollama-foreman"} | {name for name, *_ in needed("ollama-foreman", set(), set())})]))
"""
    done = subprocess.run(
        [built / "bin" / "python3", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    have, need = json.loads(done.stdout)
    assert have == need


def test_the_image_does_not_run_as_root_and_ends_by_sigterm() -> None:
    assert one(FINAL, "FROM").text.endswith(":nonroot")
    assert one(FINAL, "STOPSIGNAL").text == "SIGTERM"
    copied = [step.words for step in FINAL if step.name == "COPY"]
    assert copied == [[HOME, HOME], [f"{HOME}-jobs", "/var/lib/foreman"]]
    assert "--require-hashes" in "".join(step.text for step in BUILD)


def test_the_image_does_not_start_without_a_token_and_says_how_to_give_one() -> None:
    assert IMAGE.keys() <= {setting.variable for setting in SETTINGS}
    with pytest.raises(ConfigError, match="FOREMAN_AUTH_TOKEN"):
        load(IMAGE)
    assert load(IMAGE | {"FOREMAN_AUTH_TOKEN": "correct-horse-battery"}).listen == "tcp:8080"
    assert one(FINAL, "EXPOSE").text == "8080"


@pytest.mark.slow
def test_jobs_are_kept_in_a_volume_that_belongs_to_who_runs_in_the_image(built: Path) -> None:
    assert Path(IMAGE["FOREMAN_DB_PATH"]).parent == Path(*json.loads(one(FINAL, "VOLUME").text))
    assert "--chown=65532:65532" in FINAL[2].text
    kept = built.with_name(f"{built.name}-jobs")
    assert kept.stat().st_mode & 0o777 == 0o700
    assert (built / "lib").glob("python3*/site-packages/foreman/store/sqlite/schema/0001.sql")


@pytest.mark.slow
def test_the_healthcheck_tells_a_foreman_that_answers_from_one_that_does_not(built: Path, tmp_path: Path) -> None:
    healthcheck = json.loads(one(FINAL, "HEALTHCHECK").text.partition("CMD ")[2])

    def well(port: int) -> bool:
        words = [word.replace(HOME, str(built)).replace("8080", str(port)) for word in healthcheck]
        return (
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30).returncode
            == 0
        )

    port = free_port()
    (program,) = json.loads(one(FINAL, "ENTRYPOINT").text)
    command = [program.replace(HOME, str(built)), *json.loads(one(FINAL, "CMD").text)]
    settings = {"listen": f"tcp:{port}", "auth_token": "correct-horse-battery", "target_url": "http://127.0.0.1:9"}
    assert not well(port)
    with run_process(command, tmp_path, settings) as daemon:
        until(lambda: daemon.responds(port, "/"), "foreman answers")
        assert well(port)


if __name__ == "__main__":
    for name, text in GENERATED.items():
        (DEPLOY / name).write_text(text, "utf-8")


# -- compose


COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def seconds_of(text: str) -> float:
    """A duration as compose writes it."""
    return parsers.seconds(text)


def filled_in(value: str, token: str = "correct-horse-battery") -> str:
    """A value with its variables, as compose fills them in."""
    return re.sub(r"\$\{FOREMAN_AUTH_TOKEN(?::\?[^}]*)?\}", token, value)


def test_compose_has_ollama_foreman_and_a_page_each_with_its_healthcheck() -> None:
    assert set(SERVICES) == {"ollama", "foreman", "open-webui"}
    for name, service in SERVICES.items():
        check = service["healthcheck"]
        assert check["test"][0] == "CMD", name
        assert seconds_of(check["timeout"]) < seconds_of(check["interval"])
        assert service["restart"] == "unless-stopped"
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in COMPOSE["volumes"]
    assert set(COMPOSE["volumes"]) == {
        volume.partition(":")[0] for one in SERVICES.values() for volume in one["volumes"]
    }


def test_compose_gives_foreman_settings_that_it_takes_and_the_image_it_builds() -> None:
    foreman = SERVICES["foreman"]
    config = load({name: filled_in(value) for name, value in {**IMAGE, **foreman["environment"]}.items()})
    assert (config.target.url, config.auth_token) == ("http://ollama:11434", "correct-horse-battery")
    assert config.target.host in SERVICES
    assert (DEPLOY / foreman["build"]["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    assert foreman["healthcheck"]["test"] == ["CMD", *json.loads(one(FINAL, "HEALTHCHECK").text.partition("CMD ")[2])]
    assert seconds_of(foreman["stop_grace_period"]) >= config.drain_timeout + 10
    assert foreman["volumes"] == [f"foreman:{Path(IMAGE['FOREMAN_DB_PATH']).parent}"]
    with pytest.raises(ConfigError, match="FOREMAN_AUTH_TOKEN"):
        load({**IMAGE, **foreman["environment"], "FOREMAN_AUTH_TOKEN": ""})


def test_only_foreman_reaches_the_ollama_of_compose_and_the_page_asks_foreman_with_its_token() -> None:
    assert "ports" not in SERVICES["ollama"]
    assert SERVICES["foreman"]["ports"] == ["8080:8080"]
    page = SERVICES["open-webui"]
    assert page["depends_on"] == {"foreman": {"condition": "service_healthy"}}
    address = urlsplit(filled_in(page["environment"]["OLLAMA_BASE_URL"]))
    assert (address.hostname, address.port) == ("foreman", 8080)
    prefix, rest = take_prefix(f"{address.path}/api/tags".encode())
    assert rest == b"/api/tags"
    assert credential(prefix, [], []) == b"correct-horse-battery"
