"""The connection under treq: bytes out and in as they are, and every way an answer can break."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import ISSLTransport, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from zope.interface import directlyProvides, implementer

from foreman import errors
from foreman.target.agent import OneShotAgent, head_bytes
from foreman.target.connection import MAX_FRAMING, MAX_HEAD, TargetResponse
from support import recordings

HEAD = head_bytes(b"POST", b"/api/chat?x=%5B1%5D&y=[2]", [(b"Host", b"target"), (b"x-CASED", b"Yes")])


class Aborting(StringTransport):
    """A transport that tells its protocol, as TCP does, when it is aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Collected(Protocol):
    """A body, and how it ended."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.reason: Failure | None = None
        self.reasons: list[object] = []

    def dataReceived(self, data: bytes) -> None:
        self.data.append(data)

    def connectionLost(self, reason: Failure = ...) -> None:  # type: ignore[assignment]
        self.reason = reason
        self.reasons.append(type(reason.value))


@implementer(IStreamClientEndpoint)
class Memory:
    """An endpoint whose connection is in memory."""

    def __init__(self) -> None:
        self.transport = Aborting()
        self.connection: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.connection = factory.buildProtocol(None)
        self.connection.makeConnection(self.transport)
        done: Deferred[Any] = Deferred()
        done.callback(self.connection)
        return done


class Asked:
    """One request through treq, and what came of it."""

    def __init__(self, method: str = "POST", body: Any = b"") -> None:
        self.endpoint = Memory()
        self.results: list[Any] = []
        self.asking = HTTPClient(OneShotAgent(self.endpoint, HEAD, body)).request(
            method, "http://target/", unbuffered=True, allow_redirects=False, reactor=cast("Any", Clock())
        )
        self.asking.addBoth(self.results.append)
        self.body = Collected()

    def hear(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.endpoint.connection.dataReceived(piece)

    def lose(self, reason: Exception | None = None) -> None:
        self.endpoint.connection.connectionLost(Failure(reason or error.ConnectionDone()))

    @property
    def has_answer(self) -> bool:
        return bool(self.results) and not isinstance(self.results[0], Failure)

    @property
    def answer(self) -> TargetResponse:
        answer = self.results[0].original
        assert isinstance(answer, TargetResponse)
        return answer

    def collect(self) -> Collected:
        self.answer.deliverBody(self.body)
        return self.body

    @property
    def problem(self) -> errors.ConnectionError:
        problem = self.results[0].value
        assert isinstance(problem, errors.ConnectionError)
        return problem


def test_the_bytes_that_go_out_are_those_that_were_prepared() -> None:
    asked = Asked(body=b'{"model":"m"}')
    assert asked.endpoint.transport.value() == HEAD + b'{"model":"m"}'
    assert b"/api/chat?x=%5B1%5D&y=[2] HTTP/1.1\r\nHost: target\r\nx-CASED: Yes\r\n\r\n" in HEAD


def test_the_head_comes_back_as_it_was_written_and_compressed_bodies_stay_so() -> None:
    asked = Asked()
    asked.hear(
        b"HTTP/1.1 200 Fine\r\ncontent-ENCODING: gzip\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"
    )
    assert asked.answer.code == 200
    assert asked.answer.phrase == b"Fine"
    assert asked.answer.raw_headers[:2] == [(b"content-ENCODING", b"gzip"), (b"Set-Cookie", b"a=b")]
    body = asked.collect()
    assert body.data == [b"\x1f\x8b\x08"]
    assert body.reason is not None
    assert body.reason.check(ResponseDone)


def test_a_chunked_body_is_whole_at_its_last_chunk_and_the_connection_is_closed() -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = asked.collect()
    asked.hear(b"3\r\nabc\r\n", b"2\r\nd", b"e\r\n0\r\n\r\n")
    assert b"".join(body.data) == b"abcde"
    assert body.reason is not None
    assert body.reason.check(ResponseDone)
    assert asked.endpoint.transport.disconnecting


def test_interim_answers_are_passed_over() -> None:
    asked = Asked()
    asked.hear(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    )
    assert asked.answer.code == 204
    assert asked.answer.raw_headers == []
    assert asked.answer.phrase == b"No Content"


def test_a_head_request_has_no_body_whatever_its_length_says() -> None:
    asked = Asked(method="HEAD")
    asked.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n")
    body = asked.collect()
    assert body.reason is not None
    assert body.reason.check(ResponseDone)


@pytest.mark.parametrize(
    ("head", "reason", "ending"),
    [
        (b"Content-Length: 9\r\n", error.ConnectionDone(), ResponseFailed),
        (b"Transfer-Encoding: chunked\r\n", error.ConnectionDone(), ResponseFailed),
        (b"", error.ConnectionDone(), PotentialDataLoss),
        (b"", error.ConnectionLost(), ResponseFailed),
    ],
)
def test_the_reader_is_told_whether_a_body_that_ended_early_could_be_whole(
    head: bytes, reason: Exception, ending: type[Exception]
) -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
    body = asked.collect()
    asked.lose(reason)
    assert body.reason is not None
    assert body.reason.check(ending)


def test_a_chunk_that_is_not_one_cuts_the_body() -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    body = asked.collect()
    asked.hear(b"zz\r\n")
    assert body.data == [b"abc"]
    assert body.reason is not None
    assert body.reason.check(ResponseFailed)


def test_bytes_behind_a_whole_answer_are_nobodys() -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nsmuggled")
    body = asked.collect()
    assert body.data == [b"ok"]
    assert body.reason is not None
    assert body.reason.check(ResponseDone)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 000 None\r\n\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_not_http_is_named_and_closed(garbage: bytes) -> None:
    asked = Asked()
    asked.hear(garbage)
    assert asked.problem.why == "garbage"
    assert asked.endpoint.transport.aborted


@pytest.mark.parametrize("flood", [b"HTTP/1.1 102 Processing\r\n\r\n", b"X-Header: value\r\n"])
def test_a_head_without_end_is_given_up(flood: bytes) -> None:
    asked = Asked()
    if flood.startswith(b"X"):
        asked.hear(b"HTTP/1.1 200 OK\r\n")
    for _ in range(MAX_HEAD // len(flood) + 1):
        asked.hear(flood)
    assert asked.problem.why == "garbage"


def test_a_trailer_is_no_header() -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: late=1\r\n\r\n")
    body = asked.collect()
    assert asked.answer.raw_headers == [(b"Transfer-Encoding", b"chunked")]
    assert body.data == [b"ok"]
    assert body.reason is not None
    assert body.reason.check(ResponseDone)


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"0\r\n", b"X-Trailer: " + b"a" * 1000 + b"\r\n"),
        (b"0\r\nX-Trailer: ", b"a" * 1000),
        (b"1;", b"extension" * 100),
    ],
)
def test_framing_without_end_cuts_the_body(beginning: bytes, more: bytes) -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    body = asked.collect()
    asked.hear(beginning)
    for _ in range(MAX_FRAMING // len(more) + 1):
        asked.hear(more)
    assert body.reason is not None
    assert body.reason.check(ResponseFailed)


def test_a_long_answer_in_tiny_packets_is_not_taken_for_framing_without_end() -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = asked.collect()
    for _ in range(MAX_FRAMING // 3):
        asked.hear(b"1\r\n", b"x\r\n")
    asked.hear(b"0\r\n\r\n")
    assert body.reason is not None
    assert body.reason.check(ResponseDone)


def test_a_target_that_does_not_read_a_large_request_is_not_waited_for_once_it_has_answered() -> None:
    for body, aborted in ((b"x" * 100, False), (b"x" * 100_000, True)):
        asked = Asked(body=body)
        asked.hear(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        assert asked.collect().data == [b"no"]
        assert asked.endpoint.transport.aborted is aborted
        assert asked.endpoint.transport.disconnecting is not aborted


def test_a_connection_under_tls_is_not_kept_for_a_farewell() -> None:
    asked = Asked()
    directlyProvides(asked.endpoint.transport, ISSLTransport)
    asked.hear(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert asked.endpoint.transport.aborted


def test_a_connection_that_closes_without_an_answer_says_so() -> None:
    asked = Asked()
    asked.lose()
    assert asked.problem.why == "reset"


def test_leaving_before_the_head_closes_the_connection() -> None:
    asked = Asked()
    asked.asking.cancel()
    assert asked.endpoint.transport.aborted
    assert asked.results[0].check(CancelledError)
    asked.lose(error.ConnectionAborted())


def test_leaving_while_connecting_gives_the_attempt_up() -> None:
    given_up: list[object] = []

    @implementer(IStreamClientEndpoint)
    class Slow:
        def connect(self, factory: Any) -> Deferred[Any]:
            def give_up(connecting: Deferred[Any]) -> None:
                given_up.append(connecting)
                connecting.errback(error.ConnectingCancelledError(None))

            return Deferred(give_up)

    results: list[Any] = []
    asking = OneShotAgent(Slow(), HEAD, b"").request(b"GET", b"http://target/")
    asking.addBoth(results.append)
    asking.cancel()
    assert len(given_up) == 1
    assert results[0].check(CancelledError)


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (error.ConnectionRefusedError(), "refused"),
        (error.TimeoutError(), "timeout"),
        (error.TCPTimedOutError(), "timeout"),
        (error.DNSLookupError("nowhere"), "dns"),
        (error.NoRouteError(), "refused"),
    ],
)
def test_why_the_target_cannot_be_reached_is_one_word(reason: Exception, why: str) -> None:
    @implementer(IStreamClientEndpoint)
    class Unreachable:
        def connect(self, factory: Any) -> Deferred[Any]:
            return fail(reason)

    results: list[Any] = []
    OneShotAgent(Unreachable(), HEAD, b"").request(b"GET", b"http://target/").addBoth(results.append)
    assert results[0].value.why == why


def test_a_body_that_comes_before_its_reader_waits_for_it() -> None:
    asked = Asked()
    asked.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert asked.endpoint.transport.producerState == "paused"
    body = asked.collect()
    assert body.data == [b"abc"]
    assert asked.endpoint.transport.producerState == "producing"


# however it comes

RECORDED = ("chat-stream", "chat-nonstream", "v1-chat-stream", "messages-stream", "delete-ok", "chat-missing-model")


def heard_in_pieces(data: bytes, cuts: list[int], *, reader_at: int = 0) -> Asked:
    """A target's bytes, cut at ``cuts``, then the end of the connection; the reader comes after ``reader_at`` pieces."""
    asked = Asked()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for number, (start, end) in enumerate(pairwise(places)):
        asked.hear(data[start:end])
        if number >= reader_at and asked.has_answer and asked.body.transport is None:
            asked.collect()
    if asked.has_answer and asked.body.transport is None:
        asked.collect()
    asked.lose()
    return asked


