"""Upkeep of the database file between commits: return unused pages to the disk, and truncate the write-ahead log."""

from __future__ import annotations

import sqlite3

from foreman.store.sqlite.opening import BUSY_TIMEOUT_MS

#: How long to wait for readers before the log is truncated, in milliseconds.
TRUNCATE_TIMEOUT_MS = 200
#: Up to so many unused pages, or a quarter of all, are kept for new data.
KEPT_FREE_PAGES = 4096
#: How many pages are returned to the disk at once.
FREED_AT_ONCE = 500


def reclaim_space(connection: sqlite3.Connection) -> bool:
    """Return a few of the unused pages to the disk, where there are many.

    Where an older foreman left unused pages, all of them are returned, once: it did not overwrite their content. In a file
    without incremental auto-vacuum (one that was made from a dump) no page can be returned.

    :return: whether there may be more to return.
    """
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    clean = connection.execute("SELECT 1 FROM meta WHERE key = 'clean'").fetchone() is not None
    if not (free or clean):
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('clean', '1')")
    if free < (max(KEPT_FREE_PAGES, pages // 4) if clean else 1):
        return False
    # ``executescript`` steps the statement to its end, which ``execute`` would not do.
    connection.executescript(f"PRAGMA incremental_vacuum({FREED_AT_ONCE})")
    (left,) = connection.execute("PRAGMA freelist_count").fetchone()
    return bool(left < free)


def truncate_log(connection: sqlite3.Connection) -> bool:
    """Write the log into the database and truncate it: it holds old contents of pages, deleted data among them.

    :return: whether it was truncated; a reader may prevent it.
    """
    connection.execute(f"PRAGMA busy_timeout = {TRUNCATE_TIMEOUT_MS}").fetchone()
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}").fetchone()
    return not busy
