"""SQLite's connections: how the library and each connection to a file are set up.

Knows: apsw, what SQLite is told at the start and at each opening. Must not know: transactions, whose file it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

_SLOT_BYTES, _SLOTS = 128, 100
_CACHE_KIB = -2_000
"""As SQLite's own default: a size in KiB is given as a negative number."""


def _shrink_lookaside() -> None:
    """Have each connection reserve 13 KiB for small allocations in place of 48, of which a push uses a few.

    It can be said before the first connection only (sqlite.org/malloc.html §3.3).
    """
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, _SLOT_BYTES, _SLOTS)
    apsw.initialize()


_shrink_lookaside()


def connect(path: Path, role: str) -> apsw.Connection:
    """Open a file. The wait for a lock held by another process is ours, since SQLite's would stop the event loop."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, True)
    if role == "writer":
        if os.stat(path).st_mode & 0o077:  # noqa: PTH116 -- half the time of Path's, as elsewhere where files are opened
            os.chmod(path, 0o600)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("temp_store", "memory")  # What a savepoint may undo went to a file, at twice the time.
        connection.pragma("journal_size_limit", 4 * 1024 * 1024)
        _reserve_no_pages(connection)
    else:
        connection.pragma("query_only", True)
        connection.pragma("wal_autocheckpoint", 0)
    return connection


def _reserve_no_pages(connection: apsw.Connection) -> None:
    """Have SQLite take memory for pages as they come: it reserved 20 at once, of which a push to a small tenant needs ten.

    It does so with the first page of a cache, unless that may hold no more than two (``pcache1InitBulk`` of pcache1.c).
    """
    connection.pragma("cache_size", 1)
    connection.release_memory()
    connection.pragma("user_version")
    connection.pragma("cache_size", _CACHE_KIB)


def drop_pages(connection: apsw.Connection) -> None:
    """Give back the pages that are kept to be fast, but for one: of a cache without any, SQLite reserves pages again."""
    connection.pragma("cache_size", 1)
    connection.pragma("cache_size", _CACHE_KIB)


def sqlite_version() -> tuple[int, ...]:
    """Give the version of SQLite that is linked in."""
    return tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
