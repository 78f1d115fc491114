"""What commands do with the database file of a store that this process has not opened: check, back up, restore."""

from __future__ import annotations

from foreman.store.sqlite.backup import back_up, restore
from foreman.store.sqlite.opening import check_library, examine

__all__ = ["back_up", "check_library", "examine", "restore"]
