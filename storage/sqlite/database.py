"""One SQLite file: its connections, its transactions, its group commit.

Knows: the engine, and how running code is bound to a file. Must not know: whose file it is, requests, sockets, rules.

Two connections a file: one reads, one writes and checkpoints. SQL runs in the event loop, where it is fastest. What waits
for the disk runs in a native thread: checkpoints, and COMMIT unless it is small and the disk was fast a moment ago. All
that wait for one file share a commit, each in a savepoint of its own. ``database`` of ``models`` is a peewee database that
dispatches on a context variable: code that is bound to no file fails, in whatever greenlet or thread it runs
(ARCHITECTURE.md, traps 2, 3 and 17).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw
import gevent
from gevent.event import AsyncResult, Event
from playhouse.apsw_ext import APSWDatabase

import models
from models import NotBound, bound
from protocol.errors import Busy, StorageFull
from server.disk_space import has_none
from server.disk_threads import disk
from storage.sqlite import dialect
from storage.sqlite.errors import as_problems, problem_of

T = TypeVar("T")
log = logging.getLogger("syncapp.storage")

LOCK_WAIT_SECONDS = 5.0
_GROUP_SECONDS = 0.01
"""How long writes are taken into a commit before it is made; each is itself bounded by what one request may hold."""

_SMALL_CHANGES = 100
_CHECKPOINT_PAGES = 1_000


class Connected:
    """What peewee asks a connection's state for, with a connection that is always open."""

    closed = False
    dialect = dialect

    def __init__(self, connection: apsw.Connection) -> None:
        self.conn = connection
        self.ctx: list[Any] = []
        self.transactions: list[Any] = []
        self.commit_callbacks: list[Any] = []


