"""Connections that only read; also jobs that cannot be written for now, since the disk is full or read-only, can be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool

from foreman.store.sqlite import opening
from foreman.store.sqlite.read_queue import READERS

#: Of a reader's pages, in KiB: what it goes through most often; whole artifacts pass through it.
READER_CACHE = 16_384


def pool_for(reactor: Any, path: Path) -> ConnectionPool | None:
    """Connections that read the database at ``path``, started; None where it is not there, or cannot be read as it is.

    Blocks for a moment.
    """
    for address in _addresses(path):
        try:
            with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
                if not opening.is_current(connection):
                    return None
        except sqlite3.Error:
            continue
        pool = ConnectionPool(
            "sqlite3", address, uri=True, isolation_level=None, check_same_thread=False, cp_min=READERS, cp_max=READERS,
            cp_noisy=False, cp_reactor=reactor, cp_openfun=configure_reader,
        )  # fmt: skip
        pool.start()
        return pool
    return None


def _addresses(path: Path) -> list[str]:
    """How it may be opened: as it is, or, where the files beside it cannot be made and hold nothing, by itself."""
    if not path.exists():
        return []
    address = f"{path.absolute().as_uri()}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    return [address] if has_log else [address, f"{address}&immutable=1"]


def configure_reader(connection: sqlite3.Connection) -> None:
    """What every connection that reads needs; also where nothing can be written."""
    connection.text_factory = opening.readable
    for pragma in (
        f"busy_timeout = {opening.PATIENCE_MS}",
        f"cache_size = -{READER_CACHE}",
        "temp_store = MEMORY",
        "mmap_size = 0",
        "trusted_schema = OFF",
        "query_only = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchone()
