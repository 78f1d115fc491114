"""No input costs more than in proportion to its size: each reader of outside input, fed the worst that is known."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import frozen
from click import UsageError
from werkzeug.exceptions import HTTPException

from foreman.auth import credentials, tokens
from foreman.cli.client import address as cli_address
from foreman.cli.client import job_request
from foreman.cli.client import stream_reader as cli_stream_reader
from foreman.cli.ui import times
from foreman.config import listen_address, parsers, target_address
from foreman.errors import ForemanError
from foreman.protocol import (
    answer_end,
    body_values,
    framing,
    go_duration,
    go_json,
    headers,
    model_names,
    multipart,
    request_body,
    request_path,
    routes,
    stream_flag,
)
from foreman.simulator.engine import fields as simulated_fields
from foreman.simulator.engine import go_json as simulated_json
from foreman.simulator.engine import model_names as simulated_names
from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.server import router
from foreman.util import timestamps
from foreman.util.byte_budget import ByteBudget
from foreman.util.slices import at_once
from foreman.web.api.routes import Api
from foreman.web.jobs import artifacts, fields, job_parser, query_params, request_headers, streaming
from foreman.web.jobs import routes as jobs_routes
from foreman.web.jobs.problems import FieldErrors
from foreman.web.jobs.routes import JobsApi
from foreman.web.server import http_syntax, origins

#: From the first size to the second the work may grow a little more than the input does, which is by this factor. The
#: smallest has more digits than Python makes a number of (4,300): below that another reader does the work.
SIZES = ((8 * 1024, 32 * 1024), (16 * 1024, 64 * 1024))
FACTOR = 4
#: Twice what is in proportion is a slow machine; four times would be the square of it.
TOO_MUCH = 2 * FACTOR
#: Below this much CPU time nothing is measured but noise, in seconds: the square of what it is at 64 kB takes far longer.
NOISE = 0.005
#: Only an input that seems too much is tried this often: a busy machine slows down one measurement, not all of them.
TRIES = 20
#: The most CPU time for 64 kB before anybody has shown a token, in seconds; the worst input takes less than half of it.
BEFORE_A_TOKEN = 0.025

UNITS = (
    b" ", b"\t", b",", b";", b":", b"=", b"&", b"/", b"\\", b'"', b"'", b"[", b"]", b"{", b"(", b"<", b"-", b"+", b".",
    b"%", b"0", b"9", b"a", b"Z", b"_", b"*", b"?", b"#", b"@", b"|", b"!", b"\xff", b"\xc3\xa9", b"\n", b"\r", b"\0",
    b", ", b" ,", b'",', b'","', b'\\"', b'"\\', b'""', b'a"', b'"a', b"a,", b"a=", b"a=b;", b"; a=b", b';a="b"', b';a="',
    b"a&", b"a=&", b"&a=b", b"%41", b"%2F", b"%2e/", b"//", b"/.", b"/..", b"/a", b"./", b"a/", b"a:", b"::", b":0", b"0.",
    b".0", b"1e", b"1m", b"1ms", b"1h1", b"-1", b"0-", b"[[", b"[]", b"{}", b'{"', b'{"a":', b'"a":', b"[1,", b"\\u00",
    b"\\ud800", b"\r\n", b"\r\n\r\n", b"\n\n", b"\n\r\n", b"data:", b"data: {}\n", b"\r\n--X", b"\r\n--X ", b"--X\r\n",
    b"a: b\r\n", b"boundary=", b'boundary="', b"respond-async", b"respond-async,", b"respond-async ", b'"respond-async',
    b"://", b"http://", b" 00:00", b"\xe2\x80\x83", b"-cloud", b":cloud",
)  # fmt: skip


@frozen
class Visit:
    """What the readers of heads look at."""

    name: bytes = b""
    value: bytes = b""
    target: bytes = b"/jobs"
    caller: str = "alice"
    method: bytes = b"GET"

    def headers_named(self, name: bytes) -> list[bytes]:
        return [self.value] if name == self.name else []


def of_header(name: bytes, read: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda value: read(Visit(name, value))


def of_query(read: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda query: read(Visit(target=b"/jobs?" + query))


def of_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("latin-1"))


def in_pieces(cutter: Callable[[], framing.Framer], size: int) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        cut = cutter()
        for start in range(0, len(data), size):
            cut.feed(data[start : start + size])
        cut.rest()

    return read


def way_of(target: bytes) -> object:
    _, rest = request_path.take_prefix(request_path.origin_form(target))
    return routes.classify(b"GET", rest)


def form_with(content_type: bytes) -> object:
    return at_once(multipart.field("model", b"--X\r\n\r\n", content_type))


def described_form(content_type: bytes) -> object:
    job = job_parser.new_job("/api/chat", b"x" * 64, request_body.RequestBody("m", stream=False), "alice", None)
    return at_once(
        job_parser.with_request_headers(job, "multipart/form-data; " + content_type.decode("latin-1"), None, [])
    )


def job(body: bytes) -> object:
    return at_once(job_parser.JobParser("alice", None, 0, 1 << 20).read(body))


def member(judge: Callable[[Any], Any]) -> Callable[[bytes], object]:
    def read(value: bytes) -> None:
        found = fields.members_of(b'{"metadata":' + value + b"}")
        if found is not None:
            fields.Fields(found, "", FieldErrors(), FieldErrors()).read("metadata", judge, None)

    return read


def followed(data: bytes) -> None:
    read = cli_stream_reader.event_reader(lambda *_: None)
    for line in data.split(b"\n"):
        read(line)


def routed(app: Any, prefix: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        with contextlib.suppress(HTTPException):
            app.url_map.bind("foreman").match(f"/{prefix}{data.decode('latin-1')}", "GET")

    return read


GUARDS = origins.OriginPolicy(frozenset({"*.example.com", "a*"}), ("https://*.example.com", "app://*"), "here")

#: Each reader with what stands before and behind the worst of it; many begin to look only there.
READERS: dict[str, tuple[Callable[[bytes], object], tuple[tuple[bytes, bytes], ...]]] = {
    "Prefer": (of_header(b"prefer", request_headers.wants_job), ((b"respond-async", b"x"), (b'x="', b"respond-async"))),
    "Idempotency-Key": (of_header(b"idempotency-key", request_headers.idempotency_key_header), ((b'"', b'"'), (b'"', b""))),
    "Content-Encoding": (of_header(b"content-encoding", lambda request: request_headers.check_uncompressed(request, "")), ()),
    "Accept": (of_header(b"accept", streaming.accepts_sse), ((b"", b"text/event-stream"),)),
    "If-None-Match": (of_header(b"if-none-match", lambda request: artifacts._matches_etag(request, b'"x"')), ((b"W/", b""),)),
    "Range": (of_header(b"range", lambda request: artifacts._requested_range(request, b"", 10)), ((b"bytes", b"x"), (b"bytes=", b"x"))),
    "If-Range": (of_header(b"if-range", lambda request: artifacts._requested_range(request, b"", 10)), ()),
    "Content-Type of an artifact": (of_header(b"content-type", artifacts.content_type), ()),
    "Connection": (lambda value: http_syntax.says_close([value]), ((b"", b"close"),)),
    "Connection on the way": (lambda value: headers.to_client([(b"Connection", value), (b"A", b"b")]), ()),
    "Host": (lambda value: http_syntax.field_problem(b"host", value), ((b"[", b"]"), (b"[", b"x"), (b"a", b":x"), (b"[::1%", b""))),
    "Host that is allowed": (lambda value: GUARDS.host_allowed(value, "::1"), ((b"[", b"]"), (b"a", b".example.com"))),
    "Origin": (lambda value: GUARDS.origin_allowed(value, b"h"), ((b"https://", b".example.com"), (b"http://localhost:", b"x"))),
    "Content-Length": (lambda value: http_syntax.field_problem(b"content-length", value), ()),
    "a header": (lambda value: http_syntax.field_problem(b"x", value), ((b"\xc3\xa9", b""),)),
    "a trailer": (http_syntax.is_allowed_trailer, ((b"a", b": b"), (b"a:", b""))),
    "the server in a target": (http_syntax.authority, ((b"http://", b""), (b"http://", b"/"))),
    "a request-target": (way_of, ((b"/", b""), (b"/k/", b""), (b"/k/", b"/api"), (b"http://", b"\x01"), (b"http://[", b"]/"),
                                  (b"/jobs/", b"/artifacts/x"), (b"/api/tags?", b""), (b"/api/../", b"?\xff"))),
    "a route of jobs": (routed(JobsApi.app, "jobs/"), ((b"a/artifacts/", b""), (b"", b"/events"))),
    "a route": (routed(Api.app, ""), ((b"-/", b""), (b"queue/", b""))),
    "the head of an answer": (lambda value: headers.to_target([(b"Connection", value)], host=b"h", token=None, length=1), ()),
    "a credential": (lambda value: credentials.credential(value, [], []), ()),
    "Authorization": (lambda value: credentials.credential(None, [value], [value]), ((b"Bearer ", b""), (b"Basic ", b"="))),
    "an address with somebody's token": (lambda value: credentials.contains_token(value, lambda _: False), ((b"/x?", b""),)),
    "an address with the token of its request": (lambda value: credentials.contains_credential(value, b"x" * 32), ((b"/x?", b""),)),
    "a token": (lambda value: tokens.Tokens((tokens.Holder("a", b"x" * 32),)).holder_of(value), ()),
    "a file of tokens": (of_text(tokens.parse_file), ((b"a ", b" user"), (b"# ", b"\nx"))),
    "the query of a list": (of_query(lambda request: query_params.page_request(request, sees_all=True)), (
        (b"limit=", b""), (b"limit=", b"x"), (b"created_after=", b""), (b"before=", b""), (b"state=", b""), (b"metadata.", b"=x"),
        (b"model=", b""))),
    "the query of a pruning": (of_query(lambda request: query_params.prune_filter(request, 0)), ((b"state=ended&ended_before=", b""),)),
    "an id": (of_text(query_params.ulid), ()),
    "seconds to wait": (of_text(jobs_routes._wait_seconds), ((b"1.", b"x"), (b"1e", b""))),
    "a moment": (of_text(timestamps.parse), ((b"2026-11-28T22:00:00.", b"Z"), (b"2026-11-28T22:00:00", b""))),
    "the name of an artifact": (of_text(artifacts.check_name), ()),
    "a Content-Type with a boundary": (form_with, ((b"multipart/form-data", b""), (b"multipart/form-data; boundary=", b"x"),
                                                   (b'multipart/form-data; boundary="', b'"'), (b"multipart/form-data;a=b", b"\x01"))),
    "the boundary of a job's form": (described_form, ((b"boundary=", b""), (b'boundary="', b'"'))),
    "a form": (lambda body: at_once(multipart.field("model", body, b"multipart/form-data; boundary=X")), (
        (b"--X\r\n", b""), (b"--X\r\n\r\n", b"\r\n--X--"), (b"--X\r\nContent-Disposition: form-data", b"\r\n\r\nx\r\n--X--"),
        (b"--X\r\nContent-Disposition: form-data; name=model\r\n\r\n", b"\r\n--X--"), (b"--X", b"\r\n"))),
    "a body": (lambda body: request_body.read("/api/chat", body), (
        (b'{"model":"', b'"}'), (b'{"model":"m","keep_alive":"', b'"}'), (b'{"MODEL":"m","keep_alive":"', b's"}'),
        (b'{"model":"m","keep_alive":', b"}"), (b'{"model":"m","messages":[', b"]}"), (b'{"model":"m","messages":[', b"x]}"),
        (b'{"model":"m","x":"', b""), (b'{"model":"m","', b'":1}'), (b'{"model":"m","x":1', b"}"), (b'{"a":1}', b""))),
    "a duration of Go's": (of_text(go_duration.nanoseconds), ((b"", b"x"), (b"1", b"x"), (b"1.", b"s"))),
    "a compressed body": (lambda body: at_once(body_values.decompress_in_slices(body, ByteBudget(1 << 30))), ((b"\x28\xb5\x2f\xfd", b""),)),
    "a body, with care": (lambda body: go_json.members(body, ("model", "stream")), (
        (b'{"model":"', b'"}'), (b'{"x":[', b"]}"), (b'{"x":1', b"}"), (b'{"x":1.', b"x}"), (b'{"', b'":1}'), (b'{"a":1,', b"x"))),
    "a body whose stream is set": (lambda body: at_once(stream_flag.with_stream(body, stream=True)), ((b'{"a":"', b'"}'), (b"{", b"}"))),
    "a job": (job, ((b"{", b"}"), (b"[", b"]"), (b"[{", b"}]"), (b'{"endpoint":"/api/chat","payload":{', b"}}"),
                    (b'{"endpoint":"/api/chat","payload":{"model":"', b'"}}'), (b'{"run_at":"', b'"}'), (b'{"', b'":1}'))),
    "a priority": (member(fields.priority), ((b"1", b""), (b"1.", b""), (b'"', b'"'))),
    "metadata": (member(fields.metadata), ((b'{"', b'":""}'), (b'{"a":"', b'"}'))),
    "a run_at": (member(fields.timestamp), ((b'"', b'"'), (b'"2026-11-28T22:00:00.', b'Z"'))),
    "a key": (member(fields.key), ((b'"', b'"'),)),
    "an endpoint": (member(fields.endpoint), ((b'"', b'"'),)),
    "the name of a model": (of_text(model_names.parse.__wrapped__), ((b"", b":cloud"), (b"a/", b"/b"), (b"", b":local:cloud"))),
    "lines, whole": (in_pieces(framing.LineFramer, 1 << 20), ()),
    "lines, in small pieces": (in_pieces(framing.LineFramer, 7), ()),
    "events, in small pieces": (in_pieces(framing.EventFramer, 7), ((b"data: ", b"\n\n"),)),
    "the last event": (lambda data: answer_end.answer_end("sse", data), ((b"data: ", b"\n\n"), (b'data: {"usage":', b"}\n\n"))),
    "the last line": (lambda data: answer_end.answer_end("ndjson", data), ((b'{"done":true,"eval_count":1', b"}"), (b'{"text":"', b'"}'))),
    "the kind of an answer": (framing.framing_of, ()),
    "a setting that is a duration": (of_text(parsers.seconds), ((b"", b"x"), (b"1", b"x"), (b"1.", b"s"))),
    "a setting that is a size": (of_text(parsers.size), ((b"1", b"MiB!"),)),
    "a setting that is a list of hosts": (of_text(parsers.host_names), ()),
    "a setting that is a list of origins": (of_text(parsers.origins), ((b"a", b""), (b"a://", b" x"))),
    "a setting that is a token": (of_text(parsers.token), ()),
    "an address of a target": (of_text(target_address.parse_target), ((b"http://", b""), (b"http://[", b"]"))),
    "an address to listen on": (of_text(listen_address.endpoint_description), ((b"[", b"]:1"), (b"tcp:1:interface=", b""))),
    "what an endpoint says": (of_text(listen_address.is_private), ((b"tcp:1:interface=", b""),)),
    "a moment that is typed": (of_text(lambda text: times.parse_future(text, datetime.now(UTC))), ((b"+", b"x"), (b"1", b"x"),
                                                                                                    (b"2026-11-28 22:00:00.", b"Z"))),
    "a payload that is typed": (job_request.read_payload, ((b'{"a":"', b'"}'),)),
    "an option that is typed": (of_text(job_request.parse_option), ((b"a=", b""), (b'a={"b":"', b'"}'))),
    "an address that is typed": (of_text(cli_address.normalize_url), ((b"http://", b""), (b"http://[", b"]"))),
    "events that are followed": (followed, ((b"data: ", b"\n\n"),)),
    "the simulator: a body": (simulated_json.loads, ((b'{"a":"', b'"}'), (b"[", b"]"), (b'{"a":1', b"}"), (b'{"a":"', b""))),
    "the simulator: a duration": (of_text(simulated_fields.duration), ((b"", b"x"), (b"1", b"x"), (b"1.", b"s"))),
    "the simulator: an image": (of_text(simulated_fields.check_base64), ()),
    "the simulator: a model": (of_text(simulated_names.parse_reference), ((b"", b":cloud"),)),
    "the simulator: a path": (of_text(router._cleaned), ((b"/", b""),)),
    "the simulator: Origin": (of_text(router._origin_allowed), ((b"http://localhost:", b""),)),
    "the simulator: Host": (of_text(lambda text: router._address_allowed(router._host_name(text))), ((b"[", b"]"),)),
}  # fmt: skip
#: Those that look at a request before it has shown a token.
TO_STRANGERS = (
    "a request-target", "an address with somebody's token", "an address with the token of its request", "a credential",
    "Authorization", "Connection", "Host", "Host that is allowed", "Origin", "Content-Length", "a header", "a trailer",
    "the server in a target", "a token",
)  # fmt: skip
#: What says that an input is none; anything else is a mistake of the reader.
REFUSALS: tuple[type[Exception], ...] = (
    ForemanError,
    ValueError,
    Malformed,
    Refused,
    credentials.InvalidCredential,
    UsageError,
)


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    """What the collector does depends on everything else that is in memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def work(read: Callable[[bytes], object], data: bytes) -> float:
    """The CPU time that a reader takes for ``data``, in seconds."""
    began = time.thread_time()
    with contextlib.suppress(*REFUSALS):
        read(data)
    return time.thread_time() - began