class _BoundDatabase(APSWDatabase):  # type: ignore[misc]
    """A peewee database whose connection is that of the running context, and that never makes one by itself."""

    def __init__(self) -> None:
        super().__init__(":bound:", thread_safe=False)

    @property
    def _state(self) -> Connected:
        try:
            connected: Connected = bound.get()
            return connected
        except LookupError:
            raise NotBound("no database is bound here") from None

    @_state.setter
    def _state(self, state: object) -> None:
        """Peewee's constructor brings a state of its own, which nothing may use."""

    def connection(self) -> apsw.Connection:
        """Give the connection of the running context; asked several times a request."""
        connected: apsw.Connection = models.connection()
        return connected

    def is_closed(self) -> bool:
        """Tell whether no file is bound here."""
        return bound.get(None) is None

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Refuse, since only a store opens a file."""
        raise NotBound("no database is bound here")


models.database.initialize(_BoundDatabase())


@contextlib.contextmanager
def bound_to(connected: Connected) -> Iterator[None]:
    """Bind the code that runs here to a connection."""
    token = bound.set(connected)
    try:
        yield
    finally:
        bound.reset(token)


class _Write(Generic[T]):
    """One piece of work that waits for its commit."""

    __slots__ = ("after", "answer", "error", "result", "work")

    def __init__(self, work: Callable[[], T], after: Callable[[T], None] | None) -> None:
        self.work, self.after = work, after
        self.answer: AsyncResult = AsyncResult()
        self.result: Any = None
        self.error: BaseException | None = None


class Moved(Busy):
    """The file that is open is no longer the one at its path: what is written into it would be lost with it."""

    sentence = "This tenant's database was replaced or removed on the server's disk. Send this again soon."


class Store:
    """An open SQLite file. Make it with ``Store.open``; close it when nothing waits (``is_idle``)."""

    def __init__(self, path: Path, most_waiting: int) -> None:
        self.path = path
        self._most_waiting = most_waiting
        self._writer = Connected(_connect(path, "writer"))
        self._reader = Connected(_connect(path, "reader"))
        self._waiting: deque[_Write[Any]] = deque()
        self._idle = Event()
        self._idle.set()
        self._wal_pages = 0
        self.mark = object()
        """Another one after each commit: what was read under the same one still holds."""
        self._writer.conn.set_wal_hook(self._note_wal)
        self._writer.conn.pragma("user_version")  # Whatever is read first makes the log of writes.
        self._files = [str(path), f"{path}-wal"]
        self._identities = [_identity(file) for file in self._files]

    @classmethod
    def open(cls, path: Path, prepare: Callable[[], None], fingerprint: int, most_waiting: int = 1000) -> Store:
        """Open or create a file, and ``prepare`` it in one transaction if its schema is not that of ``fingerprint``.

        No other greenlet runs meanwhile, so a lock that another process holds is not waited for.
        Raises: Busy, StorageFull.
        """
        with as_problems():
            store = cls._connected(path, most_waiting)
            try:
                if store._writer.conn.pragma("user_version") != fingerprint:
                    store.run_now(prepare)
                    store._writer.conn.pragma("user_version", fingerprint)
            except BaseException:
                store.close()
                raise
            return store

    @classmethod
    def _connected(cls, path: Path, most_waiting: int) -> Store:
        try:
            return cls(path, most_waiting)
        except apsw.CantOpenError as error:
            if has_none(path.parent):  # Not even for the name of one more file.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    def run_now(self, work: Callable[[], object]) -> None:
        """Run ``work`` in a transaction while nobody else has this store; no other greenlet runs meanwhile."""
        with bound_to(self._writer), self._writer.conn:
            work()
        self.mark = object()

    @property
    def is_in_place(self) -> bool:
        """Tell whether the open file and its log of writes are still those at their paths.

        Source: sqlite.org/howtocorrupt.html, section 4: SQLite itself does not look.
        """
        (file, log), (its_own, its_logs) = self._files, self._identities
        return _identity(file) == its_own and _identity(log) == its_logs

    def keep_as(self, target: Path) -> None:
        """Copy what is in the open file, which may be at no path any more."""
        disk.in_thread(partial(self._writer.conn.execute, "VACUUM INTO ?", (str(target),)))

    def remove_log(self) -> None:
        """Remove this file's log of writes from its path, if it is another file that is there now."""
        is_file, is_log = (_identity(file) == mine for file, mine in zip(self._files, self._identities, strict=True))
        if is_log and not is_file:
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    @property
    def is_idle(self) -> bool:
        """Tell whether no write is under way."""
        return bool(self._idle.is_set())

    def wait(self) -> None:
        """Wait until no write is under way; who is woken before the caller may begin another."""
        self._idle.wait()

    def read(self, query: Callable[[], T]) -> T:
        """Run a query bound to this file; it sees what is committed, and must not switch greenlets."""
        token = bound.set(self._reader)  # Asked several times a request, so without the machinery of ``_bind``.
        try:
            return query()
        except Exception as error:
            _drop_statements(error)
            if problem_of(error) is error:
                raise
            raise problem_of(error) from error
        finally:
            bound.reset(token)

    def write(self, work: Callable[[], T], after: Callable[[T], None] | None = None, *, is_alone: bool = False) -> T:
        """Run ``work`` bound to this file in a transaction; return when it is on disk.

        ``after`` is called with the result once that is on disk, in the order of the commits of this file; its failure
        is logged and harms nobody. What ``work`` raises undoes its own writes alone. ``is_alone``: nobody else is about
        to write this file, so that there is no reason to wait for who could share the commit.
        Raises: what ``work`` raises; Busy, StorageFull.
        """
        if len(self._waiting) >= self._most_waiting:
            raise Busy
        write = _Write(work, after)
        self._waiting.append(write)
        if self._idle.is_set():
            self._idle.clear()
            if is_alone:
                self._serve_group()
            if self._waiting or self._wal_pages >= _CHECKPOINT_PAGES:
                gevent.spawn(self._drain)
            else:
                self._idle.set()
        result: T = write.answer.get()
        return result

    def _drain(self) -> None:
        try:
            while self._waiting or self._wal_pages >= _CHECKPOINT_PAGES:
                if self._waiting:
                    self._serve_group()
                if self._wal_pages >= _CHECKPOINT_PAGES:
                    self._checkpoint()
        finally:
            self._idle.set()

    def _serve_group(self) -> None:
        """Commit what waits, tell of it, and let those go on who wait for it."""
        group = self._commit()
        for write in group:
            _tell(write)
        for write in group:
            _answer(write)

    def _commit(self) -> list[_Write[Any]]:
        """Run a group in one transaction, and give it; an error of the commit is the error of each of them."""
        connection = self._writer.conn
        group: list[_Write[Any]] = []
        token = bound.set(self._writer)  # With each commit, so without the machinery of ``bound_to``.
        try:
            _begin(connection)
            before = connection.total_changes()
            self._run_group(group)
            if connection.total_changes() == before:
                connection.execute("ROLLBACK")  # Nothing to keep: no reason to wait for the disk.
            else:
                is_small = connection.total_changes() - before <= _SMALL_CHANGES
                (disk.at_once if is_small else disk.in_thread)(partial(connection.execute, "COMMIT"))
                self.mark = object()
            if not self.is_in_place:  # After the commit: what is answered was on the disk while it was there.
                raise Moved
        except BaseException as error:  # Whatever it is, those who wait must hear of it.
            with contextlib.suppress(apsw.Error):  # SQLite itself may have rolled back.
                connection.execute("ROLLBACK")
            group = group or [self._waiting.popleft() for _ in range(len(self._waiting))]
            for write in group:
                write.error = write.error or (problem_of(error) if isinstance(error, Exception) else error)
        finally:
            bound.reset(token)
        return group

    def _run_group(self, group: list[_Write[Any]]) -> None:
        """Run what waits, one after the other, as long as a group may take; each that was begun stands in ``group``."""
        end = time.monotonic() + _GROUP_SECONDS
        while self._waiting and (not group or time.monotonic() < end):
            group.append(self._waiting.popleft())
            _run(group[-1], self._writer.conn, is_first=len(group) == 1)

    def _note_wal(self, _: object, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Take the log of writes into the file, when nobody waits for an answer any more."""
        self._wal_pages = 0
        try:
            disk.in_thread(self._writer.conn.wal_checkpoint)
        except apsw.Error as error:  # The next commit comes here again; what is committed is safe.
            if not isinstance(problem_of(error), StorageFull):
                log.exception("a checkpoint failed")

    def close(self) -> None:
        """Close the file; the writer last, so that it takes the log of writes into the file."""
        self._reader.conn.close()
        self._writer.conn.close()


def _connect(path: Path, role: str) -> apsw.Connection:
    """Open a file. The wait for a lock held by another process is ours, since SQLite's would stop the event loop."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(0)
    connection.pragma("foreign_keys", True)
    if role == "writer":
        os.chmod(path, 0o600)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("temp_store", "memory")  # What a savepoint may undo went to a file, at twice the time.
        connection.pragma("journal_size_limit", 4 * 1024 * 1024)
    else:
        connection.pragma("query_only", True)
        connection.pragma("wal_autocheckpoint", 0)
    return connection


def _identity(file: str) -> tuple[int, int] | None:
    """Tell which file is at a path: its device and its inode (stat(2)); no two that exist share both."""
    try:
        found = os.stat(file)  # noqa: PTH116 -- half the time of Path's, with each commit
    except OSError:
        return None
    return found.st_dev, found.st_ino


def engine_version() -> tuple[int, ...]:
    """Give the version of SQLite that is linked in."""
    return tuple(int(part) for part in apsw.sqlite_lib_version().split("."))


def _begin(connection: apsw.Connection) -> None:
    """Begin a write, waiting for a lock that another process holds without holding up the event loop."""
    give_up = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except apsw.BusyError:
            if time.monotonic() > give_up:
                raise
            gevent.sleep(0.02)


def _run(write: _Write[Any], connection: apsw.Connection, is_first: bool) -> None:
    """Run one piece of work; what it raises is its own, unless the whole transaction is gone with it.

    The first of a transaction needs no savepoint, for which SQLite would copy each page: there is no more to undo.
    """
    if not is_first:
        connection.execute("SAVEPOINT one")
    try:
        write.result = write.work()
    except Exception as error:
        _drop_statements(error)
        write.error = problem_of(error)
        if connection.get_autocommit():
            raise  # SQLite itself rolled the transaction back: a full disk, an I/O error.
        if is_first:
            connection.execute("ROLLBACK")
            return _begin(connection)
        connection.execute("ROLLBACK TO one")
    if not is_first:
        connection.execute("RELEASE one")
    return None


def _drop_statements(error: Exception) -> None:
    """Drop what the failed code held: a statement that is half read keeps its connection at an old state of the file, as
    long as the traceback lives, which may be until the next garbage collection."""
    traceback.clear_frames(error.__traceback__)


def _tell(write: _Write[Any]) -> None:
    """Tell of a commit before who waits for it goes on, so that what is told of a group can leave together."""
    if write.error is None and write.after:
        try:
            write.after(write.result)
        except Exception:
            log.exception("telling of a commit failed")


def _answer(write: _Write[Any]) -> None:
    if write.error is None:
        write.answer.set(write.result)
    else:
        write.answer.set_exception(write.error)
