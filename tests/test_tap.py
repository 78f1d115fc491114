"""foreman under ``twistd`` and ``twist``: its log, its pid file, and a port that is taken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate
from twisted.python.reflect import namedAny
from twisted.python.usage import Options as Runner

from foreman.tap import Options, remove_stale_pid_file
from support.processes import SCRIPTS, clean_environment, free_port

TAC = Path(__file__).parents[1] / "foreman.tac"


def run(folder: Path, *words: str, until: str = "", **settings: str) -> tuple[int, str, str]:
    """Status, output and messages of a program; it gets SIGTERM when it has printed ``until`` into OUT or its log."""
    environ = clean_environment({"target_url": "127.0.0.1:9", "db_path": str(folder / "foreman.db"), **settings})
    out, err = folder / "out", folder / "err"
    with out.open("w") as output, err.open("w") as messages:
        program = subprocess.Popen(
            [SCRIPTS / words[0], *words[1:]],
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=messages,
        )
        deadline = time.monotonic() + 40
        while program.poll() is None:
            texts = [file.read_text("utf-8") for file in (out, folder / "twistd.log") if file.exists()]
            if time.monotonic() > deadline:
                program.kill()
            elif until and any(until in text for text in texts):
                program.send_signal(signal.SIGTERM)
            time.sleep(0.02)
    return program.wait(), out.read_text("utf-8"), err.read_text("utf-8")


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.mark.parametrize(
    "words",
    [
        ["twistd", "--nodaemon", "foreman"],
        ["twistd", "foreman"],
        ["twist", "foreman"],
        ["twistd", "-ny", str(TAC)],
        ["foreman", "serve"],
        ["foreman", "demo"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_port_that_is_taken_is_one_sentence_and_a_status(tmp_path: Path, taken: str, words: list[str]) -> None:
    status, out, err = run(tmp_path, *words, listen=taken)
    log = tmp_path / "twistd.log"
    said = out + err + (log.read_text() if log.exists() else "")
    assert status == 1, said
    assert "Address already in use" in said
    assert "foreman cannot listen on" in said
    assert "Traceback" not in said
    assert not (tmp_path / "twistd.pid").exists()


@pytest.mark.parametrize(
    "words", [["twist", "foreman"], ["twistd", "--nodaemon", "foreman"]], ids=lambda words: words[0]
)
def test_a_wrong_setting_is_told_without_the_list_of_options(tmp_path: Path, words: list[str]) -> None:
    status, out, err = run(tmp_path, *words, listen="127.0.0.1:0", turns="0", buffer="x")
    assert (status, out) == (2, "")
    assert err.splitlines()[0].startswith("foreman: FOREMAN_TURNS: ")
    assert err.splitlines()[1].startswith("foreman: FOREMAN_BUFFER: ")
    assert len(err.splitlines()) == 2


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "words", [["twistd", "--nodaemon", "foreman"], ["twist", "foreman"]], ids=lambda words: words[0]
)
def test_the_format_of_the_log_counts_under_every_runner(tmp_path: Path, words: list[str]) -> None:
    listen = f"127.0.0.1:{free_port()}"
    _, out, _ = run(tmp_path, *words, until="listens on", listen=listen, log_format="json")
    assert any(line["system"].startswith("foreman.") for line in lines(out))
    _, out, _ = run(tmp_path, *words, until="listens on", listen=listen)
    assert "[foreman." in out


def test_a_log_file_of_twistd_has_the_format_too(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    words = ["twistd", "--nodaemon", "--logfile=twistd.log", "foreman", "--log-format=json"]
    _, out, _ = run(tmp_path, *words, until="listens on", listen=listen)
    assert out == ""
    assert any("listens on" in line["message"] for line in lines((tmp_path / "twistd.log").read_text()))


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_the_level_of_the_log_counts_under_every_runner(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    runner: str,
    log_format: str,
    level: str,
) -> None:
    monkeypatch.setattr("sys.argv", [runner, "foreman", f"--log-format={log_format}", f"--log-level={level}"])
    monkeypatch.setenv("FOREMAN_DB_PATH", str(tmp_path / "foreman.db"))
    options = Options()
    parent: Any = Runner()
    parent.subCommand = "foreman"
    parent |= {"nodaemon": True} if runner == "twistd" else {"fileLogObserverFactory": None, "logLevel": LogLevel.info}
    options.parent = parent
    options.parseOptions(sys.argv[2:])
    if runner == "twistd":
        writes = namedAny(parent["logger"])()
    else:  # as twist puts them together
        predicate = LogLevelFilterPredicate(defaultLogLevel=parent["logLevel"])
        writes = FilteringLogObserver(parent["fileLogObserverFactory"](sys.stdout), [predicate])
    for each in (LogLevel.debug, LogLevel.info):
        writes({"log_time": 0.0, "log_level": each, "log_namespace": "n", "log_format": f"an event of {each.name}"})
    told = capsys.readouterr().out.splitlines()
    assert [line.startswith("{") for line in told] == [log_format == "json"] * len(told)
    expected = ["debug", "info"] if level == "debug" else ["info"]
    assert [word for word in ("debug", "info") if any(f"an event of {word}" in line for line in told)] == expected


@pytest.mark.parametrize("chosen", [{"logger": "somebody.elses"}, {"syslog": True}])
def test_a_log_that_twistds_own_options_choose_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    monkeypatch.setenv("FOREMAN_LOG_FORMAT", "json")
    monkeypatch.setenv("FOREMAN_DB_PATH", str(tmp_path / "foreman.db"))
    runner = Runner()
    runner.update(chosen)
    options = Options()
    options.parent = runner
    options.parseOptions([])
    assert dict(runner) == chosen


@pytest.mark.parametrize("content", [str(os.getpid()), "", "\n"], ids=["own", "empty", "blank"])
def test_a_pid_file_that_is_empty_or_of_a_killed_process_with_the_same_number_is_removed(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "twistd.pid"
    file.write_text(content)
    remove_stale_pid_file(str(file))
    assert not file.exists()


@pytest.mark.parametrize("content", ["1", "none", "9" * 5000])
def test_a_pid_file_of_another_process_is_left_to_twistd(tmp_path: Path, content: str) -> None:
    file = tmp_path / "twistd.pid"
    file.write_text(content)
    remove_stale_pid_file(str(file))
    assert file.read_text() == content
    for nothing in (None, "", str(tmp_path), str(tmp_path / "none")):
        remove_stale_pid_file(nothing)
