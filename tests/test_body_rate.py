"""How fast the body of a request arrives."""

from __future__ import annotations

from math import inf

from foreman.web.server.body_rate import GRACE, BodyRate


def test_a_body_that_began_fast_is_slow_once_it_trickles() -> None:
    body = BodyRate(100.0, None)
    body.add(8_000_000)
    assert body.rate(100.5) == inf
    assert body.rate(110.0) == 800_000
    body.add(2000)
    assert body.rate(110.5) == 800_000  # too soon to tell
    assert body.rate(110.0 + GRACE) == 2000 / GRACE
    body.add(500_000)
    assert body.rate(112.0 + GRACE) == 250_000
