"""Every command in an environment that is not as imagined: a status, a sentence, and never a traceback."""

from __future__ import annotations

import errno
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pytest_twisted import ensureDeferred

from foreman.cli.client import client
from foreman.cli.client.address import normalize_url, token_from_environment
from foreman.cli.commands import check
from foreman.cli.main import cli
from foreman.cli.ui import command_exit
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.standard_streams import OutputLost
from support import forked_commands
from support.fake_foreman import (
    FIRST,
    Commands,
    FakeForeman,
    FakeResponse,
    ReceivedRequest,
    commands,
    event,
    job,
    ndjson,
    serving,
)
from support.processes import SCRIPTS, clean_environment

#: A line for each command; FOLDER is one of the test's own. Those that stay are tried in test_cli.py and below.
TYPED: dict[str, list[str]] = {
    "check": ["--listen", "127.0.0.1:0"],
    "ps": [],
    "models": ["--json"],
    "cancel": ["YPS1XE"],
    "submit": ["Hello", "--model", "m", "--wait"],
    "jobs": [],
    "jobs list": ["--all"],
    "jobs show": [FIRST],
    "jobs wait": [FIRST],
    "jobs follow": [FIRST],
    "jobs logs": [FIRST],
    "jobs get": [FIRST],
    "jobs artifacts": [FIRST],
    "jobs cancel": [FIRST],
    "jobs retry": [FIRST],
    "jobs rm": [FIRST, "--force"],
    "jobs prune": ["--yes"],
    "backup": ["FOLDER/copy.db", "--db-path", "FOLDER/foreman.db"],
    "restore": ["FOLDER/copy.db", "--db-path", "FOLDER/foreman.db"],
    "token new": ["alice", "--file", "FOLDER/tokens"],
    "token list": ["--file", "FOLDER/tokens"],
    "token revoke": ["bob", "--file", "FOLDER/tokens"],
    "settings": ["--env"],
    "install-service": ["--print"],
    "completion": ["bash"],
}
STAY = {"serve", "demo", "simulate"}
#: 141: the reader of the output has left.
STATUSES = {*range(10), 130, 141}
HALF = "\udce4"  # how Python keeps a byte that is no UTF-8


