"""SQLite files as wholes: made, copied, looked into, checked, without a store that serves them.

Knows: the engine. Must not know: whose file it is, requests, sockets, rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw

from storage import LOCK_WAIT_SECONDS, Connected, as_problems, bound_to, disk

T = TypeVar("T")

_JOURNAL, _WITH_LOG = slice(18, 20), b"\2\2"
"""Where a file's head says that it is opened with a log of writes (sqlite.org/fileformat.html §1.3.3)."""


def file_bytes(base: bytes, work: Callable[[], object], fingerprint: int = 0) -> bytes:
    """Give the bytes of a database's file: of ``base``, or of none, after ``work``. No disk is touched."""
    connection = apsw.Connection(":memory:")
    try:
        if base:
            connection.deserialize("main", base)
        with bound_to(Connected(connection)), connection:
            work()
            if fingerprint:
                connection.pragma("user_version", fingerprint)
        return connection.serialize("main")
    finally:
        connection.close()


def put_file(path: Path, content: bytes) -> None:
    """Write a new database's file and bring it to the disk.

    Raises: StorageFull.
    """

    def put() -> None:
        path.touch(0o600, exist_ok=False)
        with path.open("wb") as file:
            file.write(content[: _JOURNAL.start] + _WITH_LOG + content[_JOURNAL.stop :])
            file.flush()
            os.fsync(file.fileno())

    with as_problems():
        disk.at_once(put)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, also one that a server is writing, as of one moment.

    Source: sqlite.org/lang_vacuum.html, "VACUUM INTO": a consistent snapshot that waits for no writer.
    """
    connection = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)  # Read-only can't read a fresh WAL.
    try:
        connection.set_busy_timeout(int(LOCK_WAIT_SECONDS * 1000))
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.close()
    os.chmod(target, 0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def look_into(path: Path, query: Callable[[], T]) -> T:
    """Run a query bound to a file as it lies there, of whatever version; nothing is written."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)  # Read-only can't read a fresh WAL.
    try:
        connection.set_busy_timeout(int(LOCK_WAIT_SECONDS * 1000))
        connection.pragma("query_only", True)
        with bound_to(Connected(connection)):
            return query()
    finally:
        connection.close()


def faults_of(path: Path) -> list[str]:
    """Check a file that no one writes from end to end, and list what is wrong with it."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        finally:
            connection.close()
    except apsw.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found
