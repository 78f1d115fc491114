"""foreman jobs: what is listed, shown, waited for, fetched and changed, and how each command ends."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pytest_twisted import ensureDeferred
from rich.console import Console

from foreman.cli.client import polling, stream_reader
from foreman.cli.commands.jobs import COMMANDS, command
from foreman.cli.main import cli
from foreman.cli.ui import next_steps, times
from foreman.cli.ui.exit_status import (
    FAILED,
    JOB_CANCELLED,
    JOB_DISCARDED,
    JOB_FAILED,
    NOT_ALLOWED,
    NOT_ENDED,
    NOT_FOREMAN,
    NOT_FOUND,
    USAGE_ERROR,
)
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.job_text import answer_text, embeddings_summary, note, short_duration
from foreman.cli.ui.job_view import show_list
from foreman.cli.ui.progress import Progress
from foreman.cli.ui.ps_view import Snapshot, show
from support.fake_foreman import (
    FIRST,
    SECOND,
    THIRD,
    Commands,
    FakeForeman,
    FakeResponse,
    chat_event,
    commands,
    event,
    job,
    ndjson,
    problem,
    serving,
)

CHAT = {"model": "llama3.2:3b", "message": {"role": "assistant", "content": "Hello!"}, "done": True}
GONE = {"class": "target_error", "message": "llama runner process has terminated: exit status 2", "attempt": 2}
LONG_MODEL = "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"


@pytest.fixture
def fake() -> Iterator[FakeForeman]:
    with serving(FakeForeman()) as made:
        made.add_jobs(
            job(FIRST, "succeeded", artifacts=[{"name": "response", "type": "application/json", "bytes": 812}]),
            job(SECOND, "running", endpoint="/v1/chat/completions", model=LONG_MODEL, metadata={"run": "nightly"}),
            job(THIRD, "scheduled", attempt=2, error=GONE, run_at="2126-11-28T10:00:00.000Z"),
        )
        made.artifacts[FIRST, "response"] = FakeResponse(body=CHAT)
        yield made


@pytest.fixture
def foreman(monkeypatch: pytest.MonkeyPatch, fake: FakeForeman) -> Commands:
    return commands(monkeypatch, fake)


def named(name: str) -> HelpfulCommand:
    found = command.get_command(click.Context(command), name)
    assert isinstance(found, HelpfulCommand)
    return found


# -- what all of them share

#: Those that are given a job.
ALL = [name for name in COMMANDS if name not in {"list", "prune"}]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_within_a_terminal(name: str) -> None:
    result = CliRunner().invoke(cli, ["jobs", name, "--help"], terminal_width=80, prog_name="foreman")
    assert result.output.startswith(f"Usage: foreman jobs {name} ")
    assert max(map(len, result.output.splitlines())) <= 80
    assert {0, 1, 2, 3, 4} <= named(name).exit_statuses.keys()
    assert named(name).short_help == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_of_options_that_there_are(name: str) -> None:
    assert named(name).examples
    for example in [*named(name).examples, *command.examples]:
        for typed in re.findall(r"foreman jobs ([^|&>]*)", example.partition("  #")[0]):
            words = shlex.split(typed)
            one = named(words.pop(0)) if words and words[0] in COMMANDS else command
            one.make_context("x", [*words], resilient_parsing=True)
            assert {word for word in words if word.startswith("-")} <= {
                name for one in one.params for name in [*one.opts, *one.secondary_opts]
            }


def test_every_exit_status_is_one_of_the_group_s_page_and_no_two_mean_the_same() -> None:
    statuses = [JOB_FAILED, JOB_DISCARDED, JOB_CANCELLED, NOT_ENDED]
    assert len({*statuses, 0, FAILED, USAGE_ERROR, NOT_ALLOWED, NOT_FOREMAN, NOT_FOUND}) == 10
    assert set(statuses) <= named("wait").exit_statuses.keys()


def test_commands_and_states_are_completed_and_nothing_is_imported_for_it() -> None:
    script = (
        "import sys; from foreman.cli.main import cli; from click.shell_completion import ShellComplete;"
        "ask = lambda *words: [item.value for item in ShellComplete(cli, {}, 'foreman', '_X')"
        ".get_completions(list(words[:-1]), words[-1])];"
        "print(ask('jobs', ''), ask('jobs', 're'), ask('jobs', '--state', 'queued,sc'));"
        "print({'twisted', 'rich', 'treq'} & set(sys.modules), ask('jobs', 'get', '--o'))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    expected = f"{list(COMMANDS)} ['retry'] ['queued,scheduled']\nset() ['--output']\n"
    assert run.stdout == expected


ONE = {name: ["jobs", name, FIRST] for name in ALL} | {
    "alone": ["jobs"],
    "list": ["jobs", "list"],
    "prune": ["jobs", "prune", "--yes"],
}


@pytest.mark.parametrize("name", ONE)
@ensureDeferred
async def test_something_else_than_foreman_is_not_asked_any_further(
    foreman: Commands, fake: FakeForeman, name: str
) -> None:
    fake.health = FakeResponse(404, b"404 page not found")
    result = await foreman(*ONE[name])
    assert result.exit_code == NOT_FOREMAN
    assert re.match(r"foreman jobs( \w+)?: the server at .* is not foreman", result.stderr)
    assert [asked.path for asked in fake.requests] == ["/healthz"]


@pytest.mark.parametrize("name", ONE)
@ensureDeferred
async def test_a_token_that_is_missing_is_said_to_be(foreman: Commands, fake: FakeForeman, name: str) -> None:
    fake.on_request = lambda asked: fake.overrides.update(
        {f"{asked.method} {asked.path}": [problem(401, "a token is needed")]} if asked.path != "/healthz" else {}
    )
    result = await foreman(*ONE[name])
    assert result.exit_code == NOT_ALLOWED
    assert "a token is needed" in result.stderr


@pytest.mark.parametrize("name", ALL)
@ensureDeferred
async def test_a_job_that_is_not_there_or_somebody_elses_is_not_found(
    foreman: Commands, fake: FakeForeman, name: str
) -> None:
    fake.jobs.clear()
    whole = await foreman("jobs", name, FIRST)
    assert whole.exit_code == NOT_FOUND
    assert f"there is no job {FIRST}, or it belongs to someone else" in whole.stderr
    end = await foreman("jobs", name, "R4A6C")
    assert end.exit_code == NOT_FOUND
    assert "none of the newest jobs has an id that ends with R4A6C; see foreman jobs" in end.stderr


@pytest.mark.parametrize("name", ONE)
@ensureDeferred
async def test_a_foreman_without_jobs_is_said_to_be_one(foreman: Commands, fake: FakeForeman, name: str) -> None:
    fake.on_request = lambda asked: fake.overrides.update(
        {f"{asked.method} {asked.path}": [FakeResponse(404, b"404 page not found")]} if asked.path != "/healthz" else {}
    )
    result = await foreman(*ONE[name])
    assert result.exit_code == FAILED
    assert "has no jobs (404); is it an older foreman?" in result.stderr


# -- the list


@ensureDeferred
async def test_the_list_fits_the_terminal_a_line_for_each_job(foreman: Commands) -> None:
    rows = (await foreman("jobs", COLUMNS="140")).stdout.splitlines()
    assert all(len(row) <= 140 for row in rows)
    assert len(rows) == 4
    assert rows[0].split() == "ID STATE MODEL ENDPOINT AGE TIME ATTEMPT NOTE".split()
    third, second, first = (row.split() for row in rows[1:])
    assert third[:2] == ["XES2HA", "scheduled"]
    assert second[:2] == ["D2E8RZ", "running"]
    assert first[:2] == ["8R4A6C", "succeeded"]
    assert "ran 3.2 s" in rows[3]
    assert "2/5" in rows[1]
    assert "/v1/chat/completions" in rows[2]
    assert "target_error: llama runner" in rows[1]
    assert "run=nightly" in rows[2]


@pytest.mark.parametrize("width", [20, 40, 80, 99])
@ensureDeferred
async def test_in_a_narrow_terminal_a_long_note_stands_below_its_job(foreman: Commands, width: int) -> None:
    rows = (await foreman("jobs", COLUMNS=str(width))).stdout.splitlines()
    assert all(len(row) <= width for row in rows)
    assert len(rows) == 6
    assert rows[2].startswith("        target_er")
    assert rows[4].strip() == "run=nightly"
    if width >= 80:
        assert rows[0].split() == "ID STATE MODEL ENDPOINT AGE TIME ATTEMPT".split()
        assert rows[2].strip() == f"{GONE['class']}: {GONE['message']}"
        assert rows[1].split()[:3] == ["XES2HA", "scheduled", "llama3.2:3b"]
        assert "2/5" in rows[1]
        assert "v1/chat" in rows[3]
        assert "ran 3.2 s" in rows[5]


@ensureDeferred
async def test_in_a_narrow_terminal_short_notes_keep_their_column(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs = {FIRST: job(FIRST, position=7)}
    head, row = (await foreman("jobs", COLUMNS="80")).stdout.splitlines()
    assert head.split()[-1] == "NOTE"
    assert row.rstrip().endswith("position 7")


@ensureDeferred
async def test_an_owner_is_shown_where_there_are_several(foreman: Commands, fake: FakeForeman) -> None:
    assert "OWNER" not in (await foreman("jobs")).stdout
    fake.jobs[SECOND]["owner"] = "bob"
    assert "OWNER" in (await foreman("jobs")).stdout


@ensureDeferred
async def test_a_place_in_the_line_is_noted(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs = {FIRST: job(FIRST, position=7)}
    text = (await foreman("jobs")).stdout
    assert "position 7" in text
    assert "for " in text


@ensureDeferred
async def test_filters_are_asked_for(foreman: Commands, fake: FakeForeman) -> None:
    words = "--state failed,active --state queued --model m --owner bob --meta run=a&b --until 2026-11-28T10:00:00Z --since 2h"
    assert (await foreman("jobs", "list", *words.split())).exit_code == 0
    query = dict(fake.requests[-1].query)
    since = datetime.now(UTC) - datetime.fromisoformat(query.pop("created_after"))
    assert timedelta(hours=2) <= since < timedelta(hours=2, minutes=1)
    assert query == {
        "state": "failed,active,queued",
        "model": "m",
        "owner": "bob",
        "metadata.run": "a&b",
        "created_before": "2026-11-28T10:00:00.000Z",
        "limit": "20",
    }


@pytest.mark.parametrize(
    "words",
    ["--state waiting", "--limit 0", "--meta x", "--since soon", "--since -1h", "show", "XES2HA", "--json show X"],
)
@ensureDeferred
async def test_a_list_that_is_wished_wrongly_is_refused(foreman: Commands, fake: FakeForeman, words: str) -> None:
    result = await foreman("jobs", *words.split())
    assert result.exit_code == USAGE_ERROR
    assert fake.requests == []
    if words == "XES2HA":
        assert "foreman jobs show XES2HA" in result.stderr


@ensureDeferred
async def test_the_list_says_that_there_is_more_and_goes_through_all_of_it(
    foreman: Commands, fake: FakeForeman
) -> None:
    fake.jobs = {id_: job(id_) for number in range(450) if (id_ := f"01KBTWZ5M0{number:016}")}
    newest = await foreman("jobs")
    assert len(newest.stdout.splitlines()) == 22
    assert "these are the newest 20; for more" in newest.stdout
    some = json.loads((await foreman("jobs", "--limit", "250", "--json")).stdout)
    assert len(some["jobs"]) == 250
    assert some["next"].endswith(f"&before={some['jobs'][-1]['id']}")
    everything = json.loads((await foreman("jobs", "--all", "--json")).stdout)
    assert len({one["id"] for one in everything["jobs"]}) == 450
    assert everything["next"] is None


@ensureDeferred
async def test_no_jobs_is_said_not_drawn(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs.clear()
    assert (await foreman("jobs")).stdout == "there are no jobs; submit one with: foreman submit\n"
    assert (await foreman("jobs", "--state", "failed")).stdout == "no job matches\n"


@pytest.mark.parametrize("words", [["jobs"], ["jobs", "show", FIRST], ["jobs", "wait", FIRST], ["jobs", "logs", FIRST]])
@ensureDeferred
async def test_what_others_have_chosen_cannot_write_to_the_terminal(
    foreman: Commands, fake: FakeForeman, words: list[str]
) -> None:
    bad = "\x1b[2J\x07[red]x[/red]\n"
    error = {"class": bad, "message": bad, "attempt": bad}
    fake.jobs = {FIRST: job(FIRST, "failed", model=bad, endpoint=bad, owner=bad, metadata={bad: bad}, error=error)}
    fake.events = [FakeResponse(chunks=ndjson({"id": 1, "at": bad, "type": bad, "attempt": bad, "error": error}))]
    result = await foreman(*words)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "[red]x[/red]" in result.stdout


@ensureDeferred
async def test_colour_is_for_terminals_and_for_those_who_want_it(foreman: Commands) -> None:
    assert "\x1b[" not in (await foreman("jobs")).stdout
    foreman.terminals = {"<stdout>"}
    assert "\x1b[32m" in (await foreman("jobs", TERM="xterm")).stdout
    assert not re.search(r"\x1b\[(\d+;)*(3|9)\d", (await foreman("jobs", TERM="xterm", NO_COLOR="1")).stdout)


@ensureDeferred
async def test_a_foreman_of_another_version_does_not_end_in_a_traceback(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs = {FIRST: {"id": FIRST, "state": "resting"}}
    assert "resting" in (await foreman("jobs")).stdout
    assert "resting" in (await foreman("jobs", "show", FIRST)).stdout
    fake.overrides["GET /jobs"] = [FakeResponse(body={"jobs": "none"})]
    assert (await foreman("jobs")).exit_code == FAILED


# -- show, and ids


@ensureDeferred
async def test_a_job_is_shown_with_all_that_is_known(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs[FIRST] |= {
        "usage": {"prompt_tokens": 26, "completion_tokens": 298, "load_ms": 1500, "total_ms": 75_000},
        "metadata": {"run": "nightly"},
        "idempotency_key": "k-1",
    }
    text = (await foreman("jobs", "show", FIRST.lower())).stdout
    assert text.startswith(f"{FIRST}  succeeded, ran 3.2 s\n")
    wanted = ["run=nightly", "k-1", "26 tokens in, 298 tokens out, 1.5 s loading, 1 min total", "1 of 5"]
    assert all(value in text for value in [*wanted, "response, application/json, 812 B"])
    assert "target_error: llama runner process" in (await foreman("jobs", "show", "XES2HA")).stdout
    assert json.loads((await foreman("jobs", "show", FIRST, "--json")).stdout) == fake.jobs[FIRST]


@pytest.mark.parametrize("wanted", [FIRST, FIRST.lower(), "8R4A6C", "r4a6c"])
@ensureDeferred
async def test_a_job_is_found_by_its_id_or_by_the_end_of_it(foreman: Commands, wanted: str) -> None:
    assert (await foreman("jobs", "show", wanted)).stdout.startswith(FIRST)


@ensureDeferred
async def test_the_end_of_an_id_must_be_of_one_job_however_far_back(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs |= {id_: job(id_) for number in range(500) if (id_ := f"01KBTX9999{number:016}")}
    assert (await foreman("jobs", "show", "8R4A6C")).stdout.startswith(FIRST)
    assert [asked.query.get("limit") for asked in fake.requests if asked.path == "/jobs"] == ["200"] * 3
    assert (await foreman("jobs", "rm", "8R4A6C", "nowhere")).exit_code == NOT_FOUND
    ambiguous = await foreman("jobs", "show", "42")
    assert re.search(r"5 jobs have an id that ends with 42: 01KBTX9999\d+, ", ambiguous.stderr)
    assert fake.paths("DELETE") == fake.paths("POST") == []


# -- wait


@pytest.mark.parametrize(
    ("state", "status"),
    [("succeeded", 0), ("failed", JOB_FAILED), ("discarded", JOB_DISCARDED), ("cancelled", JOB_CANCELLED)],
)
@ensureDeferred
async def test_waiting_ends_as_the_job_does(foreman: Commands, fake: FakeForeman, state: str, status: int) -> None:
    fake.next_states[SECOND] = [job(SECOND, "running"), job(SECOND, "queued"), job(SECOND, state)]
    result = await foreman("jobs", "wait", "D2E8RZ")
    assert result.exit_code == status
    assert re.match(rf"D2E8RZ (was )?{state}, ran 3.2 s", result.stdout)
    asked = [asked.query.get("wait") for asked in fake.requests if asked.path == f"/jobs/{SECOND}"]
    assert asked == [None, "60", "60"]


@ensureDeferred
async def test_of_several_jobs_the_highest_status_counts(foreman: Commands, fake: FakeForeman) -> None:
    fake.next_states[SECOND] = [job(SECOND, "running"), job(SECOND, "discarded")]
    fake.jobs[THIRD] = job(THIRD, "failed")
    result = await foreman("jobs", "wait", "D2E8RZ", FIRST, "XES2HA", FIRST, "--json")
    assert result.exit_code == JOB_DISCARDED
    assert [one["id"] for one in json.loads(result.stdout)["jobs"]] == [SECOND, FIRST, THIRD]


@pytest.mark.parametrize("longest", ["0s", "50ms"])
@ensureDeferred
async def test_waiting_may_have_an_end_before_the_job_has(foreman: Commands, fake: FakeForeman, longest: str) -> None:
    result = await foreman("jobs", "wait", FIRST, SECOND, "--timeout", longest)
    assert result.exit_code == NOT_ENDED
    assert "D2E8RZ is running" in result.stdout


@ensureDeferred
async def test_waiting_ends_in_time_also_while_foreman_is_away(foreman: Commands, fake: FakeForeman) -> None:
    fake.overrides[f"GET /jobs/{SECOND}"] = [FakeResponse(body=job(SECOND, "running")), problem(503, "stopping")]
    result = await foreman("jobs", "wait", SECOND, "--timeout", "100ms")
    assert result.exit_code == NOT_ENDED


@ensureDeferred
async def test_a_foreman_that_stays_away_is_given_up(
    foreman: Commands, fake: FakeForeman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_OUTAGE", 0.05)
    fake.overrides[f"GET /jobs/{SECOND}"] = [problem(502, "nobody there")]
    result = await foreman("jobs", "wait", SECOND, FIRST)
    assert result.exit_code == FAILED
    assert "is temporarily unavailable (502)" in result.stderr


@ensureDeferred
async def test_a_job_that_is_removed_is_waited_for_no_longer(foreman: Commands, fake: FakeForeman) -> None:
    fake.on_request = lambda asked: fake.jobs.pop(SECOND, None) and None if asked.query.get("wait") else None
    result = await foreman("jobs", "wait", SECOND)
    assert result.exit_code == NOT_FOUND


def test_many_jobs_have_a_line_each_and_the_rest_a_number() -> None:
    shown = Progress()
    for number in range(12):
        shown.update(job(f"01KBTWZ5M0{number:016}", "running" if number else "queued", error=GONE))
    shown.outage = "nobody listens"
    paper = io.StringIO()
    Console(file=paper, width=80, highlight=False).print(shown)
    rows = paper.getvalue().splitlines()
    assert len(rows) == 10
    assert "000000 queued, position 3, for " in rows[0]
    assert rows[-2].strip() == "and 4 more"
    assert rows[-1].strip() == "foreman does not answer, retrying: nobody listens"
    assert all(len(row) <= 80 for row in rows)


# -- logs

HISTORY = [
    {"id": 3, "at": "2026-11-28T10:00:00.000Z", "type": "queued", "attempt": 0, "error": None},
    {"id": 4, "at": "2026-11-28T10:00:03.214Z", "type": "running", "attempt": 1, "error": None},
    {"id": 7, "at": "2026-11-28T10:00:09.000Z", "type": "scheduled", "attempt": 1, "error": GONE},
]
LAST = {"id": 9, "at": "2026-11-28T10:01:09.000Z", "type": "succeeded", "attempt": 2, "error": None}


@ensureDeferred
async def test_the_history_of_a_job_is_told_a_line_for_each_event(foreman: Commands, fake: FakeForeman) -> None:
    fake.events = [FakeResponse(chunks=ndjson(*HISTORY, LAST))]
    told = (await foreman("jobs", "logs", FIRST)).stdout.splitlines()
    assert [line.split()[2] for line in told] == ["queued", "running", "scheduled", "succeeded"]
    assert "attempt 1  target_error: llama runner" in told[2]


@ensureDeferred
async def test_the_history_of_a_job_that_runs_ends_with_what_has_happened(foreman: Commands, fake: FakeForeman) -> None:
    fake.events = [FakeResponse(chunks=ndjson(*HISTORY))]
    result = await foreman("jobs", "logs", SECOND, "--json")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == HISTORY
    assert fake.requests[-1].query == {"follow": "0"}


@ensureDeferred
async def test_a_history_that_breaks_off_is_told_to_its_end_and_no_further(
    foreman: Commands, fake: FakeForeman
) -> None:
    fake.events = [FakeResponse(chunks=ndjson(*HISTORY[:2]), truncated=True), FakeResponse(chunks=ndjson(*HISTORY[2:]))]
    result = await foreman("jobs", "logs", SECOND, "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == HISTORY
    assert fake.requests[-1].query == {"follow": "0", "after": "4"}


@ensureDeferred
async def test_following_the_history_goes_on_where_it_broke_off(foreman: Commands, fake: FakeForeman) -> None:
    fake.events = [
        FakeResponse(chunks=[*ndjson(*HISTORY[:2]), b'{"id": 7, "at'], truncated=True),
        problem(503, "foreman is stopping"),
        FakeResponse(chunks=[b" ", *ndjson(*HISTORY[1:]), b" ", *ndjson(LAST)]),
    ]
    result = await foreman("jobs", "logs", "-f", SECOND, "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [*HISTORY, LAST]
    asked = [asked.query.get("after") for asked in fake.requests if asked.path.endswith("/events")]
    assert asked == [None, "4", "4"]


@pytest.mark.parametrize("count", [2, 5000])
def test_who_leaves_many_jobs_is_told_how_to_find_them_and_not_every_id(count: int) -> None:
    ids = [f"01KBTX{number:020d}" for number in range(count)]
    context = click.Context(named("wait"))
    hint = next_steps.command_for_many("wait", ids, context)
    if count == 2:
        assert hint == "foreman jobs wait 000000 000001"
    else:
        assert hint == "foreman jobs list --state active --all"
        named("list").make_context("list", shlex.split(hint)[3:])


@pytest.mark.parametrize(("typed", "meant"), [("wiat", "did you mean wait?"), ("1XES2H", "foreman jobs show 1XES2H")])
@ensureDeferred
async def test_a_slip_of_the_pen_is_told_from_an_id(foreman: Commands, typed: str, meant: str) -> None:
    result = await foreman("jobs", typed)
    assert result.exit_code == 2
    assert meant in result.stderr


# -- get and artifacts


@ensureDeferred
async def test_an_answer_comes_as_its_words_and_as_it_is_where_that_is_wished(
    foreman: Commands, fake: FakeForeman
) -> None:
    raw = b'{"message": {"content":"Hell\xc3\xb6"} ,"done":true}\n'
    fake.artifacts[FIRST, "response"] = fake.artifacts[FIRST, "mine"] = FakeResponse(body=raw)
    assert (await foreman("jobs", "get", FIRST)).stdout == "Hellö\n"
    assert (await foreman("jobs", "get", FIRST, "--raw")).stdout_bytes == raw
    assert (await foreman("jobs", "get", FIRST, "mine")).stdout_bytes == raw
    assert (await foreman("jobs", "get", FIRST, "--text")).stdout == "Hellö\n"
    foreman.terminals = {"<stdout>"}
    assert (await foreman("jobs", "get", FIRST)).stdout == "Hellö\n"
    assert '"done": true' in (await foreman("jobs", "get", FIRST, "--raw")).stdout


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("Hell\u00f6\n\u2603", "Hell\u00f6\n\u2603\n"),
        ("one line\n", "one line\n"),
        ("half \ud83d, whole \ud83d\ude00", "half \ufffd, whole \U0001f600\n"),
    ],
)
@ensureDeferred
async def test_waiting_following_and_fetching_write_the_same_bytes(
    foreman: Commands, fake: FakeForeman, tmp_path: Path, words: str, written: str
) -> None:
    fake.artifacts[FIRST, "response"] = FakeResponse(body={"message": {"content": words}})
    fake.overrides["POST /jobs"] = [FakeResponse(201, job(FIRST, "succeeded"))]
    pieces = [event({"message": {"content": words}}, "1-1")]
    fake.streams = [FakeResponse(content_type="text/event-stream", chunks=pieces)] * 2
    for typed in (
        ["submit", "--model", "m", "--wait", "Hello"],
        ["submit", "--model", "m", "--follow", "Hello"],
        ["jobs", "follow", FIRST],
        ["jobs", "get", FIRST],
    ):
        result = await foreman(*typed)
        assert (result.exit_code, result.stdout_bytes) == (0, written.encode()), typed
    await foreman("jobs", "get", FIRST, "-o", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == written.encode()


@ensureDeferred
async def test_an_artifact_is_written_to_a_file(foreman: Commands, fake: FakeForeman, tmp_path: Path) -> None:
    fake.artifacts[FIRST, "a/b ü"] = FakeResponse(body=b"\x00\xff", content_type="image/png")
    file = tmp_path / "a.png"
    assert (await foreman("jobs", "get", FIRST, "a/b ü", "-o", str(file))).output == ""
    assert file.read_bytes() == b"\x00\xff"
    await foreman("jobs", "get", FIRST, "--text", "--output", str(file))
    assert file.read_text() == "Hello!\n"
    result = await foreman("jobs", "get", FIRST, "-o", str(tmp_path / "no" / "file"))
    assert result.exit_code == FAILED
    assert "cannot be written: No such file" in result.stderr


@ensureDeferred
async def test_what_is_no_text_is_kept_from_a_terminal(foreman: Commands, fake: FakeForeman) -> None:
    foreman.terminals = {"<stdout>"}
    fake.artifacts[FIRST, "mine"] = FakeResponse(body=b"\x89PNG\x00", content_type="image/png")
    result = await foreman("jobs", "get", FIRST, "mine")
    assert (result.exit_code, result.stdout) == (FAILED, "")
    assert "the artifact is not text (image/png); write it to a file with --output" in result.stderr
    assert (await foreman("jobs", "get", FIRST, "mine", "--text")).exit_code == FAILED


@ensureDeferred
async def test_an_artifact_that_is_not_there_is_told_from_those_that_are(foreman: Commands) -> None:
    result = await foreman("jobs", "get", FIRST, "error")
    assert result.exit_code == NOT_FOUND
    assert "it has no artifact error; there are: response" in result.stderr
    early = await foreman("jobs", "get", SECOND)
    assert "D2E8RZ is running" in early.stderr
    assert "there are: none yet" in early.stderr


@ensureDeferred
async def test_artifacts_are_listed(foreman: Commands, fake: FakeForeman) -> None:
    made = {"sha256": "0123456789abcdef" * 4, "created_at": "2026-11-28T10:00:08.000Z"}
    fake.jobs[FIRST]["artifacts"] = [{"name": "response", "type": "application/json", "bytes": 81_234, **made}]
    text = (await foreman("jobs", "artifacts", FIRST, COLUMNS="80")).stdout
    assert "81 KB" in text
    assert "0123456789abcdef" in text
    assert json.loads((await foreman("jobs", "artifacts", FIRST, "--json")).stdout)["artifacts"][0]["bytes"] == 81_234
    assert "the job has no artifacts" in (await foreman("jobs", "artifacts", SECOND)).stdout


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (CHAT, "Hello!"),
        ({"response": "Hi", "done": True}, "Hi"),
        ({"choices": [{"message": {"content": "Hi"}}, {"message": {"content": "Ho"}}]}, "Hi\nHo"),
        ({"choices": [{"text": "Hi"}]}, "Hi"),
        ({"output": [{"type": "reasoning"}, {"content": [{"type": "output_text", "text": "Hi"}]}]}, "Hi"),
        ({"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}]}, "Hi"),
        ({"message": {"content": "", "tool_calls": [{}]}}, None),
        ({"choices": ["x", {"message": None}]}, None),
        ({"error": "no"}, None),
        (["x"], None),
        (None, None),
    ],
)
def test_the_words_of_an_answer_are_found_in_every_familys_shape(answer: Any, words: str | None) -> None:
    assert answer_text(answer) == words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"embeddings": [[0.1, 0.2], [0.3, 0.4]]}, "2 embeddings of 2 numbers"),
        ({"embedding": [0.1] * 768}, "1 embedding of 768 numbers"),
        ({"data": [{"embedding": "AAAA"}]}, "1 embedding"),
        ({"data": []}, None),
        ("x", None),
    ],
)
def test_embeddings_are_counted(answer: Any, words: str | None) -> None:
    assert embeddings_summary(answer) == words


@ensureDeferred
async def test_a_terminal_is_told_of_embeddings_and_not_flooded_with_them(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs[FIRST]["endpoint"] = "/api/embed"
    fake.artifacts[FIRST, "response"] = FakeResponse(body={"embeddings": [[0.1] * 4]})
    foreman.terminals = {"<stdout>"}
    assert (await foreman("jobs", "follow", FIRST)).stdout.startswith("1 embedding of 4 numbers; print them with")
    assert "0.1" in (await foreman("jobs", "get", FIRST)).stdout


# -- follow


@ensureDeferred
async def test_a_job_that_has_ended_is_followed_from_what_is_kept(foreman: Commands, fake: FakeForeman) -> None:
    fake.streams = [
        FakeResponse(content_type="text/event-stream", chunks=[chat_event("Hel", "1-1"), chat_event("lo!", "1-2")])
    ]
    result = await foreman("jobs", "follow", FIRST)
    assert (result.exit_code, result.stdout) == (0, "Hello!\n")


@pytest.mark.parametrize("bad", [b"\\ud83d", b"\xff", b"\x00"])
@ensureDeferred
async def test_a_bad_character_in_a_line_or_an_answer_is_printed_as_a_replacement(
    foreman: Commands, fake: FakeForeman, bad: bytes
) -> None:
    line = b'{"message":{"content":"Hel%blo!"}}' % bad
    fake.streams = [FakeResponse(content_type="text/event-stream", chunks=[b"id: 1-1\ndata: " + line + b"\n\n"])]
    fake.artifacts[FIRST, "response"] = FakeResponse(body=line)
    words = "Hel\0lo!\n" if bad == b"\x00" else "Hel\ufffdlo!\n"
    for typed in (("jobs", "follow", FIRST), ("jobs", "get", "--text", FIRST)):
        result = await foreman(*typed)
        assert (result.exit_code, result.stdout) == (0, words), typed


@ensureDeferred
async def test_an_answer_that_cannot_be_followed_any_further_is_printed_whole(
    foreman: Commands, fake: FakeForeman
) -> None:
    fake.streams = [FakeResponse(content_type="text/event-stream", chunks=[chat_event("Hel", "1-1")], truncated=True)]
    result = await foreman("jobs", "follow", FIRST)
    assert (result.exit_code, result.stdout) == (0, "Hel\nHello!\n")


@ensureDeferred
async def test_a_connection_that_has_gone_silent_is_made_anew(
    foreman: Commands, fake: FakeForeman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_reader, "SILENCE_TIMEOUT", 0.1)
    kind = "text/event-stream"
    fake.streams = [
        FakeResponse(content_type=kind, chunks=[chat_event("Hel", "1-1")], open_for=5.0),
        FakeResponse(content_type=kind, chunks=[chat_event("lo!", "1-2")]),
        FakeResponse(204),
    ]
    result = await foreman("jobs", "follow", FIRST)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello!\n", "")
    fake.release()


@ensureDeferred
async def test_a_job_that_waits_is_followed_at_once_and_who_looks_sees_where_it_stands(
    foreman: Commands, fake: FakeForeman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_reader, "INTERACTIVE_WAIT", 0.02)
    fake.add_jobs(job(THIRD, "queued"))
    kind = "text/event-stream"
    fake.streams = [
        FakeResponse(content_type=kind, chunks=[b":\n\n"], open_for=0.3),
        FakeResponse(content_type=kind, chunks=[chat_event("Hel", "1-1"), chat_event("lo!", "1-2")]),
    ]
    fake.next_states[THIRD] = [job(THIRD, "queued")] * 3 + [job(THIRD, "succeeded")]
    foreman.terminals = {"<stderr>"}
    monkeypatch.setattr(stream_reader, "SILENCE_TIMEOUT", 0.1)
    result = await foreman("jobs", "follow", THIRD)
    assert (result.exit_code, result.stdout) == (0, "Hello!\n")
    asked = [(one.path.rpartition("/")[2], one.query) for one in fake.requests if one.path.startswith(f"/jobs/{THIRD}")]
    assert [path for path, _ in asked][:3] == [THIRD, "stream", THIRD]
    assert all("wait" not in query for path, query in asked[:3])


# -- cancel, retry, rm


@ensureDeferred
async def test_jobs_are_cancelled_and_one_that_cannot_be_keeps_no_other_from_it(
    foreman: Commands, fake: FakeForeman
) -> None:
    result = await foreman("jobs", "cancel", "XES2HA", FIRST, SECOND)
    assert result.exit_code == FAILED
    assert result.stdout == f"{THIRD} was cancelled\n{SECOND} was cancelled\n"
    assert f"{FIRST} was not cancelled (409: it has ended already: succeeded)" in result.stderr


@pytest.mark.parametrize("name", ALL)
@ensureDeferred
async def test_an_empty_id_is_a_usage_error_and_nothing_is_asked(
    foreman: Commands, fake: FakeForeman, name: str
) -> None:
    for empty in ("", "  "):
        result = await foreman("jobs", name, empty)
        assert result.exit_code == USAGE_ERROR
        assert "the ID is empty" in result.stderr
    assert fake.requests == []


@pytest.mark.parametrize("name", ["jobs cancel", "jobs retry", "jobs rm", "cancel"])
@ensureDeferred
async def test_what_changes_something_wants_four_characters_of_an_id(
    foreman: Commands, fake: FakeForeman, name: str
) -> None:
    result = await foreman(*name.split(), FIRST[-3:])
    assert result.exit_code == USAGE_ERROR
    assert "give at least the last 4 characters of the ID" in result.stderr
    assert (await foreman(*name.split(), "")).exit_code == USAGE_ERROR
    assert fake.requests == []


@ensureDeferred
async def test_a_job_tries_again(foreman: Commands, fake: FakeForeman) -> None:
    fake.jobs[SECOND]["state"] = "discarded"
    result = await foreman("jobs", "retry", SECOND)
    assert (result.exit_code, result.stdout) == (0, f"{SECOND} was queued again\n")
    assert (await foreman("jobs", "retry", FIRST)).exit_code == FAILED


@ensureDeferred
async def test_jobs_are_removed_once_they_have_ended_or_by_force(foreman: Commands, fake: FakeForeman) -> None:
    result = await foreman("jobs", "rm", FIRST, SECOND)
    assert result.exit_code == FAILED
    assert result.stdout == f"{FIRST} was deleted\n"
    assert f"{SECOND} has not ended yet; --force cancels it first" in result.stderr
    assert fake.paths("POST") == []
    forced = await foreman("jobs", "rm", "--force", SECOND, THIRD)
    assert (forced.exit_code, forced.stdout) == (0, f"{SECOND} was deleted\n{THIRD} was deleted\n")
    assert fake.jobs == {}


@ensureDeferred
async def test_jobs_that_ended_are_pruned_and_how_many_is_said(foreman: Commands, fake: FakeForeman) -> None:
    fake.overrides["DELETE /jobs"] = [FakeResponse(body={"deleted": 1}), FakeResponse(body={"deleted": 4})]
    one = await foreman("jobs", "prune", "--older-than", "7d", "--yes")
    assert (one.exit_code, one.stdout) == (0, "1 job was deleted\n")
    query = fake.requests[-1].query
    gone = datetime.now(UTC) - datetime.fromisoformat(query["ended_before"])
    assert query["state"] == "ended"
    assert timedelta(days=7) <= gone < timedelta(days=7, minutes=1)
    many = await foreman("jobs", "prune", "--state", "failed,cancelled", "--yes", "--json")
    assert json.loads(many.stdout) == {"deleted": 4}
    assert fake.requests[-1].query == {"state": "failed,cancelled"}


@ensureDeferred
async def test_a_person_is_asked_before_jobs_are_pruned_and_a_script_must_say_that_it_means_it(
    foreman: Commands, fake: FakeForeman
) -> None:
    fake.overrides["DELETE /jobs"] = [FakeResponse(body={"deleted": 2})]
    unasked = await foreman("jobs", "prune")
    assert unasked.exit_code == USAGE_ERROR
    assert "use --yes to delete the jobs without it" in unasked.stderr
    foreman.terminals = {"<stdin>", "<stderr>"}
    no = await foreman("jobs", "prune", "--state", "failed", stdin="n\n")
    assert (no.exit_code, no.stdout) == (FAILED, "")
    assert "Delete all failed jobs, with their answers? [y/N]" in no.stderr
    assert fake.requests == []
    yes = await foreman("jobs", "prune", "--older-than", "2026-11-28T00:00:00Z", stdin="y\n")
    assert (yes.exit_code, yes.stdout) == (0, "2 jobs were deleted\n")
    assert "Delete all jobs that ended before 2026-11-28 00:00, with their answers?" in yes.stderr


@pytest.mark.parametrize("words", ["--state queued", "--state ended,active", "--older-than soon"])
@ensureDeferred
async def test_only_what_has_ended_is_pruned(foreman: Commands, fake: FakeForeman, words: str) -> None:
    assert (await foreman("jobs", "prune", "--yes", *words.split())).exit_code == USAGE_ERROR
    assert fake.requests == []


@ensureDeferred
async def test_a_foreman_that_cannot_write_says_why(foreman: Commands, fake: FakeForeman) -> None:
    fake.overrides[f"DELETE /jobs/{FIRST}"] = [problem(507, "the disk is full")]
    result = await foreman("jobs", "rm", FIRST)
    assert result.exit_code == FAILED
    assert "was not deleted (507: the disk is full)" in result.stderr


# -- foreman ps

QUEUE: dict[str, Any] = {
    "turns": 1,
    "running": [
        {
            "id": FIRST,
            "caller": "alice",
            "model": "m",
            "route": "/api/chat",
            "state": "answering",
            "seconds": 3,
            "job": SECOND,
        }
    ],
    "waiting": [
        {"id": THIRD, "caller": "bob", "model": "m", "route": "/api/chat", "seconds": 1, "position": 1, "job": None}
    ],
    "embedding": {"running": 0, "cap": 8},
}
JOBS = {"running": [{"id": SECOND}], "queued": 3, "scheduled": 2, "store": "ok"}


def ps(jobs: object, width: int = 80) -> str:
    """What foreman ps shows."""
    paper = io.StringIO()
    queue = QUEUE if jobs is None else QUEUE | {"jobs": jobs}
    seen = Snapshot("http://127.0.0.1:8080", {"status": "ok", "degraded": False}, queue, [])
    show(seen, Console(file=paper, width=width, highlight=False), datetime.now(UTC))
    return paper.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_ps_says_how_many_jobs_there_are_and_which_of_them_runs(width: int) -> None:
    text = ps(JOBS, width)
    assert "jobs: 1 running, 3 queued, 2 scheduled; see foreman jobs\n" in text
    header, running, _waiting = text.splitlines()[2:5]
    assert header.split()[-1] == "JOB"
    assert running.split()[-1] == "D2E8RZ"
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize(
    "jobs",
    [None, [], JOBS | {"running": [], "queued": 0, "scheduled": 0}, {"store": "off"}, {"running": 3, "queued": "many"}],
)
def test_ps_says_nothing_of_jobs_where_there_are_none(jobs: object) -> None:
    assert "jobs" not in ps(jobs)


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("full", "the disk is full: foreman accepts no jobs until there is space"),
        ("unwritable", "cannot be written"),
        ("broken", "is damaged"),
        ("\x1b[2J", "the job store has a problem: \ufffd[2J"),
    ],
)
def test_ps_warns_where_no_job_can_be_kept(store: str, sentence: str) -> None:
    assert sentence in ps(JOBS | {"store": store})


# -- moments and durations


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[datetime]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield datetime(2026, 10, 24, 21, 0, tzinfo=UTC)  # 23:00 there, the night before the clocks go back
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "to_come", "gone_by"),
    [
        ("23:30", "2026-10-24T21:30", "2026-10-23T21:30"),
        ("8:00", "2026-10-25T07:00", "2026-10-24T06:00"),
        ("23:00:00", "2026-10-24T21:00", "2026-10-24T21:00"),
        ("10m", "2026-10-24T21:10", "2026-10-24T20:50"),
        ("+1h30m", "2026-10-24T22:30", "2026-10-24T19:30"),
        ("1d", "2026-10-25T21:00", "2026-10-23T21:00"),
        ("2026-10-26", "2026-10-25T23:00", "2026-10-25T23:00"),
        ("2026-10-24 22:30", "2026-10-24T20:30", "2026-10-24T20:30"),
        ("2026-11-28t22:30:00z", "2026-11-28T22:30", "2026-11-28T22:30"),
        ("2026-11-28 22:30:00.5-05:00", "2026-11-29T03:30:00.500", "2026-11-29T03:30:00.500"),
    ],
)
def test_moments_are_read_as_people_write_them(berlin: datetime, text: str, to_come: str, gone_by: str) -> None:
    assert times.to_rfc3339(times.parse_future(text, berlin)).removesuffix("Z").removesuffix(":00.000") == to_come
    assert times.to_rfc3339(times.parse_past(text, berlin)).removesuffix("Z").removesuffix(":00.000") == gone_by


@pytest.mark.parametrize("text", ["", "10", "soon", "24:00", "2026-11", "2026-W48", "20261128", "-1h", "22:30Z"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        times.parse_future(text, datetime.now(UTC))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (3.24, "3.2 s"), (59.9, "59 s"), (3599, "59 min"), (86399, "23 h"), (2e5, "2 d")],
)
def test_how_long_something_is_has_one_unit(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


@pytest.mark.parametrize("zone", ["XXX-14", "XXX+12"])
def test_the_ends_of_time_are_shown_in_every_zone_or_said_not_to_be(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        for text in ("9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z"):
            moment = times.from_rfc3339(text)
            assert moment is not None
            assert f"{times.local(moment):%m-%d}" in {text[5:10], "12-31", "01-01"}
        for text in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
            with pytest.raises(ValueError, match="is a date or a time that does not exist"):
                times.parse_future(text, now)
        for text in ("9999-12-31 23:59", "0001-01-01 00:01"):
            with contextlib.suppress(ValueError):  # it depends on the zone whether there is such a moment
                assert times.to_rfc3339(times.parse_future(text, now)).endswith("Z")
    time.tzset()


def test_a_job_of_a_list_that_cannot_be_shown_says_so() -> None:
    odd = {"id": "01KBTWZ5M0XJ3Q9V7D2E8R4A6C", "state": "queued", "unreadable": "it cannot be shown"}
    assert note(odd) == "it cannot be shown"
    out = io.StringIO()
    show_list([odd], Console(file=out, width=120), datetime.now(UTC))
    assert "it cannot be shown" in out.getvalue()