@given(name=st.sampled_from(RECORDED), cuts=st.lists(st.integers(0, 5000), max_size=20), reader_at=st.integers(0, 20))
def test_it_makes_no_difference_in_which_packets_an_answer_comes(name: str, cuts: list[int], reader_at: int) -> None:
    recording = recordings.load(name)
    asked = heard_in_pieces(recordings.response_bytes(recording), cuts, reader_at=reader_at)
    assert asked.answer.code == recording["response"]["status"]
    assert b"".join(asked.body.data) == recordings.as_bytes(recording["response"]["body"])
    assert asked.body.reasons == [ResponseDone]


@given(
    name=st.sampled_from(RECORDED),
    spoiling=st.lists(
        st.tuples(st.integers(0, 5000), st.binary(max_size=4), st.integers(0, 6)), min_size=1, max_size=4
    ),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
)
def test_whatever_a_target_says_the_answer_ends_once_and_nothing_is_thrown(
    name: str, spoiling: list[tuple[int, bytes, int]], cuts: list[int]
) -> None:
    data = recordings.response_bytes(recordings.load(name))
    for place, put, taken in spoiling:
        at = place % len(data)
        data = data[:at] + put + data[at + taken :] or b"\0"
    asked = heard_in_pieces(data, cuts)
    assert len(asked.results) == 1
    if asked.has_answer:
        assert 200 <= asked.answer.code < 600
        assert len(asked.body.reasons) == 1
    else:
        assert asked.problem.why in ("garbage", "reset")
