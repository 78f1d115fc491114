"""One answer on its way to one reader: pace, silence, stalling, and endings."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss

from foreman import errors
from foreman.protocol.answer_end import answer_end
from foreman.protocol.framing import LONGEST_LINE, BodyFraming, framer_for
from foreman.proxy.relay import MAX_KEPT, LastPieces, Limits, Relay
from foreman.util.byte_budget import ByteBudget

LINE = b'{"done":false,"message":{"content":"word"}}\n'
LAST = b'{"done":true,"prompt_eval_count":3,"eval_count":2,"eval_duration":500000000}\n'


class HeardReader:
    """A reader that remembers what it was told."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.transition: str | errors.ForemanError = ""
        self.between_pieces: bool | None = None
        self.producer: Any = None

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def finish(self) -> None:
        self.transition = "finished"

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        self.transition, self.between_pieces = problem, between_pieces

    def set_producer(self, producer: Any) -> None:
        self.producer = producer


class Answering:
    """A target that is answering, as the relay sees it."""

    def __init__(
        self, buffer: int = 1000, shared: int = 1_000_000, kind: BodyFraming = "ndjson", path: str | None = None
    ) -> None:
        self.clock = Clock()
        self.reader = HeardReader()
        self.transport = StringTransport()
        self.aborted = False
        self.shared = ByteBudget(shared)
        self.relay = Relay(
            self.clock,
            self,  # type: ignore[arg-type]
            self.reader,
            framer_for(kind),
            lambda last: answer_end(kind, last, path),
            Limits(buffer, silence=600, stall=60),
            self.shared,
            LastPieces(1 if kind == "ndjson" else 2),
            path is not None,
        )
        self.answered: list[object] = []
        self.outcomes: list[object] = []
        self.relay.answered.addBoth(self.answered.append)
        self.relay.sent.addBoth(self.outcomes.append)
        self.relay.makeConnection(self.transport)

    def abort(self) -> None:
        self.aborted = True

    def say(self, data: bytes) -> None:
        self.relay.dataReceived(data)

    def end(self, reason: Exception | None = None) -> None:
        self.relay.connectionLost(Failure(reason or ResponseDone()))


@pytest.fixture
def answering() -> Answering:
    return Answering()


def test_each_line_is_one_write_and_the_last_one_ends_the_answer(answering: Answering) -> None:
    answering.say(LINE + LINE[:10])
    answering.say(LINE[10:] + LAST)
    answering.end()
    assert answering.reader.pieces == [LINE, LINE, LAST]
    assert answering.reader.transition == "finished"
    assert answering.outcomes == ["complete"]
    assert answering.relay.end is not None
    assert answering.relay.end.completion_tokens == 2
    assert answering.clock.getDelayedCalls() == []
    assert answering.reader.producer is None


def test_a_slow_reader_holds_neither_the_target_nor_the_turn(answering: Answering) -> None:
    answering.say(LINE)
    answering.relay.pauseProducing()
    answering.say(LINE * 5 + LAST)
    answering.end()
    assert answering.transport.producerState == "producing"
    assert answering.answered == [None]
    assert answering.reader.pieces == [LINE]
    assert answering.outcomes == []
    answering.relay.resumeProducing()
    assert answering.reader.pieces == [LINE] * 6 + [LAST]
    assert answering.outcomes == ["complete"]
    assert answering.shared.used == 0


def test_a_reader_that_pauses_again_while_it_is_fed_gets_the_rest_later(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 3)
    taken: list[bytes] = []

    def write(piece: bytes) -> None:
        taken.append(piece)
        answering.relay.pauseProducing()

    answering.reader.write = write  # type: ignore[method-assign]
    answering.relay.resumeProducing()
    assert taken == [LINE]
    answering.relay.resumeProducing()
    assert taken == [LINE, LINE]


def test_a_full_buffer_pauses_the_target_until_the_reader_has_taken_half(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 30)
    assert answering.transport.producerState == "paused"
    answering.relay.resumeProducing()
    assert answering.transport.producerState == "producing"
    assert answering.reader.pieces == [LINE] * 30


