"""Who may come in, and how far: tokens, names, and what a refusal looks like."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, capturedLogs, eventAsJSON, formatEvent
from ulid import ULID

from foreman.auth.credentials import contains_token
from foreman.auth.policy import AuthPolicy
from foreman.auth.tokens import Holder, Tokens, digest, format_file
from foreman.config.settings import Config
from foreman.protocol.endpoints import Lane
from foreman.protocol.routes import Redirect, Route, classify_behind_prefix
from foreman.web.server.admission import Admission
from foreman.web.server.origins import OriginPolicy
from foreman.web.server.request_head import Admitted, Refused, RequestHead
from support.in_memory_foreman import InMemoryForeman, in_memory_foreman
from support.raw_http import Response, request

TOKEN = "correct-horse-battery"
ADMIN = "staple.of~the_admin-s"
ALICE = "alices.own.token.is.long"
WRONG = "wrong-horse-battery-xx"


@pytest.fixture
def closed() -> Iterator[InMemoryForeman]:
    with in_memory_foreman(auth_token=TOKEN) as step:
        yield step


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[InMemoryForeman]:
    """With an admin, a token for everybody, and one of Alice's."""
    path = tmp_path / "tokens"
    path.write_text(format_file([Holder("alice", digest(ALICE)), Holder("boss", digest("boss" * 5), admin=True)]))
    with in_memory_foreman(auth_token=TOKEN, admin_token=ADMIN, tokens_file=str(path)) as step:
        yield step


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def basic(token: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"me:{token}".encode()).decode())


def key(token: str) -> tuple[str, str]:
    return ("X-Api-Key", token)


def ask(
    step: InMemoryForeman, method: str, path: str, *headers: tuple[str, str], body: bytes = b"", host: str = "localhost"
) -> Response:
    return step.ask_once(request(method, path, body, list(headers), host=host), method)


def error_of(answer: Response) -> str:
    value: Any = json.loads(answer.body)
    error = value["error"]
    return str(error["message"] if isinstance(error, dict) else error)


# who comes in


@pytest.mark.parametrize(
    "headers",
    [
        [bearer(TOKEN)],
        [("authorization", f"bEARER {TOKEN}")],
        [basic(TOKEN)],
        [key(TOKEN)],
        [("x-API-key", TOKEN)],
        [bearer(TOKEN), key(TOKEN)],
        [bearer(TOKEN), basic(TOKEN)],
    ],
)
def test_a_token_is_accepted_wherever_a_client_puts_it(closed: InMemoryForeman, headers: list[tuple[str, str]]) -> None:
    answer = closed.ask_once(request("POST", "/api/chat", b'{"model":"m"}', headers))
    assert answer.status == 200
    (heard,) = closed.target.requests
    assert TOKEN not in str(heard)
    assert heard.named("authorization") + heard.named("x-api-key") == []


