"""Which names and which web pages may reach foreman: Ollama's rules for ``Host`` and ``Origin`` (contract 3)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import foreman.web
from foreman.config.settings import load
from foreman.web.server.origins import EXPOSED_HEADERS, OriginPolicy, same_origin
from support.in_memory_foreman import InMemoryForeman, in_memory_foreman
from support.raw_http import Response, request

HERE = "192.168.1.5"

LOCAL_ORIGINS = [
    "http://localhost",
    "https://localhost",
    "http://localhost:3000",
    "https://localhost:1",
    "http://127.0.0.1",
    "http://127.0.0.1:5173",
    "https://0.0.0.0:80",
    "app://obsidian.md",
    "file://",
    "file:///home/me/page.html",
    "tauri://localhost",
    "vscode-webview://0abc",
    "vscode-file://vscode-app",
]
FOREIGN_ORIGINS = [
    "http://evil.example",
    "https://evil.example:11434",
    "null",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://evil.example/http://localhost",
    "https://localhostevil.example",
    "http://127.0.0.2",
    "http://[::1]:3000",
    "HTTP://LOCALHOST",
    "chrome-extension://abc",
    "localhost",
    "x" * 3000,
]


# names


@pytest.mark.parametrize(
    "host",
    [
        "", "localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8080", "0.0.0.0", "[::]",
        "10.1.2.3", "172.16.0.1:80", "192.168.1.77", "[fd12::1]:8080", "[fe80::1%25eth0]:8080", "mac.local", "gpu.internal:80",
        "foreman.localhost", "gpubox", "GPUBOX:8080", "gpubox.", HERE, "9.9.9.9:8080",
    ],
)  # fmt: skip
def test_names_of_this_machine_and_its_network_are_good(host: str) -> None:
    own = "9.9.9.9" if host.startswith("9.") else HERE
    assert OriginPolicy(hostname="GpuBox").host_allowed(host.encode(), own)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "8.8.8.8", "1.1.1.1:80", "[2001:4860:4860::8888]", "localhost.evil.example",
        "evil-localhost", "xlocal", "local.", "internal", "gpubox.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io",
        "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:8.8.8.8]", "9.9.9.9",
    ],
)  # fmt: skip
def test_names_that_a_stranger_may_have_pointed_here_are_not(host: str) -> None:
    assert not OriginPolicy(hostname="GpuBox").host_allowed(host.encode(), HERE)


def test_settings_add_names() -> None:
    guards = OriginPolicy(
        hosts=["Gpu.example", "*.lab.example", "other.example:8080", "[2a00:1450::1]", "2a00:1450::2"]
    )
    for host in (
        "gpu.example",
        "gpu.example:1",
        "a.lab.example:80",
        "other.example",
        "other.example:9",
        "[2a00:1450::1]:8080",
        "[2a00:1450::2]",
    ):
        assert guards.host_allowed(host.encode(), HERE), host
    for host in ("lab.example", "gpu.example.evil", "[2a00:1450::3]"):
        assert not guards.host_allowed(host.encode(), HERE), host
    assert OriginPolicy(hosts=["*"]).host_allowed(b"anything.example", HERE)


def test_a_machine_without_a_name_has_no_further_one() -> None:
    assert not OriginPolicy(hostname="").host_allowed(b"evil.example", "")


# origins


@pytest.mark.parametrize("origin", LOCAL_ORIGINS)
def test_pages_of_this_machine_may_ask(origin: str) -> None:
    assert OriginPolicy().origin_allowed(origin.encode(), b"127.0.0.1:8080")


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_pages_of_others_may_not(origin: str) -> None:
    assert not OriginPolicy().origin_allowed(origin.encode(), b"127.0.0.1:8080")


def test_a_page_of_foremans_own_is_no_stranger() -> None:
    assert OriginPolicy().origin_allowed(b"http://gpu.example:8080", b"gpu.example:8080")
    assert OriginPolicy().cors_headers(b"http://gpu.example:8080", b"gpu.example:8080") == []
    assert not same_origin(b"http://", b"")
    assert not same_origin(b"http://gpu.example", b"gpu.example:8080")


def test_settings_add_origins() -> None:
    guards = OriginPolicy(origins=("https://chat.example", "https://*.team.example", "moz-extension://*"))
    for origin in ("https://chat.example", "https://a.team.example", "moz-extension://12", "http://localhost:3000"):
        assert guards.origin_allowed(origin.encode(), b"x")
    for origin in (
        "http://chat.example",
        "https://chat.example:8443",
        "https://team.example",
        "https://a.team.example.evil",
        "null",
    ):
        assert not guards.origin_allowed(origin.encode(), b"x")


def test_a_star_allows_all_and_is_said_as_a_star() -> None:
    guards = OriginPolicy(origins=("*",))
    assert guards.origin_allowed(b"null", b"x")
    headers = guards.cors_headers(b"http://evil.example", b"x")
    assert [(name, value) for name, value in headers if name != b"Access-Control-Expose-Headers"] == [
        (b"Access-Control-Allow-Origin", b"*")
    ]
    assert (b"Access-Control-Allow-Origin", b"*") in guards.preflight_headers(b"http://evil.example")


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_pattern_never_allows_what_only_overlaps_it(before: str, after: str, text: str) -> None:
    pattern = f"x://{before.replace('*', '')}*{after.replace('*', '')}"
    origin = f"x://{text}".encode("latin-1", "replace")
    if OriginPolicy(origins=(pattern,)).origin_allowed(origin, b""):
        shown = origin.decode("latin-1")
        head, _, tail = pattern.partition("*")
        assert shown.startswith(head)
        assert shown[len(head) :].endswith(tail)


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        (
            "http://localhost:*",
            ["http://localhost:1", "http://localhost:65535"],
            ["http://localhost:", "http://localhost:x", "http://localhost:80@evil.example", "http://localhost:80.evil.example",
             "http://localhost:80/x", "http://localhost:123456", "http://localhost:\uff11"],
        ),
        ("http://box:30*", ["http://box:30", "http://box:3000"], ["http://box:30x", "http://box:3", "http://box:30/"]),
        (
            "https://*.team.example",
            ["https://a.team.example", "https://a.b.team.example"],
            ["https://team.example", "https://evil.example/.team.example", "https://evil.example#.team.example",
             "https://evil.example?.team.example", "https://me@.team.example", "https://evil.example:1.team.example",
             "https://a.team.example:8443", "http://a.team.example"],
        ),
        ("https://*.team.example:8443", ["https://a.team.example:8443"], ["https://a.team.example"]),
        (
            "http://localhost*",
            ["http://localhost", "http://localhost:3000"],
            ["http://localhost.evil.example", "http://localhostevil.example", "http://localhost:3000.evil.example"],
        ),
        ("http://box*:80", ["http://box:80"], ["http://box.evil.example:80", "http://box2:80"]),
        (
            "http://192.168.*",
            ["http://192.168.1.5", "http://192.168.1.5:3000"],
            ["http://192.168.evil.example", "http://192.168.1.5.evil.example", "http://192.168.1.5:x"],
        ),
        ("https://*", ["https://a.example", "https://a.example:1", "https://[::1]:2"], ["http://a.example", "https://a/b", "https://"]),
        ("http://*:3000", ["http://a.example:3000", "http://[::1]:3000"], ["http://a.example:3001", "http://a/b:3000"]),
        ("https://Chat.Example", ["https://chat.example"], ["https://Chat.Example"]),
        ("app://*", ["app://x", "app://x/y?z", "app://"], ["apps://x", "http://app://"]),
        ("app://a*z", ["app://az", "app://a:z"], ["app://a", "app://z"]),
        ("app://x", ["app://x"], ["app://xx", "app://X"]),
    ],
)  # fmt: skip
def test_a_star_in_an_origin_stands_for_what_people_mean(pattern: str, allowed: list[str], refused: list[str]) -> None:
    for says in (OriginPolicy(origins=(pattern,)), OriginPolicy(origins=load({"FOREMAN_ORIGINS": pattern}).origins)):
        for origin in allowed:
            assert says.origin_allowed(origin.encode(), b"x"), origin
        for origin in refused:
            if not OriginPolicy().origin_allowed(origin.encode("utf-8"), b"x"):
                assert not says.origin_allowed(origin.encode("utf-8"), b"x"), origin


def test_the_star_of_a_default_origin_is_a_port() -> None:
    for host in ("localhost", "127.0.0.1", "0.0.0.0"):
        for scheme in ("http", "https"):
            assert OriginPolicy().origin_allowed(f"{scheme}://{host}:8".encode(), b"x")
            for port in ("", "x", "8x", "8@evil.example", "8.evil.example", "/"):
                assert not OriginPolicy().origin_allowed(f"{scheme}://{host}:{port}".encode(), b"x")


def test_the_star_of_a_name_is_of_a_name() -> None:
    guards = OriginPolicy(hosts=["*.lab.example"])
    for host in (b"evil.example/.lab.example", b"evil.example:1.lab.example", b"a b.lab.example", b"evil@.lab.example"):
        assert not guards.host_allowed(host, HERE), host


# at the door


@pytest.fixture
def step() -> Iterator[InMemoryForeman]:
    with in_memory_foreman() as step:
        yield step


def ask(step: InMemoryForeman, method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> Response:
    return step.ask_once(request(method, path, body, list(headers), host="127.0.0.1:8080"), method)


def cors(answer: Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers if name.startswith("Access-Control") or name == "Vary"]


PAGE = ("Origin", "http://localhost:3000")


@pytest.mark.parametrize(
    "path", ["/", "/api/chat", "/v1/messages", "/nope", "/api/blobs/sha256:00", "//api/tags", "/api/%zz", "*"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_foreign_page_gets_nothing_whatever_it_asks(
    step: InMemoryForeman, method: str, path: str, origin: str
) -> None:
    answer = ask(step, method, path, ("Origin", origin))
    assert (answer.status, answer.body, cors(answer)) == (403, b"", [])
    assert step.target.request_connections == []


def test_two_origins_are_one_too_many(step: InMemoryForeman) -> None:
    assert ask(step, "GET", "/api/tags", PAGE, ("Origin", "http://evil.example")).status == 403
    assert ask(step, "GET", "/api/tags", PAGE, PAGE).status == 403


def test_a_preflight_is_answered_as_ollama_does(step: InMemoryForeman) -> None:
    for path, allow in (("/api/chat", "POST"), ("/api/tags", "HEAD, GET"), ("/nope", None)):
        answer = ask(step, "OPTIONS", path, PAGE, ("Access-Control-Request-Method", "POST"))
        assert (answer.status, answer.body, answer.header("Allow")) == (204, b"", allow)
        said = dict(cors(answer))
        assert said["Access-Control-Allow-Origin"] == PAGE[1]
        assert said["Access-Control-Allow-Methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
        assert said["Access-Control-Max-Age"] == "43200"
        assert "Authorization" in said["Access-Control-Allow-Headers"]
        assert [value for name, value in cors(answer) if name == "Vary"] == [
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ]
    assert step.target.request_connections == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:11434", "a.localhost", "my.local", "x.internal", ""])
@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/api/chat", "POST"),
        ("/api/tags", "HEAD, GET"),
        ("/", "HEAD, GET"),
        ("/v1/completions", "POST"),
        ("/nope", None),
    ],
)
def test_options_without_an_origin_are_answered_for_names_as_ollama_does(
    step: InMemoryForeman, host: str, path: str, allow: str | None
) -> None:
    answer = step.ask_once(request("OPTIONS", path, host=host), "OPTIONS")
    assert (answer.status, answer.body, answer.header("Allow"), cors(answer)) == (204, b"", allow, [])
    assert step.target.requests == []


def test_options_of_an_address_without_an_origin_are_the_targets_to_answer(step: InMemoryForeman) -> None:
    assert ask(step, "OPTIONS", "/api/chat").status == 200
    assert [heard.method for heard in step.target.requests] == ["OPTIONS"]


EXPOSES = ("Access-Control-Expose-Headers", b",".join(EXPOSED_HEADERS).decode())
ONCE = [("Access-Control-Allow-Origin", PAGE[1]), EXPOSES, ("Vary", "Origin")]


def test_every_answer_to_an_allowed_page_says_so_exactly_once(step: InMemoryForeman) -> None:
    asking: list[tuple[str, str, bytes, int]] = [
        ("GET", "/", b"", 200),
        ("GET", "/healthz", b"", 200),
        ("GET", "/api/tags", b"", 200),
        ("GET", "/api/version", b"", 200),
        ("POST", "/api/chat", b'{"model":"m"}', 200),
        ("POST", "/api/chat", b'{"model":"gone"}', 404),
        ("POST", "/api/chat", b"{", 400),
        ("POST", "/v1/messages", b"", 400),
        ("GET", "/api/%zz", b"", 400),
        ("GET", "//api/tags", b"", 307),
        ("CONNECT", "/api/chat", b"", 404),
    ]
    for method, path, body, status in asking:
        answer = ask(step, method, path, PAGE, body=body)
        assert (answer.status, cors(answer)) == (status, ONCE), (method, path)


def test_refusals_of_every_kind_say_so_too() -> None:
    with in_memory_foreman(auth_token="correct-horse-battery", max_body="1KiB", body_budget="1KiB") as step:
        assert cors(ask(step, "GET", "/api/version", PAGE)) == ONCE
        token = ("Authorization", "Bearer correct-horse-battery")
        assert cors(ask(step, "GET", "/v1/models", PAGE, token)) == ONCE
        too_large = ask(step, "POST", "/api/chat", PAGE, token, body=b" " * 1025)
        assert (too_large.status, cors(too_large)) == (413, ONCE)
        chunked = step.call()
        chunked.send(
            b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nOrigin: http://localhost:3000\r\n"
            b"Authorization: Bearer correct-horse-battery\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
        )
        (bad_chunk,) = chunked.answers()
        assert (bad_chunk.status, cors(bad_chunk)) == (400, ONCE)
        step.target.refuses_connections = True
        unreachable = ask(step, "GET", "/api/version", PAGE, token)
        assert (unreachable.status, cors(unreachable)) == (502, ONCE)


def test_what_the_target_says_of_origins_does_not_count(step: InMemoryForeman) -> None:
    step.target.answer = lambda _: (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nContent-Length: 0\r\n\r\n"
    )
    assert cors(ask(step, "GET", "/api/version", PAGE)) == ONCE
    assert cors(ask(step, "GET", "/api/version")) == []
    assert [heard.named("origin") for heard in step.target.requests] == [[], []]


def test_a_page_of_foremans_own_gets_no_headers(step: InMemoryForeman) -> None:
    own = ("Origin", "http://127.0.0.1:8080")
    assert cors(ask(step, "GET", "/api/tags", own)) == []
    assert ask(step, "OPTIONS", "/api/chat", own).status == 200  # no preflight: the target's to answer


def test_origins_and_names_come_from_the_settings() -> None:
    with in_memory_foreman(origins="https://chat.example", allowed_hosts="gpu.example") as step:
        page = [("Origin", "https://chat.example")]
        answer = step.ask_once(request("GET", "/api/tags", headers=page, host="gpu.example"))
        assert (answer.status, cors(answer)[0][1]) == (200, "https://chat.example")
    with in_memory_foreman(origins="*") as step:
        assert cors(ask(step, "GET", "/api/tags", ("Origin", "null"))) == [
            ("Access-Control-Allow-Origin", "*"),
            EXPOSES,
        ]


def test_a_rebound_name_gets_nothing_from_its_own_page(step: InMemoryForeman) -> None:
    """A page of evil.example that has pointed its name here: the origin is its own server, the name is not ours."""
    answer = step.ask_once(
        request("GET", "/api/tags", headers=[("Origin", "http://evil.example")], host="evil.example")
    )
    assert answer.status == 403
    assert cors(answer) == []


SHOWN_BY_EVERY_BROWSER = {
    "cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma",
}  # fmt: skip
#: Not for pages: between browser and server, and between proxies.
FOR_OTHERS = {
    "access-control-allow-headers", "access-control-allow-methods", "access-control-allow-origin",
    "access-control-expose-headers", "access-control-max-age", "connection", "transfer-encoding", "vary",
    "x-accel-buffering", "x-content-type-options",
}  # fmt: skip
#: A page cannot set these (Fetch Standard, forbidden request-header), or need not ask to.
SET_BY_THE_BROWSER = {
    "access-control-request-headers", "connection", "content-length", "cookie", "expect", "host", "origin", "transfer-encoding",
    "via",
}  # fmt: skip
WEB = Path(foreman.web.__file__).parent


def names_in(values: tuple[bytes, ...]) -> set[str]:
    return {value.decode().lower() for value in values}


def test_a_page_may_read_every_header_that_foreman_adds() -> None:
    added = set()
    for path in WEB.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
                name = node.elts[0].value
                if isinstance(name, bytes) and re.fullmatch(rb"(?=.*[a-z])[A-Z][A-Za-z-]+", name):
                    added.add(name.decode().lower())
    assert {"location", "retry-after", "x-foreman-position", "server-timing"} <= added
    assert not added - names_in(EXPOSED_HEADERS) - SHOWN_BY_EVERY_BROWSER - FOR_OTHERS


def test_a_page_may_send_every_header_that_foreman_reads(step: InMemoryForeman) -> None:
    read = set()
    for path in WEB.rglob("*.py"):
        read |= set(re.findall(r"""(?:headers_named\(|header\(visit, )b"([a-z-]+)\"""", path.read_text("utf-8")))
    assert {"prefer", "idempotency-key", "x-api-key", "if-none-match", "range"} <= read
    answer = ask(step, "OPTIONS", "/api/chat", PAGE, ("Access-Control-Request-Method", "POST"))
    allowed = {name.strip().lower() for name in (answer.header("Access-Control-Allow-Headers") or "").split(",")}
    assert not read - allowed - SET_BY_THE_BROWSER


