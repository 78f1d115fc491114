"""Who may import whom, how long a module may be, and that tests leave nothing behind."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "foreman"
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

#: From the ground up: a package imports from its own floor or from those below it. The first name that fits counts.
FLOORS = (
    {"foreman.errors"},
    {"foreman.util"},
    {"foreman.protocol"},
    {"foreman.auth", "foreman.jobs"},
    {"foreman.config"},
    {"foreman.target", "foreman.store", "foreman.system"},
    {"foreman.scheduling"},
    {"foreman.proxy"},
    {"foreman.worker"},
    {"foreman.web.server"},
    {"foreman.web.jobs"},
    {"foreman.web.openapi"},
    {"foreman.web.api", "foreman.web"},
    {"foreman.service"},
    {"foreman.tap"},
    {"foreman.cli.ui", "foreman.cli.supervisors", "foreman.cli.reactor"},
    {"foreman.cli.client"},
    {"foreman.simulator.engine"},
    {"foreman.simulator.server"},
    {"foreman.simulator.api"},
    {"foreman.simulator"},
    {"foreman.cli"},
)
#: What is known of the three APIs, and a job as a value: pure functions and values, with these libraries only.
PURE = ("foreman.errors", "foreman.protocol", "foreman.jobs")
PURE_LIBRARIES = {"attrs", "attr", "msgspec", "zstandard", "foreman", "__future__"}
#: The simulator is a program of its own: it knows nothing of the rest, and only the command line knows it.
APART = "foreman.simulator"

#: Longer than 300 lines, each with its reason.
LONG: dict[str, str] = {
    "foreman.worker.attempt": "one attempt of a job, from its request to its outcome",
    "foreman.cli.commands.install_service": "one command, and the two files that it writes and removes",
    "foreman.config.settings": "the table of all settings, and what contradicts what",
    "foreman.store.sqlite.database": "one file from opening to closing, and all its conditions",
    "foreman.proxy.inference": "one request from its turn to its last line",
    "foreman.web.jobs.streaming": "following a job: its events, and the lines of its answer",
    "foreman.web.server.connection": "the phases of one connection",
    "foreman.web.server.connections": "the places of all connections, and which of them makes room",
    "foreman.web.server.request": "one request and its answer",
    "foreman.web.jobs.routes": "all routes of jobs",
    "foreman.service": "how the daemon is built, started and stopped, on one page",
    "foreman.worker.worker": "one loop, and what it does with each job",
}
LONGEST = 300

#: Whose modules may import what; everybody else has not heard of it.
SECRETS = {
    "klein": ("foreman.web", APART),
    "treq": ("foreman.target", "foreman.cli"),
    "sqlite3": ("foreman.store.sqlite",),
    "twisted.enterprise": ("foreman.store.sqlite",),
    # Everybody else has ``JobStore`` and ``cli.database_files``: a second database is a matter of these two.
    "foreman.store.sqlite": ("foreman.store.sqlite", "foreman.cli.database_files", "foreman.service"),
    "twisted.internet.reactor": ("foreman.tap", "foreman.cli", APART),
}


def imports(path: Path, module: str) -> Iterator[str]:
    """Every name that a module imports, as far as it is written: ``from a import b`` is ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def floor(module: str) -> int:
    found = [number for number, places in enumerate(FLOORS) for place in places if within(module, place)]
    assert found, f"{module} has no floor: add its package to FLOORS"
    return found[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "foreman"])
def test_a_module_imports_from_its_own_floor_or_below(module: str) -> None:
    for name in imports(MODULES[module], module):
        if within(name, "foreman"):
            imported = name if name in MODULES else name.rpartition(".")[0]
            if imported != "foreman":
                assert floor(imported) <= floor(module), f"{module} reaches up to {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if any(within(name, place) for place in PURE)])
def test_what_is_known_of_the_apis_is_pure(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(MODULES[module], module)}
    assert not used - PURE_LIBRARIES - sys.stdlib_module_names


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """Any Python that is started in its folder would import it instead."""
    named = {module for module in MODULES if module.rpartition(".")[2] in sys.stdlib_module_names}
    assert not named


@pytest.mark.parametrize("secret", SECRETS)
def test_only_those_who_need_a_library_have_heard_of_it(secret: str) -> None:
    heard = {
        module
        for module, path in MODULES.items()
        if any(within(name, secret) for name in imports(path, module))
        and not any(within(module, place) for place in SECRETS[secret])
    }
    assert not heard


def test_nobody_but_the_configuration_reads_the_environment() -> None:
    """The command line and tap.py hand the environment over whole; nobody else has it."""
    allowed = ("foreman.config.settings", "foreman.tap", "foreman.cli")
    readers = {
        module
        for module, path in MODULES.items()
        if re.search(r"\bos\.(environ|getenv)\b|from os import .*environ", path.read_text("utf-8"))
        and not any(within(module, place) for place in allowed)
    }
    assert not readers