@pytest.mark.parametrize(
    "prefix", [f"/k/{TOKEN}", "/k/" + TOKEN.replace("-", "%2D"), "/k/" + "".join(f"%{ord(c):02x}" for c in TOKEN)]
)
def test_a_token_is_accepted_in_front_of_the_path(closed: InMemoryForeman, prefix: str) -> None:
    assert ask(closed, "GET", f"{prefix}/v1/models?x=1").status == 200
    assert ask(closed, "POST", f"{prefix}/api/chat", body=b'{"model":"m"}').status == 200
    assert ask(closed, "HEAD", f"{prefix}/").status == 200
    assert ask(closed, "GET", f"http://localhost{prefix}/api/version").status == 200
    assert ask(closed, "GET", f"{prefix}/api/version", bearer(TOKEN), key(TOKEN)).status == 200
    assert [heard.target for heard in closed.target.requests] == [
        "/v1/models?x=1",
        "/api/chat",
        "/api/version",
        "/api/version",
    ]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/version", []),
        ("/api/version", [bearer(WRONG)]),
        ("/api/version", [bearer("")]),
        ("/api/version", [bearer(TOKEN + "x")]),
        ("/api/version", [bearer(TOKEN[:-1])]),
        ("/api/version", [basic(WRONG)]),
        ("/api/version", [key(WRONG)]),
        ("/api/version", [bearer(TOKEN), key(WRONG)]),
        ("/api/version", [bearer(TOKEN), bearer(WRONG)]),
        ("/api/version", [("Authorization", TOKEN)]),
        ("/api/version", [("Cookie", f"token={TOKEN}")]),
        (f"/api/version?token={TOKEN}&key={TOKEN}", []),
        (f"/k/{WRONG}/api/version", []),
        (f"/k/{WRONG}/api/version", [bearer(TOKEN)]),
        (f"/k/{TOKEN}/api/version", [bearer(WRONG)]),
        (f"/K/{TOKEN}/api/version", []),
        (f"/k%2f{TOKEN}/api/version", []),
        (f"/%6b/{TOKEN}/api/version", []),
        (f"//k/{TOKEN}/api/version", []),
        ("/k//api/version", []),
        ("/k/", []),
    ],
)
def test_nobody_comes_in_without_exactly_one_good_token(
    closed: InMemoryForeman, path: str, headers: list[tuple[str, str]]
) -> None:
    answer = closed.ask_once(request("GET", path, headers=headers, host="localhost"))
    assert answer.status == 401
    assert answer.header("WWW-Authenticate") == 'Bearer realm="foreman"'
    assert error_of(answer)
    assert closed.target.request_connections == []


def test_a_short_token_is_accepted_as_a_header_only() -> None:
    with in_memory_foreman(auth_token="s3cret!") as step:
        assert ask(step, "GET", "/api/version", bearer("s3cret!")).status == 200
        refused = ask(step, "GET", f"/k/{quote('s3cret!')}/api/version")
        assert (refused.status, "header" in error_of(refused)) == (401, True)


def test_without_a_token_to_ask_for_every_credential_is_welcome() -> None:
    with in_memory_foreman() as step:
        assert ask(step, "GET", "/api/version", bearer("ollama"), key("sk-whatever")).status == 200
        assert ask(step, "GET", "/k/x/api/version").status == 200
        (first, second) = step.target.requests
        assert not first.named("authorization")
        assert second.target == "/api/version"


# what needs no token


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("HEAD", "/"), ("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", f"/k/{WRONG}/healthz")],
)
def test_probes_need_no_token(closed: InMemoryForeman, method: str, path: str) -> None:
    assert ask(closed, method, path).status == 200


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("DELETE", "/healthz"), ("GET", "/queue"), ("GET", "/healthz/x")]
)
def test_their_neighbours_do(closed: InMemoryForeman, method: str, path: str) -> None:
    assert ask(closed, method, path).status == 401


def test_a_preflight_needs_no_token(closed: InMemoryForeman) -> None:
    origin = ("Origin", "http://localhost:3000")
    assert ask(closed, "OPTIONS", "/api/chat", origin, ("Access-Control-Request-Method", "POST")).status == 204
    assert ask(closed, "OPTIONS", "/api/chat", ("Origin", "http://evil.example")).status == 403
    assert ask(closed, "OPTIONS", "/api/chat").status == 401


# what a refusal looks like


def test_each_family_reads_its_own_401(closed: InMemoryForeman) -> None:
    native = ask(closed, "POST", "/api/chat", body=b"{}")
    assert list(json.loads(native.body)) == ["error"]
    assert native.header("Content-Type") == "application/json; charset=utf-8"
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1//models", "/v1/%zz"):
        openai = json.loads(ask(closed, "POST", path, body=b"{}").body)["error"]
        assert (openai["type"], openai["param"], openai["code"]) == ("authentication_error", None, None)
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        anthropic = json.loads(ask(closed, "POST", path, body=b"{}").body)
        assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "authentication_error")
        assert len(anthropic["request_id"]) == len("req_") + 24


