"""A short crash test, and that the checks find what is wrong: in made-up histories, and in a foreman without a safeguard."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from crash import prompts  # noqa: E402 - it stands beside the tests, in no package that is installed
from crash.check import KINDS, check  # noqa: E402
from crash.history import (  # noqa: E402
    GONE,
    Arrival,
    Artifact,
    Attempt,
    Change,
    Enqueue,
    Event,
    FinalState,
    History,
    Observation,
    ObservedArtifact,
    Put,
    Row,
)

ID, OTHER, PROMPT = "01M85QHVFK3YAWY26YPS1XES2H", "01M85QHVFK3YAWY26YPS1XES2J", "one 0 ok"
WALL = 1_800_000_000_000


def attack(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crash", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_hundred_kills_lose_nothing_and_double_nothing() -> None:
    done = attack("--cycles", "100")
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in KINDS:
        (count,) = re.findall(rf"^ {kind}: .* +(\d+) *$", done.stdout, re.MULTILINE)
        assert count == "0", done.stdout


def test_a_foreman_that_acknowledges_before_it_commits_is_found() -> None:
    done = attack("--control", "ack-before-commit", "--control-cycles", "60")
    # What it is found by depends on the moment: most often by what is lost, now and then by a key that has two jobs.
    assert "control ack-before-commit: found after" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


# the checker


def answer(number: int = 1) -> bytes:
    """What the target answers the prompt with."""
    return json.dumps({"embeddings": [prompts.numbers(PROMPT, number)]}).encode()


def artifact(data: bytes, fence: int = 1) -> Artifact:
    return Artifact(fence, len(data), sha256(data).hexdigest(), data)


def queued(**more: Any) -> Row:
    return Row(
        **{"id": ID, "state": "queued", "endpoint": "/api/chat", "prompt": PROMPT, "events": (Event("queued", 0),)}
        | more
    )


def cancelled(**more: Any) -> Row:
    events = (Event("queued", 0), Event("cancelled", 0))
    return queued(**{"state": "cancelled", "finished": True, "events": events} | more)


def told(*ids: str, prompts_: tuple[str, ...] = (PROMPT,), keys: tuple[str | None, ...] = (None,)) -> Enqueue:
    return Enqueue(prompts_, keys, 1.0, 2.0, "acked", ids or (ID,))


def found(history: History, *rows: Row, damage: tuple[str, ...] = (), waiting: int | None = None) -> set[str]:
    """The kinds of what is wrong."""
    count = sum(row.state in {"queued", "scheduled"} for row in rows)
    return {kind for kind, _ in check(history, FinalState(rows, damage, count if waiting is None else waiting))}


CANCEL = Change("cancel", ID, 2.5, 2.6, "acked")


def test_a_history_in_which_all_is_well_has_no_findings() -> None:
    # What has not ended is stuck, since everything was given time to end.
    assert found(History(enqueues=[told()], changes=[CANCEL]), cancelled()) == set()
    deleted = Change("delete", ID, 3.0, 3.1, "unknown")
    assert found(History(enqueues=[told()], changes=[CANCEL, deleted])) == set()
    seen = [Observation(ID, "queued", 2.0, 2.1), Observation(ID, "succeeded", 4.0, 4.1)]
    digest = artifact(answer()).sha256
    ran = History(
        enqueues=[told()],
        observations=seen,
        observed_artifacts=[ObservedArtifact(ID, "response", digest, 4.2, 4.3)],
        arrivals=[Arrival(PROMPT, 1, 3.0, WALL)],
    )
    assert found(ran, _succeeded()) == set()
    refused = Enqueue((PROMPT,), (None,), 1.0, 2.0, "refused")
    assert found(History(enqueues=[refused])) == set()


def spoil_id(history: History) -> tuple[History, list[Row]]:
    return history, [cancelled(), cancelled(id=OTHER)]


SPOILT: dict[str, tuple[str, Callable[[History], tuple[History, list[Row]]]]] = {
    "an acknowledged job is not there": ("lost", lambda history: (history, [])),
    "a job that was seen is not there": (
        "lost",
        lambda _: (History(observations=[Observation(ID, "queued", 1.0, 2.0)]), []),
    ),
    "a prompt is there twice": ("duplicated", spoil_id),
    "a key was answered with two jobs": (
        "duplicated",
        lambda _: (
            History(enqueues=[told(keys=("k",)), told(OTHER, keys=("k",))], changes=[CANCEL, evolve(CANCEL, id=OTHER)]),
            [cancelled(key="k"), cancelled(id=OTHER, key="l", prompt="two 0 ok")],
        ),
    ),
    "nobody has sent it": ("phantom", lambda _: (History(changes=[CANCEL]), [cancelled()])),
    "it came to the target oftener than it was taken": (
        "duplicated",
        lambda history: (_with(history, arrivals=[Arrival(PROMPT, 1, 2.0, WALL)]), [cancelled()]),
    ),
    "it succeeded, and is something else later": (
        "regressed",
        lambda history: (_with(history, observations=[Observation(ID, "succeeded", 2.1, 2.2)]), [cancelled()]),
    ),
    "it was deleted, and is there": (
        "regressed",
        lambda history: (
            _with(history, changes=[CANCEL, Change("delete", ID, 3.0, 3.1, "acked")]),
            [cancelled()],
        ),
    ),
    "it was gone, and is there again": (
        "regressed",
        lambda history: (
            _with(
                history,
                changes=[CANCEL, Change("delete", ID, 3.0, 3.1, "acked")],
                observations=[Observation(ID, GONE, 3.2, 3.3), Observation(ID, "cancelled", 3.4, 3.5)],
            ),
            [],
        ),
    ),
    "a response was another one": (
        "regressed",
        lambda history: (
            _with(history, observed_artifacts=[ObservedArtifact(ID, "response", "0" * 64, 2.0, 3.0)]),
            [_succeeded()],
        ),
    ),
    "an artifact that was acknowledged is not there": (
        "lost",
        lambda history: (_with(history, puts=[Put(ID, "mine", "0" * 64, 2.0, 3.0, "acked")]), [cancelled()]),
    ),
    "half of an array is there": (
        "torn",
        lambda _: (
            History(
                enqueues=[
                    Enqueue((PROMPT, "two 0 ok"), (None, None), 1.0, 2.0, "unknown"),
                ],
                changes=[CANCEL],
            ),
            [cancelled()],
        ),
    ),
    "it succeeded without its answer": ("torn", lambda history: (history, [evolve(_succeeded(), artifacts={})])),
    "its answer is not what was said": (
        "torn",
        lambda history: (
            history,
            [evolve(_succeeded(), artifacts={"response": artifact(b'{"embeddings": [[1.0, 2.0]]}')})],
        ),
    ),
    "an artifact is not what its row says": (
        "torn",
        lambda history: (
            history,
            [cancelled(artifacts={"mine": Artifact(0, 3, "0" * 64, b"abc")})],
        ),
    ),
    "pieces are left": ("torn", lambda history: (history, [cancelled(pieces=1)])),
    "it went a way that there is not": (
        "illegal",
        lambda history: (
            history,
            [cancelled(events=(Event("queued", 0), Event("succeeded", 0), Event("cancelled", 0)))],
        ),
    ),
    "its log ends with another state": (
        "illegal",
        lambda history: (history, [cancelled(events=(Event("queued", 0),))]),
    ),
    "it has ended, and somebody runs it": ("illegal", lambda history: (history, [cancelled(boot="b")])),
    "a try of what has ended is open": (
        "illegal",
        lambda history: (history, [cancelled(attempts=(Attempt(1, WALL, None, None),))]),
    ),
    "a fence was given twice": (
        "stale",
        lambda history: (
            history,
            [
                cancelled(
                    fence=1,
                    events=(
                        Event("queued", 0),
                        Event("running", 1),
                        Event("released", 1),
                        Event("running", 1),
                        Event("cancelled", 1),
                    ),
                )
            ],
        ),
    ),
    "a kill was paid for by the job": ("unjustified", lambda history: (history, [cancelled(attempt=1)])),
    "it was cancelled, and nobody asked for that": (
        "unjustified",
        lambda history: (_with(history, changes=[]), [cancelled()]),
    ),
    "it could run, and has not ended": ("stuck", lambda history: (history, [queued()])),
    "the counter is off": ("miscounted", lambda history: (history, [cancelled()])),
    "sqlite finds fault": ("damaged", lambda history: (history, [cancelled()])),
}


def _with(history: History, **more: Any) -> History:
    return evolve(history, **more)


def _succeeded() -> Row:
    events = (Event("queued", 0), Event("running", 1), Event("succeeded", 1))
    return queued(
        state="succeeded",
        endpoint="/api/embed",
        finished=True,
        attempt=1,
        fence=1,
        events=events,
        attempts=(Attempt(1, WALL, WALL + 1, "succeeded"),),
        artifacts={"response": artifact(answer())},
    )


def _rescued(number: int) -> tuple[History, Row]:
    """A job that was rescued and ran once more, with the answer that the target gave to its ``number``-th run."""
    history = History(
        enqueues=[told()],
        observations=[Observation(ID, "succeeded", 4.0, 4.1)],
        arrivals=[Arrival(PROMPT, 1, 2.5, WALL), Arrival(PROMPT, 2, 3.0, WALL + 200)],
    )
    log = ("queued", 0), ("running", 1), ("rescued", 2), ("running", 3), ("succeeded", 3)
    tries = Attempt(1, WALL, WALL + 100, "rescued", "lost"), Attempt(3, WALL + 150, WALL + 300, "succeeded")
    job = evolve(
        _succeeded(),
        fence=3,
        rescues=1,
        events=tuple(Event(*event) for event in log),
        attempts=tries,
        artifacts={"response": artifact(answer(number), fence=3)},
    )
    return history, job


def test_a_job_that_was_rescued_and_ran_once_more_is_as_it_should_be() -> None:
    assert found(*_rescued(2)) == set()


def test_the_answer_to_a_try_that_was_taken_away_is_found() -> None:
    # All but the number in it is as if the try that is said to have succeeded had brought it.
    assert found(*_rescued(1)) == {"stale"}


def test_a_rescue_that_the_job_paid_for_is_found() -> None:
    history, job = _rescued(2)
    assert found(history, evolve(job, attempt=2)) == {"unjustified"}


def test_a_run_after_the_success_could_be_seen_is_found_although_each_run_had_its_claim() -> None:
    history, job = _rescued(2)
    early = evolve(history, observations=[Observation(ID, "succeeded", 2.6, 2.7)])
    assert found(early, job) == {"duplicated"}


def test_a_retry_that_was_acknowledged_and_forgotten_is_found() -> None:
    retry = Change("retry", ID, 2.7, 2.8, "acked")
    assert found(History(enqueues=[told()], changes=[CANCEL, retry]), cancelled()) == {"lost"}


def test_an_older_artifact_in_place_of_the_acknowledged_one_is_found() -> None:
    older, newer = artifact(b"older"), artifact(b"newer")
    puts = [Put(ID, "mine", older.sha256, 2.0, 2.1, "acked"), Put(ID, "mine", newer.sha256, 2.2, 2.3, "acked")]
    history = History(enqueues=[told()], changes=[CANCEL], puts=puts)
    assert found(history, cancelled(artifacts={"mine": newer})) == set()
    assert found(history, cancelled(artifacts={"mine": older})) == {"regressed"}


@pytest.mark.parametrize("case", SPOILT)
def test_whatever_is_wrong_with_a_history_is_found_by_its_name(case: str) -> None:
    kind, spoil = SPOILT[case]
    history, rows = spoil(History(enqueues=[told()], changes=[CANCEL]))
    damage = ("a page is missing",) if kind == "damaged" else ()
    assert kind in found(history, *rows, damage=damage, waiting=7 if kind == "miscounted" else None)


def test_every_kind_of_finding_is_made_up_once() -> None:
    assert {kind for kind, _ in SPOILT.values()} == KINDS.keys()
