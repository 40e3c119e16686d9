"""One SQLite file as a database: its connections, its transactions, its checkpoints.

Knows: SQLite, and how running code is bound to a file. Must not know: whose file it is, requests, sockets, rules.

One connection writes and checkpoints, and reads while it does neither. Another reads meanwhile; few tenants ever need it.
SQL runs in the event loop, where it is fastest. What waits for the disk runs in a native thread: checkpoints, and COMMIT
unless it is small and the disk was fast a moment ago (ARCHITECTURE.md, traps 3 and 17). How writes share a commit is
``storage.group_commit``.

A small COMMIT stays in the loop because handing it to a thread and back cost a quarter of a lone push (827 µs of CPU in
process, 600 without). If one takes more than 2 ms, threads make them for a hundred times as long, so that a slow disk stops
the loop for a hundredth of the time. SQLite's own checkpoint would come within a COMMIT; ours comes after the answers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import gevent

from models import bound, connection
from protocol.errors import Busy, Moved, StorageFull
from server.disk_space import has_none
from server.disk_threads import disk
from storage.group_commit import GroupCommit, drop_statements, log
from storage.sqlite.binding import Binding, bound_to
from storage.sqlite.connections import connect, drop_pages
from storage.sqlite.errors import as_problems, problem_of

T = TypeVar("T")
Identity = tuple[int, int] | None
"""Which file is at a path: its device and its inode (stat(2)); no two that exist share both."""

LOCK_WAIT_SECONDS, LOCK_TRY_SECONDS = 5.0, 0.02
_SMALL_CHANGES = 100
_CHECKPOINT_PAGES, _PAGE_BYTES = 1_000, 4_096


class FileReplaced(Busy):
    """The file that is open is no longer the one at its path: what is written into it would be lost with it."""

    sentence = "This tenant's database was replaced or removed on the server's disk. Send this again soon."


class WrittenByRead(RuntimeError):
    """A query that was to read wrote; it was undone."""


class SQLiteDatabase(GroupCommit):
    """An open SQLite file. Make it with ``open``; close it when nothing waits (``is_idle``)."""

    def __init__(self, path: Path, most_waiting: int, noted: str = "") -> None:
        self.path, self._noted = path, noted
        self._writer = Binding(connect(path, "writer"))
        self._reader: Binding | None = None
        super().__init__(most_waiting, self._writer, self._writer.control)
        self._changes_before = 0
        self.idle_looks = 0
        """How often somebody looked since it was used last; whoever hands it out says that it is used."""
        self.mark = object()
        self._writer.conn.set_wal_hook(self._note_wal)
        self._fingerprint = self._writer.conn.pragma("user_version")  # The first read: it makes the log.
        self._files = [str(path), f"{path}-wal"]
        self._identities = [identity_of(file) for file in self._files]
        self._wal_pages = os.stat(self._files[1]).st_size // _PAGE_BYTES  # noqa: PTH116 -- as below
        """Pages in the write-ahead log, of which some may not be in the file: at the opening those that were left."""

    @classmethod
    def open(
        cls, path: Path, prepare: Callable[[], None], fingerprint: int, most_waiting: int = 1000, noted: str = ""
    ) -> SQLiteDatabase:
        """Open or create a file, and ``prepare`` it in one transaction if its schema is not that of ``fingerprint``.

        ``noted``: the statement that tells whether it moved away (see ``moving``).
        No other greenlet runs meanwhile, so a lock that another connection holds is the caller's to wait for.
        Raises: Busy, StorageFull.
        """
        with as_problems():
            database = cls._connected(path, most_waiting, noted)
            try:
                if database._fingerprint != fingerprint:
                    database.run_now(partial(prepared, prepare, fingerprint))
            except BaseException:
                database.close()
                raise
            return database

    @classmethod
    def _connected(cls, path: Path, most_waiting: int, noted: str) -> SQLiteDatabase:
        try:
            return cls(path, most_waiting, noted)
        except apsw.CantOpenError as error:
            if has_none(path.parent):  # Not even for the name of one more file.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    def run_now(self, work: Callable[[], object]) -> None:
        """Run ``work`` in a transaction while nobody else has this file; no other greenlet runs meanwhile.

        Raises: Busy, StorageFull.
        """
        with as_problems(), bound_to(self._writer), self._writer.conn:
            work()
        self.mark = object()

    def rewrite(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a transaction of its own, also if this file moved away. No write may wait in this process.

        Raises: what ``work`` raises; Busy, StorageFull.
        """
        with as_problems(), bound_to(self._writer):
            self._lock()
            try:
                result = work()
                self._execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        self.mark = object()
        return result

    def read(self, query: Callable[[], T]) -> T:
        """Run a query bound to this file, in a transaction: a commit of a thread or of another process may come amid it.

        It must not switch greenlets: so a file that nobody writes now is read by the connection that writes.
        """
        binding = self._writer if self.is_idle else self._beside_the_writer()
        sql = binding.conn
        is_outermost = sql.get_autocommit()
        token = bound.set(binding)  # Asked several times a request, so without the machinery of ``bound_to``.
        try:
            if is_outermost:
                binding.control("BEGIN")
            result = query()
            if is_outermost and sql.txn_state() == apsw.SQLITE_TXN_WRITE:
                raise WrittenByRead
            return result
        except Exception as error:
            drop_statements(error)
            if problem_of(error) is error:
                raise
            raise problem_of(error) from error
        finally:
            if is_outermost and not sql.get_autocommit():  # Some errors end it.
                binding.control("ROLLBACK")
            bound.reset(token)

    def _beside_the_writer(self) -> Binding:
        """Give the connection for reads while a write is under way, opened at the first of them."""
        if self._reader is None:
            with as_problems():
                connection = connect(self.path, "reader")
            if not self.is_in_place:  # Looked at once the file is open: it may be another one.
                connection.close()
                raise FileReplaced
            self._reader = Binding(connection)
        return self._reader

    def rest(self) -> None:
        """Give back the pages that are kept to be fast, and the connection that few reads need; the next use takes both."""
        if self.is_idle:
            self._close_reader()
            drop_pages(self._writer.conn)

    def _close_reader(self) -> None:
        if self._reader:
            self._reader.conn.close()
            self._reader = None

    def close(self) -> None:
        """Close the file; the writer last, so that it takes the write-ahead log into the file and removes it."""
        self._close_reader()
        self._writer.conn.close()

    def leave(self) -> int:
        """Close the file and leave its write-ahead log beside it, which costs no sync; give the log's size in bytes.

        0 if none is left: all of it was in the file, or it lies where nobody would find it.
        """
        is_left = self._wal_pages > 0 and identity_of(self._files[1]) == self._identities[1]
        if is_left:
            self._writer.conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        self.close()
        return self._wal_pages * _PAGE_BYTES if is_left else 0

    # --- transactions --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._lock()
        if (
            self._noted and self._writer.control(self._noted).get is not None
        ):  # Read to its end, else nobody may drop a table.
            raise Moved
        self._changes_before = self._writer.conn.total_changes()

    def _lock(self) -> None:
        """Begin a transaction that writes, waiting for another process's without holding up the event loop."""
        give_up = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                self._execute("BEGIN IMMEDIATE")
                break
            except apsw.BusyError:
                if time.monotonic() > give_up:
                    raise
                gevent.sleep(LOCK_TRY_SECONDS)

    def _commit(self) -> None:
        changes = self._writer.conn.total_changes() - self._changes_before
        if changes:
            (disk.at_once if changes <= _SMALL_CHANGES else disk.in_thread)(partial(self._execute, "COMMIT"))
            self.mark = object()
        else:
            self._execute("ROLLBACK")  # Nothing to keep: no reason to wait for the disk.
        if not self.is_in_place:  # After the commit: what is answered was on the disk while it was there.
            raise FileReplaced

    def _roll_back(self) -> None:
        with contextlib.suppress(apsw.Error):  # SQLite itself may have rolled back.
            self._execute("ROLLBACK")

    def _is_in_transaction(self) -> bool:
        return not self._writer.conn.get_autocommit()

    def _problem_of(self, error: Exception) -> Exception:
        return problem_of(error)

    # --- the write-ahead log -------------------------------------------------------------------------------------------

    def _note_wal(self, _: object, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _is_maintenance_due(self) -> bool:
        return self._wal_pages >= _CHECKPOINT_PAGES

    def _maintain(self) -> None:
        """Checkpoint: take the write-ahead log into the file."""
        self._wal_pages = 0
        try:
            disk.in_thread(self._writer.conn.wal_checkpoint)
        except apsw.Error as error:  # The next commit comes here again; what is committed is safe.
            if not isinstance(problem_of(error), StorageFull | Busy):  # Busy: a command beside the server writes.
                log.exception("a checkpoint failed")

    # --- a file that others remove or replace --------------------------------------------------------------------------

    @property
    def is_in_place(self) -> bool:
        """Tell whether the open file and its write-ahead log are still those at their paths.

        Source: sqlite.org/howtocorrupt.html, section 4: SQLite itself does not look.
        """
        (file, wal), (own_file, own_wal) = self._files, self._identities
        return identity_of(file) == own_file and identity_of(wal) == own_wal

    @property
    def identity(self) -> Identity:
        """Tell which file is open."""
        return self._identities[0]

    def keep_as(self, target: Path) -> None:
        """Copy what is in the open file, which may be at no path any more."""
        disk.in_thread(partial(self._writer.conn.execute, "VACUUM INTO ?", (str(target),)))

    def remove_log(self) -> None:
        """Remove this file's write-ahead log from its path, if it is another file that is there now."""
        is_file, is_wal = (identity_of(file) == own for file, own in zip(self._files, self._identities, strict=True))
        if is_wal and not is_file:
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def prepared(prepare: Callable[[], None], fingerprint: int) -> None:
    """Make the file that this code is bound to what a schema needs, and note that: all of it or nothing."""
    prepare()
    connection().pragma("user_version", fingerprint)


def identity_of(file: str) -> Identity:
    """Tell which file is at a path."""
    try:
        found = os.stat(file)  # noqa: PTH116 -- half the time of Path's, with each commit
    except OSError:
        return None
    return found.st_dev, found.st_ino
