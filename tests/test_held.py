"""The body of a request while it waits."""

from __future__ import annotations

import errno
from io import BytesIO
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorstep import doorstep
from foreman.budget import Budget
from foreman.web.held import IN_MEMORY, HeldBody, NotHeld
from wire import request


def read(body: HeldBody) -> bytes:
    value = body.value()
    return value if isinstance(value, bytes) else value.read()


@given(st.lists(st.integers(0, IN_MEMORY // 2), max_size=6))
def test_a_body_is_given_back_as_it_came(sizes: list[int]) -> None:
    budget = Budget(10 * IN_MEMORY)
    body = HeldBody(5 * IN_MEMORY, budget)
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    for piece in sent:
        body.add(piece)
    whole = b"".join(sent)
    assert (body.length, budget.used) == (len(whole), len(whole))
    assert read(body) == read(body) == whole
    assert isinstance(body.value(), bytes) == (len(whole) <= IN_MEMORY)
    body.close()
    body.close()
    assert budget.used == 0


def test_a_place_that_was_announced_is_kept_at_once_and_counted_once() -> None:
    budget = Budget(1000)
    body = HeldBody(1000, budget)
    body.expect(600)
    assert budget.used == 600
    body.add(b"x" * 600)
    assert budget.used == 600
    body.close()
    assert budget.used == 0


def test_too_much_for_one_is_413_and_takes_no_place() -> None:
    budget = Budget(1000)
    body = HeldBody(100, budget)
    for do in (lambda: body.expect(101), lambda: body.add(b"x" * 101)):
        with pytest.raises(NotHeld, match="FOREMAN_MAX_BODY") as refused:
            do()
        assert refused.value.status == 413
    assert budget.used == 0
    body.close()
    assert budget.used == 0


def test_too_much_for_all_is_503_and_is_given_back() -> None:
    budget = Budget(150)
    first, second = HeldBody(100, budget), HeldBody(100, budget)
    first.expect(100)
    second.add(b"x" * 50)
    with pytest.raises(NotHeld, match="FOREMAN_BODY_BUDGET") as refused:
        second.add(b"x")
    assert refused.value.status == 503
    second.close()
    assert budget.used == 100
    first.close()
    assert budget.used == 0


def test_a_body_that_is_closed_takes_nothing_more() -> None:
    budget = Budget(100)
    body = HeldBody(100, budget)
    body.close()
    body.add(b"x")
    assert budget.used == 0


class FullDisk(BytesIO):
    """A file that has no room."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["opening", "writing"])
def test_a_full_disk_costs_one_request(where: str) -> None:
    full = (
        {"side_effect": OSError(errno.ENOSPC, "No space left on device")}
        if where == "opening"
        else {"return_value": FullDisk()}
    )
    with doorstep() as step:
        with patch("tempfile.TemporaryFile", **full):
            answer = step.ask_once(request("POST", "/v1/messages", b" " * (IN_MEMORY + 1)))
        assert (answer.status, answer.header("Connection")) == (503, "close")
        assert b"No space left" in answer.body
        assert step.target.asked == []
        assert step.service.doors.bodies.used == 0
        assert step.ask_once(request("POST", "/api/chat", b'{"model":"m"}')).status == 200