@pytest.mark.parametrize("token", [None, WRONG])
def test_the_stock_client_is_told_how_to_send_a_token(closed: InMemoryForeman, token: str | None) -> None:
    agent = ("User-Agent", "ollama/0.33.0 (arm64 darwin) Go/go1.26")
    path = "/api/tags" if token is None else f"/k/{token}/api/tags"
    answer = ask(closed, "GET", path, agent)
    assert answer.status == 403
    assert (
        "OLLAMA_HOST=http://<host>:<port>/k/<token>".replace("<", "\\u003c").replace(">", "\\u003e")
        in answer.body.decode()
    )
    assert answer.header("WWW-Authenticate") is None


def test_others_are_not(closed: InMemoryForeman) -> None:
    assert ask(closed, "GET", "/api/tags", ("User-Agent", "ollama-python/0.6 Python/3.11")).status == 401
    assert ask(closed, "GET", "/v1/models", ("User-Agent", "ollama/0.33.0")).status == 401
    assert ask(closed, "GET", "/nope", ("User-Agent", "ollama/0.33.0")).status == 401


def test_a_wrong_token_is_refused_before_the_body(closed: InMemoryForeman) -> None:
    for path in ("/api/chat", "/api/blobs/sha256:00"):
        caller = closed.call()
        caller.send(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {WRONG}\r\n"
            "Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n".encode()
        )
        (answer,) = caller.answers()
        assert (answer.status, answer.interim, answer.header("Connection")) == (401, [], "close")
        assert closed.service.connections.bodies.used == 0
        caller.disconnect()
    assert closed.target.request_connections == []


def test_a_wrong_token_without_a_body_leaves_the_connection_open(closed: InMemoryForeman) -> None:
    caller = closed.call()
    caller.send(
        request("GET", "/api/version", headers=[bearer(WRONG)])
        + request("GET", "/api/version", headers=[bearer(TOKEN)])
    )
    assert [answer.status for answer in caller.answers()] == [401, 200]


# who may manage


MANAGING = [
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/blobs/sha256:00"),
    ("HEAD", "/api/blobs/sha256:00"),
    ("POST", "/api/me"),
    ("POST", "/api/signout"),
    ("DELETE", "/api/user/keys/x"),
    ("POST", "/api/experimental/web_search"),
    ("POST", "/api%2fpull"),
    ("POST", "/%61pi/pull"),
    ("GET", "/api/experimental/whatever-comes"),
]


@pytest.mark.parametrize(("method", "path"), MANAGING)
def test_managing_models_is_for_admins_where_there_are_some(managed: InMemoryForeman, method: str, path: str) -> None:
    for token in (TOKEN, ALICE):
        answer = ask(managed, method, path, bearer(token))
        assert answer.status == 403
        assert method == "HEAD" or "FOREMAN_ADMIN_TOKEN" in error_of(answer)
    assert managed.target.request_connections == []
    for token in (ADMIN, "boss" * 5):
        assert ask(managed, method, path, bearer(token)).status == 200


@pytest.mark.parametrize(("method", "path"), MANAGING)
def test_everybody_manages_where_there_is_no_admin(closed: InMemoryForeman, method: str, path: str) -> None:
    assert ask(closed, method, path, bearer(TOKEN)).status == 200


@pytest.mark.parametrize("token", [TOKEN, ALICE, ADMIN, "boss" * 5])
def test_everybody_with_a_token_chats(managed: InMemoryForeman, token: str) -> None:
    assert ask(managed, "POST", "/api/chat", bearer(token), body=b'{"model":"m"}').status == 200
    assert ask(managed, "GET", "/api/tags", bearer(token)).status == 200


@pytest.mark.parametrize(
    ("token", "name"), [(ALICE, "alice"), ("boss" * 5, "boss"), (TOKEN, "token"), (ADMIN, "admin")]
)
def test_whoever_has_a_token_goes_by_its_name(managed: InMemoryForeman, token: str, name: str) -> None:
    managed.target.holds_responses = True
    caller = managed.call()
    caller.send(request("POST", "/api/chat", b'{"model":"m"}', [bearer(token)]))
    queue = json.loads(ask(managed, "GET", "/queue", bearer(ADMIN)).body)
    assert [one["caller"] for one in queue["running"]] == [name]
    caller.disconnect()


