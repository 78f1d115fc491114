"""The lines of a try while it runs, for those who follow it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from foreman.worker.live_output import LiveOutput


def test_who_has_seen_less_is_told_at_once_and_the_others_with_the_next_line() -> None:
    output = LiveOutput(3)
    output.add(b"a\n")
    assert output.when_more(0).called
    waiting = [output.when_more(1) for _ in range(2)]
    assert not any(one.called for one in waiting)
    output.add(b"b\n")
    assert all(one.called for one in waiting)
    assert output.lines == [b"a\n", b"b\n"]


def test_the_end_is_told_to_all_and_to_whoever_comes_later() -> None:
    output = LiveOutput(1)
    waiting = output.when_more(0)
    output.end()
    assert waiting.called
    assert output.when_more(0).called
    assert output.ended


def test_whoever_leaves_is_forgotten_even_because_another_heard() -> None:
    output = LiveOutput(1)
    leaver = output.when_more(0)
    leaver.addErrback(lambda reason: reason.trap(CancelledError) and None)
    leaver.cancel()
    first, second = output.when_more(0), output.when_more(0)
    second.addErrback(lambda reason: reason.trap(CancelledError) and None)
    first.addCallback(lambda _: second.cancel())
    output.add(b"a\n")
    assert first.called
    assert output.when_more(0).called
