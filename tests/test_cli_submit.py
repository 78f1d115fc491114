"""foreman submit: what is handed over, what is said of it, and what comes back."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from foreman.cli.ui.exit_status import (
    FAILED,
    JOB_CANCELLED,
    JOB_DISCARDED,
    JOB_FAILED,
    NOT_ALLOWED,
    NOT_FOREMAN,
    NOT_FOUND,
)
from support.fake_foreman import (
    THIRD,
    Commands,
    FakeForeman,
    FakeResponse,
    ReceivedRequest,
    chat_event,
    commands,
    event,
    job,
    problem,
    serving,
)
from support.processes import SCRIPTS, clean_environment

CHAT = {"model": "llama3.2:3b", "message": {"role": "assistant", "content": "Hello!\nThere."}, "done": True}
TALKS = FakeResponse(body=CHAT)


@pytest.fixture
def fake() -> Iterator[FakeForeman]:
    with serving(FakeForeman()) as made:
        yield made


@pytest.fixture
def foreman(monkeypatch: pytest.MonkeyPatch, fake: FakeForeman) -> Commands:
    return commands(monkeypatch, fake)


def taken(fake: FakeForeman) -> Any:
    """The one job that was handed over."""
    (asked,) = (asked for asked in fake.requests if asked.method == "POST")
    assert asked.path == "/jobs"
    assert asked.headers["Content-Type"] == "application/json"
    return asked.json


def ends(fake: FakeForeman, state: str, **more: Any) -> None:
    """Let the job that is handed over end like this, at the third question."""
    fake.next_states[THIRD] = [job(THIRD), job(THIRD, "running"), job(THIRD, state, **more)]
    fake.artifacts[THIRD, "response"] = TALKS


# -- what is handed over


@ensureDeferred
async def test_a_prompt_becomes_a_chat_and_a_script_gets_the_bare_id(foreman: Commands, fake: FakeForeman) -> None:
    result = await foreman("submit", "--model", "llama3.2:3b", "Grüß dich")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{THIRD}\n", "")
    messages = [{"role": "user", "content": "Grüß dich"}]
    assert taken(fake) == {"endpoint": "/api/chat", "payload": {"model": "llama3.2:3b", "messages": messages}}


@ensureDeferred
async def test_a_person_is_told_how_to_come_back(foreman: Commands, fake: FakeForeman) -> None:
    foreman.terminals = {"<stdout>"}
    result = await foreman("submit", "--model", "llama3.2:3b", "Hello")
    assert result.stdout.startswith(f"{THIRD}\nXES2HA is queued, position 3")
    assert "foreman jobs wait XES2HA " in result.stdout
    elsewhere = await foreman("submit", "--model", "m", "Hello", "--url", fake.url, FOREMAN_URL="http://nowhere")
    assert f"foreman jobs wait XES2HA --url {fake.url} " in elsewhere.stdout


@ensureDeferred
async def test_everything_that_can_be_said_of_a_job_is_handed_over(
    foreman: Commands, fake: FakeForeman, tmp_path: Path
) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    words = 'submit Look --model m --system Be --option temperature=0.5 --option stop=["a"] --option mirostat_tau=NaN'
    more = (
        "--priority 2 --max-attempts 3 --meta run=nightly --meta a=b=c --key k-1 --deadline 2026-12-01T00:00:00+01:00"
    )
    schema = '{"type": "object"}'
    image = ["--image", str(tmp_path / "cat.png"), "--schema", schema]
    result = await foreman(*words.split(), *more.split(), *image, "--json")
    assert json.loads(result.stdout)["id"] == THIRD
    assert taken(fake) == {
        "endpoint": "/api/chat",
        "priority": 2,
        "max_attempts": 3,
        "metadata": {"run": "nightly", "a": "b=c"},
        "idempotency_key": "k-1",
        "deadline": "2026-11-30T23:00:00.000Z",
        "payload": {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be"},
                {"role": "user", "content": "Look", "images": [base64.b64encode(b"\x89PNG").decode()]},
            ],
            "format": {"type": "object"},
            "options": {"temperature": 0.5, "stop": ["a"], "mirostat_tau": "NaN"},
        },
    }


@ensureDeferred
async def test_a_delay_counts_from_now_on(foreman: Commands, fake: FakeForeman) -> None:
    before = datetime.now(UTC)
    await foreman("submit", "--model", "m", "--at", "+90m", "Hello")
    run_at = datetime.fromisoformat(taken(fake)["run_at"])
    assert timedelta(minutes=89, seconds=59) < run_at - before < timedelta(minutes=91)


@ensureDeferred
async def test_what_comes_by_standard_input_or_files_is_the_prompt(
    foreman: Commands, fake: FakeForeman, tmp_path: Path
) -> None:
    def prompt() -> str:
        text = fake.requests[-1].json["payload"]["messages"][-1]["content"]
        assert isinstance(text, str)
        return text

    (tmp_path / "a.txt").write_text("\N{ZERO WIDTH NO-BREAK SPACE}from a file\n")
    await foreman("submit", "--model", "m", stdin="by a pipe\n")
    assert prompt() == "by a pipe"
    for dash in (["-"], ["--file", "-"]):
        await foreman("submit", "--model", "m", *dash, stdin="by a pipe")
        assert prompt() == "by a pipe"
    await foreman("submit", "--model", "m", "Read this:", "--file", str(tmp_path / "a.txt"), stdin="not this")
    assert prompt() == "Read this:\n\nfrom a file"


@ensureDeferred
async def test_embeddings_take_a_text_or_a_file_for_each_input(
    foreman: Commands, fake: FakeForeman, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    await foreman("submit", "--model", "m", "--embed", "--file", str(tmp_path / "a"))
    assert fake.requests[-1].json == {"endpoint": "/api/embed", "payload": {"model": "m", "input": "one\ntwo"}}
    await foreman("submit", "--model", "m", "--embed", "zero", "--file", str(tmp_path / "a"), "--option", "num_ctx=8")
    wanted = {"model": "m", "input": ["zero", "one\ntwo"], "options": {"num_ctx": 8}}
    assert fake.requests[-1].json["payload"] == wanted


@pytest.mark.parametrize("schema", ["json", "FILE"])
@ensureDeferred
async def test_a_schema_may_stand_in_a_file_or_be_any_json(
    foreman: Commands, fake: FakeForeman, tmp_path: Path, schema: str
) -> None:
    (tmp_path / "schema").write_text('{"type": "array"}')
    await foreman("submit", "--model", "m", "x", "--schema", schema.replace("FILE", str(tmp_path / "schema")))
    assert taken(fake)["payload"]["format"] == ("json" if schema == "json" else {"type": "array"})


@ensureDeferred
async def test_a_payload_is_handed_over_byte_for_byte(foreman: Commands, fake: FakeForeman) -> None:
    payload = '{"model" : "m", "n": 1.0000000000000000001, "a": 1, "a": 2, "input": "\\u00fc ü"}'
    words = ("submit", "--endpoint", "/v1/responses", "--payload", "-", "--priority", "0")
    result = await foreman(*words, stdin=f"\N{ZERO WIDTH NO-BREAK SPACE}{payload}\n")
    assert result.exit_code == 0
    asked = taken(fake)
    assert (asked["endpoint"], asked["priority"]) == ("/v1/responses", 0)
    assert payload.encode() in fake.requests[-1].body


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("Hello", "--model NAME; foreman models lists them"),
        ("--model m --file nowhere.txt", "nowhere.txt cannot be read: No such file"),
        ("--model m --file binary", "binary is not text"),
        ("--model m --image nowhere.png x", "--image: nowhere.png cannot be read"),
        ("--model m --priority 10 x", "--priority"),
        ("--model m --at soon x", "'soon' is not a time"),
        ("--model m --at 2026-02-30 x", "a date or a time that does not exist"),
        ("--model m --at 500d x", "longer than a year"),
        ("--model m --meta run x", "is not KEY=VALUE"),
        ("--model m --option =3 x", "is not KEY=VALUE"),
        ("--model m --schema {x x", "--schema is not JSON"),
        ("--model m --schema list.json x", "--schema is not a JSON object"),
        ("--model m --embed --system s x", "cannot be used with --embed"),
        ("--model m - --file -", "only once"),
        ("--model m --follow --json x", "cannot be used together"),
        ("--model m --endpoint /api/chat x", "--endpoint needs --payload"),
        ("--payload list.json", "--payload needs --endpoint"),
        ("--payload list.json --endpoint /api/chat", "list.json is not a JSON object"),
        ("--payload bad.json --endpoint /api/chat", "bad.json is not JSON"),
        ("--payload binary --endpoint /api/chat", "binary is not UTF-8"),
        ("--payload list.json --endpoint /api/chat --model m", "--payload is the whole request"),
        ("--model m", "the prompt is empty"),
    ],
)
@ensureDeferred
async def test_what_is_written_wrongly_is_said_and_nothing_is_asked(
    foreman: Commands,
    fake: FakeForeman,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bad.json").write_text("{")
    result = await foreman("submit", *words.split())
    assert result.exit_code == 2
    assert sentence in re.sub(r"\s+", " ", result.stderr)
    assert fake.requests == []


@ensureDeferred
async def test_a_terminal_is_not_waited_for_in_silence(foreman: Commands, fake: FakeForeman) -> None:
    foreman.terminals = {"<stdin>"}
    result = await foreman("submit", "--model", "m")
    assert result.exit_code == 2
    assert "there is no prompt" in result.stderr


# -- what foreman says to it


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (problem(404, "model 'm' not found"), NOT_FOUND, "(404: model 'm' not found)"),
        (problem(400, "endpoint: is none"), FAILED, "endpoint: is none"),
        (problem(422, "the key was used for another body"), FAILED, "the key was used for another body"),
        (problem(429, "as many jobs wait as may", Retry_After="7"), FAILED, "as may); try again in 7 s"),
        (problem(507, "the disk is full"), FAILED, "the disk is full"),
        (problem(401, "a token is needed"), NOT_ALLOWED, "set FOREMAN_TOKEN"),
        (FakeResponse(404, b"404 page not found", "text/plain"), FAILED, "is it an older foreman?"),
        (FakeResponse(201, {"ok": True}), FAILED, "did not return a job"),
    ],
)
@ensureDeferred
async def test_a_refusal_is_told_in_its_own_words(
    foreman: Commands, fake: FakeForeman, answer: FakeResponse, status: int, sentence: str
) -> None:
    fake.overrides["POST /jobs"] = [answer]
    result = await foreman("submit", "--model", "m", "Hello")
    assert result.exit_code == status
    assert result.stderr.startswith("foreman submit: ")
    assert sentence in result.stderr
    assert result.stdout == ""


@ensureDeferred
async def test_something_else_than_foreman_gets_nothing(foreman: Commands, fake: FakeForeman) -> None:
    fake.health = FakeResponse(404, b"404 page not found")
    assert (await foreman("submit", "--model", "m", "Hello")).exit_code == NOT_FOREMAN
    assert fake.paths("POST") == []


@ensureDeferred
async def test_a_key_that_has_its_job_already_is_said_to(foreman: Commands, fake: FakeForeman) -> None:
    replayed = FakeResponse(200, job(THIRD, "running"), headers={"Idempotency-Replayed": "true"})
    fake.overrides["POST /jobs"] = [replayed]
    result = await foreman("submit", "--model", "m", "--key", "k", "Hello")
    assert (result.exit_code, result.stdout) == (0, f"{THIRD}\n")
    assert "there is already a job with this key" in result.stderr


@ensureDeferred
async def test_where_the_answer_is_lost_nobody_claims_to_know_whether_the_job_was_taken(
    foreman: Commands, fake: FakeForeman
) -> None:
    fake.overrides["POST /jobs"] = [FakeResponse(201, chunks=[b"{"], truncated=True)]
    result = await foreman("submit", "--model", "m", "Hello")
    assert result.exit_code == FAILED
    assert "it is not known whether the job was accepted" in result.stderr


@ensureDeferred
async def test_the_token_is_sent(foreman: Commands, fake: FakeForeman) -> None:
    await foreman("submit", "--model", "m", "Hello", FOREMAN_TOKEN="mine")
    assert {asked.headers.get("Authorization") for asked in fake.requests} == {"Bearer mine"}


# -- waiting for it


@ensureDeferred
async def test_who_waits_gets_the_words_of_the_answer(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "succeeded")
    result = await foreman("submit", "--model", "m", "--wait", "Hello")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello!\nThere.\n", "")


@ensureDeferred
async def test_who_waits_for_json_gets_the_job_as_it_ended(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "failed")
    result = await foreman("submit", "--model", "m", "--wait", "--json", "Hello")
    assert result.exit_code == JOB_FAILED
    assert json.loads(result.stdout)["state"] == "failed"


@pytest.mark.parametrize(
    ("state", "status"), [("failed", JOB_FAILED), ("discarded", JOB_DISCARDED), ("cancelled", JOB_CANCELLED)]
)
@pytest.mark.parametrize("how", ["--wait", "--follow"])
@ensureDeferred
async def test_how_it_ended_is_told_by_the_exit_status(
    foreman: Commands, fake: FakeForeman, state: str, status: int, how: str
) -> None:
    ends(fake, state, error={"class": "refused", "message": "no such thing", "attempt": 1})
    result = await foreman("submit", "--model", "m", how, "Hello")
    assert result.exit_code == status
    assert result.stdout == ""
    assert re.search(rf"XES2HA (was )?{state}, ran 3\.2 s, refused: no such thing", result.stderr)


@ensureDeferred
async def test_a_terminal_gets_no_escape_codes_from_a_model(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "succeeded")
    foreman.terminals = {"<stdout>"}
    fake.artifacts[THIRD, "response"] = FakeResponse(
        body={"message": {"content": "\x1b[2Jno\u202e\tfamily: 👩\u200d💻\u00a0!"}}
    )
    result = await foreman("submit", "--model", "m", "--wait", "Hello")
    assert result.stdout == "\ufffd[2Jno\ufffd\tfamily: 👩\u200d💻\u00a0!\n"


@ensureDeferred
async def test_foreman_may_be_started_anew_while_somebody_waits(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "succeeded")
    fake.overrides[f"GET /jobs/{THIRD}"] = []

    def away(asked: ReceivedRequest) -> None:
        broken = [problem(503, "foreman is stopping"), FakeResponse(chunks=[b"{"], truncated=True)]
        number = fake.paths("GET").count(f"/jobs/{THIRD}")
        fake.overrides[f"GET /jobs/{THIRD}"] = [broken[number - 1]] if 1 <= number <= 2 else []

    fake.on_request = away
    result = await foreman("submit", "--model", "m", "--wait", "Hello")
    assert (result.exit_code, result.stdout) == (0, "Hello!\nThere.\n")


@ensureDeferred
async def test_progress_is_shown_where_somebody_looks(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "succeeded")
    foreman.terminals = {"<stderr>"}
    result = await foreman("submit", "--model", "m", "--wait", "Hello", TERM="xterm")
    assert result.stdout == "Hello!\nThere.\n"
    assert "XES2HA" in result.stderr
    assert "running" in result.stderr
    assert result.stderr.rindex("\x1b[?25h") > result.stderr.rindex("\x1b[?25l")  # the cursor is back


# -- following it


@ensureDeferred
async def test_who_follows_reads_the_words_as_they_come_also_across_a_lost_connection(
    foreman: Commands, fake: FakeForeman
) -> None:
    ends(fake, "succeeded")
    fake.next_states[THIRD] += [job(THIRD, "succeeded")] * 5
    fake.next_states[THIRD][2] = job(THIRD, "running")
    kind = "text/event-stream"
    fake.streams = [
        FakeResponse(
            content_type=kind,
            chunks=[chat_event("He", "1-1"), chat_event("ll", "1-2"), b"id: 1-3\ndata: {"],
            truncated=True,
        ),
        problem(503, "foreman is stopping"),
        FakeResponse(
            content_type=kind, chunks=[b": waiting\n\n", chat_event("o", "1-3"), event({**CHAT, "message": {}}, "1-4")]
        ),
    ]
    result = await foreman("submit", "--model", "m", "--follow", "Hello")
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    asked = [asked for asked in fake.requests if asked.path.endswith("/stream")]
    assert [one.query.get("after") for one in asked] == [None, "1-2", "1-2"]
    assert {one.headers["Accept"] for one in asked} == {kind}


@ensureDeferred
async def test_a_try_that_failed_is_said_to_be_void(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "succeeded")
    pieces = [chat_event("Wro", "1-1"), event({"attempt": 2}, kind="attempt"), chat_event("Right", "2-1")]
    fake.streams = [FakeResponse(content_type="text/event-stream", chunks=pieces)]
    result = await foreman("submit", "--model", "m", "--follow", "Hello")
    assert result.stdout == "Wro\nRight\n"
    assert "discard the text above: attempt 2 begins" in result.stderr


@ensureDeferred
async def test_what_has_no_stream_is_printed_once_it_is_there(foreman: Commands, fake: FakeForeman) -> None:
    ends(fake, "succeeded")
    for step in fake.next_states[THIRD]:
        step["endpoint"] = "/v1/chat/completions"
    fake.artifacts[THIRD, "response"] = FakeResponse(body={"choices": [{"message": {"content": "Hi"}}]})
    words = ("submit", "--payload", "-", "--endpoint", "/v1/chat/completions", "--follow")
    result = await foreman(*words, stdin='{"model": "m"}')
    assert (result.exit_code, result.stdout) == (0, "Hi\n")
    assert not any(path.endswith("/stream") for path in fake.paths("GET"))


@ensureDeferred
async def test_thinking_is_for_people_only(foreman: Commands, fake: FakeForeman) -> None:
    thought = event({"message": {"thinking": "Hm.", "content": ""}}, "1-1")
    for terminals, printed in (({}, "Hi\n"), ({"<stdout>"}, "Hm.\n\nHi\n")):
        foreman.terminals = terminals
        ends(fake, "succeeded")
        fake.streams = [FakeResponse(content_type="text/event-stream", chunks=[thought, chat_event("Hi", "1-2")])]
        result = await foreman("submit", "--model", "m", "--follow", "Hello", NO_COLOR="1")
        assert re.sub(r"\x1b\[\d*m", "", result.stdout).endswith(printed)


# -- leaving it


@pytest.mark.parametrize(
    ("how", "held"), [("--wait", False), ("--wait", True), ("--follow", False), ("--follow", True)]
)
def test_ctrl_c_leaves_the_job_alone_and_says_how_to_come_back(fake: FakeForeman, how: str, held: bool) -> None:
    fake.next_states[THIRD] = [job(THIRD, "running" if how == "--follow" and held else "queued")] * 1000
    fake.streams = [FakeResponse(content_type="text/event-stream", chunks=[], open_for=60)]
    command = [str(SCRIPTS / "foreman"), "submit", "--model", "m", how, "Hello"]
    environ = clean_environment({}) | {"FOREMAN_URL": fake.url}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:

        def leave(asked: ReceivedRequest) -> None:
            if held and asked.query.get("wait"):
                fake.overrides[f"GET {asked.path}"] = [FakeResponse(chunks=[], open_for=60)]
            if asked.query.get("wait") or asked.path.endswith("/stream"):
                threading.Timer(0.2, process.send_signal, [signal.SIGINT]).start()

        fake.on_request = leave
        out, err = process.communicate(timeout=60)
    fake.release()
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "foreman submit: the job continues; to return to it: foreman jobs follow XES2HA"
    assert fake.paths("DELETE") == []
    assert [path for path in fake.paths("POST") if path != "/jobs"] == []