def test_without_tokens_a_caller_goes_by_its_address() -> None:
    with in_memory_foreman() as step:
        step.target.holds_responses = True
        caller = step.call("192.0.2.7")
        caller.send(request("POST", "/api/chat", b'{"model":"m"}'))
        assert json.loads(ask(step, "GET", "/queue").body)["running"][0]["caller"] == "192.0.2.7"
        caller.disconnect()


# nothing leaks


def everything_said(events: Sequence[LogEvent]) -> str:
    return "\n".join(f"{formatEvent(event)} {eventAsJSON(event)}" for event in events)


@pytest.mark.parametrize("canary", [TOKEN, WRONG, ALICE])
def test_a_token_reaches_neither_log_nor_location_nor_target(managed: InMemoryForeman, canary: str) -> None:
    paths = [
        f"/k/{canary}/api/version", f"/k/{canary}//api/version", f"/k/{canary}/api/tags/", f"/k/{canary}/../api/version",
        f"//k/{canary}/api/version", f"/./k/{canary}/api/tags", f"/x/../k/{canary}/api/version", f"/k/{canary}/k/{canary}/",
        f"/%6b/{canary}/api/version", f"/k%2f{canary}/api/version", f"/k/{canary}", f"/k/{canary}?x",
        f"/k/{canary}/%zz", f"/k/{canary}/%00", f"http://localhost/k/{canary}/api/version", f"/k/{canary}#x",
        f"/k/{canary}/api/chat", f"/k/{canary}/v1/messages",
    ]  # fmt: skip
    places: list[list[tuple[str, str]]] = [[bearer(canary)], [basic(canary)], [key(canary)], [bearer(canary), key("x")]]
    with capturedLogs() as events:
        answers = [
            managed.ask(request(method, path, host="localhost"), method) for method in ("GET", "POST") for path in paths
        ]
        answers += [
            managed.ask(
                request(method, path, b'{"model":"m"}' if method == "POST" else b"", headers, host="localhost"), method
            )
            for headers in places
            for method, path in [
                ("GET", "/api/version"),
                ("POST", "/api/chat"),
                ("POST", "/api/pull"),
                ("GET", "//api/tags"),
            ]
        ]
        managed.ask(f"GET /k/{canary}/api/version HTTP/1.1\r\nX-Api-Key: {canary}\r\n\r\n".encode())
        managed.ask(f"GET /k/{canary}/api/version HTTP/1.1\r\nHost : {canary}\r\n\r\n".encode())
        managed.wait(100, 10)
    said = everything_said(events)
    assert said.count("/api/version") > 2
    assert canary not in said
    assert base64.b64encode(f"me:{canary}".encode()).decode() not in said
    assert not [answer for few in answers for answer in few if canary in str(answer)]
    assert not [one for one in managed.target.connections if canary.encode() in one.transport.sent]


OUT_OF_PLACE = [
    "/K/{}/api/version",
    "/k/{}/K/{}/api/version",
    "/%6b/{}/api/version",
    "/%4B/{}/api/version",
    "/%256b/{}/api/version",
    "/%E2%84%AA/{}/api/version",
    "/k%2f{}/api/version",
    "/K%252f{}/api/version",
    "/k\\{}/api/version",
    "//K/{}/api/version",
    "/./k/{}/api/version",
    "/x/../K/{}/api/version",
    "/api/../K/{}/api/version",
    "/api/%2e%2e/k/{}/api/version",
    "/k/../{}/api/version",
    "/v1/k/{}/models",
    "/api/tags/k/{}",
    "/v1/models/{}",
    "/v1/models/{}:latest",
    "/v1/models/x{}x",
    "/{}/api/version",
    "/k={}/api/version",
    "/api/version;{}",
    "/api/version?token={}",
    "/api/version?a=b&key={}&c",
    "//api/version?token={}",
    "/api/chat?x={}",
    "/" + "x/" * 40 + "{}",
]


