"""The contract's checklist of a transparent proxy, line by line: what shows each, or why it is otherwise.

A recording stands for the exchange of that name in ``golden/``, which ``test_golden.py`` replays through foreman; a test is
named by its file and its name; a sentence says why a line is not held.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, frozen
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater

from foreman.protocol.endpoints import ENDPOINTS, Lane, endpoint_of
from foreman.protocol.routes import _FREE_ROUTES
from foreman.simulator import Settings, Simulator
from support import raw_http, recordings
from support.live_foreman import RunningForeman, listen, port_of, start_foreman

reactor: Any = installed_reactor

HERE = Path(__file__).parent


@frozen
class Recording:
    """Recorded exchanges that are the same through foreman."""

    names: tuple[str, ...]


@frozen
class Test:
    """A test elsewhere."""

    __test__ = False
    file: str
    name: str


@frozen
class Because:
    """Why a line is not held as it stands."""

    sentence: str


def same(*names: str) -> Recording:
    return Recording(names)


CHECKLIST: dict[int, tuple[Recording | Test | Because, ...]] = {
    1: (same("root-get"), Test("api", "the_root_says_what_ollamas_says")),
    2: (same("root-head", "version-head", "tags-head"), Test("api", "lists_have_heads")),
    3: (
        same("path-query", "path-encoded", "v1-model-get-encoded-tag"),
        Test("golden", "the_target_gets_the_request_as_the_client_wrote_it"),
        Test("checklist", "every_route_reaches_the_target_as_it_was_asked"),
    ),
    4: (
        same("route-unknown", "method-get-chat", "method-put-chat"),
        Test("routes", "a_405_of_the_target_names_the_methods_that_foreman_knows"),
    ),
    5: (same("slash-post-chat", "slash-get-tags", "slash-get-tags-query"),),
    6: (same("path-double-slash", "path-dot-dot", "path-double-slash-post"),),
    7: (Test("api", "unknown_paths_are_relayed_unchanged"),),
    8: (same("delete-ok"), Test("api", "a_body_of_delete_goes_along")),
    9: (same("copy-ok"),),
    10: (same("chat-no-content-type", "chat-urlencoded-content-type"),),
    11: (same("chat-chunked-request"), Test("golden", "the_target_gets_the_request_as_the_client_wrote_it")),
    12: (same("chat-expect-continue"), Test("blob_upload", "a_client_that_waits_for_the_word_gets_it_before_its_body")),
    13: (Test("api", "a_large_chat_is_read_where_it_lies"), Test("clients", "ollama_looks_at_images_small_and_large")),
    14: (same("blob-post-created"), Test("blob_upload", "a_file_goes_on_while_it_arrives")),
    15: (Test("blob_upload", "an_early_answer_of_the_target_is_seen_and_the_rest_dropped"),),
    16: (same("chat-gzip-request", "v1-responses-zstd-request"),),
    17: (
        same(
            "chat-malformed-json", "chat-empty-body", "chat-truncated-json", "v1-chat-bad-json", "messages-empty-body"
        ),
    ),
    18: (same("chat-case-insensitive-keys", "chat-duplicate-keys", "chat-trailing-bytes", "chat-bom"),),
    19: (
        same("chat-null-fields", "chat-keep-alive-bool", "chat-keep-alive-fraction", "chat-keep-alive-number-string"),
    ),
    20: (same("chat-think-stream", "chat-think-false", "chat-think-level-unsupported", "chat-think-bogus"),),
    21: (same("chat-unknown-fields"), Test("client", "a_request_that_is_passed_on_arrives_byte_by_byte")),
    22: (Test("client", "a_request_that_is_passed_on_arrives_byte_by_byte"),),
    23: (
        same("chat-name-spaces", "chat-name-other-case", "chat-name-full"),
        Test("inventory", "a_name_is_found_as_ollama_finds_it"),
    ),
    24: (Test("model_names", "a_name_is_taken_apart_from_its_end"),),
    25: (
        same("chat-bad-name", "show-bad-name"),
        Test("model_names", "a_name_that_ollama_refuses_is_refused_with_its_text"),
    ),
    26: (
        same("chat-cloud-name", "chat-cloud-tag"),
        Test("inventory", "nobody_waits_for_a_model_that_is_there_or_elsewhere"),
    ),
    27: (Test("inventory", "a_name_is_found_as_ollama_finds_it"),),
    28: (same("chat-name-spaces", "chat-local-suffix"),),
    29: (Test("clients", "ollama_copies_and_deletes_models_and_the_list_shows_it_at_once"),),
    30: (
        Test("framing", "a_line_leaves_as_soon_as_it_is_whole"),
        Test("clients", "a_streamed_chat_comes_in_the_same_pieces_as_without_foreman"),
    ),
    31: (
        same("chat-stream", "generate-stream", "chat-tools-stream"),
        Test("relay", "each_line_is_one_write_and_the_last_one_ends_the_answer"),
    ),
    32: (same("chat-stream-unicode"), Test("framing", "lines_leave_whole_however_they_arrive")),
    33: (Test("framing", "the_longest_line_that_ollamas_client_takes_leaves_whole"),),
    34: (same("v1-chat-stream", "v1-responses-stream", "messages-stream"),),
    35: (same("chat-stream", "chat-nonstream", "v1-chat-nonstream", "v1-chat-stream"),),
    36: (
        Because(
            "Only within the grace time: behind it a space byte in line shows that a chat waits (ADR-0006), never a blank line."
        ),
        Test("heartbeat", "zero_turns_the_notice_off"),
    ),
    37: (same("chat-nonstream", "chat-stream", "v1-chat-nonstream"),),
    38: (same("crash-midstream-chat"), Test("relay", "an_error_line_of_the_target_counts_as_its_failure")),
    39: (
        Test("load", "a_target_killed_at_thirty_random_moments_never_leaves_an_answer_that_looks_complete"),
        Test("faults", "an_answer_is_never_better_than_the_target_gave_it"),
    ),
    40: (Test("heartbeat", "within_the_grace_time_nothing_is_sent_and_the_answer_is_as_ollama_gives_it"),),
    41: (same("chat-load", "chat-unload", "generate-load"),),
    42: (
        same("chat-stream-http10", "chat-stream-connection-close"),
        Test("client_request", "an_old_client_gets_an_answer_that_ends_with_its_connection"),
    ),
    43: (same("chat-stream", "generate-nonstream"),),
    44: (Test("clients", "who_leaves_the_line_is_forgotten_and_the_target_never_hears_of_it"),),
    45: (
        Test("clients", "who_leaves_in_mid_stream_ends_the_targets_work_at_once"),
        Test("clients", "who_leaves_before_the_targets_headers_ends_its_work_at_once"),
    ),
    46: (
        Test("cold_loads", "a_load_goes_on_for_the_next_in_the_queue_when_its_client_disconnects"),
        Test("cold_loads", "a_load_that_no_request_needs_ends_with_its_client"),
    ),
    47: (
        Because(
            "Each request has a connection to the target of its own (ADR-0007), so that cancelling one cannot touch another."
        ),
        Test("checklist", "whoever_leaves_disturbs_nobody"),
    ),
    48: (
        Test("load", "a_reader_that_stops_reading_an_ordinary_answer_does_not_hold_the_turn"),
        Test("load", "a_reader_that_stops_reading_an_endless_answer_costs_its_buffer_and_the_stall_limit"),
    ),
    49: (
        Test("checklist", "a_thousand_requests_go_over_one_connection"),
        same("wire-pipelined-1", "wire-pipelined-2"),
        Test("client_connection", "what_is_sent_ahead_in_small_pieces_is_answered_in_order"),
    ),
    50: (
        Because(
            "No connection to the target is used twice (ADR-0007): none is stale, and only one that was not made is tried again."
        ),
        Test("inference", "what_the_target_may_have_heard_is_never_sent_again"),
    ),
    51: (
        Test("client_connection", "no_deadline_of_a_head_runs_while_a_chat_is_answered"),
        Test("headers", "names_keep_their_case_order_and_repetition"),
    ),
    52: (
        Test("headers", "what_connection_names_does_not_cross"),
        Test("requests", "a_doubtful_request_does_what_its_rule_says"),
    ),
    53: (
        Because(
            "Where no token is asked for, names that a stranger may have pointed here are refused (FOREMAN_ALLOWED_HOSTS)."
        ),
        Test("headers", "the_target_hears_its_own_name_first_and_no_other"),
    ),
    54: (
        same("preflight-localhost", "preflight-app", "preflight-foreign", "preflight-null"),
        Test("admission", "a_preflight_needs_no_token"),
    ),
    55: (
        same("origin-allowed-error", "origin-allowed-stream"),
        Test("origins", "every_answer_to_an_allowed_page_says_so_exactly_once"),
    ),
    56: (
        Test("admission", "a_token_is_accepted_wherever_a_client_puts_it"),
        Test("admission", "a_token_reaches_neither_log_nor_location_nor_target"),
        Because(
            "Signatures of OLLAMA_AUTH are not accepted: the path prefix serves the same client, and needs no list of keys."
        ),
    ),
    57: (
        Test("admission", "each_family_reads_its_own_401"),
        Test("admission", "the_stock_client_is_told_how_to_send_a_token"),
    ),
    58: (Test("admission", "without_a_token_to_ask_for_every_credential_is_welcome"),),
    59: (
        Test("load", "a_hundred_chats_take_turns_in_the_order_they_came_and_nothing_else_waits_for_them"),
        Because(
            "Turns go first in, first out to begin with, so that nobody starves; grouping by resident model comes later (design section 4)."
        ),
    ),
    60: (
        Test("load", "a_hundred_chats_take_turns_in_the_order_they_came_and_nothing_else_waits_for_them"),
        Test("inference", "what_needs_no_turn_never_waits"),
    ),
    61: (
        Test("gate", "a_full_room_refuses_with_ollamas_words"),
        Test("responses", "a_failure_has_its_status_and_says_when_trying_again_helps"),
    ),
    62: (
        Because(
            "A retry of a request that still waits is a second request; the key that would tell them apart comes with durable jobs."
        ),
    ),
    63: (
        Test("process", "a_signal_lets_the_running_answer_finish_and_sends_away_who_waits"),
        Test("service", "a_running_answer_is_finished_within_the_patience"),
        Because("Jobs that survive a restart come later."),
    ),
    64: (
        Test("process", "while_the_target_is_away_its_models_stay_known_and_chats_are_told_when_to_come_back"),
        Test("clients", "a_target_that_is_down_is_told_clearly_and_at_once"),
    ),
    65: (
        same("pull-unreachable-stream"),
        Test("checklist", "a_pull_takes_no_turn_shows_how_far_it_is_and_ends_when_its_client_disconnects"),
        Because("Management never waits for a turn, and no limit is on the duration of an answer."),
    ),
    66: (
        Test("clients", "a_chat_says_the_same_as_without_foreman"),
        Because("The official command line program and Open WebUI are no packages that a test can install."),
    ),
}


@cache
def text_of(file: str) -> str:
    return (HERE / f"test_{file}.py").read_text("utf-8")


def test_no_line_is_left_out() -> None:
    assert sorted(CHECKLIST) == list(range(1, 67))


@pytest.mark.parametrize("number", sorted(CHECKLIST))
def test_a_line_of_the_checklist_is_shown_or_said_why_not(number: int) -> None:
    for shown in CHECKLIST[number]:
        if isinstance(shown, Recording):
            assert set(shown.names) <= set(recordings.names())
        elif isinstance(shown, Test):
            assert re.search(rf"^(async )?def test_{shown.name}", text_of(shown.file), re.MULTILINE), shown
        else:
            assert shown.sentence.endswith(".")


# what no other file shows


async def until(met: Callable[[], Any]) -> None:
    """Wait until something is so."""
    for _ in range(600):
        if met():
            return
        await deferLater(reactor, 0.005)
    raise AssertionError("waited in vain")


@define
class House:
    """A foreman in front of something that pretends to be Ollama."""

    foreman: RunningForeman
    target: Any


@asynccontextmanager
async def house_before(target: Any) -> AsyncIterator[House]:
    listening: Any = listen(target)
    foreman = await start_foreman(port_of(listening))
    try:
        yield House(foreman, target)
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)


ROUTES = [
    f"{method} {path}"
    for path, methods in (
        *((path, endpoint.methods) for path, endpoint in ENDPOINTS.items()),
        *((f"{path}a%3Ab", methods) for path, methods in _FREE_ROUTES.items()),
    )
    for method in methods
    if endpoint_of(path).lane not in (Lane.FOREMAN, Lane.INVENTORY) and not path.startswith("/queue/")
]
UNHEARD_OF = ["GET /", "PATCH /api/future/thing", "POST /api/sh%6Fw", "GET /v1/models/hf.co%2Fa%2Fb", "GET /metrics"]


@pytest_twisted.ensureDeferred
async def test_every_route_reaches_the_target_as_it_was_asked() -> None:
    query = "?x=&a=%5B1%5D&b=[2]&c=d+e%20f"
    async with house_before(recordings.ReplayTarget()) as house:
        house.target.recording = recordings.load("version-get")
        for route in ROUTES + UNHEARD_OF[1:]:
            method, _, path = route.partition(" ")
            body = b'{"a":"b"}' if method in ("POST", "PATCH", "DELETE") else b""
            asking = raw_http.request(method, path + query, body)
            response = await raw_http.ask(house.foreman.port, asking, method)
            assert response.status == 200, route
            head, heard = house.target.seen.pop()
            assert head.startswith(f"{method} {path}{query} HTTP/1.1\r\n".encode()), route
            assert heard == body
            assert house.target.seen == []


@pytest_twisted.ensureDeferred
async def test_a_thousand_requests_go_over_one_connection() -> None:
    async with house_before(Simulator(reactor)) as house:
        client = await raw_http.connect(house.foreman.port)
        asking = raw_http.request("GET", "/api/version")
        for _ in range(1000):
            client.received = b""
            client.send(asking)
            while not client.received.endswith(b'"}'):
                await deferLater(reactor, 0)
            assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert len(house.target.requests_for("/api/version")) == 1000
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_whoever_leaves_disturbs_nobody() -> None:
    async with house_before(Simulator(reactor, Settings(rate=200, parallel=8))) as house:
        embedding = json.dumps({"model": "tiny-embed", "input": ["word"] * 50}).encode()
        chat = json.dumps({"model": "tiny-slow", "prompt": "x", "options": {"num_predict": 30}}).encode()
        stayer = await raw_http.connect(house.foreman.port, "POST")
        stayer.send(raw_http.request("POST", "/api/generate", chat))
        for number in range(30):
            leaver = await raw_http.connect(house.foreman.port, "POST")
            leaver.send(
                raw_http.request("POST", ("/api/embed", "/api/generate")[number % 2], (embedding, chat)[number % 2])
            )
            await deferLater(reactor, 0.002)
            leaver.leave()
            await leaver.gone
        response = await stayer.done
        assert json.loads(response.body.splitlines()[-1])["eval_count"] == 30
        stayer.leave()
        await stayer.gone


@pytest_twisted.ensureDeferred
async def test_a_pull_takes_no_turn_shows_how_far_it_is_and_ends_when_its_client_disconnects() -> None:
    async with house_before(Simulator(reactor, Settings(rate=100))) as house:
        busy = await raw_http.connect(house.foreman.port, "POST")
        chat = {"model": "tiny-slow", "prompt": "x", "options": {"num_predict": 1_000_000}}
        busy.send(raw_http.request("POST", "/api/generate", json.dumps(chat).encode()))
        await until(lambda: house.target.running)
        house.target.misbehave("stall", at_line=2, route="/api/pull")
        pull = await raw_http.connect(house.foreman.port, "POST")
        pull.send(raw_http.request("POST", "/api/pull", b'{"model":"gemma3:1b"}'))
        await until(lambda: pull.received.count(b'{"status":') == 2)
        assert house.target.running == 1
        pull.leave()
        await pull.gone
        await until(lambda: house.target.requests_for("/api/pull")[0].outcome == "left")
        assert house.target.running == 1
        busy.leave()
        await busy.gone
