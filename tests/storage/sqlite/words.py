"""A file with a table of words, and what this process holds open of it."""

from __future__ import annotations

import os
from pathlib import Path

from models import connection


def prepare() -> None:
    connection().execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, word TEXT)")


def insert(word: str) -> int:
    connection().execute("INSERT INTO t (word) VALUES (?)", (word,))
    return int(connection().last_insert_rowid())


def words() -> list[str]:
    return [row[0] for row in connection().execute("SELECT word FROM t ORDER BY n")]


def descriptors(path: Path) -> int:
    """Count what this process holds open of a file, its log and its index."""
    found = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
    return sum(name.startswith(str(path)) for name in found)