@pytest.mark.parametrize("spelling", ["as it is", "escaped", "escaped twice"])
@pytest.mark.parametrize("path", OUT_OF_PLACE)
@pytest.mark.parametrize("places", ["header", "path", "key"])
def test_a_token_in_an_address_is_neither_forwarded_nor_logged_where_its_request_is_let_in_otherwise(
    closed: InMemoryForeman, places: str, path: str, spelling: str
) -> None:
    token = {
        "as it is": TOKEN,
        "escaped": TOKEN.replace("o", "%6F").replace("-", "%2d"),
        "escaped twice": TOKEN.replace("r", "%2572"),
    }[spelling]
    headers = {"header": [bearer(TOKEN)], "key": [key(TOKEN)], "path": []}[places]
    address = path.replace("{}", token)
    if places == "path":
        address = f"/k/{TOKEN}{address}"
    with capturedLogs() as events:
        for method, body in (("GET", b""), ("POST", b'{"model":"m"}')):
            answer = closed.ask_once(request(method, address, body, headers, host="localhost"), method)
            assert answer.status in (400, 401, 404), answer
            assert token not in str(answer)
        closed.wait(10)
    said = everything_said(events)
    assert "status=40" in said
    assert TOKEN not in said
    assert token not in said
    assert closed.target.request_connections == []


def test_the_words_of_a_route_are_no_token(managed: InMemoryForeman) -> None:
    for word in ("messages", "completions", "embeddings"):
        with in_memory_foreman(auth_token=word) as step:
            assert ask(step, "POST", f"/v1/{'chat/' * (word == 'completions')}{word}", bearer(word)).status != 401
            assert ask(step, "GET", f"/healthz?{word}").status == 200


@pytest.mark.parametrize("name", ["Api-Key", "Referer", "X-Original-Url", "X-Token", "Cookie", "Proxy-Authorization"])
def test_a_header_that_repeats_the_token_does_not_reach_the_target(closed: InMemoryForeman, name: str) -> None:
    copy = (name, f"http://localhost/k/{TOKEN}/api/version")
    assert ask(closed, "GET", "/v1/models", bearer(TOKEN), copy, ("X-Other", "stays")).status == 200
    (heard,) = closed.target.requests
    assert TOKEN not in str(heard)
    assert heard.named("x-other") == ["stays"]


def test_looking_for_tokens_in_an_address_is_bounded() -> None:
    looked: list[bytes] = []

    def look(part: bytes) -> bool:
        looked.append(part)
        return False

    for address in (
        b"/" + b"abcdefgh/" * 7000,
        b"/?" + b"abcdefgh&" * 7000,
        b"/" + b"abcdefgh:" * 7000,
        b"/" + b"%25" * 20000,
    ):
        looked.clear()
        assert not contains_token(address, look)
        assert len(looked) < 1200


# a credential in front of the path


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        ("/api//version", "/api/version"),
        ("//v1//models", "/v1/models"),
        ("/./v1/models?x=1", "/v1/models?x=1"),
        ("/v1/x/../models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("//v1/models/?y", "/v1/models?y"),
    ],
)
def test_behind_a_token_in_the_path_a_redirect_is_followed_here(
    closed: InMemoryForeman, sent: str, forwarded: str
) -> None:
    """A client could not follow it: without the token it is refused, and with it the token stands in a Location."""
    answer = ask(closed, "GET", f"/k/{TOKEN}{sent}")
    assert (answer.status, answer.header("Location")) == (200, None)
    assert [heard.target for heard in closed.target.requests] == [forwarded]
    assert ask(closed, "POST", f"/k/{TOKEN}//api//chat", body=b'{"model":"m"}').status == 200
    assert ask(closed, "GET", sent, bearer(TOKEN)).status in (301, 307)


@given(st.binary(max_size=60))
def test_no_address_behind_a_token_leads_to_a_redirect(rest: bytes) -> None:
    for method in (b"GET", b"POST"):
        found, target = classify_behind_prefix(method, b"/" + rest)
        assert not isinstance(found, Redirect)
        assert target.startswith(b"/")


