"""Check that a commit's subject has at most 72 characters: of a message, or of every commit of a range.

``commit_subjects.py FILE`` is what git's hook ``commit-msg`` runs (``make hooks`` installs it); ``commit_subjects.py A..B`` is for
CI. Exit status 1 names each subject that is too long. A range that is not there, as in a shallow clone or outside of a checkout, is
not checked. It needs nothing but Python's standard library.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MAX_CHARACTERS = 72
#: How the subjects begin that git makes itself, or that a rebase takes away.
EXEMPT = ("Merge ", "Revert ", "fixup! ", "squash! ", "amend! ")


def is_too_long(subject: str) -> bool:
    """Whether a subject has to be shortened."""
    return len(subject) > MAX_CHARACTERS and not subject.startswith(EXEMPT)


def subject_of(message: str) -> str:
    """The first line of a message that is neither blank nor a comment."""
    lines = (line.strip() for line in message.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def subjects_in(commits: str, root: Path) -> list[str] | None:
    """The subjects of the commits of a range, merges left out; None where git does not know the range."""
    command = ["git", "log", "--no-merges", "--format=%s", "--end-of-options", commits, "--"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", "replace").splitlines()


def main(arguments: Sequence[str]) -> int:
    """Check one file or one range; the exit status."""
    (given,) = arguments
    if ".." in Path(given).name and not Path(given).exists():
        subjects = subjects_in(given, Path.cwd())
        if subjects is None:
            print(f"not checked: git has no commits {given} here")
            return 0
    else:
        subjects = [subject_of(Path(given).read_text("utf-8", "replace"))]
    too_long = [subject for subject in subjects if is_too_long(subject)]
    for subject in too_long:
        print(f"a subject has at most {MAX_CHARACTERS} characters, this one {len(subject)}: {subject}", file=sys.stderr)
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
