"""Which way a request goes: the path as Go's ServeMux and the gin router read it."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol.endpoints import Lane
from foreman.protocol.request_path import origin_form, take_prefix, unescape
from foreman.protocol.routes import CLOSED, Redirect, Refusal, Route, allowed_methods, classify
from support import recordings

NOT_FOUND = Refusal(404, "404 page not found")
BAD_REQUEST = Refusal(400, "400 Bad Request")

GATE = [
    "/api/chat",
    "/api/generate",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/messages",
    "/v1/audio/transcriptions",
]
EMBEDDING = ["/api/embed", "/api/embeddings", "/v1/embeddings"]
MANAGEMENT = [
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/sha256:00",
    "/api/me",
    "/api/signout",
    "/api/user/keys/abc",
    "/api/experimental/web_search",
    "/api/experimental/what-comes-next",
    "/metrics",
    "/metrics/what-comes-next",
    "/api/usage",
    "/api/usage/today",
    "/api/config",
]
STRICT = {Lane.GATE, Lane.EMBEDDING, Lane.MANAGEMENT}


def lane(method: str, target: str | bytes) -> Lane:
    found = classify(method.encode(), target if isinstance(target, bytes) else target.encode())
    assert isinstance(found, Route)
    return found.lane


@pytest.mark.parametrize("path", GATE)
def test_a_chat_takes_its_turn_at_the_gate(path: str) -> None:
    assert lane("POST", path) is Lane.GATE
    assert lane("POST", f"{path}?x=/../&y=//") is Lane.GATE


@pytest.mark.parametrize("path", EMBEDDING)
def test_an_embedding_passes_beside_the_gate(path: str) -> None:
    assert lane("POST", path) is Lane.EMBEDDING


@pytest.mark.parametrize("path", MANAGEMENT)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_managing_needs_permission_whatever_the_method(method: str, path: str) -> None:
    assert lane(method, path) is Lane.MANAGEMENT


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/tags"), ("HEAD", "/api/tags"), ("GET", "/api/ps"), ("GET", "/api/tags?x=1")]
)
def test_lists_come_from_the_inventory(method: str, path: str) -> None:
    assert lane(method, path) is Lane.INVENTORY


@pytest.mark.parametrize("path", ["/", "/healthz", "/queue", "/openapi.json", "/?x", "/healthz?x=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_foreman_answers_for_itself(method: str, path: str) -> None:
    assert lane(method, path) is Lane.FOREMAN


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/chat"),
        ("PUT", "/api/chat"),
        ("post", "/api/chat"),
        ("POST", "/API/chat"),
        ("POST", "/api/chat2"),
        ("POST", "/api/chat;x"),
        ("POST", "/api/tags"),
        ("HEAD", "/api/ps"),
        ("POST", "/api/show"),
        ("GET", "/api/version"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/llama3%3Alatest"),
        ("GET", "/v1/models/library%2Fllama3"),
        ("DELETE", "/"),
        ("GET", "/v1/responses/compact"),
        ("GET", "/api/usages"),
        ("POST", "/v1/what/comes/next"),
        ("GET", "/favicon.ico"),
    ],
)
def test_everything_else_goes_through(method: str, path: str) -> None:
    assert lane(method, path) is Lane.METADATA


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/api/chat", "ollama"),
        ("/nonsense", "ollama"),
        ("/v1/chat/completions", "openai"),
        ("/v1/responses", "openai"),
        ("/v1/responses/compact", "openai"),
        ("/v1/images/edits", "openai"),
        ("/v1/nonsense", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/messagesx", "openai"),
        ("/openapi.json", "foreman"),
        ("/jobs", "foreman"),
    ],
)
def test_each_route_speaks_its_familys_errors(path: str, family: str) -> None:
    found = classify(b"POST", path.encode())
    assert isinstance(found, Route)
    assert found.family == family


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/api%2fchat", "/api/chat"),
        (b"/api%2Fchat", "/api/chat"),
        (b"/%61pi/ch%61t?model=%2f", "/api/chat"),
        (b"/api/chat%3Fx", "/api/chat?x"),
        (b"/v1/models/%C3%A9", "/v1/models/é"),
        ("/v1/models/é".encode(), "/v1/models/é"),
        (b"/v1/models/a+b", "/v1/models/a+b"),
        (b"/api/chat%2561", "/api/chat%61"),
    ],
)
def test_a_path_is_decoded_once(target: bytes, path: str) -> None:
    found = classify(b"POST", target)
    assert isinstance(found, Route)
    assert found.path == path
    assert (found.lane is Lane.GATE) == (path == "/api/chat")


@given(st.sampled_from([*GATE, *EMBEDDING, *MANAGEMENT]), st.data())
def test_no_way_of_writing_a_path_changes_its_lane(path: str, data: st.DataObject) -> None:
    escaped = data.draw(st.sets(st.integers(1, len(path) - 1)))
    digits = data.draw(st.sampled_from(["%%%02x", "%%%02X"]))
    written = "".join(digits % ord(letter) if at in escaped else letter for at, letter in enumerate(path))
    found = classify(b"POST", written.encode())
    assert isinstance(found, Route)
    assert (found.lane, found.path) == (lane("POST", path), path)


@given(st.one_of(st.binary(max_size=40), st.lists(st.sampled_from([b"%", b"4", b"a", b"F", b"g", b"/"])).map(b"".join)))
def test_percent_encoding_is_decoded_as_the_standard_library_does(text: bytes) -> None:
    assert unescape(text) == unquote_to_bytes(text)


def test_a_nearly_right_path_is_redirected_as_recorded() -> None:
    recorded = [recordings.load(name) for name in recordings.names() if name.startswith(("path-", "slash-"))]
    redirects = [recording for recording in recorded if recording["response"]["status"] in {301, 307}]
    assert len(redirects) >= 6
    for recording in redirects:
        said, heard = recording["request"], recording["response"]
        prefixes = [value for name, value in said["headers"] if name == "X-Forwarded-Prefix"]
        location = dict(heard["headers"])["Location"].removeprefix(prefixes[0] if prefixes else "")
        assert classify(said["method"].encode(), said["path"].encode()) == Redirect(heard["status"], location.encode())


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (b"//", b"/"),
        (b"/.", b"/"),
        (b"/..", b"/"),
        (b"/../", b"/"),
        (b"/./api/tags", b"/api/tags"),
        (b"/api/tags/.", b"/api/tags"),
        (b"/api/tags/..", b"/api"),
        (b"/api/tags//", b"/api/tags/"),
        (b"//evil.example/x", b"/evil.example/x"),
        (b"/a/../../b?x=//", b"/b?x=//"),
        (b"//x?", b"/x"),
        (b"//x?\xc3\xa9", b"/x?%c3%a9"),
        (b"//api%2ftags", b"/api%252ftags"),
        (b"//[1]", b"/%5B1%5D"),
        (b'//"', b"/%2522"),
    ],
)
def test_an_unclean_path_is_redirected_as_go_does(target: bytes, location: bytes) -> None:
    assert classify(b"GET", target) == Redirect(307, location)
    assert classify(b"POST", target) == Redirect(307, location)


@pytest.mark.parametrize(
    ("method", "target", "status", "location"),
    [
        (b"GET", b"/api/tags/", 301, b"/api/tags"),
        (b"HEAD", b"/api/tags/", 307, b"/api/tags"),
        (b"POST", b"/api%2fchat%2f", 307, b"/api/chat"),
        (b"GET", b"/v1/models/", 301, b"/v1/models"),
        (b"GET", b"/v1/models/llama3%3Alatest/?a=b", 301, b"/v1/models/llama3:latest?a=b"),
        (b"POST", b"/api/blobs/sha256:ab/", 307, b"/api/blobs/sha256:ab"),
        (b"DELETE", b"/api/user/keys/x%20y/", 307, b"/api/user/keys/x%20y"),
    ],
)
def test_a_slash_too_many_is_redirected_as_the_router_does(
    method: bytes, target: bytes, status: int, location: bytes
) -> None:
    assert classify(method, target) == Redirect(status, location)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/chat/"),
        ("POST", "/nonsense/"),
        ("POST", "/v1/messages/x/"),
        ("POST", "/v1/responses/compact/"),
        ("POST", "/v1/images/edits/"),
    ],
)
def test_a_slash_at_the_end_of_no_route_goes_through(method: str, target: str) -> None:
    assert lane(method, target) is Lane.METADATA


#: Whoever reads a path in one of these ways finds Ollama's own proxy, which takes foreman for a caller on its machine.
CODEX = [
    "/api/codex",
    "/api/codex/",
    "/api/codex/_health",
    "/api/codex/api/delete?x=1",
    "/api/codex?x",
    "/API/Codex/v1/responses",
    "/api/%63odex/v1/responses",
    "/%61%70%69%2f%63%6f%64%65%78%2fapi/chat",
    "/api%2Fcodex",
    "/api/%2563odex/api/chat",
    "/api/%252563odex",
    "//api/codex/api/chat",
    "/api//codex/api/chat",
    "/api/./codex/api/chat",
    "/x/../api/codex/api/chat",
    "/api/x/../codex/api/chat",
    "/api/x/%2e%2e/codex/api/chat",
    "/api/x%2f..%2fcodex/api/chat",
    "/api/codex/../codex/api/chat",
    "/api/codex/../../api/tags",
    "/api/chat/../codex",
    "/api\\codex\\api\\chat",
    "/api/codex%5capi",
    "/api;x=1/codex;y=2/api/chat",
    "/api/codex%3Fx",
    "/api/codex%23x",
    "/api/codex%20/x",
    "/v1/../api/codex",
    "/v1/messages/../../api/codex/v1/messages",
    "/behind/a/proxy/api/codex/x",
    "/k/b/api/codex/x",
]


@pytest.mark.parametrize("target", CODEX)
@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"get", b"QUERY"]
)
def test_nobody_reaches_ollamas_own_proxy_in_any_spelling(method: bytes, target: str) -> None:
    assert classify(method, target.encode()) is CLOSED


@given(st.lists(st.sampled_from(["%%%02x", "%%%02X", "%%25%02x", "%c"]), min_size=30, max_size=30), st.data())
def test_no_way_of_escaping_opens_ollamas_own_proxy(written: list[str], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(["api/codex/api/chat", "./api//codex", "x/../api/codex/x", "Api/CODEX/v1/x"]))
    escaped = "".join(how % ord(letter) for how, letter in zip(written, path, strict=False))
    assert classify(b"POST", b"/" + escaped.encode()) is CLOSED


def test_a_path_of_countless_segments_is_not_read_for_ollamas_own_proxy() -> None:
    for path in (b"/codex" * 10_000, b"/../api/./codes" * 4_000 + b"/codex", b"/%25" * 10_000 + b"/codex"):
        assert classify(b"POST", path) is CLOSED


def test_the_targets_own_path_counts_for_what_nobody_reaches() -> None:
    assert classify(b"POST", b"/codex/api/chat", b"/api") is CLOSED
    assert classify(b"POST", b"/api/codex/api/chat", b"/ollama") is CLOSED
    assert isinstance(classify(b"POST", b"/codex/api/chat", b"/ollama"), Route)


@pytest.mark.parametrize(
    "target",
    [
        b"/api/chat?x=/api/codex/",
        b"/api/codexes",
        b"/api/x/codex",
        b"/codex/api",
        b"/v1/models/codex",
        b"/v1/models/api%3Acodex",
        b"/api/blobs/codex",
    ],
)
def test_what_only_looks_like_ollamas_own_proxy_goes_its_way(target: bytes) -> None:
    assert isinstance(classify(b"POST", target), Route)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/healthz", ("HEAD", "GET")),
        ("/queue", ("HEAD", "GET")),
        ("/queue/01J", ("DELETE",)),
        ("/queue/01J/x", ()),
        ("/openapi.json", ("HEAD", "GET")),
        ("/jobs", ("HEAD", "GET", "POST", "DELETE")),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "get", "PROPFIND"])
def test_foremans_own_routes_are_its_own_whatever_the_method(method: str, path: str, methods: tuple[str, ...]) -> None:
    assert lane(method, path) is Lane.FOREMAN
    assert allowed_methods(path) == methods


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"api/chat",
        b"@evil.example/x",
        b"/a b",
        b"/a\tb",
        b"/a\r\nX: y",
        b"/a\0",
        b"/a\x7f",
        b"/a?b\x01",
        b"/api/pull#x",
        b"/%",
        b"/%4",
        b"/%zz",
        b"/%u0041",
        b"/a%00",
        b"/a%0d%0a",
        b"/a%7F",
        b"/\xff",
        b"/%ff",
        b"http://evil.example/api/chat",
        b"foo:bar",
    ],
)
def test_what_is_no_path_is_refused(target: bytes) -> None:
    assert classify(b"GET", target) == BAD_REQUEST


@pytest.mark.parametrize(
    "target",
    [
        b"/api/%2e%2e/api/pull",
        b"/x%2f..%2fapi%2fpull",
        b"/api/.%2e/api/pull",
        b"/%2fapi/pull",
        b"/api%2f%2fpull",
        b"/%2e/api/pull",
        b"/v1/models/%2e%2e",
    ],
)
def test_escaped_dots_and_slashes_that_something_else_might_resolve_are_refused(target: bytes) -> None:
    assert classify(b"POST", target) == NOT_FOUND


@pytest.mark.parametrize(
    "target",
    [
        b"/%6b/0123456789abcdef/api/chat",
        b"/k%2f0123456789abcdef/api/chat",
        b"//k/0123456789abcdef/api/chat",
        b"/k//0123456789abcdef/api/chat",
        b"/%2e/../k/0123456789abcdef/api/chat",
        b"/x/../%6b/0123456789abcdef//api/chat",
        b"/k/",
    ],
)
def test_a_token_that_is_hidden_in_the_path_goes_nowhere(target: bytes) -> None:
    assert take_prefix(target) == (None, target)
    assert classify(b"POST", target) == NOT_FOUND


@pytest.mark.parametrize("token", [b"\0", b"a\rb", b"a b", b"\x7f", b"a#b"])
def test_a_token_of_no_visible_letters_is_none(token: bytes) -> None:
    target = b"/k/" + token + b"/api/chat"
    assert take_prefix(target) == (None, target)
    assert classify(b"POST", target) == BAD_REQUEST


@pytest.mark.parametrize(
    ("target", "location"), [(b"/k/../api/chat", b"/api/chat"), (b"/k/./x", None), (b"/k/..", b"/")]
)
def test_a_dot_segment_is_no_token(target: bytes, location: bytes | None) -> None:
    assert take_prefix(target) == (None, target)
    assert classify(b"POST", target) == (NOT_FOUND if location is None else Redirect(307, location))


def test_nobody_gets_a_tunnel() -> None:
    assert classify(b"CONNECT", b"example.com:443") == NOT_FOUND
    assert classify(b"CONNECT", b"/api/chat") == NOT_FOUND


def test_the_options_of_the_whole_server_go_through() -> None:
    assert classify(b"OPTIONS", b"*") == Route(Lane.METADATA, "ollama", "*")


@pytest.mark.parametrize(
    ("target", "token", "rest"),
    [
        (b"/k/s3cret/api/chat", b"s3cret", b"/api/chat"),
        (b"/k/s3cret/api/chat?a=/k/b/", b"s3cret", b"/api/chat?a=/k/b/"),
        (b"/k/s3cret", b"s3cret", b"/"),
        (b"/k/s3cret/", b"s3cret", b"/"),
        (b"/k/s3cret?x", b"s3cret", b"/?x"),
        (b"/k/s3%63ret/x", b"s3cret", b"/x"),
        (b"/k/s3cret//api/chat", b"s3cret", b"//api/chat"),
        (b"/k/a/k/b/api/chat", b"a", b"/k/b/api/chat"),
        (b"/api/chat", None, b"/api/chat"),
        (b"/k", None, b"/k"),
        (b"/kk/s3cret/x", None, b"/kk/s3cret/x"),
        (b"", None, b""),
    ],
)
def test_a_credential_in_front_of_the_path_is_taken_off(target: bytes, token: bytes | None, rest: bytes) -> None:
    assert take_prefix(target) == (token, rest)


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        (b"http://127.0.0.1:11434/api/version", b"/api/version"),
        (b"HTTPS://[::1]:8080/k/t/api?x", b"/k/t/api?x"),
        (b"http://example.com", b"/"),
        (b"http://example.com?x", b"/?x"),
        (b"http:///api/tags", b"/api/tags"),
        (b"http://a//api/tags", b"//api/tags"),
        (b"/http://a/b", b"/http://a/b"),
        (b"http://user@example.com/x", b"http://user@example.com/x"),
        (b"http://a:b/x", b"http://a:b/x"),
        (b"http:/x", b"http:/x"),
        (b"ftp://a/x", b"ftp://a/x"),
    ],
)
def test_a_target_in_absolute_form_is_read_for_its_path(target: bytes, rest: bytes) -> None:
    assert origin_form(target) == rest
    assert origin_form(rest) == rest


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", "HEAD, GET"),
        ("/api/chat", "POST"),
        ("/api/ps", "GET"),
        ("/api/blobs/sha256:00", "HEAD, POST"),
        ("/v1/models/m", "GET"),
        ("/api/blobs/", ""),
        ("/api/blobs/a/b", ""),
        ("/nonsense", ""),
    ],
)
def test_a_route_knows_its_methods(path: str, methods: str) -> None:
    assert ", ".join(allowed_methods(path)) == methods


def test_a_405_of_the_target_names_the_methods_that_foreman_knows() -> None:
    for name in recordings.names():
        recording = recordings.load(name)
        headers = dict(recording["response"]["headers"])
        if recording["response"]["status"] == 405 and recording["request"]["method"] != "CONNECT":
            assert ", ".join(allowed_methods(recording["request"]["path"])) == headers["Allow"], name


def test_every_recorded_route_has_a_way() -> None:
    for name in recordings.names():
        said = recordings.load(name)["request"]
        found = classify(said["method"].encode(), origin_form(said["path"].encode()))
        if name.startswith("codex-"):
            assert found is CLOSED, name
        else:
            assert isinstance(found, Route) or name.startswith(("path-", "slash-", "wire-connect")), name


SEGMENTS = st.sampled_from(
    [
        *rb'api pull chat v1 k t . .. ... %2e %2E. %2f a%2fb % %4 %00 %20 %ff " [1] ~ ; \ #'.split(),
        "é".encode(),
        b"",
        b" ",
    ]
)
TARGETS = st.one_of(
    st.binary(max_size=30).map(lambda rest: b"/" + rest),
    st.lists(SEGMENTS, max_size=6).map(lambda segments: b"/" + b"/".join(segments)),
)


@given(st.sampled_from([b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS"]), TARGETS)
def test_what_goes_through_means_the_same_everywhere(method: bytes, target: bytes) -> None:
    found = classify(method, target)
    if isinstance(found, Redirect):
        assert found.location.startswith(b"/")
        assert not found.location.startswith((b"//", b"/\\"))
        assert found.location.isascii()
        assert not any(byte <= 0x20 for byte in found.location)
    if isinstance(found, Route):
        raw = target.partition(b"?")[0]
        assert found.path.encode() == unquote_to_bytes(raw)
        segments = found.path.split("/")[1:]
        assert not {"", ".", ".."} & set(segments[:-1])
        assert segments[-1] not in {".", ".."}
        assert segments[0] != "k" or len(segments) == 1
        # Somebody who decodes again, or not at all, sees no stricter lane than foreman.
        strict = {path for path in (*GATE, *EMBEDDING, *MANAGEMENT) if raw == path.encode()}
        assert not strict or method != b"POST" or found.lane in STRICT


@given(TARGETS)
def test_a_redirect_leads_to_an_end(target: bytes) -> None:
    found = classify(b"GET", target)
    for _ in range(3):
        if not isinstance(found, Redirect):
            return
        found = classify(b"GET", found.location)
    pytest.fail(f"{target!r} leads to {found}")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda name: name not in {".", ".."}))
def test_a_model_is_found_under_any_name_that_is_written_out(name: str) -> None:
    found = classify(b"GET", b"/v1/models/" + quote_from_bytes(name.encode(), safe=b"").encode())
    assert found == NOT_FOUND or isinstance(found, Redirect | Route)
    if "/" not in name:
        assert found == Route(Lane.METADATA, "openai", f"/v1/models/{name}")


# --- held against a plain reading of Go's rules ---

HEX = b"0123456789abcdefABCDEF"
#: What Go leaves unescaped in a path (net/url, validEncoded).
PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@[]/%"


def go_routes(target: bytes) -> bytes | None:
    """The path that Ollama's router looks up; None where Go answers before it."""
    if any(byte <= 0x20 or byte == 0x7F for byte in target) or not target.startswith(b"/"):
        return None
    raw = target.split(b"?", 1)[0]
    decoded, at = b"", 0
    while at < len(raw):
        if raw[at] == 0x25:
            digits = raw[at + 1 : at + 3]
            if len(digits) < 2 or digits[0] not in HEX or digits[1] not in HEX:
                return None
            decoded, at = decoded + bytes([int(digits, 16)]), at + 3
        else:
            decoded, at = decoded + raw[at : at + 1], at + 1
    as_cleaned = raw if all(byte in PLAIN for byte in raw) else decoded
    *inner, last = as_cleaned.split(b"/")[1:]
    return None if {b"", b".", b".."} & {*inner, last or b"last"} else decoded