def tree(group: click.Group, *above: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by how it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from tree(command, *above, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join([*above, name]), command


@pytest.fixture
def fake() -> Iterator[FakeForeman]:
    made = FakeForeman()
    ended = job(FIRST, "succeeded")
    made.overrides |= {
        "GET /queue": [FakeResponse(body={"running": [], "waiting": [], "turns": 1})],
        "GET /api/ps": [FakeResponse(body={"models": []})],
        "GET /api/tags": [FakeResponse(body={"models": [{"name": "m:latest", "size": 1}]})],
        "POST /jobs": [FakeResponse(201, ended)],
        "DELETE /jobs": [FakeResponse(body={"deleted": 1})],
        f"GET /jobs/{FIRST}": [FakeResponse(body=ended)],
        f"GET /jobs/{FIRST}/stream": [
            FakeResponse(content_type="text/event-stream", chunks=[event({"response": "Hello"}, "1-1")])
        ],
        f"GET /jobs/{FIRST}/events": [FakeResponse(chunks=ndjson({"id": 1, "event": "created"}))],
        f"POST /jobs/{FIRST}/cancel": [FakeResponse(body=ended)],
        f"POST /jobs/{FIRST}/retry": [FakeResponse(body=ended)],
        f"DELETE /jobs/{FIRST}": [FakeResponse(204)],
        f"GET /jobs/{FIRST}/artifacts/response": [FakeResponse(body={"message": {"content": "Hell\u00f6 \u2603"}})],
    }
    made.add_jobs(ended)
    with serving(made):
        yield made


@pytest.fixture
def foreman(monkeypatch: pytest.MonkeyPatch, fake: FakeForeman) -> Commands:
    made = commands(monkeypatch, fake)
    monkeypatch.setattr(check, "run_with_reactor", vars(client)["run_with_reactor"])
    monkeypatch.setenv("FOREMAN_TARGET_URL", fake.url)
    return made


def words_of(name: str, folder: Path) -> list[str]:
    return [*name.split(), *(word.replace("FOLDER", str(folder)) for word in TYPED[name])]


def test_every_command_is_tried_here_and_refuses_what_is_no_text() -> None:
    found = dict(tree(cli))
    assert found.keys() - STAY == TYPED.keys()
    assert all(isinstance(command, HelpfulCommand) for command in found.values())


# -- variables


def nowhere(patch: pytest.MonkeyPatch) -> None:
    """A user whom nobody knows."""

    def unknown(_: object) -> Any:
        raise KeyError("getpwuid(): uid not found")

    patch.delenv("HOME", raising=False)
    patch.setattr(pwd, "getpwuid", unknown)


VARIABLES: dict[str, dict[str, str]] = {
    "a terminal without width": {"COLUMNS": "0"},
    "a terminal of one column": {"COLUMNS": "1"},
    "a width that is no number": {"COLUMNS": "wide", "LINES": "-1"},
    "an endless width": {"COLUMNS": "99999999"},
    "a dumb terminal": {"TERM": "dumb"},
    "no terminal": {"TERM": ""},
    "a zone that is not there": {"TZ": "Nonsense/Where"},
    "a zone that is no zone": {"TZ": ":/etc/passwd"},
    "relative folders": {"XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "../config"},
    "a state folder that cannot be": {"XDG_STATE_HOME": "/dev/null"},
    "proxies": {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "x", "ALL_PROXY": "y"},
    "no folder for temporary files": {"TMPDIR": "/nonexistent"},
    "no home": {"HOME": ""},
    "an address without a scheme": {"FOREMAN_URL": "box.invalid"},
    "an address with a password": {"FOREMAN_URL": "http://bob:hunter2@127.0.0.1:1"},
    "an address with a path": {"FOREMAN_URL": "http://127.0.0.1:1/base/"},
    "a port that is none": {"FOREMAN_URL": "http://127.0.0.1:99999"},
    "port 0": {"FOREMAN_URL": "http://127.0.0.1:0"},
    "a negative port": {"FOREMAN_URL": "http://127.0.0.1:-1"},
    "a socket": {"FOREMAN_URL": "unix:///run/foreman.sock"},
    "an address of IPv6": {"FOREMAN_URL": "http://[::1]:1"},
    "half a bracket": {"FOREMAN_URL": "http://[::1"},
    "no brackets": {"FOREMAN_URL": "::1"},
    "a zone id": {"FOREMAN_URL": "http://[fe80::1%lo]:1"},
    "a long name": {"FOREMAN_URL": f"http://{'a' * 70}.invalid"},
    "an empty label": {"FOREMAN_URL": "http://a..b"},
    "a name with a blank": {"FOREMAN_URL": "http://my box:8080"},
    "a control byte": {"FOREMAN_URL": "http://127.0.0.1:1/\x7f\r\nX: y"},
    "TLS where there is none": {"FOREMAN_URL": "https://127.0.0.1:1"},
    "an address that is no text": {"FOREMAN_URL": f"http://{HALF}"},
    "a token of two lines": {"FOREMAN_TOKEN": "a\r\nX: y"},
    "a token that is no text": {"FOREMAN_TOKEN": HALF},
    "a model that is no text": {"FOREMAN_EMBEDDER_MODEL": HALF},
}


@pytest.mark.parametrize("what", VARIABLES)
@ensureDeferred
async def test_whatever_the_variables_say_a_command_ends_with_a_status_and_a_sentence(
    foreman: Commands, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "no home":
        nowhere(monkeypatch)
    if "TZ" in VARIABLES[what]:
        monkeypatch.setenv("TZ", VARIABLES[what]["TZ"])
        time.tzset()
    for name in TYPED:
        result = await foreman(*words_of(name, tmp_path), **VARIABLES[what])
        said = result.output
        assert result.exit_code in STATUSES, (name, said)
        assert isinstance(result.exception, SystemExit | None), (name, result.exception)
        assert "unexpected error" not in said, (name, said)
        assert "hunter2" not in said, (name, said)
        assert not result.exit_code or said.strip(), name
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("HTTP://Box:80/k/a%20b", "http://box:80/k/a%20b"),
        ("http://b\u00fcro:8080", "http://xn--bro-hoa:8080"),
        (" box ", "http://box"),
    ],
)
def test_an_address_is_made_one_that_can_be_asked(given: str, asked: str) -> None:
    assert normalize_url(given) == asked


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(click.UsageError) as refused:
        normalize_url("http://bob:hunter2@box/path")
    assert "http://***@box/path" in str(refused.value)
    assert "FOREMAN_TOKEN" in str(refused.value)


def test_a_token_is_one_that_a_header_can_carry() -> None:
    assert token_from_environment({"FOREMAN_TOKEN": " mine\n", "FOREMAN_AUTH_TOKEN": "theirs"}) == "mine"
    assert token_from_environment({"FOREMAN_AUTH_TOKEN": "theirs"}) == "theirs"
    assert token_from_environment({"FOREMAN_TOKEN": " "}) is None
    with pytest.raises(click.UsageError, match="FOREMAN_TOKEN: may only"):
        token_from_environment({"FOREMAN_TOKEN": "m\u00edne"})


# -- what is typed


def text_parameters(command: click.Command) -> Iterator[list[str]]:
    """Each option and argument that takes text, with text that is none."""
    for parameter in command.params:
        if isinstance(parameter.type, click.Path) or getattr(parameter, "is_flag", False):
            continue
        value = f"a={HALF}" if getattr(parameter, "metavar", None) == "KEY=VALUE" else HALF
        yield [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]


@pytest.mark.parametrize("name", TYPED)
@ensureDeferred
async def test_what_is_no_text_is_refused_and_nothing_is_asked(
    foreman: Commands, fake: FakeForeman, name: str, tmp_path: Path
) -> None:
    command = dict(tree(cli))[name]
    for words in text_parameters(command):
        typed = name.split() if len(words) == 1 else words_of(name, tmp_path)
        result = await foreman(*typed, *words)
        assert result.exit_code in {1, 2}, (words, result.output)
        assert "unexpected error" not in result.output
    assert [one for one in fake.requests if one.method != "GET"] == []


@ensureDeferred
async def test_two_keys_that_are_no_text_do_not_become_one_job(foreman: Commands, fake: FakeForeman) -> None:
    for key in ("nacht\udce4", "nacht\udcf6"):
        result = await foreman("submit", "--model", "m", "Hello", "--key", key)
        assert result.exit_code == 2
        assert "Invalid value for '--key': is not UTF-8" in result.stderr
    assert fake.requests == []


@ensureDeferred
async def test_a_file_may_have_a_name_that_is_no_text(foreman: Commands, fake: FakeForeman, tmp_path: Path) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")
    with open(path, "w", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123 - pathlib is not for coroutines
        file.write("What is this?")
    result = await foreman("submit", "--model", "m", "--file", path)
    assert result.exit_code == 0, result.output
    (asked,) = [one for one in fake.requests if one.method == "POST"]
    assert asked.json["payload"]["messages"][0]["content"] == "What is this?"
    missing = await foreman("submit", "--model", "m", "--file", f"{path}.not")
    assert missing.exit_code == 2
    assert "cannot be read" in missing.stderr


@ensureDeferred
async def test_an_escape_of_half_a_pair_stays_what_it_is(foreman: Commands, fake: FakeForeman) -> None:
    await foreman("submit", "--model", "m", "Hello", "--option", '"stop=\\ud800"', "--schema", '{"const": "\\ud800"}')
    (asked,) = [one for one in fake.requests if one.method == "POST"]
    assert rb'"const": "\ud800"' in asked.body


@ensureDeferred
async def test_json_that_is_nested_without_end_is_refused(foreman: Commands, tmp_path: Path) -> None:
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    (tmp_path / "deep").write_text(deep)
    for words in (
        ["--schema", deep],
        ["--option", f"a={deep}"],
        ["--endpoint", "/api/chat", "--payload", str(tmp_path / "deep")],
    ):
        result = await foreman("submit", *(["--model", "m", "Hello"] if "--endpoint" not in words else []), *words)
        assert result.exit_code == 2, result.output[-300:]
        assert "unexpected error" not in result.output


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"])
@ensureDeferred
async def test_a_moment_at_the_end_of_the_calendar_is_no_traceback(foreman: Commands, text: str) -> None:
    for words in (["jobs", "--since", text], ["submit", "--model", "m", "Hello", "--at", text]):
        result = await foreman(*words)
        assert result.exit_code in {0, 2}, result.output
        assert "unexpected" not in result.output


# -- what a process begins with


#: HYPOTHESIS_PROFILE=thorough tries each command in each way to begin; else each in a third of the ways, in turn.
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def results(fake: FakeForeman, folder: Path, *how: str, **environ: str) -> list[tuple[str, str, dict[str, Any]]]:
    """What came of every command that begins so."""
    cases = [
        (name, one)
        for number, one in enumerate(how)
        for turn, name in enumerate(TYPED)
        if one == "plain" or THOROUGH or (number + turn) % 3 == 0
    ]
    given = json.dumps([{"words": words_of(name, folder), "how": one} for name, one in cases])
    environment = clean_environment({"url": fake.url, "target_url": fake.url})
    environment |= {"HOME": str(folder), **environ}
    program = [sys.executable, forked_commands.__file__]
    run = subprocess.run(program, input=given.encode(), env=environment, capture_output=True, check=True, timeout=300)
    return [(name, one, result) for (name, one), result in zip(cases, json.loads(run.stdout), strict=True)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_whatever_a_process_begins_with_it_ends_with_a_status_and_a_sentence(fake: FakeForeman, tmp_path: Path) -> None:
    plain: dict[str, dict[str, Any]] = {}
    for name, how, result in results(fake, tmp_path, *forked_commands.SETUPS):
        status, said = result["status"], result["err"]
        assert status in STATUSES, (name, how, result)
        for word in ("Traceback", "Exception ignored", "unexpected error"):
            assert word not in result["out"] + said, (name, how, result)
        if how == "plain":
            plain[name] = result
            continue
        printed = bool(plain[name]["out"])
        if how == "stdout-full" and printed:
            assert (status, said.splitlines()[-1]) == (
                1,
                f"foreman: standard output cannot be written: {os.strerror(errno.ENOSPC)}",
            ), (name, result)
        if how == "stdout-closed" and printed:
            assert (status, "standard output is closed" in said) == (1, True), (name, result)
        if how == "reader-left" and printed:
            assert (status, said in {"", plain[name]["err"]}) == (141, True), (name, result)
        if how in {"stderr-closed", "stderr-full"} and name != "token new":
            assert (status, bool(result["out"])) == (plain[name]["status"], printed), (name, how, result)


@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "xx_YY.nonsense"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environ: " ".join(f"{name}={value}" for name, value in environ.items()),
)
def test_whatever_the_encoding_of_the_streams_is_there_is_no_traceback(
    fake: FakeForeman, tmp_path: Path, environ: dict[str, str]
) -> None:
    for name, _, result in results(fake, tmp_path, "plain", **environ):
        assert result["status"] in STATUSES, (name, result)
        assert "Traceback" not in result["err"], (name, result)
        assert "unexpected error" not in result["err"], (name, result)


def test_output_into_a_pipe_that_does_not_block_is_whole(fake: FakeForeman) -> None:
    fake.overrides[f"GET /jobs/{FIRST}/artifacts/response"] = [
        FakeResponse(body=b"x" * 1_000_000, content_type="text/plain")
    ]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    program = subprocess.Popen(
        [SCRIPTS / "foreman", "jobs", "get", FIRST],
        stdin=subprocess.DEVNULL,
        env=clean_environment({"url": fake.url}),
        stdout=writer,
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as output:
        assert len(output.read()) == 1_000_000
    assert program.wait(30) == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_signal_while_an_answer_is_awaited_ends_a_command_quietly(
    fake: FakeForeman, number: signal.Signals, status: int
) -> None:
    fake.health = FakeResponse(chunks=[b" "], open_for=30)
    program = subprocess.Popen(
        [SCRIPTS / "foreman", "ps"],
        stdin=subprocess.DEVNULL,
        env=clean_environment({"url": fake.url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not fake.requests and program.poll() is None:
        time.sleep(0.01)
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    fake.release()
    assert (program.returncode, out, err) == (status, b"", b"")


def test_ctrl_c_while_foreman_is_imported_is_no_traceback() -> None:
    script = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'foreman.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from foreman.cli.entry import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, b"", b"")


# -- how a command ends


def ended(capsys: pytest.CaptureFixture[str], problem: BaseException) -> tuple[object, str]:
    """Status and sentence of a command that raises this."""

    def work() -> None:
        raise problem

    with pytest.raises(SystemExit) as end:
        command_exit.run_and_exit(work)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "status", "sentence"),
    [
        (OSError(28, "No space left on device", "/var/x"), 1, "foreman: /var/x: No space left on device\n"),
        (OSError(5, "Input/output error"), 1, "foreman: Input/output error\n"),
        (OutputLost(32, "Broken pipe"), 141, ""),
        (OutputLost(28, "No space left on device"), 1, "foreman: standard output cannot be written: No space left"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 1, "foreman: stopped: the question was not answered\n"),
        (click.ClickException("no"), 1, "foreman: no\n"),
        (SystemExit(7), 7, ""),
        (click.UsageError("no"), 2, "foreman: no\n"),
        (RecursionError("too deep"), 1, "foreman: unexpected error: RecursionError: too deep"),
        (ValueError("a\nb\x1b[31m" + "x" * 9000), 1, "foreman: unexpected error: ValueError: a b"),
    ],
    ids=repr,
)
def test_whatever_is_raised_becomes_a_status_and_at_most_one_line(
    capsys: pytest.CaptureFixture[str], problem: BaseException, status: int, sentence: str
) -> None:
    found, said = ended(capsys, problem)
    assert found == status
    assert said.startswith(sentence)
    assert said.count("\n") == (1 if sentence else 0)
    assert len(said) < 3000
    assert "\x1b" not in said


# -- what answers is odd

ODD_ANSWERS: dict[str, FakeResponse] = {
    "a page": FakeResponse(body=b"<html>" + b"<p>Welcome</p>" * 10_000, content_type="text/html"),
    "a page that fails": FakeResponse(502, b"<html>Bad Gateway</html>", "text/html"),
    "a redirect": FakeResponse(302, b"", headers={"Location": "https://sign.in/"}),
    "nothing": FakeResponse(),
    "null": FakeResponse(body=b"null"),
    "a list": FakeResponse(body=b"[[]]"),
    "deep": FakeResponse(body=b"[" * 100_000),
    "a long number": FakeResponse(body=b'{"status": ' + b"9" * 10_000 + b"}"),
    "a long reason": FakeResponse(500, {"error": "\x1b[31m no\n" * 10_000}),
    "broken off": FakeResponse(chunks=[b'{"jobs": ['], truncated=True),
}


@pytest.mark.parametrize("healthy", [True, False])
@pytest.mark.parametrize("what", ODD_ANSWERS)
@ensureDeferred
async def test_whatever_answers_a_command_ends_with_one_sentence(
    foreman: Commands, fake: FakeForeman, what: str, healthy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreman.cli.client.polling.MAX_OUTAGE", 0.05)

    def answer(_: FakeForeman, asked: ReceivedRequest) -> FakeResponse:
        return fake.health if healthy and asked.path == "/healthz" else ODD_ANSWERS[what]

    monkeypatch.setattr(FakeForeman, "answer", answer)
    for name in TYPED:
        if name.startswith(("jobs", "ps", "models", "cancel", "submit")):
            result = await foreman(*words_of(name, tmp_path))
            assert result.exit_code in STATUSES - {141}, (name, result.output)
            assert "unexpected error" not in result.output, (name, result.output)
            if result.exit_code:
                assert len(result.stderr) < 3000, name
                assert result.stderr.count("\n") == 1, (name, result.stderr)
                assert "\x1b" not in result.stderr


@ensureDeferred
async def test_an_answer_without_end_is_given_up(
    foreman: Commands, fake: FakeForeman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreman.cli.client.client.MAX_RESPONSE", 1_000_000)
    fake.health = FakeResponse(chunks=[b"x" * 100_000] * 11, open_for=30)
    result = await foreman("ps")
    fake.release()
    assert result.exit_code == 1
    assert "is larger than 1 MB; is it foreman?" in result.stderr


@ensureDeferred
async def test_a_list_of_pages_without_end_is_given_up(foreman: Commands, fake: FakeForeman) -> None:
    page = {"jobs": [job(FIRST)], "next": "/jobs?limit=200"}
    fake.overrides["GET /jobs"] = [FakeResponse(body=page)]
    result = await foreman("jobs", "--all")
    assert result.exit_code == 1
    assert "returned the same page twice" in result.stderr
