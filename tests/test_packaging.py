"""What is installed: the wheel, the plugin that names without importing, the locked requirements, the make targets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from foreman import DISTRIBUTION
from foreman.store.sqlite.opening import OLDEST_SQLITE

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TWISTD = "from twisted.scripts.twistd import run; run()"
TWIST = "from twisted.application.twist._twist import Twist; Twist.main()"


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FOREMAN_", "PYTHON", "MAKE"))}
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=clean | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder), cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="needs a git checkout")
def test_the_sdist_has_every_file_of_the_checkout_so_that_the_tests_run_from_it(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path), cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (file,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in run("git", "ls-files", "-z", cwd=ROOT).stdout.split("\0") if (ROOT / name).is_file()}
    assert tracked
    assert not {name for name in tracked - packed if not name.startswith(".ci/")}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel and our dependencies, but not this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A folder that a .pth file adds does not have its own .pth files read, so that the editable foreman stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def test_the_wheel_has_the_package_the_plugin_the_types_and_the_licence_and_nothing_of_twisteds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
        (entry_points,) = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert {"foreman/tap.py", "foreman/py.typed", "foreman/cli/main.py"} <= names
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/foreman_plugin.py"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("dropin.cache" in name or "__pycache__" in name for name in names)
    assert f"\nVersion: {PROJECT['project']['version']}\n" in metadata
    assert {"foreman = foreman.cli.entry:main", "ollama-foreman = foreman.cli.entry:main"} <= set(
        entry_points.splitlines()
    )
    assert f"\nName: {DISTRIBUTION}\n" in metadata
    assert wheel.name.startswith("ollama_foreman-")


@pytest.mark.parametrize("script", [TWISTD, TWIST], ids=["twistd", "twist"])
def test_foreman_is_listed_by_twistd_and_twist_from_the_wheel(installed: Path, script: str, tmp_path: Path) -> None:
    listed = run(str(installed), "-c", script, "--help", cwd=tmp_path)
    assert re.search(r"^ +foreman +\S", listed.stdout, re.MULTILINE), listed.stdout + listed.stderr


def test_listing_imports_neither_foreman_nor_klein_nor_a_reactor(installed: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the first time Twisted writes its cache of plugins, the second time it reads it
        listed = run(str(installed), "-X", "importtime", "-c", TWISTD, "--help", cwd=tmp_path)
        imported = {line.rpartition("|")[2].strip() for line in listed.stderr.splitlines() if "|" in line}
        assert "twisted.application.service" in imported
        unwanted = ("foreman", "klein", "treq", "twisted.internet.reactor", "twisted.internet.epollreactor")
        assert not {name for name in imported if name in unwanted or name.startswith("foreman.")}


def test_the_oldest_python_that_is_promised_is_tested_and_named_alike_everywhere() -> None:
    oldest = "3.11.2"
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    jobs = yaml.safe_load((ROOT / ".gitea" / "workflows" / "ci.yaml").read_text("utf-8"))["jobs"]
    assert any(f'= "Python {oldest}"' in step.get("run", "") for step in jobs["test-oldest"]["steps"])
    combinations = jobs["test"]["strategy"]["matrix"]["include"]
    assert all(isinstance(one["python"], str) and one["os"] for one in combinations)
    for page in ("README.md", "CONTRIBUTING.md", "docs/running.md", "Makefile"):
        named = set(re.findall(r"Python (3\.11[.0-9]*) or newer", (ROOT / page).read_text("utf-8")))
        named |= set(re.findall(r"needs Python (3\.11[.0-9]*) ", (ROOT / page).read_text("utf-8")))
        assert named == {oldest}, page
    assert PROJECT["project"]["name"] == DISTRIBUTION


def test_the_oldest_sqlite_that_is_promised_is_tested_beside_the_newest() -> None:
    test = yaml.safe_load((ROOT / ".gitea" / "workflows" / "ci.yaml").read_text("utf-8"))["jobs"]["test"]
    matrix = test["strategy"]["matrix"]
    # With a list beside it, an entry of "include" may be merged into a combination that is there, and make no job.
    assert list(matrix) == ["include"]
    oldest = ".".join(map(str, OLDEST_SQLITE[:2]))
    tested = {(one["python"], one.get("sqlite")) for one in matrix["include"]}
    assert {("3.11", None), ("3.11", oldest)} <= tested
    assert any(step.get("if") == "matrix.sqlite" and "sqlite_version" in step["run"] for step in test["steps"])


def test_the_command_from_the_wheel_tells_its_version(installed: Path, tmp_path: Path) -> None:
    where = run(str(installed), "-c", "import foreman; print(foreman.__file__)", cwd=tmp_path)
    assert Path(where.stdout).is_relative_to(installed.parents[1])
    told = run(str(installed), "-c", "from foreman.cli.main import main; main(['--version'])", cwd=tmp_path)
    assert told.stdout.strip() == f"foreman, version {PROJECT['project']['version']}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", TWISTD, "--nodaemon", "--pidfile=", "foreman"),
        ("-c", TWIST, "foreman"),
        ("-c", TWISTD, "--pidfile=", "-ny", str(ROOT / "foreman.tac")),
        ("-c", "from foreman.cli.main import main; main(['serve'])"),
    ],
    ids=["twistd", "twist", "tac", "serve"],
)
def test_each_way_to_start_names_every_wrong_setting_and_ends_without_a_traceback(
    installed: Path, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    started = run(str(installed), *arguments, cwd=tmp_path, FOREMAN_TURNS="none", FOREMAN_BUFFER="big")
    said = started.stdout + started.stderr
    assert started.returncode != 0
    assert "FOREMAN_TURNS" in said
    assert "FOREMAN_BUFFER" in said
    assert "Traceback" not in said


LOCKS = {
    "run": ["build"],
    "test": ["build", "test"],
    "lint": ["build", "test", "lint"],
}


@pytest.mark.parametrize("name", LOCKS)
def test_each_lock_has_every_requirement_in_a_version_that_fits_each_with_its_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("--hash=sha256:" in line for line in lines)
    versions = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2].split()[0] for line in lines}
    asked = [*PROJECT["project"]["dependencies"]]
    asked += [requirement for group in LOCKS[name] for requirement in PROJECT["dependency-groups"][group]]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), (
            f"{requirement}: make lock"
        )


def test_make_says_what_it_needs_where_there_is_no_python_that_is_new_enough() -> None:
    made = run("make", "--always-make", ".venvs/run/.ready", "PYTHON=/nowhere/python3", cwd=ROOT)
    assert made.returncode != 0
    assert "Python 3.11.2 or newer" in made.stderr
    assert "/nowhere/python3" in made.stderr
