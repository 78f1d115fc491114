"""Whose answer it is: Ollama's, or that of something in front of it."""

from __future__ import annotations

import pytest

from foreman.protocol.answer_origin import Origin, needs_target_check, origin, says_model_missing
from foreman.protocol.endpoints import FOLLOWABLE
from support import recordings

JSON, HTML, TEXT = "application/json; charset=utf-8", "text/html; charset=utf-8", "text/plain; charset=utf-8"
INFERENCES = (
    "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/v1/chat/completions", "/v1/completions",
    "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/audio/transcriptions",
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "content_type", "body", "whose"),
    [
        (404, TEXT, b"404 page not found\n", "foreign"),  # Traefik
        (404, "text/plain", b"404 page not found", "unclear"),  # an Ollama that does not have the route yet
        (405, "text/plain", b"405 method not allowed", "unclear"),
        (405, HTML, b"<html><h1>405 Not Allowed</h1><center>nginx</center></html>", "foreign"),
        (413, HTML, b"<html><h1>413 Request Entity Too Large</h1></html>", "unclear"),
        (301, HTML, b"", "foreign"),
        (307, "", b"", "foreign"),
        (308, HTML, b"moved", "foreign"),
        (400, HTML, b"<html>The plain HTTP request was sent to HTTPS port</html>", "foreign"),
        (401, HTML, b"<html>sign in</html>", "foreign"),
        (403, HTML, b"<html>Cloudflare</html>", "foreign"),
        (403, "", b"", "unclear"),  # Ollama does not know the Host
        (500, "", b"", "unclear"),  # a handler of Ollama's has panicked
        (500, HTML, b"<html>", "foreign"),
        (502, HTML, b"<html>Bad Gateway</html>", "foreign"),
        (502, JSON, b'{"error":"dial tcp: lookup ollama.com: no such host"}', "unclear"),
        (503, TEXT, b"no available server\n", "foreign"),
        (504, JSON, b'{"error":"timeout"}', "unclear"),
        (521, HTML, b"", "foreign"),
        (530, TEXT, b"error code: 1033", "foreign"),
        (404, JSON, b'{"message":"no Route matched with those values"}', "foreign"),  # Kong
        (404, JSON, b'{"detail":"Not Found"}', "foreign"),
        (404, JSON, b'{"error":"not found"}', "unclear"),
        (404, JSON, b'{"error":"model \'x\' not found"}', "ollama"),
        (400, JSON, b'{"error":"invalid model name"}', "ollama"),
        (400, JSON, b'{"error":{"message":"no","type":"invalid_request_error"}}', "ollama"),
        (500, JSON, b'{"error":"\\ud83d"}', "ollama"),
        (418, JSON, b'{"error":"teapot"}', "unclear"),
        (500, JSON, b'{"error":{"code":5}}', "foreign"),
        (500, JSON, b"[" * 100_000, "foreign"),
        (200, HTML, b"<html>sign in</html>", "foreign"),
        (200, TEXT, b"OK", "foreign"),
        (200, JSON, b'{"status":"ok"}', "foreign"),
        (200, JSON, b"[]", "foreign"),
        (200, "", b"", "foreign"),
        (200, JSON, b'{"message":{"content":"cut', "ollama"),
        (200, JSON, b'{"message":{"content":"a"},"done":true}', "ollama"),
        (200, "application/x-ndjson", b"", "ollama"),
    ],
)
def test_an_answer_of_a_proxy_is_told_from_one_of_ollamas(
    status: int, content_type: str, body: bytes, whose: Origin
) -> None:
    assert origin("/api/chat", status, content_type, body) == whose


def test_every_recorded_answer_to_an_inference_may_be_ollamas() -> None:
    seen = set()
    for name in set(recordings.names()) - {"chat-expect-other"}:  # foreman expects nothing of the target
        recording = recordings.load(name)
        request, said = recording["request"], recording["response"]
        if said["status_line"] is None:  # whoever recorded it had left
            continue
        path = request["path"].partition("?")[0]
        if path in INFERENCES and request["method"] == "POST":
            seen.add(path)
            parts = [text for _, text in said.get("chunks") or [(0, said["body"])]]
            headers = {key.lower(): value for key, value in said["headers"]}
            body = b"".join(map(recordings.as_bytes, parts))
            status = int(said["status_line"].split()[1])
            assert origin(path, status, headers.get("content-type", ""), body) != "foreign", name
    assert seen >= FOLLOWABLE


@pytest.mark.parametrize(
    ("status", "content_type", "doubtful"),
    [
        (200, b"application/json", False), (200, b"application/x-ndjson", False), (200, b"", False),
        (200, b"text/html; charset=utf-8", True), (404, b"application/json; charset=utf-8", False),
        (404, b"text/plain", True), (308, b"application/json", True), (502, b"application/json", True),
        (500, b"application/json", False), (525, b"", True), (418, b"application/json", True),
    ],
)  # fmt: skip
def test_the_head_alone_is_a_reason_to_ask_the_target(status: int, content_type: bytes, doubtful: bool) -> None:
    assert needs_target_check(status, content_type) is doubtful


def test_a_page_that_speaks_of_models_does_not_say_that_one_is_missing() -> None:
    assert says_model_missing(404, b'{"error":"model \'x\' not found"}')
    assert not says_model_missing(404, b"<html>this model page was not found</html>")
    assert not says_model_missing(500, b'{"error":"model \'x\' not found"}')
