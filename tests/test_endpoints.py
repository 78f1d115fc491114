"""The table of the routes: what it holds, and that everything that depends on an endpoint follows from its row."""

from __future__ import annotations

import subprocess
import sys

from foreman.protocol.endpoints import (
    ENDPOINTS,
    FOLLOWABLE,
    MARKED,
    OF_JOBS,
    SUBMITTABLE,
    BodyFormat,
    Lane,
    Streaming,
    endpoint_of,
    paths,
)
from foreman.web.api.routes import Api

IMAGES = ("/v1/images/generations", "/v1/images/edits")
TRANSFERS = ("/api/pull", "/api/push", "/api/create")


def test_the_table_holds_what_is_known_of_ollamas_endpoints() -> None:
    assert paths(lambda endpoint: endpoint.lane is Lane.GATE) == (
        "/api/chat",
        "/api/generate",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/compact",
        *IMAGES,
        "/v1/messages",
        "/v1/audio/transcriptions",
    )
    assert paths(lambda endpoint: endpoint.streaming is Streaming.BY_DEFAULT) == (
        "/api/chat",
        "/api/generate",
        *TRANSFERS,
    )
    assert set(paths(lambda endpoint: endpoint.streaming is Streaming.ON_REQUEST)) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    }
    assert set(paths(lambda endpoint: endpoint.null_resets_stream)) == {
        "/api/chat",
        "/api/generate",
        "/v1/responses",
        *TRANSFERS,
    }
    assert set(paths(lambda endpoint: endpoint.body is BodyFormat.FIRST_VALUE)) == {
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
    }
    assert set(paths(lambda endpoint: endpoint.body is BodyFormat.STRICT)) == {
        "/v1/responses",
        "/v1/responses/compact",
    }
    assert paths(lambda endpoint: endpoint.body is BodyFormat.FORM) == ("/v1/audio/transcriptions",)
    assert set(paths(lambda endpoint: endpoint.versions != "all")) == {"/v1/responses/compact", *IMAGES}
    assert set(paths(lambda endpoint: endpoint.takes_name)) == {"/api/show", "/api/delete", *TRANSFERS}
    assert {
        "/api/chat",
        "/api/generate",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    } == MARKED
    assert {"/api/chat", "/api/generate"} == FOLLOWABLE
    assert SUBMITTABLE == (
        "/api/chat",
        "/api/generate",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/compact",
        "/v1/messages",
        "/api/embed",
        "/api/embeddings",
        "/v1/embeddings",
    )
    assert {*SUBMITTABLE, *IMAGES, "/v1/audio/transcriptions"} == set(OF_JOBS)
    assert endpoint_of("/v1/messages").family == "anthropic"


def test_foreman_answers_every_endpoint_that_infers() -> None:
    routed = {rule.rule for rule in Api.app.url_map.iter_rules() if rule.methods == {"POST"}}
    assert set(paths(lambda endpoint: endpoint.lane in (Lane.GATE, Lane.EMBEDDING))) <= routed


def test_what_can_be_followed_has_lines_and_an_end() -> None:
    for path in FOLLOWABLE:
        endpoint = ENDPOINTS[path]
        assert endpoint.family == "ollama"
        assert endpoint.streaming is Streaming.BY_DEFAULT
        assert endpoint.end_marker
        assert endpoint.empty_line


ROWS = """
        Endpoint(
            "/v1/poems",
            _POST,
            Lane.GATE,
            body=BodyFormat.FIRST_VALUE,
            content="prompt",
            streaming=Streaming.ON_REQUEST,
            end_marker=("poem.ended",),
            job=JobSource.PAYLOAD,
            answer_members=frozenset({"poem"}),
        ),
        Endpoint(
            "/api/sing",
            _POST,
            Lane.GATE,
            streaming=Streaming.BY_DEFAULT,
            end_marker=DONE_MEMBER,
            job=JobSource.REQUEST,
            is_followable=True,
        ),
"""
MADE_UP = """
import sys
from importlib import util

spec = util.find_spec("foreman.protocol.endpoints")
table = sys.modules[spec.name] = util.module_from_spec(spec)
source = spec.loader.get_source(spec.name)
first = '        Endpoint("/", _READ, Lane.FOREMAN),'
assert first in source
exec(compile(source.replace(first, sys.argv[1] + first), spec.origin, "exec"), table.__dict__)

from foreman.cli.client import stream_reader
from foreman.protocol.answer_origin import origin
from foreman.protocol.request_body import Intent, read
from foreman.protocol.routes import Redirect, Route, allowed_methods, classify
from foreman.protocol.answer_end import answer_end
from foreman.proxy import inference
from foreman.web.jobs import fields, streaming
from foreman.web.openapi.document import document
from foreman.worker import attempt

assert classify(b"POST", b"/v1/poems") == Route(table.Lane.GATE, "openai", "/v1/poems")
assert classify(b"POST", b"/v1/poems/") == Redirect(307, b"/v1/poems")
assert classify(b"POST", b"/api/sing") == Route(table.Lane.GATE, "ollama", "/api/sing")
assert allowed_methods("/v1/poems") == ("POST",)

poem = read("/v1/poems", b'{"model":"m"} and more')
assert (poem.stream, poem.intent, poem.length) == (False, Intent.LOAD, 13)
assert read("/v1/poems", b'{"model":"m","prompt":"x","stream":true}').stream
assert read("/api/sing", b'{"model":"m"}').stream

assert "/v1/poems" in inference.MARKED
assert answer_end("sse", b'data: {"type":"poem.ended"}', "/v1/poems").done
assert not answer_end("sse", b"data: [DONE]", "/v1/poems").done
assert origin("/v1/poems", 200, "application/json", b'{"poem":""}') == "ollama"
assert origin("/v1/poems", 200, "application/json", b'{"page":""}') == "foreign"

assert fields.endpoint("/v1/poems") == "/v1/poems"
for module in (attempt, streaming, stream_reader):
    assert "/api/sing" in module.FOLLOWABLE
schemas = document()["components"]["schemas"]
assert "/v1/poems" in schemas["NewJob"]["properties"]["endpoint"]["enum"]
assert "/api/sing" not in schemas["NewJob"]["properties"]["endpoint"]["enum"]
assert {"/v1/poems", "/api/sing"} <= set(schemas["Job"]["properties"]["endpoint"]["enum"])
"""


def test_a_new_row_is_enough_for_everything_that_depends_on_an_endpoint() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MADE_UP, ROWS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
