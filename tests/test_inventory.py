"""What the target has, and whether it answers: asked at intervals, whatever goes wrong."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from conftest import LoggedFailures
from foreman import errors
from foreman.target.client import MAX_COLLECTED
from foreman.target.inventory import RECHECK_TIMEOUT, Inventory
from foreman.target.model_list import POLL_TIMEOUT, PS_TIMEOUT
from foreman.target.models import Availability
from support.fake_target import ListingTarget


class Poller:
    """An inventory on a clock, and its target."""

    def __init__(self, interval: float = 30.0, **target: Any) -> None:
        self.clock = Clock()
        self.target = ListingTarget(**target)
        self.inventory = Inventory(self.clock, self.target, interval)  # type: ignore[arg-type]
        self.recoveries = 0
        self.inventory.on_recovery = self.recover

    def recover(self) -> None:
        self.recoveries += 1

    def fresh(self) -> list[Any]:
        results: list[Any] = []
        Deferred.fromCoroutine(self.inventory.until_fresh()).addBoth(results.append)
        return results

    def look_for(self, name: str) -> list[Any]:
        results: list[Any] = []
        Deferred.fromCoroutine(self.inventory.look_for(name)).addBoth(results.append)
        return results

    def stop(self) -> bool:
        results: list[Any] = []
        Deferred.fromCoroutine(self.inventory.stop()).addBoth(results.append)
        return results == [None]


# at intervals


def test_the_target_is_asked_at_the_start_and_at_every_interval() -> None:
    poller = Poller(interval=30)
    poller.inventory.start()
    for polls in range(1, 5):
        assert poller.target.paths == ["/api/tags", "/api/ps"] * polls
        poller.clock.advance(29.9)
        assert poller.target.polls == polls
        poller.clock.advance(0.1)


def test_the_lists_are_kept_as_they_came() -> None:
    poller = Poller(tags=b'{ "models" :[{"name":"m","new field":{}}] }\n', ps={"models": None})
    poller.inventory.start()
    tags, ps = poller.inventory.tags, poller.inventory.ps
    assert tags is not None
    assert ps is not None
    assert tags.body == b'{ "models" :[{"name":"m","new field":{}}] }\n'
    assert tags.headers == [(b"X-List", b"/api/tags")]
    assert (ps.body, poller.inventory.running) == (b'{"models": null}', [])


FAILURES: dict[str, tuple[BaseException, str]] = {
    **{
        why: (errors.ConnectionError(why, f"it is {why}"), why) for why in ("refused", "timeout", "dns", "tls", "reset")
    },
    "no HTTP": (errors.ConnectionError("garbage", "this is not HTTP"), "garbage"),
    "a status": (errors.HTTPError(500, "out of order"), "status"),
    "a mistake": (ValueError("nobody foresaw this"), "garbage"),
    "a wrong key": (KeyError("models"), "garbage"),
    "cancelled": (CancelledError(), ""),
}


@pytest.mark.parametrize("name", FAILURES)
def test_no_failure_ends_the_polls_and_the_next_good_one_clears_it(name: str, logged_failures: LoggedFailures) -> None:
    problem, reason = FAILURES[name]
    poller = Poller()
    poller.inventory.start()
    before = poller.inventory.tags
    poller.target.problem = problem
    for _ in range(3):
        poller.clock.advance(30)
        degraded = poller.inventory.degraded
        assert ("" if degraded is None else degraded.reason) == reason
    assert poller.inventory.tags is before
    assert poller.inventory.find("llama3") is Availability.INSTALLED
    poller.target.problem = None
    poller.clock.advance(30)
    assert poller.inventory.degraded is None
    assert poller.inventory.tags is not before
    logged_failures.take(ValueError, KeyError)


@pytest.mark.parametrize(
    "list_", [b"<html>", b"[]", b'{"models":[{"size":1}]}', b'{"models":{}}', b"", b"\xff", b'{"m']
)
def test_what_does_not_list_models_as_ollama_does_is_garbage(list_: bytes) -> None:
    poller = Poller(tags=list_)
    poller.inventory.start()
    assert poller.inventory.degraded is not None
    assert poller.inventory.degraded.reason == "garbage"
    assert poller.inventory.tags is None
    assert poller.inventory.find("anything") is Availability.UNKNOWN


@pytest.mark.parametrize("value", [{}, {"model": []}, {"version": "0.33.0"}, {"models": 0}, {"models": False}])
def test_an_object_without_a_list_of_models_is_no_empty_list(value: Any) -> None:
    poller = Poller(tags=value)
    poller.inventory.start()
    assert poller.inventory.degraded is not None
    assert poller.inventory.degraded.reason == "garbage"
    assert poller.inventory.find("anything") is Availability.UNKNOWN


ODD: list[Any] = [
    {"name": "odd", "size": None},
    {"name": "odd", "size": "7 GB", "details": 5},
    {"name": "odd", "size": 1.5, "digest": 7, "remote_host": None, "capabilities": {"a": 1}},
    {"name": "odd", "size": 10**400},
    {"model": "odd"},
    {"name": None, "model": "odd"},
    {"name": "odd", "digest": "\ud83d"},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_entry_counts_as_far_as_it_can_be_read_and_passes_as_it_came(odd: Any) -> None:
    body = json.dumps({"models": [{"name": "before"}, odd, {"name": "behind"}]}).encode()
    poller = Poller(tags=body)
    poller.inventory.start()
    inventory = poller.inventory
    assert inventory.degraded is None
    assert inventory.tags is not None
    assert inventory.tags.body == body
    assert [inventory.find(name) for name in ("before", "odd", "behind")] == [Availability.INSTALLED] * 3
    assert inventory.find("other") is Availability.MISSING


@pytest.mark.parametrize("odd", [None, 7, [], {}, {"name": 7}, {"name": "no good:"}, {"name": "\ud83d"}], ids=str)
def test_an_entry_without_a_name_makes_nobody_say_that_a_model_is_missing(odd: Any) -> None:
    poller = Poller(tags={"models": [{"name": "before"}, odd]})
    poller.inventory.start()
    assert poller.inventory.find("before") is Availability.INSTALLED
    assert poller.inventory.find("other") is Availability.UNKNOWN
    poller.target.tags = {"models": [{"name": "before"}]}
    poller.clock.advance(30)
    assert poller.inventory.find("other") is Availability.MISSING


@pytest.mark.parametrize(
    "odd",
    [None, 7, {}, {"name": None}, {"name": "odd", "size_vram": None, "expires_at": 5}, {"name": "no good:"}],
    ids=str,
)
def test_an_odd_entry_among_those_that_run_costs_nobody_else(odd: Any) -> None:
    poller = Poller(ps={"models": [odd, {"name": "llama3:latest"}]})
    poller.inventory.start()
    assert poller.inventory.degraded is None
    assert poller.inventory.is_running("llama3")


MISSING: dict[str, BaseException | bytes] = {
    "no such route": errors.HTTPError(404, "404 page not found"),
    "not allowed": errors.HTTPError(403, ""),
    "a failure": errors.HTTPError(500, "out of order"),
    "a page": b"<html>",
    "no list": b"{}",
    "too long": b'{"models":[' + b"{}," * 500_000 + b"{}]}",
}


@pytest.mark.parametrize("ps", MISSING.values(), ids=MISSING)
def test_without_the_list_of_what_runs_the_other_is_known(ps: Any) -> None:
    poller = Poller(ps=ps)
    poller.inventory.start()
    inventory = poller.inventory
    assert (inventory.degraded, inventory.ps, inventory.running) == (None, None, [])
    assert list(inventory.missing) == ["/api/ps"]
    assert inventory.find("llama3") is Availability.INSTALLED
    assert inventory.find("other") is Availability.MISSING
    assert poller.recoveries == 1
    assert poller.fresh() == [None]
    assert poller.target.polls == 1
    poller.target.ps = {"models": [{"name": "llama3"}]}
    poller.clock.advance(30)
    assert inventory.missing == {}
    assert inventory.is_running("llama3")


def test_a_list_of_what_runs_that_does_not_come_is_given_up_alone() -> None:
    poller = Poller(slow=True)
    poller.inventory.start()
    poller.target.waiting.pop().callback(None)  # the list of what is installed
    poller.clock.advance(PS_TIMEOUT)
    assert poller.inventory.degraded is None
    assert poller.inventory.find("llama3") is Availability.INSTALLED
    assert "within 5 s" in poller.inventory.missing["/api/ps"]


def test_without_the_list_of_what_is_installed_nothing_is_said_to_be_missing() -> None:
    poller = Poller(tags=errors.HTTPError(404, "404 page not found"))
    poller.inventory.start()
    assert (poller.inventory.degraded, poller.inventory.tags) == (None, None)
    assert poller.inventory.find("other") is Availability.UNKNOWN
    assert poller.inventory.is_running("llama3")


def filled(unit: bytes) -> bytes:
    """The longest list of ``unit`` that is gathered."""
    most = MAX_COLLECTED - 20
    return b'{"models":[' + b",".join([unit] * (most // (len(unit) + 1))) + b"]}"


@pytest.mark.parametrize(
    "body",
    [
        *map(
            filled, (b"1", b"{}", b"[]", b"[[[[]]]]", b'{"name":"m"}', b'{"name":"m","size":null}', b'{"a":[1,2,{}]}')
        ),
        *map(filled, (b'{"x":' * 50 + b"1" + b"}" * 50, b'"' + b"x" * 1000 + b'"', b'{"name":"' + b"x" * 500 + b'"}')),
        b'{"models":[{"name":"' + b"x" * (MAX_COLLECTED - 24) + b'"}]}',
        b'{"models":["' + b"x" * (MAX_COLLECTED - 24) + b'"]}',
        b" " * MAX_COLLECTED,
        b"[" * MAX_COLLECTED,
    ],
    ids=lambda body: str(body[:30]),
)
def test_the_longest_list_takes_a_bounded_memory_whatever_it_is_made_of(body: bytes) -> None:
    assert len(body) <= MAX_COLLECTED
    tracemalloc.start()
    try:
        poller = Poller(tags=body)
        poller.inventory.start()
        assert tracemalloc.get_traced_memory()[1] < 48 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_list_that_has_not_changed_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    poller = Poller()
    poller.inventory.start()
    installed = poller.inventory.installed
    poller.clock.advance(30)
    assert poller.inventory.installed is installed
    assert poller.inventory.snapshot() is poller.inventory.snapshot()


def test_what_holds_jobs_is_said_and_since_when() -> None:
    poller = Poller()
    poller.inventory.start()
    assert poller.inventory.why_held("gate") is None
    poller.inventory.hold("gate", "for a reason")
    poller.clock.advance(7)
    poller.inventory.hold("gate", "for another")
    assert poller.inventory.held == {"gate": ("for another", 0.0)}
    assert (poller.inventory.why_held("gate"), poller.inventory.why_held("embedding")) == ("for another", None)
    poller.inventory.target_failed(errors.ConnectionError("refused", "nobody there"))
    assert "nobody there" in (poller.inventory.why_held("embedding") or "")
    poller.inventory.hold("gate", None)
    assert poller.inventory.held == {}


def test_a_target_that_says_nothing_is_given_up_and_asked_again() -> None:
    poller = Poller(slow=True)
    poller.inventory.start()
    poller.clock.advance(POLL_TIMEOUT)
    assert poller.inventory.degraded is not None
    assert poller.inventory.degraded.reason == "silence"
    poller.clock.advance(30 - POLL_TIMEOUT)
    assert poller.target.polls == 2
    poller.target.answer()
    assert poller.inventory.degraded is None


def test_since_when_it_is_degraded_is_the_first_failure_whatever_comes_later() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.problem = errors.ConnectionError("reset", "gone")
    poller.clock.advance(30)
    poller.target.problem = errors.ConnectionError("refused", "nobody there")
    poller.clock.advance(30)
    assert poller.inventory.degraded is not None
    assert (poller.inventory.degraded.since, poller.inventory.degraded.reason) == (30.0, "refused")


def test_a_failure_of_what_follows_a_recovery_is_logged_and_ends_nothing(logged_failures: LoggedFailures) -> None:
    poller = Poller()

    def fail() -> None:
        raise ZeroDivisionError

    poller.inventory.on_recovery = fail
    poller.inventory.start()
    poller.clock.advance(30)
    assert poller.target.polls == 2
    assert len(logged_failures.take(ZeroDivisionError)) == 1


# many askers


def test_many_callers_share_one_request() -> None:
    poller = Poller(slow=True)
    results = [poller.fresh() for _ in range(100)]
    assert poller.target.polls == 1
    poller.target.answer()
    assert results == [[None]] * 100
    assert poller.target.paths == ["/api/tags", "/api/ps"]


def test_who_asks_because_of_a_change_is_not_told_what_was_asked_before_it() -> None:
    poller = Poller(slow=True)
    told: list[str] = []
    poller.inventory.refresh().addCallback(lambda _: told.append("first"))
    poller.inventory.refresh().addCallback(lambda _: told.append("second"))
    poller.inventory.refresh().addCallback(lambda _: told.append("third"))
    poller.target.answer()
    assert (told, poller.target.polls) == (["first"], 2)
    poller.target.answer()
    assert (told, poller.target.polls) == (["first", "second", "third"], 2)


def test_a_caller_who_cancels_leaves_the_request_to_the_others() -> None:
    poller = Poller(slow=True)
    leaver, stayer = poller.inventory.refresh(), poller.fresh()
    later = poller.inventory.refresh()
    for one in (leaver, later):
        one.addErrback(lambda _: None)
        one.cancel()
    poller.target.answer()
    assert stayer == [None]
    assert poller.target.polls == 1


def test_a_caller_who_cancels_because_another_was_answered_does_no_harm() -> None:
    poller = Poller(slow=True)
    first, leaver, last = (poller.inventory._refreshed() for _ in range(3))
    leaver.addErrback(lambda _: None)
    first.addCallback(lambda _: leaver.cancel())
    told: list[bool] = []
    last.addCallback(told.append)
    poller.target.answer()
    assert told == [True]


@given(st.lists(st.sampled_from(["refresh", "fresh", "answer", "fail", "leave", "wait"]), max_size=40))
def test_whoever_asks_hears_of_a_question_that_was_put_after_that(story: list[str]) -> None:
    poller = Poller(slow=True)
    asking: list[Deferred[Any]] = []
    told: list[bool] = []
    for event in story:
        if event == "refresh":
            before = poller.target.polls
            responder = poller.inventory.refresh()

            def hear(result: bool | Failure, before: int = before) -> None:
                if not isinstance(result, Failure):
                    told.append(poller.target.polls > before)

            responder.addBoth(hear)
            asking.append(responder)
        elif event == "fresh":
            poller.fresh()
        elif event == "leave" and asking:
            asking.pop(0).cancel()
        elif event == "wait":
            poller.clock.advance(1)
        else:
            poller.target.problem = errors.ConnectionError("reset", "gone") if event == "fail" else None
            poller.target.answer()
        assert len(poller.target.waiting) <= 1
    poller.target.problem = None
    poller.target.answer()
    poller.target.answer()
    assert all(told)
    assert all(responder.called for responder in asking)
    poller.clock.advance(POLL_TIMEOUT)
    assert poller.clock.getDelayedCalls() == []


# young enough


def test_lists_younger_than_a_second_are_served_without_a_question() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.clock.advance(1)
    assert poller.fresh() == [None]
    assert poller.target.polls == 1
    poller.clock.advance(0.1)
    assert poller.fresh() == [None]
    assert poller.target.polls == 2


def test_whoever_wants_a_list_waits_a_quarter_of_a_second_at_most() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.clock.advance(2)
    poller.target.slow = True
    waiting = poller.fresh()
    poller.clock.advance(0.2)
    late = poller.fresh()
    poller.clock.advance(0.04)
    assert (waiting, late) == ([], [])
    poller.clock.advance(0.01)
    assert (waiting, late) == ([None], [])
    poller.clock.advance(0.2)
    assert late == [None]


def test_whoever_wants_a_list_behind_a_change_waits_longer_for_one_that_knows_of_it() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.clock.advance(0.5)
    poller.target.slow = True
    poller.inventory.target_changed()
    waiting = poller.fresh()
    poller.clock.advance(1.9)
    assert waiting == []
    poller.clock.advance(0.1)
    assert waiting == [None]
    assert poller.target.polls == 2
    assert poller.inventory.degraded is None


def test_a_change_makes_young_lists_old() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.tags = {"models": [{"name": "new"}]}
    poller.inventory.target_changed()
    assert poller.fresh() == [None]
    assert poller.inventory.find("new") is Availability.INSTALLED
    assert poller.fresh() == [None]
    assert poller.target.polls == 2


def test_a_list_that_is_wanted_while_a_change_is_being_asked_about_waits_for_the_answer() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.slow = True
    poller.inventory.refresh()
    wanted = poller.fresh()
    assert wanted == []
    poller.target.tags = {"models": [{"name": "new"}]}
    poller.target.answer()
    assert wanted == [None]
    assert poller.inventory.find("new") is Availability.INSTALLED
    assert poller.target.polls == 2


def test_a_list_that_is_young_does_not_wait_for_an_ordinary_poll() -> None:
    poller = Poller(interval=1)
    poller.inventory.start()
    poller.target.slow = True
    poller.clock.advance(1)
    assert poller.target.polls == 2
    assert poller.fresh() == [None]
    assert poller.stop()


def test_a_change_that_could_not_be_asked_about_is_asked_about_again() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.inventory.target_changed()
    poller.target.problem = errors.ConnectionError("reset", "gone")
    poller.fresh()
    poller.target.problem = None
    poller.fresh()
    assert poller.target.polls == 3


# recovery


def test_recovery_is_told_at_the_first_answer_and_each_time_the_target_is_back() -> None:
    poller = Poller()
    poller.inventory.start()
    assert poller.recoveries == 1
    poller.clock.advance(30)
    assert poller.recoveries == 1
    poller.target.problem = errors.ConnectionError("refused", "nobody there")
    poller.clock.advance(30)
    poller.target.problem = None
    poller.clock.advance(30)
    assert poller.recoveries == 2


def test_a_request_that_succeeds_clears_degraded_and_asks_for_the_lists() -> None:
    poller = Poller(problem=errors.ConnectionError("refused", "nobody there"))
    poller.inventory.start()
    assert poller.inventory.degraded is not None
    poller.target.problem = None
    poller.inventory.target_answered()
    assert poller.inventory.degraded is None
    assert poller.recoveries == 1
    assert poller.inventory.find("llama3") is Availability.INSTALLED
    poller.inventory.target_answered()
    assert (poller.recoveries, poller.target.polls) == (1, 2)


def test_an_answer_before_the_first_poll_counts_as_the_first() -> None:
    poller = Poller(slow=True)
    poller.inventory.start()
    poller.inventory.target_answered()
    poller.target.answer()
    assert poller.recoveries == 1


@pytest.mark.parametrize(
    "problem", [errors.HTTPError(404, "404 page not found"), errors.ConnectionError("garbage", "no")]
)
def test_what_answers_but_has_no_lists_is_not_cleared_by_any_other_answer(problem: Exception) -> None:
    poller = Poller(problem=problem)
    poller.inventory.start()
    for _ in range(3):
        poller.inventory.target_answered()
        assert poller.inventory.degraded is not None
    assert (poller.recoveries, poller.target.polls) == (0, 4)
    poller.target.problem = None
    poller.inventory.target_answered()
    assert poller.inventory.degraded is None
    assert poller.recoveries == 1


def test_a_request_that_fails_makes_it_degraded_before_the_next_poll() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.inventory.target_failed(errors.ConnectionError("refused", "nobody there"))
    assert poller.inventory.degraded is not None
    poller.clock.advance(30)
    assert poller.inventory.degraded is None


# names


@pytest.mark.parametrize(
    ("typed", "availability"),
    [
        *[
            (name, Availability.INSTALLED)
            for name in (
                "llama3",
                "LLAMA3:latest",
                " llama3 ",
                "library/llama3",
                "registry.ollama.ai/library/llama3:latest",
                "https://registry.ollama.ai/library/llama3",
                "llama3:local",
                "hf.co/user/repo:q4_k_m",
                "host:5000/ns/m:t",
                "mixed/case:tag",
                "big:7b",
            )
        ],
        *[
            (name, Availability.CLOUD)
            for name in ("x:cloud", "x:7b-cloud", "stub:cloud", "big:7b-cloud", "far", "FAR:latest")
        ],
        *[
            (name, Availability.MISSING)
            for name in ("llama", "llama3:8b", "hf.co/user/repo", "ns/m:t", "stub", "my-cloud")
        ],
    ],
)
def test_a_name_is_found_as_ollama_finds_it(typed: str, availability: Availability) -> None:
    poller = Poller()
    poller.inventory.start()
    assert poller.inventory.find(typed) is availability


@pytest.mark.parametrize("typed", ["m@sha256:0123", "m:", "/m", "x" * 81, "", "x:local:cloud"])
def test_a_name_that_ollama_refuses_is_refused(typed: str) -> None:
    poller = Poller()
    poller.inventory.start()
    with pytest.raises(errors.InvalidName):
        poller.inventory.find(typed)


def test_a_listed_name_that_cannot_be_read_is_passed_over() -> None:
    poller = Poller(tags={"models": [{"name": "no good:"}, {"name": "good"}]})
    poller.inventory.start()
    assert list(poller.inventory.installed) == [("registry.ollama.ai", "library", "good", "latest")]


def test_which_models_run_is_known_by_any_spelling() -> None:
    poller = Poller()
    poller.inventory.start()
    assert poller.inventory.is_running("Library/LLAMA3")
    assert not poller.inventory.is_running("big:7b")
    assert not poller.inventory.is_running("no good:")


# a model that is not there


def test_a_missing_model_is_looked_for_once_more() -> None:
    poller = Poller()
    poller.inventory.start()
    assert poller.look_for("new") == [Availability.MISSING]
    assert poller.target.polls == 2
    poller.target.tags = {"models": [{"name": "new"}]}
    assert poller.look_for("new") == [Availability.INSTALLED]
    assert poller.look_for("new") == [Availability.INSTALLED]
    assert poller.target.polls == 3


def test_a_model_that_came_while_a_question_was_under_way_is_found() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.slow = True
    poller.inventory.refresh()
    poller.target.waiting.pop().callback(None)  # its list of models is read, that of the running ones is to come
    poller.target.tags = {"models": [{"name": "new"}]}
    found = poller.look_for("new")
    poller.target.answer()
    poller.target.answer()
    assert found == [Availability.INSTALLED]


@pytest.mark.parametrize("problem", [errors.ConnectionError("refused", "nobody there"), errors.HTTPError(500, "no")])
def test_whether_a_model_is_missing_cannot_be_said_while_the_target_cannot_be_asked(problem: Exception) -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.problem = problem
    assert poller.look_for("new") == [Availability.UNKNOWN]


def test_a_target_that_does_not_list_its_models_soon_is_left_to_say_itself_what_is_missing() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.slow = True
    looking = poller.look_for("new")
    poller.clock.advance(RECHECK_TIMEOUT - 0.1)
    assert looking == []
    poller.clock.advance(0.1)
    assert looking == [Availability.UNKNOWN]
    poller.target.answer()


def test_nobody_waits_for_a_model_that_is_there_or_elsewhere() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.target.slow = True
    assert poller.look_for("llama3") == [Availability.INSTALLED]
    assert poller.look_for("x:cloud") == [Availability.CLOUD]
    assert poller.target.polls == 1


# stopping


def test_stopping_gives_up_the_question_under_way_and_tells_who_waits() -> None:
    poller = Poller()
    poller.inventory.start()
    poller.clock.advance(2)
    poller.target.slow = True
    waiting, looking = poller.fresh(), poller.look_for("new")
    told: list[bool] = []
    poller.inventory.refresh().addCallback(told.append)
    assert poller.stop()
    assert (waiting, looking, told) == ([None], [Availability.UNKNOWN], [False])
    assert poller.clock.getDelayedCalls() == []
    assert poller.inventory.degraded is None


def test_after_stopping_nothing_is_asked() -> None:
    poller = Poller()
    poller.inventory.start()
    assert poller.stop()
    poller.clock.advance(100)
    told: list[bool] = []
    poller.inventory.refresh().addCallback(told.append)
    assert told == [False]
    assert poller.fresh() == [None]
    assert poller.target.polls == 1


def test_what_was_never_started_can_be_stopped() -> None:
    assert Poller().stop()
