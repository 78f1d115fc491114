"""The end of a connection whose last answer came before its request was whole."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from foreman.util.deadline import Deadline
from foreman.web.server.linger import MAX_BYTES, MAX_DURATION, MAX_SILENCE, Linger


@define(eq=False, slots=False)
class Transport:
    """Remembers what it was told."""

    told: list[str] = field(factory=list)

    def unregisterProducer(self) -> None:
        pass

    def loseConnection(self) -> None:
        self.told.append("close")

    def loseWriteConnection(self) -> None:
        self.told.append("half close")

    def abortConnection(self) -> None:
        self.told.append("reset")

    def pauseProducing(self) -> None:
        self.told.append("pause")


def lingering(*interfaces: Any) -> tuple[Clock, Transport, Linger]:
    clock, transport = Clock(), Transport()
    directlyProvides(transport, *interfaces)
    deadline = Deadline(clock)
    linger = Linger(clock, transport, deadline)
    deadline.set(MAX_SILENCE, linger.end)  # as the connection does
    return clock, transport, linger


@pytest.mark.parametrize(
    ("interfaces", "ending"),
    [([ITCPTransport], "half close"), ([ITCPTransport, ISSLTransport], "close"), ([], "close")],
)
def test_the_end_of_the_answer_is_said_as_the_transport_can_say_it(interfaces: list[Any], ending: str) -> None:
    _clock, transport, _linger = lingering(*interfaces)
    assert transport.told == [ending]


def test_silence_ends_it_and_who_does_not_even_read_is_cut() -> None:
    clock, transport, _linger = lingering(ITCPTransport)
    clock.advance(MAX_SILENCE)
    assert transport.told == ["half close", "close"]
    clock.advance(MAX_SILENCE)
    assert transport.told == ["half close", "close", "reset"]


def test_whoever_goes_on_sending_is_heard_out_but_not_for_ever() -> None:
    clock, transport, linger = lingering(ITCPTransport)
    while clock.seconds() < MAX_DURATION - 1:
        linger.drop(b"x")
        clock.advance(1)
    assert transport.told == ["half close"]
    linger.drop(b"x")
    clock.advance(1)
    assert transport.told == ["half close", "close"]


def test_beyond_a_bound_nothing_more_is_read_and_nothing_is_reset_yet() -> None:
    clock, transport, linger = lingering(ITCPTransport)
    linger.drop(bytes(MAX_BYTES))
    assert transport.told == ["half close"]
    linger.drop(b"x")
    clock.advance(MAX_DURATION - 1)
    assert transport.told == ["half close", "pause"]
    clock.advance(1)
    assert transport.told == ["half close", "pause", "close"]


def test_what_comes_in_small_pieces_costs_no_timer_each() -> None:
    clock, _transport, linger = lingering(ITCPTransport)
    timers = list(clock.getDelayedCalls())
    for _ in range(100):
        linger.drop(b"x")
    assert clock.getDelayedCalls() == timers


def test_what_comes_after_the_end_puts_nothing_off() -> None:
    clock, transport, linger = lingering(ITCPTransport)
    clock.advance(MAX_SILENCE)
    for _ in range(2):
        clock.advance(MAX_SILENCE / 2)
        linger.drop(b"x")
    assert transport.told == ["half close", "close", "reset"]
