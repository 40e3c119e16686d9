"""SQLite files as wholes: made, copied, looked into, checked, without a database that serves them.

Knows: the engine. Must not know: whose file it is, requests, sockets, rules.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from server.disk_threads import disk
from server.durable_files import sync_file
from storage.sqlite.binding import Binding, bound_to
from storage.sqlite.connections import connect
from storage.sqlite.database import LOCK_WAIT_SECONDS, prepared
from storage.sqlite.errors import as_problems

T = TypeVar("T")

_JOURNAL, _WITH_LOG = slice(18, 20), b"\2\2"
"""Where a file's head says that it is opened with a write-ahead log (sqlite.org/fileformat.html §1.3.3)."""


def file_bytes(base: bytes, work: Callable[[], object], fingerprint: int = 0) -> bytes:
    """Give the bytes of a database's file: of ``base``, or of none, after ``work``. No disk is touched."""
    connection = apsw.Connection(":memory:")
    try:
        if base:
            connection.deserialize("main", base)
        with bound_to(Binding(connection)), connection:
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
        """Write the file as one that is opened with a write-ahead log, and sync it."""
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
    Raises: StorageFull.
    """
    with as_problems(), _opened(source) as connection:
        target.touch(0o600, exist_ok=True)  # An empty file is one to write into, and nobody else may read it meanwhile.
        connection.execute("VACUUM INTO ?", (str(target),))
    sync_file(target)


def replace_contents(source: Path, target: Path) -> bool:
    """Put the contents of one file into another in one transaction, which whoever has that open sees as a commit.

    False if the target can't take them: it is no sound database, or of another page size. It takes its time, so run it
    in a thread.
    Source: sqlite.org/backup.html and sqlite.org/c3ref/backup_finish.html.
    Raises: Busy, StorageFull.
    """
    with as_problems(), _opened(source) as new, _opened(target) as old:
        try:
            old.pragma("synchronous", "full")
            with old.backup("main", new, "main") as copying:
                copying.step()
        except (apsw.NotADBError, apsw.CorruptError, apsw.ReadOnlyError):
            return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)  # Read-only can't read a fresh WAL.
    try:
        connection.set_busy_timeout(int(LOCK_WAIT_SECONDS * 1000))
        yield connection
    finally:
        connection.close()


def migrate(path: Path, prepare: Callable[[], None], fingerprint: int) -> None:
    """Make a file what a schema needs, in one transaction, while nobody else writes it. ``prepare`` runs in the event loop,
    what waits for the disk in threads.

    Raises: Busy, StorageFull.
    """
    with as_problems():
        connection = connect(path, "writer")
        try:
            if connection.pragma("user_version") != fingerprint:
                connection.execute("BEGIN IMMEDIATE")
                with bound_to(Binding(connection)):
                    prepared(prepare, fingerprint)
                disk.in_thread(partial(connection.execute, "COMMIT"))
        finally:
            disk.in_thread(connection.close)  # It takes the write-ahead log in.


def take_log_in(path: Path) -> None:
    """Take a file's write-ahead log into it, and remove it if nobody else has the file open. Run it in a thread.

    Raises: Busy, StorageFull.
    """
    with as_problems(), _opened(path) as connection:
        connection.pragma("user_version")  # The first read: before it there is no log to this connection.
        connection.wal_checkpoint()


def look_into(path: Path, query: Callable[[], T]) -> T:
    """Run a query bound to a file as it lies there, of whatever version; nothing is written."""
    with _opened(path) as connection:
        connection.pragma("query_only", True)
        connection.execute("BEGIN")  # One state for all of the query's statements.
        with bound_to(Binding(connection)):
            return query()


def change_copy(path: Path, work: Callable[[], object]) -> None:
    """Run ``work`` in one transaction bound to a copy, with the tables that it has; who keeps the copy syncs it.

    Raises: StorageFull.
    """
    with as_problems(), _opened(path) as connection:
        connection.pragma("synchronous", "off")
        with bound_to(Binding(connection)), connection:
            work()


def faults_of(path: Path) -> list[str]:
    """Check a file that no one writes from end to end, and list what is wrong with it."""
    try:
        with _opened(path) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    except apsw.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found