def test_a_known_token_in_the_wrong_place_does_not_reach_the_log(closed: InMemoryForeman) -> None:
    with capturedLogs() as events:
        assert ask(closed, "GET", f"/K/{TOKEN}/api/version").status == 401
        assert ask(closed, "GET", f"/v1/k/{TOKEN}/models").status == 401
        closed.wait(10)
    said = everything_said(events)
    assert "status=401" in said
    assert TOKEN not in said


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("OPTIONS", "/api/chat?x={}"),
        ("OPTIONS", "/v1/models/{}"),
        ("GET", "/v1/messagesfoo?x={}"),
        ("GET", "/%76%31/messages?x={}"),
        ("GET", "/v1/messages/{}"),
        ("GET", "/jobs/{}"),
        ("GET", "/queue/{}"),
        ("POST", "/api/blobs/{}"),
        ("GET", "//api/version?x={}"),
        ("GET", "/k%2f{}/api/version"),
        ("GET", "/healthz/{}"),
        ("GET", "/?x={}"),
        ("GET", "/healthz?x={}"),
        ("OPTIONS", "/healthz?x={}"),
    ],
)
@pytest.mark.parametrize("origin", [None, "https://evil.example", "http://localhost"])
@pytest.mark.parametrize("given", [[], [bearer("another-wrong-token-here")]])
def test_nobody_can_try_tokens_in_an_address(
    method: str, address: str, origin: str | None, given: list[tuple[str, str]]
) -> None:
    headers = [*given, *([("Origin", origin)] if origin else [])]
    answers = []
    for guess in (TOKEN, WRONG):
        with in_memory_foreman(auth_token=TOKEN) as step:
            sent = request(method, address.replace("{}", guess), headers=headers, host="localhost")
            answers.append(step.ask_once(sent, method))
    assert answers[0] == answers[1]


def test_the_log_names_the_route_of_whoever_was_refused(closed: InMemoryForeman) -> None:
    with capturedLogs() as events:
        ask(closed, "GET", "/api/version")
        closed.wait(10)
    assert "/api/version" in everything_said(events)


# names


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "192.0.2.1.evil.example", "8.8.8.8", "localhost.evil.example"]
)
def test_a_strange_name_is_refused_and_told_the_setting(host: str) -> None:
    with in_memory_foreman() as step:
        for path, family in (("/api/tags", "ollama"), ("/v1/models", "openai"), ("/v1/messages", "anthropic")):
            answer = ask(step, "GET", path, host=host)
            assert answer.status == 403
            assert "FOREMAN_ALLOWED_HOSTS" in error_of(answer)
            assert (family == "anthropic") == ("request_id" in json.loads(answer.body))
        assert step.target.request_connections == []


def test_a_strange_name_may_be_allowed() -> None:
    with in_memory_foreman(allowed_hosts="Gpu.example,*.lab.example") as step:
        for host in ("gpu.example", "GPU.EXAMPLE:8080", "a.lab.example", "b.a.lab.example"):
            assert ask(step, "GET", "/api/version", host=host).status == 200
        for host in ("gpu.example.com", "lab.example", "xlab.example"):
            assert ask(step, "GET", "/api/version", host=host).status == 403


def test_where_a_token_is_asked_for_names_do_not_matter(closed: InMemoryForeman) -> None:
    assert ask(closed, "GET", "/api/version", bearer(TOKEN), host="evil.example").status == 200


def test_the_name_in_an_absolute_target_counts() -> None:
    with in_memory_foreman(allowed_hosts="gpu.example") as step:
        assert ask(step, "GET", "http://gpu.example:8080/api/version", host="GPU.example:8080").status == 200
        assert step.ask_once(b"GET http://gpu.example/api/version HTTP/1.0\r\n\r\n").status == 200
        assert step.ask_once(b"GET http://evil.example/api/version HTTP/1.0\r\n\r\n").status == 403


