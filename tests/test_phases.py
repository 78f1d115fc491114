"""The phases of a client's connection, and their limits."""

from __future__ import annotations

from pathlib import Path

from foreman.config.settings import Config
from foreman.web.server.phases import LIMITS, Phase, table

DOCUMENT = Path(__file__).parents[1] / "docs" / "how-it-works.md"


def test_every_phase_has_its_row_and_every_limit_is_a_setting_or_a_number() -> None:
    assert list(LIMITS) == list(Phase)
    for limit in LIMITS.values():
        if limit is not None:
            seconds = getattr(Config(), limit.seconds) if isinstance(limit.seconds, str) else limit.seconds
            assert seconds > 0


def test_the_table_in_the_documentation_is_the_one_of_the_code() -> None:
    text = DOCUMENT.read_text("utf-8")
    begin, end = "<!-- phases: begin -->\n", "<!-- phases: end -->"
    assert text.partition(begin)[2].partition(end)[0] == table()
