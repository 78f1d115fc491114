"""Write the map of the code: ``python docs/make_map.py > docs/map.md``; each module by its own first sentence."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "foreman"

#: The packages in the order of the page: each imports only from packages further down.
PACKAGES = (
    "",
    "cli", "cli/commands", "cli/commands/jobs", "cli/client", "cli/ui", "cli/supervisors",
    "web", "web/api", "web/openapi", "web/jobs", "web/server",
    "worker", "proxy", "scheduling", "target", "store", "store/sqlite", "store/sqlite/statements", "system",
    "config", "jobs", "auth", "protocol", "util",
    "simulator", "simulator/api", "simulator/server", "simulator/engine",
)  # fmt: skip
_HEAD = """\
# Map of the code

Each module of `src/foreman/`, with the first sentence of its docstring. A package imports only from packages further
down this page; the simulator, at the end, is a program of its own. [One request](request.md) shows how the most
important modules work together.

<!-- Generated: .venvs/test/bin/python docs/make_map.py > docs/map.md -->
"""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, in Markdown, without the full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[^.])\.(?: |$)", paragraph, maxsplit=1)[0]
    return re.sub(r"``([^`]*)``", r"`\1`", sentence).replace("|", "\\|")


def page() -> str:
    """The map, as a page of Markdown."""
    found = {str(path.parent.relative_to(SOURCE)).replace(".", "", 1) for path in SOURCE.rglob("*.py")}
    if missing := found.symmetric_difference(PACKAGES):
        sys.exit(f"PACKAGES in {__file__} and the folders differ: {', '.join(sorted(missing))}")
    parts = [_HEAD]
    for package in PACKAGES:
        folder = SOURCE / package
        title = f"`{package}/`" if package else "Top level"
        parts.append(f"\n## {title}\n\n{first_sentence(folder / '__init__.py')}.\n")
        if modules := [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]:
            rows = [f"| `{path.name}` | {first_sentence(path)} |\n" for path in modules]
            parts.append("\n| module | |\n|---|---|\n" + "".join(rows))
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