def test_all_relays_together_have_a_bound() -> None:
    answering = Answering(buffer=1_000_000, shared=100)
    answering.relay.pauseProducing()
    answering.say(LINE * 5)
    assert answering.transport.producerState == "paused"


def test_a_reader_that_takes_nothing_while_the_buffer_is_full_is_cut_off_after_the_stall_limit(
    answering: Answering,
) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 30)
    answering.clock.advance(59)
    assert answering.answered == []
    answering.clock.advance(1)
    assert isinstance(answering.reader.transition, errors.ReaderStalled)
    assert answering.aborted
    assert answering.answered == [None]
    assert answering.outcomes == ["client left"]
    assert answering.shared.used == 0


def test_a_reader_that_takes_a_little_now_and_then_is_not_cut_off(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 60)
    answering.reader.write = lambda piece: answering.relay.pauseProducing()  # type: ignore[method-assign]
    for _ in range(10):
        answering.clock.advance(50)
        answering.relay.resumeProducing()
    assert answering.reader.transition == ""


def test_a_reader_that_never_takes_the_rest_of_a_whole_answer_is_cut_off_too(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE + LAST)
    answering.end()
    assert answering.answered == [None]
    answering.clock.advance(60)
    assert isinstance(answering.reader.transition, errors.ReaderStalled)
    assert answering.shared.used == 0


def test_a_target_that_says_nothing_between_lines_is_given_up(answering: Answering) -> None:
    answering.say(LINE)
    answering.clock.advance(599)
    answering.say(LINE)
    answering.clock.advance(599)
    assert answering.reader.transition == ""
    answering.clock.advance(1)
    assert isinstance(answering.reader.transition, errors.ConnectionError)
    assert answering.reader.transition.why == "silence"
    assert answering.aborted
    assert answering.outcomes == ["target failed"]


def test_a_pause_of_foreman_is_no_silence_of_the_target_and_no_stalling_of_the_reader(answering: Answering) -> None:
    answering.say(LINE)
    answering.clock.advance(5000)
    answering.clock.advance(1)  # its first turn after the pause reads what came meanwhile
    answering.say(LINE)
    answering.relay.pauseProducing()
    answering.say(LINE * 60)
    answering.clock.advance(500)
    answering.clock.advance(1)
    answering.relay.resumeProducing()
    answering.say(LAST)
    answering.end()
    assert answering.reader.transition == "finished"
    assert answering.clock.getDelayedCalls() == []


def test_a_line_costs_no_timer(answering: Answering) -> None:
    timers = answering.clock.getDelayedCalls()
    for _ in range(100):
        answering.clock.advance(0.01)
        answering.say(LINE)
    assert answering.clock.getDelayedCalls() == timers


def test_a_target_that_was_paused_is_not_silent(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 60)
    answering.reader.write = lambda piece: answering.relay.pauseProducing()  # type: ignore[method-assign]
    for _ in range(20):
        answering.clock.advance(50)
        answering.relay.resumeProducing()
    assert answering.reader.transition == ""


def test_a_torn_answer_is_broken_off_behind_its_last_whole_line(answering: Answering) -> None:
    answering.say(LINE + LINE[:20])
    answering.end(ResponseFailed([Failure(ConnectionLost())]))
    assert answering.reader.pieces == [LINE]
    assert isinstance(answering.reader.transition, errors.ConnectionError)
    assert answering.reader.between_pieces is True
    assert answering.outcomes == ["target failed"]


def test_a_torn_answer_reaches_a_slow_reader_before_it_is_broken_off(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 2)
    answering.end(ResponseFailed([Failure(ConnectionLost())]))
    assert answering.reader.transition == ""
    answering.relay.resumeProducing()
    assert answering.reader.pieces == [LINE, LINE]
    assert isinstance(answering.reader.transition, errors.ConnectionError)