# what nobody may ask, and what only foreman knows


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "OPTIONS", "TRACE", "CONNECT", "QUERY"])
@pytest.mark.parametrize("prefix", ["", f"/k/{ADMIN}", f"http://localhost/k/{ADMIN}", "http://localhost"])
def test_ollamas_own_proxy_is_refused_to_admins_too(managed: InMemoryForeman, method: str, prefix: str) -> None:
    origin = [("Origin", "http://localhost:3000"), ("X-Forwarded-For", "127.0.0.1")]
    for path in ("/api/codex/api/delete", "/Api/%63odex/v1/responses", "//api/codex"):
        answer = ask(managed, method, prefix + path, bearer(ADMIN), *origin, body=b'{"model":"m"}')
        assert answer.status == 403
        assert error_of(answer).startswith("Codex proxy only accepts loopback requests; ")
    assert managed.target.requests == []


@pytest.mark.parametrize("path", ["/metrics", "/api/usage", "/api/config"])
def test_what_a_target_tells_of_its_use_is_for_admins(managed: InMemoryForeman, path: str) -> None:
    assert ask(managed, "GET", path, bearer(TOKEN)).status == 403
    assert ask(managed, "GET", path, bearer(ALICE)).status == 403
    assert managed.target.requests == []
    assert ask(managed, "GET", path, bearer(ADMIN)).status == 200
    with in_memory_foreman(auth_token=TOKEN) as without_admin:
        assert ask(without_admin, "GET", path, bearer(TOKEN)).status == 200


