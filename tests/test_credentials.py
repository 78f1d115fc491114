"""Which credential a request carries."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.auth.credentials import InvalidCredential, credential, without_copies

TOKEN = b"correct-horse-battery"


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer " + TOKEN,
        b"bearer " + TOKEN,
        b"BEARER   " + TOKEN,
        b" bEaReR " + TOKEN + b" ",
        basic(b"alice:" + TOKEN),
        basic(b":" + TOKEN),
        basic(b"x:" + TOKEN).replace(b"Basic", b"BASIC"),
    ],
)
def test_a_token_may_come_in_authorization(value: bytes) -> None:
    assert credential(None, [value], []) == TOKEN


def test_a_token_may_come_as_an_api_key_or_in_the_path() -> None:
    assert credential(None, [], [TOKEN]) == TOKEN
    assert credential(None, [], [b" " + TOKEN]) == TOKEN
    assert credential(TOKEN, [], []) == TOKEN


def test_a_password_may_have_colons() -> None:
    assert credential(None, [basic(b"alice:a:b")], []) == b"a:b"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic",
        b"Basic !!!",
        b"Basic " + base64.b64encode(b"alice:"),
        b"Basic " + base64.b64encode(b"no colon"),
        b"Digest username=alice",
        b"AAAAC3Nza:c2lnbmF0dXJl",  # the signature of OLLAMA_AUTH
        TOKEN,
    ],
)
def test_what_is_no_credential_of_a_known_kind_counts_as_none(value: bytes) -> None:
    assert credential(None, [value], [b"", b" "]) is None


def test_the_same_credential_may_stand_in_every_place() -> None:
    assert credential(TOKEN, [b"Bearer " + TOKEN, basic(b"x:" + TOKEN)], [TOKEN, TOKEN]) == TOKEN


@pytest.mark.parametrize(
    ("prefix", "authorization", "api_key"),
    [
        (TOKEN, [b"Bearer x"], []),
        (TOKEN, [], [b"x"]),
        (None, [b"Bearer " + TOKEN, b"Bearer x"], []),
        (None, [b"Bearer " + TOKEN, basic(b"a:b")], []),
        (None, [b"Bearer " + TOKEN], [b"x"]),
        (None, [], [TOKEN, b"x"]),
        (b"short", [b"Bearer " + TOKEN], []),
    ],
)
def test_two_credentials_that_differ_are_none(
    prefix: bytes | None, authorization: list[bytes], api_key: list[bytes]
) -> None:
    with pytest.raises(InvalidCredential, match="differ"):
        credential(prefix, authorization, api_key)


@pytest.mark.parametrize(
    "prefix", [b"short", b"fifteen-letters", b"sixteen letters!", b"a" * 15 + b"\xff", b"a" * 20 + b"/", b""]
)
def test_a_token_in_the_path_must_fit_there(prefix: bytes) -> None:
    with pytest.raises(InvalidCredential, match="16 letters"):
        credential(prefix, [], [])


def test_sixteen_letters_fit() -> None:
    assert credential(b"aZ0._~-aZ0._~-xx", [], []) == b"aZ0._~-aZ0._~-xx"


@given(st.lists(st.binary(max_size=60), max_size=4), st.lists(st.binary(max_size=30), max_size=3))
def test_no_header_can_upset_it(authorization: list[bytes], api_key: list[bytes]) -> None:
    try:
        given_one = credential(None, authorization, api_key)
    except InvalidCredential:
        return
    assert given_one is None or given_one != b""


def test_what_repeats_the_token_is_left_out_whatever_it_is_called() -> None:
    needed = [(b"Host", TOKEN), (b"Content-Length", b"2"), (b"Authorization", b"Bearer " + TOKEN)]
    copies = [
        (b"Content-Type", b"application/json; x=" + TOKEN),
        (b"Content-Encoding", TOKEN),
        (b"Referer", b"http://x/?k=" + TOKEN),
        (TOKEN, b"1"),
    ]
    assert without_copies([*needed, *copies, (b"Accept", b"*/*")], TOKEN) == [*needed, (b"Accept", b"*/*")]
    assert without_copies(copies, b"short") == copies
