"""Which tests ``make check`` runs for a change, and that a commit's subject is short."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools import commit_subjects, touched  # noqa: E402 - it stands beside the tests, in no package that is installed

TREE = {
    "src/foreman/errors.py": "",
    "src/foreman/gate.py": "from foreman import errors",
    "src/foreman/web/visit.py": "from foreman.gate import Gate",
    "src/foreman/cli/gate.py": "",
    "tests/support/wire.py": "import foreman.web.visit",
    "tests/test_gate_order.py": "",
    "tests/test_errors.py": "from foreman import errors",
    "tests/test_relay.py": "from support.wire import send",
    "tests/test_lazy.py": "def test_it():\n    from foreman.gate import Gate",
    "tests/test_pages.py": "PAGE = ROOT / 'docs' / 'jobs.md'",
    "tests/test_other.py": "",
}
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def distances(*changed: str) -> dict[str, int]:
    found = touched.distances(changed, {path: ast.parse(text) for path, text in TREE.items()})
    return {path.removeprefix("tests/test_").removesuffix(".py"): distance for path, distance in found.items()}


def test_a_change_touches_what_is_named_after_it_and_what_imports_it_however_far() -> None:
    assert distances("src/foreman/gate.py") == {"gate_order": 0, "lazy": 1, "relay": 3}
    assert distances("src/foreman/errors.py") == {"errors": 0, "lazy": 2, "relay": 4}


def test_a_changed_test_and_a_changed_helper_touch_their_own() -> None:
    assert distances("tests/test_other.py") == {"other": 0}
    assert distances("tests/support/wire.py") == {"relay": 1}


def test_a_file_that_is_not_python_touches_the_tests_that_name_it_or_its_folder() -> None:
    assert distances("docs/jobs.md") == {"pages": 1}
    assert distances("docs/decisions/0001.md") == {"pages": 1}
    assert distances("LICENSE") == {}


def test_a_module_that_is_gone_touches_the_tests_that_are_named_after_it() -> None:
    assert distances("src/foreman/relay.py") == {"relay": 0}


def test_the_nearest_and_quickest_run_until_the_time_is_spent() -> None:
    far, near, slow, own = "tests/test_far.py", "tests/test_near.py", "tests/test_slow.py", "tests/test_own.py"
    distance, seconds = {far: 2, near: 1, slow: 1, own: 0}, {far: 2.0, near: 2.0, slow: 9.0, own: 4.0}
    assert touched.choose(distance, seconds, 10) == ([own, near, far], [slow])
    assert touched.choose(distance, seconds, 6) == ([own, near], [slow, far])
    assert touched.choose({own: 0}, seconds, 1) == ([own], [])


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=")
    subprocess.run(["git", *who, *arguments], stdin=subprocess.DEVNULL, cwd=folder, check=True, capture_output=True)


def commit(folder: Path, name: str) -> None:
    (folder / name).write_text(name)
    git(folder, "add", name)
    git(folder, "commit", "--message", f"Add {name}")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--initial-branch", "main")
    commit(tmp_path, "first")
    git(tmp_path, "checkout", "-b", "topic")
    commit(tmp_path, "second")
    commit(tmp_path, "third")
    return tmp_path


@needs_git
def test_the_change_is_what_is_not_committed_or_else_the_last_commit(checkout: Path) -> None:
    assert touched.changed_files(checkout, touched.recent_base(checkout)) == {"third"}
    assert touched.changed_files(checkout, touched.branch_base(checkout)) == {"second", "third"}
    (checkout / "new").write_text("")
    (checkout / "second").unlink()
    assert touched.changed_files(checkout, touched.recent_base(checkout)) == {"new", "second"}


@needs_git
def test_one_commit_without_a_main_branch_is_enough(tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch", "trunk")
    commit(tmp_path, "first")
    assert touched.changed_files(tmp_path, touched.recent_base(tmp_path)) == set()
    assert touched.changed_files(tmp_path, touched.branch_base(tmp_path)) == set()


def test_outside_of_a_checkout_nothing_is_known_to_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(touched.NotACheckout):
        touched.changed_files(tmp_path, "HEAD")


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("x" * 72, 0),
        ("x" * 73, 1),
        ("ä" * 72, 0),
        ("\n# a comment\n" + "x" * 72 + "\n\n" + "a body may be wider " * 9, 0),
        ("Merge " + "x" * 90, 0),
        ("fixup! " + "x" * 72, 0),
        ("", 0),
    ],
)
def test_a_subject_has_at_most_72_characters(message: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "COMMIT_EDITMSG").write_text(message, "utf-8")
    assert commit_subjects.main([str(tmp_path / "COMMIT_EDITMSG")]) == status


@needs_git
def test_the_subjects_of_a_range_are_checked_and_those_before_it_are_not(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    git(checkout, "commit", "--allow-empty", "--message", "y" * 80)
    commit(checkout, "fourth")
    assert commit_subjects.main(["HEAD^..HEAD"]) == 0
    assert commit_subjects.main(["main..HEAD"]) == 1
    assert "y" * 80 in capsys.readouterr().err


def test_a_range_that_git_does_not_know_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert commit_subjects.main(["0123abc..HEAD"]) == 0
    assert "not checked" in capsys.readouterr().out


@needs_git
def test_the_hook_refuses_a_long_subject(checkout: Path) -> None:
    shutil.copytree(ROOT / "tools", checkout / "tools")
    (checkout / "tools" / "hooks" / "commit-msg").chmod(0o755)
    message = ["-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "core.hooksPath=tools/hooks", "commit"]
    for subject, status in (("z" * 72, 0), ("z" * 73, 1)):
        done = subprocess.run(
            ["git", *message, "--allow-empty", "--no-gpg-sign", "--message", subject],
            stdin=subprocess.DEVNULL,
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