@pytest.mark.parametrize("method", ["TRACE", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get"])
@pytest.mark.parametrize("path", ["/healthz", "/queue", "/openapi.json", "/queue/01J", "/jobs/01J", "/jobs/01J/events"])
def test_a_method_that_foremans_own_route_does_not_know_is_405(method: str, path: str) -> None:
    with in_memory_foreman() as step:
        if method == "DELETE" and path in {"/queue/01J", "/jobs/01J"}:
            return
        answer = ask(step, method, path)
        assert answer.status == 405
        allowed = {"/queue/01J": "DELETE", "/jobs/01J": "HEAD, GET, DELETE"}.get(path, "HEAD, GET")
        assert answer.header("Allow") == allowed
        assert (answer.header("Content-Type") or "").startswith("application/")
        assert allowed in answer.body.decode()
        assert step.target.requests == []


@pytest.mark.parametrize("path", ["/queue/", "/queue/a/b", "/queue/01J/x"])
def test_what_is_not_there_below_foremans_own_route_is_404(path: str) -> None:
    with in_memory_foreman() as step:
        assert ask(step, "GET", path).status in {301, 404}
        assert ask(step, "POST", path).status == 404
        assert step.target.requests == []


def test_trace_does_not_tell_the_token_of_the_target() -> None:
    with in_memory_foreman(target_token="of-the-target-alone") as step:
        ask(step, "TRACE", "/api/chat")
        ask(step, "GET", "/api/chat")
        assert [one.named("authorization") for one in step.target.requests] == [[], ["Bearer of-the-target-alone"]]


# decisions as values


def admission(*holders: Holder, required: bool = True, managed: bool = False, **config: Any) -> Admission:
    numbers = count(1)
    tokens = Tokens(holders, required=required, had_admin=managed)
    origins = OriginPolicy(origins=("https://app.example",))
    return Admission(
        Config(**config), AuthPolicy(tokens), origins, lambda: ULID.from_int(next(numbers)), b"foreman-mark"
    )


def head(method: str, uri: str, *headers: tuple[str, str], version: bytes = b"HTTP/1.1") -> RequestHead:
    pairs = [(name.encode(), value.encode()) for name, value in [("Host", "localhost"), *headers]]
    return RequestHead(method.encode(), uri.encode(), version, pairs, "192.0.2.7", "192.0.2.1", 5.0)


ALICES = Holder("alice", digest(ALICE))


def test_a_request_that_is_admitted_has_its_caller_and_its_headers_without_the_token() -> None:
    decision = admission(ALICES).decide(head("POST", "/api/chat?x=1", bearer(ALICE), ("X-Copy", ALICE), ("A", "b")))
    assert isinstance(decision, Admitted)
    context = decision.context
    assert (context.caller, context.holder, context.prefix) == ("alice", ALICES, None)
    assert (context.route, context.target) == (Route(Lane.GATE, "ollama", "/api/chat"), b"/api/chat?x=1")
    assert context.id == str(ULID.from_int(1))
    assert (b"X-Copy", ALICE.encode()) not in decision.headers
    assert (b"A", b"b") in decision.headers
    assert (decision.response_headers, decision.expects_continue) == ([], False)


def test_without_tokens_a_caller_is_its_address() -> None:
    decision = admission(required=False).decide(head("GET", "/k/anything/queue"))
    assert isinstance(decision, Admitted)
    assert (decision.context.caller, decision.context.holder) == ("192.0.2.7", None)
    assert decision.context.own_path("/jobs") == "/k/anything/jobs"


def test_the_client_that_waits_for_100_is_known_by_the_decision() -> None:
    decision = admission(ALICES).decide(head("POST", "/api/chat", bearer(ALICE), ("Expect", "100-Continue")))
    assert isinstance(decision, Admitted)
    assert decision.expects_continue


def test_a_page_that_may_ask_reads_also_the_refusal() -> None:
    origin = ("Origin", "https://app.example")
    for headers, kind in (([bearer(ALICE)], Admitted), ([], Refused), ([bearer(WRONG)], Refused)):
        decision = admission(ALICES).decide(head("POST", "/api/chat", origin, *headers))
        assert isinstance(decision, kind)
        assert (b"Access-Control-Allow-Origin", b"https://app.example") in decision.response_headers


@pytest.mark.parametrize(
    ("request_head", "status", "must_close"),
    [
        (head("GET", "/api/version"), 401, False),
        (head("GET", "/api/version", bearer(WRONG)), 401, False),
        (head("GET", f"/api/version?token={ALICE}", bearer(ALICE)), 400, False),
        (head("POST", "/api/pull", bearer(ALICE)), 403, False),
        (head("GET", "/api/version", bearer(ALICE), ("Via", "1.1 foreman-mark")), 508, False),
        (head("GET", "/api/version", bearer(ALICE), ("Origin", "https://evil.example")), 403, False),
        (head("POST", "/api/chat", bearer(ALICE), ("Expect", "200-ok")), 417, True),
        (head("GET", "/api/version", bearer(ALICE), ("Host", "localhost")), 400, True),
        (head("CONNECT", "example.org:443", bearer(ALICE)), 404, True),
        (head("DELETE", "/queue", bearer(ALICE)), 405, False),
    ],
)
def test_a_refusal_is_a_reply_and_says_whether_the_connection_ends(
    request_head: RequestHead, status: int, must_close: bool
) -> None:
    decision = admission(ALICES, managed=True).decide(request_head)
    assert isinstance(decision, Refused)
    assert (decision.reply.status, decision.must_close) == (status, must_close)


def test_too_many_unknown_tokens_of_an_address_end_the_connection() -> None:
    rules = admission(ALICES)
    decisions = [rules.decide(head("GET", "/api/version", bearer(WRONG))) for _ in range(20)]
    assert isinstance(decisions[-1], Refused)
    assert (decisions[-1].reply.status, decisions[-1].must_close) == (429, True)
    assert isinstance(rules.decide(head("GET", "/api/version", bearer(ALICE))), Admitted)


def test_a_known_token_in_an_address_is_in_no_route() -> None:
    for headers in ([bearer(ALICE)], [], [bearer(WRONG)]):
        decision = admission(ALICES).decide(head("GET", f"/api/{ALICE}", *headers))
        assert isinstance(decision, Refused)
        assert decision.context.route.path == "-"


def test_a_head_that_was_read_in_part_has_an_id_and_a_route() -> None:
    context = admission(ALICES).identify(RequestHead(b"GET", b"/v1/models", b"HTTP/1.1", []))
    assert (context.caller, context.route.family, context.id) == ("local", "openai", str(ULID.from_int(1)))
