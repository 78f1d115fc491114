"""Every relative link of the pages leads to a file that is there, and every anchor to a heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    {
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks" / "README.md",
        ROOT / "tests" / "requests" / "README.md",
    }
)
#: ``[text](target)``, with or without a title; ``[text]: target``; and what HTML has for both.
LINK = re.compile(
    r"""\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)|^\[[^\]]+\]:\s*(\S+)|\b(?:href|src)="([^"]+)\"""", re.MULTILINE
)


def without_blocks(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *(`{3,}|~{3,}).*?^ *\1[`~]*[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its code, in which neither headings nor links count."""
    return re.sub(r"`[^`\n]+`", "", without_blocks(text))


def links(text: str) -> Iterator[str]:
    """The targets of a page's links, but for those on other servers."""
    for found in LINK.finditer(prose(text)):
        target = found[1] or found[2] or found[3]
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def slug(heading: str) -> str:
    """What GitHub makes of a heading: its text in lower case, without punctuation, and dashes for blanks."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().rstrip("#").rstrip())
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The anchors of a page: of its headings, the second of a name with ``-1`` appended, and those that it sets."""
    found: set[str] = set(re.findall(r"""<a (?:id|name)="([^"]+)\"""", text))
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+)$", without_blocks(text), re.MULTILINE):
        name = slug(heading)
        number = seen.get(name, 0)
        seen[name] = number + 1
        found.add(f"{name}-{number}" if number else name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    broken = []
    for link in links(page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        there = target.exists() and target.is_relative_to(ROOT)
        if there and anchor and target.suffix == ".md":
            there = anchor in anchors(target.read_text("utf-8"))
        if not there:
            broken.append(link)
    assert not broken


def test_every_page_of_the_docs_is_in_their_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link in links(index.read_text("utf-8"))}
    assert {page for page in (ROOT / "docs").glob("*.md") if page != index} <= listed


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("What happens when", "what-happens-when"),
        ("At Ollama's own port", "at-ollamas-own-port"),
        ("`GET /jobs/{id}` & more", "get-jobsid--more"),
        ("See [the page](page.md)", "see-the-page"),
        ("foreman install-service", "foreman-install-service"),
    ],
)
def test_a_heading_becomes_the_anchor_that_github_makes_of_it(heading: str, expected: str) -> None:
    assert slug(heading) == expected


def test_links_in_code_do_not_count_and_headings_of_one_name_are_told_apart() -> None:
    page = "# One\n\n```sh\n# not a heading\n[no](no.md)\n```\n\n`[no](no.md)` [yes](yes.md) ![a\nb](c.svg)\n\n# One\n"
    assert list(links(page)) == ["yes.md", "c.svg"]
    assert anchors(page) == {"one", "one-1"}
