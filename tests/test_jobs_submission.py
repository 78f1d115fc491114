"""Submitted jobs: each field is checked, all errors are reported, and the payload is kept byte for byte."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from foreman.jobs.job import NewJob
from foreman.protocol.endpoints import SUBMITTABLE
from foreman.util import timestamps
from foreman.util.slices import at_once
from foreman.web.jobs import fields, job_parser
from foreman.web.jobs.fields import FIELDS
from foreman.web.jobs.job_parser import JobParser
from foreman.web.jobs.problems import MAX_LISTED, Problem, problem_reply
from foreman.web.jobs.request_headers import headers_to_store, idempotency_key_header, wants_job
from foreman.web.jobs.submit import assign_lanes
from support.jobs_api import FakeModels

NOW = 1_795_860_000_000
PARSER = JobParser("alice", None, NOW, 10_000)
PAYLOAD = {"model": "m", "messages": [{"role": "user"}]}
JOB = {"endpoint": "/api/chat", "payload": PAYLOAD}
TOMORROW = "2026-11-29T12:00:00Z"


def read(**more: Any) -> NewJob:
    jobs, is_array = at_once(PARSER.read(json.dumps({**JOB, **more}).encode()))
    assert not is_array
    return jobs[0]


def field_errors(body: Any, parser: JobParser = PARSER) -> list[tuple[str, str]]:
    with pytest.raises(Problem) as raised:
        at_once(parser.read(body if isinstance(body, bytes) else json.dumps(body).encode()))
    return [(field_error.pointer, field_error.detail) for field_error in raised.value.field_errors]


def places(**more: Any) -> list[str]:
    return sorted(pointer for pointer, _ in field_errors({**JOB, **more}))


# the fields


def test_missing_fields_have_the_documented_defaults() -> None:
    job = read()
    assert (job.priority, job.max_attempts, job.run_at, job.deadline) == (5, 5, None, None)
    assert (job.metadata, job.idempotency_key, job.lane, job.family) == ({}, None, "gate", "ollama")
    assert (job.model, job.owner, job.stream, job.content_type) == ("m", "alice", True, "application/json")


def test_null_means_the_same_as_a_missing_field() -> None:
    assert read(**dict.fromkeys(set(FIELDS) - {"endpoint", "payload"})) == read()


def test_fields_that_are_given_are_kept() -> None:
    job = read(
        priority=0, max_attempts=100, run_at=TOMORROW, deadline="2026-11-30T00:00:00.5+05:30",
        metadata={"a": "", "b" * 64: "c" * 512}, idempotency_key="k" * 255,
    )  # fmt: skip
    assert (job.priority, job.max_attempts, job.idempotency_key) == (0, 100, "k" * 255)
    assert timestamps.format_ms(job.run_at) == "2026-11-29T12:00:00.000Z"
    assert timestamps.format_ms(job.deadline) == "2026-11-29T18:30:00.500Z"
    assert job.metadata == {"a": "", "b" * 64: "c" * 512}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("priority", [-1, 10, 1.5, "5", True, [], {}]),
        ("max_attempts", [0, 101, 2.5, "5", False, 10**30]),
        ("run_at", [0, "", "now", "2026-11-29", "2026-11-29T12:00:00", "2026-02-30T12:00:00Z", "2026-11-29T12:00:00+25:00"]),
        ("deadline", [5, "2026-11-29T12:00:60Z", "٢٠٢٦-11-29T12:00:00Z"]),
        ("metadata", [[], "x", {"a": 1}, {"a": None}, {"": "x"}, {"a" * 65: ""}, {"a": "b" * 513}, {str(n): "" for n in range(17)}]),
        ("idempotency_key", ["", "x" * 256, 7]),
        ("endpoint", ["/api/tags", "/api/chat/", "/API/chat", "/v1/audio/transcriptions", "", 5, ["/api/chat"]]),
        ("payload", [[], "x", 5, {}]),
    ],
)  # fmt: skip
def test_an_invalid_value_is_reported_with_its_field(name: str, bad: list[Any]) -> None:
    for value in bad:
        assert [place.removesuffix("/model") for place in places(**{name: value})] == [f"/{name}"], value


def test_missing_and_unknown_fields_are_reported_together() -> None:
    assert sorted(pointer for pointer, _ in field_errors({})) == ["/endpoint", "/payload"]
    assert places(prioritty=1, priority=11, max_attempts=0) == ["/max_attempts", "/prioritty", "/priority"]
    (unknown,) = [detail for pointer, detail in field_errors({**JOB, "prioritty": 1}) if pointer == "/prioritty"]
    assert "priority" in unknown


@pytest.mark.parametrize("name", ["`x", "a`b", "x`", "``"])
def test_a_field_name_with_backticks_is_reported_unchanged(name: str) -> None:
    """Of a large job too, of whose members not all are looked at."""
    body = json.dumps({"endpoint": "/api/chat", "payload": "x" * 200_000, name: 1}).encode()
    assert set(fields.members_of(body) or ()) == {"endpoint", "payload", name}


def test_a_deadline_comes_after_the_beginning() -> None:
    assert places(run_at=TOMORROW, deadline=TOMORROW) == ["/deadline"]
    assert places(deadline="2026-11-28T00:00:00Z", priority=11) == ["/deadline", "/priority"]
    assert read(run_at="2020-01-01T00:00:00Z", deadline=TOMORROW).deadline is not None


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"model": ""}, "/payload/model"),
        ({"messages": []}, "/payload/model"),
        ({"model": "a b"}, "/payload/model"),
        ({"model": "m:cloud:local"}, "/payload/model"),
        ({"model": " " * 700 + "m"}, "/payload/model"),
        ({"model": 5}, "/payload"),
        ({"model": "m", "stream": "yes"}, "/payload"),
        ({"model": "m", "keep_alive": 0}, "/payload"),
        ({"model": "m", "x": "y" * 10_000}, "/payload"),
    ],
)
def test_a_payload_that_cannot_be_a_job_is_refused_with_its_pointer(payload: dict[str, Any], place: str) -> None:
    assert places(payload=payload) == [place]


def test_a_request_that_only_loads_a_model_is_a_job() -> None:
    assert read(payload={"model": "m", "keep_alive": "5m"}).stream


def test_each_endpoint_has_its_lane_and_its_family() -> None:
    found = {endpoint: read(endpoint=endpoint, payload={**PAYLOAD, "input": "x"}) for endpoint in SUBMITTABLE}
    beside = {endpoint for endpoint, job in found.items() if job.lane == "embedding"}
    assert beside == {"/api/embed", "/api/embeddings", "/v1/embeddings"}
    assert found["/v1/messages"].family == "anthropic"
    assert {found[path].family for path in ("/v1/responses", "/v1/embeddings")} == {"openai"}
    assert not found["/v1/chat/completions"].stream


def test_an_array_is_read_in_its_order_and_has_its_bounds() -> None:
    jobs, is_array = at_once(PARSER.read(json.dumps([{**JOB, "priority": number} for number in range(4)]).encode()))
    assert (is_array, [job.priority for job in jobs]) == (True, [0, 1, 2, 3])
    for count in (0, 1001):
        with pytest.raises(Problem, match="1 to 1000"):
            at_once(PARSER.read(json.dumps([JOB] * count).encode()))


@given(st.binary(max_size=60), st.sampled_from([b"%b", b"[%b]", b'{"endpoint":"/api/chat","payload":%b}', b'{"%b":1}']))
def test_whatever_bytes_come_the_answer_is_jobs_or_a_problem(data: bytes, around: bytes) -> None:
    judged(around % data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*FIELDS, *SUBMITTABLE, TOMORROW]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
FIELD_VALUES = st.fixed_dictionaries(
    {"endpoint": st.sampled_from(SUBMITTABLE), "payload": st.just(PAYLOAD) | VALUES},
    optional=dict.fromkeys((*FIELDS[2:], "other"), VALUES),
)


@given(VALUES | FIELD_VALUES | st.lists(FIELD_VALUES, max_size=3))
def test_whatever_json_comes_the_answer_is_jobs_or_a_problem(value: Any) -> None:
    judged(json.dumps(value).encode())
    judged(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def judged(body: bytes) -> None:
    try:
        jobs, _ = at_once(PARSER.read(body))
    except Problem as raised:
        problem = raised
    else:
        assert all(isinstance(job, NewJob) and len(job.fingerprint) == 64 for job in jobs)
        return
    assert problem.status in {400, 413}
    assert str(problem)
    for field_error in problem.field_errors:
        assert field_error.pointer == "" or field_error.pointer.startswith("/")


# the fingerprint


def test_the_fingerprint_is_of_all_that_was_asked_and_not_of_how_it_was_written() -> None:
    first = at_once(
        PARSER.read(b'{"endpoint":"/api/chat","payload":{"model":"m"},"priority":5,"metadata":{"a":"1","b":"2"}}')
    )[0][0]
    same = at_once(
        PARSER.read(
            b' {"metadata":{"b":"2","a":"1"}, "idempotency_key":"k", "payload":{"model":"m"},"endpoint":"/api/chat"} '
        )
    )[0][0]
    assert first.fingerprint == same.fingerprint
    others = [
        read(), read(payload={**PAYLOAD, "x": 1}), read(priority=4), read(run_at=TOMORROW), read(deadline=TOMORROW),
        read(max_attempts=4), read(metadata={"a": "1"}), read(metadata={"a1": ""}), read(endpoint="/v1/chat/completions"),
        at_once(PARSER.read(b'{"endpoint":"/api/chat","payload":{"model": "m"}}'))[0][0],
    ]  # fmt: skip
    assert len({job.fingerprint for job in others}) == len(others)


def test_a_form_that_is_sent_again_with_another_boundary_is_the_same() -> None:
    prints = set()
    for boundary in ("aaa", '"bbb"'):
        bare = boundary.strip('"').encode()
        body = b"--%b\r\nContent-Disposition: form-data\r\n\r\nm\r\n--%b--\r\n" % (bare, bare)
        job = evolve(read(), payload=body)
        content_type = f"multipart/form-data; boundary={bare.decode()}"
        prints.add(
            at_once(job_parser.with_request_headers(job, content_type, None, [("User-Agent", boundary)])).fingerprint
        )
    assert len(prints) == 1
    other = at_once(
        job_parser.with_request_headers(evolve(read(), payload=b"--aaa"), "multipart/form-data; boundary=aaa", None, [])
    )
    assert other.fingerprint not in prints


# what is said of a body, and what it costs, does not grow with its flaws


def many(of: str, count: int) -> str:
    return ", ".join(of.replace("#", str(number)) for number in range(count))


BESIDE = '"endpoint": "/api/chat", "payload": {"model": "m", "messages": [{"role": "user"}]}'
UNKNOWN = f"{{{BESIDE}, " + many('"x#": 1', 1000) + "}"


@pytest.mark.parametrize(
    "body",
    [
        UNKNOWN,
        f"[{many(UNKNOWN, 30)}]",
        f"[{many('7', 1000)}]",
        f"[{many('{}', 1000)}]",
        f"[{many('{' + chr(34) + '~' * 5000 + chr(34) + ': 1}', 1000)}]",
        f"{{{BESIDE}, " + many('"x#": 1', 300_000) + "}",
        f"[{many('1', 300_000)}]",
        f"[{many('[]', 300_000)}]",
        f'{{{BESIDE}, "{"a" * 1_000_000}": 1}}',
        f'{{{BESIDE}, "metadata": {{{many(chr(34) + "#" + chr(34) + ": 1", 300_000)}}}}}',
        f'{{{BESIDE}, "metadata": [{many("[]", 300_000)}]}}',
        f'{{{BESIDE}, "run_at": "{"9" * 1_000_000}"}}',
        f'{{{BESIDE}, "priority": {"9" * 1_000_000}}}',
        f'{{{BESIDE}, "idempotency_key": "{"k" * 1_000_000}"}}',
        f'{{"endpoint": "{"/" * 1_000_000}", "payload": {{}}}}',
        f'{{"endpoint": "/api/chat", "payload": {{"model": "{"m" * 1_000_000}", "messages": []}}}}',
        f'{{"endpoint": "/api/chat", "payload": {{"model": "{"m" * 7000}:local:cloud", "messages": [{{}}]}}}}',
    ],
    ids=lambda body: f"{body[:2]}{body[-12:]}{len(body)}",
)
def test_a_body_with_many_or_long_errors_is_answered_briefly(body: str) -> None:
    parser = JobParser("alice", None, NOW, 20_000_000)
    data = body.encode()
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as raised:
            at_once(parser.read(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    problem = raised.value
    assert len(problem_reply(problem).body) < 20_000
    assert peak < 2 * len(data) + 16_000_000
    assert len(problem.field_errors) <= MAX_LISTED + 1
    if len(problem.field_errors) > MAX_LISTED:
        assert problem.field_errors[-1].detail.startswith("and ")
        assert ", and " in str(problem)


def test_all_errors_are_counted() -> None:
    with pytest.raises(Problem) as raised:
        at_once(PARSER.read(UNKNOWN.encode()))
    assert str(raised.value).endswith(", and 999 more")
    assert (len(raised.value.field_errors), raised.value.field_errors[-1].detail) == (21, "and 980 more")


def test_a_body_that_is_larger_than_jobs_may_be_is_refused_before_it_is_read() -> None:
    for body, most in ((b" {}", 10_000 + job_parser.MAX_OTHER_FIELDS), (b"\n[]", job_parser.MAX_ARRAY)):
        PARSER.check_size(body, most)
        with pytest.raises(Problem) as raised:
            PARSER.check_size(body, most + 1)
        assert raised.value.status == 413
    with pytest.raises(Problem, match="the job has 300002 bytes; at most"):
        at_once(PARSER.read(b"{" + b" " * 300_000 + b"}"))


# what stands beside the body


@define
class Head:
    raw_headers: list[tuple[bytes, bytes]]

    def headers_named(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.raw_headers if key.lower() == name]


def head(*pairs: tuple[bytes, bytes]) -> Any:
    return Head(list(pairs))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"respond-async"], True),
        ([b"Respond-Async, wait=10"], True),
        ([b'handling=lenient, x="a, respond-async", RESPOND-ASYNC ; foo=1'], True),
        ([b"wait=10", b"respond-async"], True),
        ([b'respond-async=""'], True),
        ([b'x="a, respond-async"'], False),
        ([b"respond-async=no"], False),
        ([b"respond-asynchronously"], False),
        ([b"x=respond-async"], False),
        ([b'"respond-async"'], False),
        ([b""], False),
        ([], False),
    ],
)
def test_a_preference_is_read_as_its_rfc_has_it(values: list[bytes], expected: bool) -> None:
    assert wants_job(head(*((b"Prefer", value) for value in values))) is expected


@given(st.lists(st.text(alphabet='a,"\\;= respond-async', max_size=30).map(str.encode)))
def test_no_preference_breaks_its_reader(values: list[bytes]) -> None:
    assert wants_job(head(*((b"prefer", value) for value in values))) in {True, False}


def test_headers_for_the_target_are_kept_and_credentials_are_not() -> None:
    kept = headers_to_store(
        head((b"Anthropic-Version", b"1"), (b"anthropic-beta", b"a"), (b"Authorization", b"Bearer x"), (b"x-api-key", b"k"),
             (b"OpenAI-Beta", b"b"), (b"User-Agent", b"\xe9"), (b"Cookie", b"c"), (b"Prefer", b"respond-async"))
    )  # fmt: skip
    assert [name for name, _ in kept] == ["Anthropic-Version", "anthropic-beta", "OpenAI-Beta", "User-Agent"]


def test_a_header_that_the_connection_header_names_is_not_kept() -> None:
    kept = headers_to_store(
        head((b"Anthropic-Version", b"1"), (b"connection", b"close, ANTHROPIC-Beta"), (b"anthropic-beta", b"a"),
             (b"Connection", b"User-Agent"), (b"User-Agent", b"x"))
    )  # fmt: skip
    assert kept == (("Anthropic-Version", "1"),)


def test_a_key_may_be_quoted_and_must_be_one() -> None:
    assert idempotency_key_header(head()) is None
    assert idempotency_key_header(head((b"Idempotency-Key", b'"a\\"b"'))) == 'a"b'
    assert idempotency_key_header(head((b"Idempotency-Key", b"\xc3\xa9"))) == "é"
    for bad in ([b""], [b"\xff"], [b"a", b"b"]):
        with pytest.raises(Problem):
            idempotency_key_header(head(*((b"idempotency-key", value) for value in bad)))


# moments, and models


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_moment_is_read_as_it_is_shown(moment: int) -> None:
    assert timestamps.parse(timestamps.format_ms(moment) or "") == moment


@given(st.text())
def test_no_text_breaks_the_reader_of_moments(text: str) -> None:
    assert timestamps.parse(text) is None


def test_moments_at_the_ends_of_time_are_moments_or_none() -> None:
    assert timestamps.parse("0001-01-01T00:00:00Z") == timestamps.EARLIEST
    assert timestamps.parse("9999-12-31T23:59:59.999999Z") == timestamps.LATEST
    # There is no year 0 and no year 10000 to show them in.
    assert timestamps.parse("0001-01-01T00:00:00+23:59") is None
    assert timestamps.parse("9999-12-31T23:59:59.999999-23:59") is None
    assert timestamps.parse("0000-01-01T00:00:00Z") is None


@pytest.mark.parametrize("moment", [-(2**63), timestamps.EARLIEST - 1, -1, 0, timestamps.LATEST + 1, 2**63 - 1])
def test_every_moment_that_a_row_can_hold_is_shown(moment: int) -> None:
    assert timestamps.parse(timestamps.format_ms(moment) or "") == min(
        max(moment, timestamps.EARLIEST), timestamps.LATEST
    )


def test_the_target_is_asked_once_for_all_missing_models() -> None:
    models = FakeModels()
    jobs = [read(payload={**PAYLOAD, "model": model}) for model in ("m", "x", "cloudy", "y", "x", "z:cloud")]
    placed: Any = []
    Deferred.fromCoroutine(assign_lanes(jobs, models)).addCallback(placed.append)
    ((found, missing),) = placed
    assert [job.lane for job in found] == ["gate", "gate", "embedding", "gate", "gate", "embedding"]
    assert (missing, models.lookups) == ([1, 3, 4], 1)
    models.away = True
    Deferred.fromCoroutine(assign_lanes(jobs, models)).addCallback(placed.append)
    assert placed[-1][1] == []
