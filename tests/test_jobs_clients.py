"""Stock clients submit jobs to the real command, and a follower resumes after a cut connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
import zstandard

from support.processes import ForemanProcess, TargetProcess, chat, run_foreman, run_target, until

MODEL, EMBEDDER = "llama3.2:3b", "nomic-embed-text"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetProcess]:
    with run_target(tmp_path_factory.mktemp("target"), rate=200, parallel=8, max_loaded=20) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def daemon(simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanProcess]:
    folder = tmp_path_factory.mktemp("foreman")
    settings = {"db_path": str(folder / "jobs.db"), "max_payload": "100KiB", "poll_interval": "1h"}
    with run_foreman(folder, simulator.url, **settings) as daemon:
        yield daemon


def ended(daemon: ForemanProcess, id_: str) -> dict[str, Any]:
    job: dict[str, Any] = daemon.get(f"/jobs/{id_}?wait=20")
    assert job["state"] == "succeeded", job
    return job


def response(daemon: ForemanProcess, id_: str) -> Any:
    return daemon.get(f"/jobs/{id_}/artifacts/response")


def test_openais_client_hands_a_job_over_and_reads_its_answer(daemon: ForemanProcess) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        ask: Any = client.chat.completions.with_raw_response.create
        how = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
        accepted = ask(**how, extra_headers={**ASYNC, "Idempotency-Key": "hello-1"})
        job = accepted.http_response.json()
        assert (accepted.http_response.status_code, job["endpoint"]) == (202, "/v1/chat/completions")
        assert accepted.headers["location"] == f"/jobs/{job['id']}"
        assert accepted.headers["preference-applied"] == "respond-async"
        again = ask(**how, extra_headers={**ASYNC, "Idempotency-Key": "hello-1"})
        assert (again.http_response.status_code, again.http_response.json()["id"]) == (200, job["id"])
        assert again.headers["idempotency-replayed"] == "true"
        ended(daemon, job["id"])
        completion = openai.types.chat.ChatCompletion.model_validate(response(daemon, job["id"]))
        assert completion.choices[0].message.content


def test_an_error_is_the_exception_that_openais_client_has_for_it(daemon: ForemanProcess) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        ask: Any = client.chat.completions.create
        said: Any = [{"role": "user", "content": "hello"}]
        with pytest.raises(openai.NotFoundError, match="model 'nowhere' not found"):
            ask(model="nowhere", messages=said, extra_headers=ASYNC)
        with pytest.raises(openai.BadRequestError, match="model"):
            ask(model="", messages=said, extra_headers=ASYNC)
        with pytest.raises(openai.APIStatusError, match="FOREMAN_MAX_PAYLOAD") as raised:
            ask(model=MODEL, messages=[{"role": "user", "content": "x" * 200_000}], extra_headers=ASYNC)
        assert raised.value.status_code == 413
        ask(model=MODEL, messages=said, extra_headers={**ASYNC, "Idempotency-Key": "k"}, max_tokens=5)
        with pytest.raises(openai.UnprocessableEntityError, match="another request"):
            ask(model=MODEL, messages=said, extra_headers={**ASYNC, "Idempotency-Key": "k"}, max_tokens=6)


def test_embeddings_and_forms_become_jobs_as_they_were_sent(daemon: ForemanProcess, simulator: TargetProcess) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        embedding: Any = client.embeddings.with_raw_response.create
        job = embedding(model=EMBEDDER, input="x", extra_headers=ASYNC).http_response.json()
        ended(daemon, job["id"])
        assert response(daemon, job["id"])["data"][0]["embedding"]
        transcribe: Any = client.audio.transcriptions.with_raw_response.create
        file = ("a.wav", b"RIFF" + bytes(100))
        key = {**ASYNC, "Idempotency-Key": "voice"}
        jobs = [transcribe(model=MODEL, file=file, extra_headers=key).http_response.json() for _ in range(2)]
        assert jobs[0]["id"] == jobs[1]["id"], "a form has a new boundary each time"
        refused = daemon.get(f"/jobs/{jobs[0]['id']}?wait=20")  # no model of this target hears
        assert (refused["state"], refused["error"]["class"]) == ("failed", "refused")
        (asked,) = simulator.requests("/v1/audio/transcriptions")
        assert "multipart/form-data" in str(asked.headers)


def test_anthropics_client_hands_a_job_over_and_its_headers_reach_the_target(
    daemon: ForemanProcess, simulator: TargetProcess
) -> None:
    with anthropic.Anthropic(base_url=daemon.url, api_key="secret-key", max_retries=0) as client:
        ask: Any = client.beta.messages.with_raw_response.create
        said: Any = [{"role": "user", "content": "a message for the night"}]
        accepted = ask(
            model=MODEL, messages=said, max_tokens=20, betas=["x-1"], extra_headers={**ASYNC, "Cookie": "secret=1"}
        )  # fmt: skip
        job = accepted.http_response.json()
        assert (accepted.http_response.status_code, job["endpoint"]) == (202, "/v1/messages")
        ended(daemon, job["id"])
        message = anthropic.types.Message.model_validate(response(daemon, job["id"]))
        assert message.content
        (asked,) = simulator.requests("a message for the night")
        headers = {name.lower(): value for name, value in asked.headers.items()}
        assert headers["anthropic-beta"] == "x-1"
        assert headers["anthropic-version"]
        assert not {"cookie", "x-api-key", "authorization", "prefer"} & set(headers)
        with pytest.raises(anthropic.NotFoundError, match="model 'nowhere' not found"):
            client.messages.create(model="nowhere", messages=said, max_tokens=5, extra_headers=ASYNC)


def test_a_compressed_body_and_a_stream_become_jobs(daemon: ForemanProcess) -> None:
    import http.client

    body = zstandard.compress(json.dumps(chat("compressed", tokens=5, stream=True)).encode())
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    headers = {"Content-Encoding": "zstd", "Content-Type": "application/json", **ASYNC}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    job = json.loads(answer.read())
    connection.close()
    assert (answer.status, job["model"]) == (202, MODEL)
    ended(daemon, job["id"])
    assert response(daemon, job["id"])["object"] == "chat.completion"


def test_native_requests_become_jobs_and_errors_are_ollamas(daemon: ForemanProcess) -> None:
    accepted = daemon.ask("POST", "/api/chat", chat("native", tokens=5), ASYNC)
    assert accepted.status == 202
    ended(daemon, json.loads(accepted.body)["id"])
    missing = daemon.ask("POST", "/api/chat", chat("x", model="nowhere"), ASYNC)
    assert (missing.status, json.loads(missing.body)) == (404, {"error": "model 'nowhere' not found"})
    queried = daemon.ask("POST", "/api/chat?x=1", chat("x"), ASYNC)
    assert (queried.status, list(json.loads(queried.body))) == (400, ["error"])
    unload = daemon.ask("POST", "/api/generate", {"model": MODEL, "keep_alive": 0}, ASYNC)
    assert unload.status == 400
    truncated = daemon.ask("POST", "/api/chat", None, ASYNC)
    assert (truncated.status, json.loads(truncated.body)) == (400, {"error": "missing request body"})
    # Without the preference, and where none applies, everything is as before.
    assert daemon.ask("POST", "/api/chat", chat("x", tokens=3, stream=False), {"Prefer": "wait=10"}).status == 200
    assert daemon.ask("POST", "/api/show", {"model": MODEL}, ASYNC).status == 200
    assert daemon.ask("GET", "/api/tags", None, ASYNC).status == 200
    assert daemon.log_lines("/api/chat", "status=202")


def test_a_reader_that_is_cut_off_again_and_again_has_every_line_once(daemon: ForemanProcess) -> None:
    payload = chat("a long story", tokens=120)
    job = json.loads(daemon.ask("POST", "/jobs", {"endpoint": "/api/chat", "payload": payload}).body)
    heard: list[bytes] = []
    last = ""
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        call = daemon.open("GET", f"/jobs/{job['id']}/stream", None, headers)
        call.read_until(b"\r\n\r\n")
        if call.received.startswith(b"HTTP/1.1 204"):
            break
        until(has_lines(call, 4), "lines")
        call.leave()
        for block in call.received.partition(b"\r\n\r\n")[2].split(b"\n\n")[:-1]:
            fields = dict(text.split(b": ", 1) for text in block.split(b"\n") if b": " in text and text[:1] != b":")
            if b"data" in fields:
                heard.append(fields[b"data"])
                last = fields[b"id"].decode()
    whole = daemon.ask("GET", f"/jobs/{job['id']}/artifacts/stream").body
    assert heard == whole.split(b"\n")[:-1]
    assert len(heard) > 10
    part = daemon.ask("GET", f"/jobs/{job['id']}/artifacts/stream", None, {"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, whole[10:20])


def has_lines(call: Any, most: int) -> Callable[[], bool]:
    """Whether the call has had so many events, or all."""

    def look() -> bool:
        return call.received.count(b"\n\n") >= most or not call.read()

    return look