@st.composite
def spellings(draw: st.DrawFn) -> bytes:
    """A request-target that may or may not mean one of the routes that foreman must not let slip by."""
    letters = st.sampled_from(["%c"] * 90 + ["%%%02x", "%%%02X"] * 5 + ["%%25%02x"])
    border = st.sampled_from(
        ["/"] * 60 + ["//", "/./", "/x/../", "/../", "%2f", "%2F%2F", "/%2e/", "/.%2e/", "\\", "%5c"]
    )
    written = ""
    for segment in draw(st.sampled_from([*GATE, *EMBEDDING, *MANAGEMENT])).split("/")[1:]:
        written += draw(border) + "".join(draw(letters) % ord(letter) for letter in segment)
    front = draw(
        st.sampled_from(
            [""] * 5 + ["http://h:1", "HTTP://[::1]", "/k/t0ken", "http://h/k/t0ken", "/k/a/k/b", "/k/%2e%2e"]
        )
    )
    back = draw(
        st.sampled_from(
            [""] * 5 + ["?a=/../b", "?", "/", "//", "/.", "%2f", "%00", "%", ";x", "#x", '"', " ", "\t", "%20"]
        )
    )
    return (front + written + back).encode("latin-1")


@given(spellings())
def test_no_spelling_slips_past_the_gate_or_the_guard(target: bytes) -> None:
    """Whatever Ollama would take for a guarded route is guarded, or does not reach it."""
    _, rest = take_prefix(origin_form(target))
    found = classify(b"POST", rest)
    routed = go_routes(rest)
    if isinstance(found, Route):
        assert found.path.encode() == routed
        assert not found.path.startswith("/k/")
    for path in (*GATE, *EMBEDDING, *MANAGEMENT):
        if routed == path.encode():
            assert isinstance(found, Route)
            assert found.lane is lane("POST", path)
