"""Connections that only read; with them jobs can be read while the disk is full or read-only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool

from foreman.store.sqlite import opening
from foreman.store.sqlite.read_queue import READERS

#: The size of a reader's page cache, in KiB; whole artifacts pass through it.
READER_CACHE = 16_384


def pool_for(reactor: Any, path: Path) -> ConnectionPool | None:
    """A started pool of connections that read the database at ``path``; None where it does not exist or cannot be read.

    Blocks briefly.
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
    """The URIs to try: the database as it is; where its log is empty, as immutable, too, which needs no files beside it."""
    if not path.exists():
        return []
    address = f"{path.absolute().as_uri()}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    return [address] if has_log else [address, f"{address}&immutable=1"]


def configure_reader(connection: sqlite3.Connection) -> None:
    """Configure a connection that reads; works where nothing can be written."""
    connection.text_factory = opening.decode_text
    for pragma in (
        f"busy_timeout = {opening.BUSY_TIMEOUT_MS}",
        f"cache_size = -{READER_CACHE}",
        "temp_store = MEMORY",
        "mmap_size = 0",
        "trusted_schema = OFF",
        "query_only = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchone()