def is_in_proportion(read: Callable[[bytes], object], made: Callable[[int], bytes]) -> bool:
    """Whether an input of a size costs about as much more than a smaller one as it is larger."""
    for small, large in SIZES:
        least = work(read, made(large))
        for _ in range(TRIES):
            if least <= NOISE:
                break
            least = min(least, work(read, made(large)))
            if least <= TOO_MUCH * max(work(read, made(small)), NOISE / TOO_MUCH):
                break
        else:
            return False
    return True


@pytest.mark.parametrize("name", READERS)
def test_the_work_of_a_reader_grows_no_faster_than_its_input(name: str) -> None:
    read, around = READERS[name]
    too_much = [
        (before, unit, behind)
        for before, behind in ((b"", b""), *around)
        for unit in UNITS
        if not is_in_proportion(read, lambda size: before + unit * (size // len(unit)) + behind)  # noqa: B023
    ]
    assert not too_much


@pytest.mark.parametrize("name", TO_STRANGERS)
def test_what_a_stranger_sends_never_holds_up_the_others(name: str) -> None:
    read, around = READERS[name]

    def is_too_much(data: bytes) -> bool:
        return all(work(read, data) > BEFORE_A_TOKEN for _ in range(TRIES))

    too_much = [
        (before, unit, behind)
        for before, behind in ((b"", b""), *around)
        for unit in UNITS
        if is_too_much(before + unit * (64 * 1024 // len(unit)) + behind)
    ]
    assert not too_much


def test_what_grows_as_the_square_of_its_input_is_found() -> None:
    def squares(data: bytes) -> None:
        for _ in range(len(data)):
            data.count(b"xy")

    assert not is_in_proportion(squares, lambda size: b"x" * size)