@pytest.mark.parametrize(
    "path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/jobs", "/jobs/x/artifacts/response", "/nope"]
)
def test_a_preflight_allows_what_clients_of_all_families_send(step: InMemoryForeman, path: str) -> None:
    sent = [
        "prefer", "idempotency-key", "x-api-key", "anthropic-version", "anthropic-beta", "if-none-match", "range", "authorization",
        "anthropic-dangerous-direct-browser-access", "content-type", "x-stainless-lang", "x-stainless-of-tomorrow", "openai-organization",
        "anthropic-of-tomorrow",
    ]  # fmt: skip
    asked = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", ",".join(sent))]
    answer = ask(step, "OPTIONS", path, PAGE, *asked)
    allowed = [name.lower() for name in (answer.header("Access-Control-Allow-Headers") or "").split(",")]
    assert answer.status == 204
    assert set(sent) <= set(allowed)


@pytest.mark.parametrize(
    "name", ["x-evil", "cookie", "anthropic-", "xanthropic-a", "anthropic-a b", "anthropic-" + "x" * 100, "*"]
)
def test_a_preflight_allows_nothing_else(step: InMemoryForeman, name: str) -> None:
    answer = ask(step, "OPTIONS", "/api/chat", PAGE, ("Access-Control-Request-Headers", name))
    assert name not in (answer.header("Access-Control-Allow-Headers") or "").lower().split(",")