def imported_modules(module: str) -> set[str]:
    """The modules that a module imports, for its types only or not."""
    names = {name if name in MODULES else name.rpartition(".")[0] for name in imports(MODULES[module], module)}
    return {name for name in names if name in MODULES and name != module}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even for their types: such modules can only be understood together."""
    left = {module: imported_modules(module) for module in MODULES}
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    # What is left imports a circle, or is one.
    assert not left


def test_limits_do_not_count_a_pause_of_foreman() -> None:
    """``Deferred.addTimeout`` does: ``deadline.within`` and ``Deadline`` take its place."""
    allowed = {"foreman.worker.worker"}  # there it only wakes up a loop
    users = {
        module
        for module, path in MODULES.items()
        if ".addTimeout(" in path.read_text("utf-8") and not within(module, APART)
    }
    assert users <= allowed


def test_the_simulator_and_the_daemon_know_nothing_of_each_other() -> None:
    for module, path in MODULES.items():
        for name in imports(path, module):
            if within(module, APART):
                assert not within(name, "foreman") or within(name, APART), f"{module} imports {name}"
            elif not within(module, "foreman.cli"):
                assert not within(name, APART), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_first_what_it_is_for_and_fits_in_the_head(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{module} does not say what it is for"
    if module not in LONG:
        assert text.count("\n") <= LONGEST, f"{module} is longer than {LONGEST} lines: time to split it"


def test_a_module_that_was_split_is_no_longer_excused() -> None:
    assert all(MODULES[module].read_text("utf-8").count("\n") > LONGEST for module in LONG)


def words_in(name: str) -> set[str]:
    """The words of a name in any spelling, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_modules_and_classes_are_named_by_words_that_are_known() -> None:
    """A new word: is there one for it in the list of CONTRIBUTING, in a library, in the field? Then add it to words.txt."""
    used = {word for module in MODULES for part in module.split(".") for word in words_in(part)}
    for path in MODULES.values():
        classes = (node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef))
        used |= {word for name in classes if not name.startswith("_") for word in words_in(name)}
    own = words_in(" ".join(re.findall(r"\*\*([\w ]+)\*\*", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))))
    others = set((ROOT / "tests" / "words.txt").read_text("utf-8").split())
    assert not used - own - others, "words of the field, of a library or of CONTRIBUTING?"
    assert not others - used, "no longer used: remove them from words.txt"


def test_each_module_is_in_the_map_of_the_code() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_map.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "docs" / "map.md").read_text("utf-8") == made.stdout, "make docs"


def test_what_tests_share_stands_in_support() -> None:
    """A helper in a test module hides, and importing it would collect or rename tests of another module."""
    borrowers = [
        f"{path.name} imports {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name in imports(path, path.stem)
        if name.startswith("test_")
    ]
    assert not borrowers


def test_a_command_that_a_test_starts_does_not_read_the_input_of_the_suite() -> None:
    """That may be a pipe which never ends; the command would wait for it."""
    callers = [
        f"{path.name}:{call.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in {"subprocess.run", "subprocess.Popen"}
        and not {"stdin", "input"} & {keyword.arg for keyword in call.keywords}
    ]
    assert not callers


LEAKS = {
    "a_lost_failure": "from twisted.internet.defer import fail\n    fail(ValueError('nobody heard'))",
    "a_waiting_timer": "from twisted.internet import reactor\n    reactor.callLater(60, print)",
    "an_open_port": "from twisted.internet import reactor, protocol\n    reactor.listenTCP(0, protocol.Factory())",
}
TIDY = """
def test_an_expected_failure(logged_failures):
    from twisted.internet.defer import fail
    fail(KeyError("expected"))
    assert len(logged_failures.take(KeyError)) == 1

def test_something_that_ends_in_the_next_turn():
    from twisted.internet import reactor
    reactor.callLater(0.02, lambda: None)
"""


def test_a_test_that_leaves_something_behind_fails(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    tests = "".join(f"def test_{name}():\n    {body}\n\n" for name, body in LEAKS.items())
    (tmp_path / "test_leaks.py").write_text(tests + TIDY)
    plugins = ["-p", "pytest_twisted", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--rootdir", str(tmp_path), str(tmp_path)],
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "CI"}
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = set(re.findall(r"^ERROR .*test_leaks.py::test_(\w+)", run.stdout, re.MULTILINE))
    assert failed == set(LEAKS), run.stdout
    assert "5 passed" in run.stdout
    assert run.stdout.count("still there: ") == 2
    assert "a failure was lost" in run.stdout
