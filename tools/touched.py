"""Run the tests that a change touches, in well under a minute: ``python -m tools.touched [--list] [pytest's options]``.

The change is what is not committed, files that git does not track yet included; where there is nothing of that, the last commit.
The commits since the branch left ``main`` count too, as two steps further away; ``BASE=REVISION`` in the environment takes another
revision for ``main``. A test module is touched when it changed, when it is named after a changed module, or when it imports one,
directly or through other modules; and by any other file, or one that is run and not imported as the benchmarks are, when it names
that file, or a folder above it, in a string.

The nearest tests run first, until the budget of time is spent: ``tests/conftest.py`` keeps in pytest's cache how long each test
module took in earlier runs. What is left out is printed. ``make test`` runs everything.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
#: Where Python stands, and what comes before the names of its modules.
FOLDERS = {"src": "", "tests": "", "benchmarks": "benchmarks.", "crash": "crash.", "tools": "tools."}
#: The time that all chosen tests may need together, in seconds: two processes share it, and lint needs its part of the minute.
BUDGET = 50.0
#: What a test module that has not run yet is assumed to need, in seconds.
UNKNOWN = 5.0
#: How much further away the earlier commits of the branch are than the latest change.
BRANCH = 2
#: Tests that look at each module of foreman without importing it.
READ_EVERY_MODULE = ("tests/test_house.py",)
DURATIONS = ROOT / ".pytest_cache" / "v" / "foreman" / "seconds"


class NotACheckout(Exception):
    """Git cannot say what changed; the text says why."""


def changed_files(root: Path, base: str) -> set[str]:
    """The paths, relative to ``root``, of all that changed since the revision ``base``, committed or not.

    :raises NotACheckout: this is no git checkout, or there is no such revision.
    """
    differing = _git(root, "diff", "--name-only", "--no-renames", "-z", base, "--")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return set(filter(None, (differing + untracked).split("\0")))


def recent_base(root: Path) -> str:
    """``HEAD`` where something is not committed, otherwise the commit before it.

    :raises NotACheckout: as above.
    """
    if _git(root, "status", "--porcelain") or not _exists(root, "HEAD^"):
        return "HEAD"
    return "HEAD^"


def branch_base(root: Path) -> str:
    """The latest commit that this branch shares with ``main``, here or at ``origin``; ``HEAD`` where there is no ``main``."""
    mains = [main for main in ("main", "origin/main") if _exists(root, main)]
    shared = [_git(root, "merge-base", "HEAD", main).strip() for main in mains if _shares_history(root, main)]
    return min(shared, key=lambda base: int(_git(root, "rev-list", "--count", f"{base}..HEAD")), default="HEAD")


def _exists(root: Path, revision: str) -> bool:
    return _succeeds(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _shares_history(root: Path, revision: str) -> bool:
    """A shallow clone may not hold the commit that both come from."""
    return _succeeds(root, "merge-base", "HEAD", revision)


def _succeeds(root: Path, *arguments: str) -> bool:
    try:
        _git(root, *arguments)
    except NotACheckout:
        return False
    return True


def _git(root: Path, *arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as failure:
        raise NotACheckout("there is no git here") from failure
    except subprocess.CalledProcessError as failure:
        raise NotACheckout(f"git {arguments[0]}: {failure.stderr.strip()}") from failure


def module_of(path: str) -> str | None:
    """The module that a file is, by its path relative to the root; None where it is none."""
    folder, _, inside = path.partition("/")
    if folder not in FOLDERS or not inside.endswith(".py"):
        return None
    name = inside.removesuffix(".py").replace("/", ".")
    return FOLDERS[folder] + name.removesuffix(".__init__")


def read_sources(root: Path) -> dict[str, ast.Module]:
    """Every Python file of the project, parsed, by its path relative to the root."""
    return {
        path.relative_to(root).as_posix(): ast.parse(path.read_text("utf-8"))
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
    }


def imports(tree: ast.Module, modules: Collection[str]) -> set[str]:
    """Which of ``modules`` a file imports, anywhere in it."""
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.add(node.module)
            named.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in named if name in modules}


def strings(tree: ast.Module) -> set[str]:
    """The strings of a file, whole and by the parts of a path."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
            found.update((node.value, *node.value.split("/")))
    return found


def is_test(path: str) -> bool:
    """Whether pytest collects this file."""
    return path.startswith("tests/") and PurePosixPath(path).name.startswith("test_")