def test_what_a_preflight_asks_for_is_not_repeated_without_bound(step: InMemoryForeman) -> None:
    many = ",".join(f"anthropic-{number}" for number in range(5000))
    answer = ask(step, "OPTIONS", "/api/chat", PAGE, ("Access-Control-Request-Headers", many))
    assert len(answer.header("Access-Control-Allow-Headers") or "") < 2000


def test_there_is_one_vary_whatever_the_target_varies_by(step: InMemoryForeman) -> None:
    for theirs, told in (
        ("Accept-Encoding", "Accept-Encoding, Origin"),
        ("origin, Accept", "origin, Accept"),
        ("*", "*"),
        ("A\r\nvary: B", "A, B, Origin"),
    ):
        head = f"HTTP/1.1 200 OK\r\nVary: {theirs}\r\nContent-Length: 0\r\n\r\n".encode()
        step.target.answer = lambda _, head=head: head  # type: ignore[misc]
        answer = ask(step, "GET", "/api/version", PAGE)
        assert [value for name, value in answer.headers if name.lower() == "vary"] == [told]
        assert [value for name, value in answer.headers if name == "Access-Control-Allow-Origin"] == [PAGE[1]]
        alone = ask(step, "GET", "/api/version")
        assert [value for name, value in alone.headers if name.lower() == "vary"] == theirs.split("\r\nvary: ")