def test_a_body_that_ends_with_its_connection_is_whole_only_with_an_end_marker() -> None:
    with_marker, without = Answering(), Answering()
    for answering in (with_marker, without):
        answering.say(LINE)
    with_marker.say(LAST)
    for answering in (with_marker, without):
        answering.end(PotentialDataLoss())
    assert with_marker.reader.transition == "finished"
    assert isinstance(without.reader.transition, errors.ConnectionError)


def test_half_a_line_of_a_body_that_ends_with_its_connection_is_not_passed_on(answering: Answering) -> None:
    answering.say(LINE + LINE[:20])
    answering.end(PotentialDataLoss())
    assert answering.reader.pieces == [LINE]
    assert answering.reader.between_pieces is True


def test_the_end_of_a_body_that_ends_with_its_connection_may_lack_its_newline(answering: Answering) -> None:
    answering.say(LINE + LAST[:-1])
    answering.end(PotentialDataLoss())
    assert answering.reader.pieces == [LINE, LAST[:-1]]
    assert answering.outcomes == ["complete"]


def test_whole_framing_passes_its_last_line_on_whatever_it_is(answering: Answering) -> None:
    answering.say(LINE + LINE[:20])
    answering.end()
    assert answering.reader.pieces == [LINE, LINE[:20]]
    assert answering.outcomes == ["incomplete"]


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (errors.ConnectionError("silence", "it said nothing"), "target failed"),
        (errors.ReaderStalled("it took nothing"), "client left"),
        (errors.Draining("foreman is stopping"), "stopped"),
        (errors.Cancelled("cancelled by hand"), "cancelled"),
        (errors.Revoked("the token of this request was revoked"), "cancelled"),
        (errors.QueueFull("512 chats wait already"), "refused"),
    ],
)
def test_who_is_to_blame_for_a_broken_answer(answering: Answering, problem: errors.ForemanError, outcome: str) -> None:
    answering.say(LINE + LINE[:3])
    answering.relay.fail(problem)
    assert (answering.reader.transition, answering.outcomes, answering.answered) == (problem, [outcome], [None])
    assert answering.aborted
    answering.relay.fail(errors.Draining("again"))
    assert answering.outcomes == [outcome]


def test_pieces_that_were_held_are_not_sent_after_an_answer_was_given_up(answering: Answering) -> None:
    answering.relay.pauseProducing()
    answering.say(LINE * 3)
    answering.relay.fail(errors.Draining("foreman is stopping"))
    assert answering.reader.between_pieces is True  # what was sent are whole lines, so that an error line can follow
    answering.relay.resumeProducing()
    assert answering.reader.pieces == []
    assert answering.shared.used == 0
    assert answering.clock.getDelayedCalls() == []


