"""Write a file atomically, so that a reader sees either its old content or the new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, text: str, prepare: Callable[[int], object]) -> None:
    """Write ``text`` to a temporary file beside ``path``, sync it to disk and rename it to ``path``.

    :param prepare: called with the descriptor of the temporary file before the text is written, to set mode and owner.
    :raises OSError: if that fails; and whatever ``prepare`` raises. The temporary file is removed then.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            prepare(file.fileno())
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:  # ctrl-C, too
        Path(temporary).unlink(missing_ok=True)
        raise
