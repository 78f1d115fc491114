"""The benchmarks run, and their C programs are sound; what they measure is nobody's business here."""

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

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")


@pytest.mark.parametrize("name", ["target", "client"])
def test_the_c_programs_compile_without_a_warning(name: str, tmp_path: Path) -> None:
    strict = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror"]
    source = ROOT / "benchmarks" / f"{name}.c"
    done = subprocess.run(
        [str(CC), *strict, "-o", tmp_path / name, source],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_quick_run_fills_every_row_of_the_table(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = bench("--quick", "--rounds", "1", "--subject", "naive", "--json", figures)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(figures.read_text())
    assert {row["subject"] for row in rows} == {"direct", "naive"}
    for row in rows:
        assert row["title"] in done.stdout
        assert row["values"] or row["reason"], row


def test_a_name_that_nobody_has_is_answered_with_the_names_there_are() -> None:
    done = bench("--only", "everything")
    assert done.returncode == 2
    assert "first-token" in done.stderr