def test_an_unstreamed_answer_is_kept_to_be_judged_only_while_it_is_small() -> None:
    last = LastPieces(0)
    for _ in range(MAX_KEPT // 1024):
        last.add(b"x" * 1024)
    assert (last.too_large, len(last.joined())) == (False, MAX_KEPT)
    last.add(b"x")
    assert (last.too_large, last.joined()) == (True, b"")


def test_an_answer_without_end_marker_in_whole_framing_passes_as_it_is_and_counts_as_incomplete(
    answering: Answering,
) -> None:
    answering.say(LINE)
    answering.end()
    assert answering.reader.transition == "finished"
    assert answering.outcomes == ["incomplete"]


STREAMS: list[tuple[BodyFraming, str, bytes, bytes]] = [
    ("ndjson", "/api/chat", LINE, LAST),
    ("ndjson", "/api/generate", b'{"response":"a","done":false}\n', b'{"response":"","done":true}\n'),
    ("sse", "/v1/chat/completions", b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"),
    ("sse", "/v1/completions", b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"),
    *[
        ("sse", "/v1/responses", b'data: {"type":"response.created"}\n\n', b'data: {"type":"response.%b"}\n\n' % end)
        for end in (b"completed", b"incomplete", b"failed")
    ],
    ("sse", "/v1/messages", b'data: {"type":"ping"}\n\n', b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
]


@pytest.mark.parametrize(("kind", "path", "piece", "end"), STREAMS)
@pytest.mark.parametrize("behind", [b"", b"\n", b": one\n\n: two\n\n"])
def test_a_stream_with_its_end_marker_is_whole_whatever_comes_behind_it(
    kind: BodyFraming, path: str, piece: bytes, end: bytes, behind: bytes
) -> None:
    answering = Answering(kind=kind, path=path)
    for said in (piece, piece, end, *(part + b"\n\n" if part.strip() else part for part in behind.split(b"\n\n"))):
        if said and not (kind == "ndjson" and said.startswith(b":")):
            answering.say(said)
    answering.end()
    assert answering.reader.transition == "finished"
    assert answering.reader.pieces[:3] == [piece, piece, end]


@pytest.mark.parametrize(("kind", "path", "piece", "end"), STREAMS)
@pytest.mark.parametrize("half", [False, True])
def test_a_stream_that_ends_properly_without_its_end_marker_is_broken_off_between_pieces(
    kind: BodyFraming, path: str, piece: bytes, end: bytes, half: bool
) -> None:
    answering = Answering(kind=kind, path=path)
    answering.say(piece + piece + (end[: len(end) // 2] if half else b""))
    answering.end()
    assert b"".join(answering.reader.pieces) == piece + piece
    assert isinstance(answering.reader.transition, errors.ConnectionError)
    assert answering.reader.between_pieces is True
    assert answering.outcomes == ["target failed"]


def test_the_end_marker_of_another_route_is_none() -> None:
    for path in ("/v1/responses", "/v1/messages"):
        answering = Answering(kind="sse", path=path)
        answering.say(b"data: [DONE]\n\n")
        answering.end()
        assert answering.outcomes == ["target failed"]


@pytest.mark.parametrize("bad", [b"\\ud83d", b"\xff", b"\x00", b"\xed\xa0\xbd"])
def test_a_bad_character_in_the_last_piece_does_not_hide_the_end(bad: bytes) -> None:
    line = Answering(path="/api/chat")
    line.say(LINE + b'{"done":true,"eval_count":2,"message":{"content":"%b"}}\n' % bad)
    line.end()
    event = Answering(kind="sse", path="/v1/responses")
    usage = b'"usage":{"output_tokens":2}'
    event.say(b'data: {"type":"response.completed","response":{"output":"%b",%b}}\n\n' % (bad, usage))
    event.end()
    for answering in (line, event):
        assert answering.outcomes == ["complete"]
        assert answering.relay.end is not None
        assert answering.relay.end.completion_tokens == 2


def test_the_end_in_a_line_that_is_too_long_to_be_kept_whole_counts() -> None:
    answering = Answering(path="/api/chat")
    answering.say(b'{"message":{"content":"' + b"a" * LONGEST_LINE)
    answering.say(b'a"},"done":true}\n')
    answering.end()
    assert answering.outcomes == ["complete"]


def test_an_error_line_of_the_target_counts_as_its_failure(answering: Answering) -> None:
    answering.say(LINE + b'{"error":"an error was encountered while running the model: unexpected EOF"}\n')
    answering.end()
    assert answering.reader.transition == "finished"
    assert answering.outcomes == ["target failed"]


@pytest.mark.parametrize("which", ["answered", "sent"])
def test_a_reader_who_leaves_stops_the_target_at_once(answering: Answering, which: str) -> None:
    answering.say(LINE)
    getattr(answering.relay, which).cancel()
    assert answering.aborted
    assert answering.clock.getDelayedCalls() == []
    left = (answering.answered if which == "answered" else answering.outcomes)[0]
    assert isinstance(left, Failure)
    assert left.check(CancelledError)
    answering.say(LINE)
    answering.end(ResponseFailed([]))
    assert answering.reader.pieces == [LINE]
    assert answering.reader.transition == ""
