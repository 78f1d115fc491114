"""The measures of jobs run, and a soak test; what they measure is nobody's business here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CC = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)

pytestmark = [
    pytest.mark.skipif(CC is None, reason="no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.jobs", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_a_quick_run_fills_every_row_of_the_table(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = bench("--quick", "--folder", tmp_path, "--json", figures)
    assert done.returncode == 0, done.stdout + done.stderr
    values = json.loads(figures.read_text())
    assert all(len(of_one) == 1 for of_one in values.values())
    for title in (
        "plain sqlite3",
        "store, 64 at once",
        "POST /jobs, 64 at once",
        "claim, 1,000 queued",
        "start to the",
    ):
        assert title in done.stdout
    assert list(tmp_path.iterdir()) == [figures]


@pytest.mark.slow
def test_a_short_soak_test_ends_with_nothing_left_to_do() -> None:
    done = bench("soak", "--jobs", "60", "--keep", "1s", "--minutes", "3")
    # Within a few seconds nobody can tell whether something grows.
    assert done.returncode in {0, 1}, done.stderr
    assert "60 jobs in " in done.stdout, done.stdout + done.stderr
    assert " 0 left over" in done.stdout
    assert "database, MB" in done.stdout


def test_a_name_that_nobody_has_is_answered_with_the_names_there_are() -> None:
    done = bench("--only", "everything")
    assert done.returncode == 2
    assert "claim" in done.stderr