def distances(changed: Iterable[str], trees: Mapping[str, ast.Module]) -> dict[str, int]:
    """How far each touched test module is from the change.

    0: changed itself, or named after a changed module; 1: imports a changed module; 2: imports what imports one, and so on.
    """
    paths = {module: path for path in trees if (module := module_of(path)) is not None}
    importers: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for module in imports(tree, paths):
            importers[paths[module]].add(path)
    changed = set(changed)
    found = dict.fromkeys(changed & trees.keys(), 0)
    named = {path: strings(tree) for path, tree in trees.items() if path.startswith("tests/")}
    # Those that are not imported, but read, or run by ``python -m``.
    for path in (path for path in changed if path not in trees or not path.startswith(("src/", "tests/"))):
        words = {PurePosixPath(path).name, path, *(parent.name for parent in PurePosixPath(path).parents)} - {
            "",
            "tests",
        }
        found |= {user: found.get(user, 1) for user, texts in named.items() if words & texts}
    stems = {PurePosixPath(path).stem for path in changed if module_of(path) is not None} - {"__init__", "__main__"}
    found |= {path: 0 for path in trees if is_test(path) and _is_named_after(path, stems)}
    if any(path.startswith("src/") for path in changed):
        found |= {path: 0 for path in READ_EVERY_MODULE if path in trees}
    edge, distance = set(found), 0
    while edge:
        distance += 1
        edge = {user for path in edge for user in importers[path] if user not in found}
        found |= dict.fromkeys(edge, distance)
    return {path: distance for path, distance in found.items() if is_test(path)}


def _is_named_after(path: str, stems: Iterable[str]) -> bool:
    name = PurePosixPath(path).stem.removeprefix("test_")
    return any(name == stem or name.startswith(f"{stem}_") for stem in stems)


def choose(touched: Mapping[str, int], seconds: Mapping[str, float], budget: float) -> tuple[list[str], list[str]]:
    """The test modules to run, nearest and quickest first, and those that are left out.

    One that needs more than half of the budget alone is left out unless it is at distance 0. At least one is run.
    """
    chosen: list[str] = []
    left_out: list[str] = []
    spent = 0.0
    for path in sorted(touched, key=lambda path: (touched[path], seconds.get(path, UNKNOWN), path)):
        needed = seconds.get(path, UNKNOWN)
        if chosen and (spent + needed > budget or (needed > budget / 2 and touched[path] > 0)):
            left_out.append(path)
        else:
            chosen.append(path)
            spent += needed
    return chosen, left_out


def _known_seconds() -> dict[str, float]:
    try:
        return {str(path): float(seconds) for path, seconds in json.loads(DURATIONS.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _report(touched: Mapping[str, int], chosen: Sequence[str], left_out: Sequence[str]) -> Iterator[str]:
    yield f"test modules: {len(chosen)} of the {len(touched)} that the change touches"
    near = [path for path in left_out if touched[path] <= 1]
    if near:
        yield f"left out for lack of time, though near: {' '.join(near)}"
    if len(left_out) > len(near):
        yield f"left out: {len(left_out) - len(near)} that are further away; make test runs them"


def main(arguments: Sequence[str]) -> int:
    """Run pytest with the tests that are touched; its exit status, or 2 where git cannot say what changed."""
    try:
        recent = changed_files(ROOT, recent_base(ROOT))
        branch = changed_files(ROOT, os.environ.get("BASE") or branch_base(ROOT))
    except NotACheckout as failure:
        print(f"{failure}; make test runs everything", file=sys.stderr)
        return 2
    trees = read_sources(ROOT)
    touched = {path: distance + BRANCH for path, distance in distances(branch, trees).items()}
    for path, distance in distances(recent, trees).items():
        touched[path] = min(distance, touched.get(path, distance))
    chosen, left_out = choose(touched, _known_seconds(), BUDGET)
    print(*_report(touched, chosen, left_out), sep="\n", flush=True)
    if "--list" in arguments:
        print(*chosen, sep="\n")
        return 0
    if not chosen:
        return 0
    options = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-q", "-m", "not slow", *arguments]
    status = subprocess.run([sys.executable, "-m", "pytest", *options, *chosen], cwd=ROOT, check=False).returncode
    return 0 if status == 5 else status  # 5: all that is left is slow


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
