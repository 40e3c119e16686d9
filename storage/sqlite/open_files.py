"""The tenants' files that are open: in bounded number, each opened when it is needed.

Knows: when a file is opened, closed, or let go of because somebody removed or replaced it. Must not know: customers,
how files come, how they are removed.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

import gevent
from blinker import Signal

from protocol.errors import Busy, TenantNotFound
from server.metrics import TENANT_OPENS
from server.scheduler import yield_if_due
from storage.look_ahead import Wanted
from storage.positions import now_ms
from storage.sqlite.data_folder import DataFolder, fault_of
from storage.sqlite.database import LOCK_TRY_SECONDS, LOCK_WAIT_SECONDS, FileReplaced, SQLiteDatabase
from storage.sqlite.file_replacement import keep_open_aside
from storage.sqlite.left_logs import LeftLogs
from storage.sqlite.rollback_detection import RollbackDetection
from storage.sqlite.tenant_files import open_tenant_file

_LOOKS_UNTIL_CLOSED = 12
"""A minute: files are looked over every five seconds."""

T = TypeVar("T")


class TenantDatabase:
    """The database of one tenant, whose file is opened when it is used (see ``storage.engine.Database``)."""

    __slots__ = ("_files", "_tenant_id")

    def __init__(self, files: OpenFiles, tenant_id: str) -> None:
        self._files, self._tenant_id = files, tenant_id

    @property
    def mark(self) -> object:
        """Another object after each commit of this process."""
        return self._files.database(self._tenant_id).mark

    def read(self, query: Callable[[], T]) -> T:
        """Run a query bound to this tenant; it must not switch greenlets."""
        return self._files.database(self._tenant_id).read(query)

    def write(
        self,
        work: Callable[[], T],
        after: Callable[[T], None] | None = None,
        *,
        is_alone: bool = False,
        ahead: Callable[[], Wanted] | None = None,
    ) -> T:
        """Run ``work`` bound to this tenant in a transaction; return when it is on disk."""
        self._files.refuse_closing(self._tenant_id)
        database = self._files.database(self._tenant_id)
        self._files.refuse_closing(self._tenant_id)  # Again, since opening may have waited.
        try:
            return database.write(work, after, is_alone=is_alone, ahead=ahead)
        except FileReplaced:
            self._files.let_go(self._tenant_id, database)
            raise


class OpenFiles:
    """``missed`` is sent with the ID of a tenant whose file is not at its place; ``renewed`` are those that began a new
    epoch. Without ``rollbacks``, as beside a server, nobody looks for files that went back."""

    def __init__(
        self,
        folder: DataFolder,
        most_open: int,
        most_waiting: int,
        rollbacks: RollbackDetection | None,
        is_account_closed: Callable[[str], bool],
    ) -> None:
        self._folder, self._rollbacks, self._is_account_closed = folder, rollbacks, is_account_closed
        self._most_open, self._most_waiting = most_open, most_waiting
        self._open: OrderedDict[str, SQLiteDatabase] = OrderedDict()
        self._closing: set[str] = set()
        self.left_logs = LeftLogs(folder.replaced)
        self.renewed: set[str] = set()
        self.missed = Signal()

    def __contains__(self, tenant_id: str) -> bool:
        return tenant_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def database(self, tenant_id: str) -> SQLiteDatabase:
        """Give a tenant's database, opened if need be; others may go on meanwhile.

        SQLite lets nobody open a file whose write-ahead log another connection recovers or removes: the monitor's, or that
        of a command. That is waited for as a lock is.
        Raises: TenantNotFound; LookupError if its file is empty; Busy.
        """
        give_up = time.monotonic() + LOCK_WAIT_SECONDS
        while (database := self._open.get(tenant_id)) is None:
            if self.left_logs.wait_for(tenant_id):
                continue
            try:
                database = self._open[tenant_id] = self._opened(tenant_id)
                TENANT_OPENS[()] += 1
            except Busy:
                if time.monotonic() > give_up:
                    raise
                gevent.sleep(LOCK_TRY_SECONDS)
        self._open.move_to_end(tenant_id)
        database.idle_looks = 0
        return database

    def _opened(self, tenant_id: str) -> SQLiteDatabase:
        path = self._folder.path_of(tenant_id)
        if fault := fault_of(path):
            self.missed.send(tenant_id)
            if not path.exists():
                raise TenantNotFound
            raise LookupError(f"{path.name}: {fault}")  # Opening it would write into it.
        self._make_room()
        self.left_logs.keep_apart(tenant_id)
        database = open_tenant_file(path, self._most_waiting)
        self.left_logs.forget(tenant_id)
        try:
            if self._rollbacks and self._rollbacks.opened(tenant_id, database, now_ms()):
                self.renewed.add(tenant_id)
        except BaseException:  # Each further try to open it would leave one more.
            database.close()
            raise
        return database

    def _make_room(self) -> None:
        """Close the tenants unused for longest; one that is being written stays, even beyond the bound."""
        surplus = len(self._open) + 1 - self._most_open
        if surplus > 0:
            idle = (key for key, database in self._open.items() if database.is_idle)
            for tenant_id in list(islice(idle, surplus)):
                self._close(tenant_id, leaves_log=not self.left_logs.is_full)

    def _close(self, tenant_id: str, *, leaves_log: bool = False) -> None:
        if database := self._open.pop(tenant_id, None):
            if self._rollbacks:
                self._rollbacks.closed(tenant_id, database)
            if not leaves_log:
                database.close()
            elif log_bytes := database.leave():
                self.left_logs.add(tenant_id, database.path, database.identity, log_bytes)

    @contextlib.contextmanager
    def closed(self, tenant_id: str) -> Iterator[None]:
        """Close a tenant's file when its last write is done, with its log taken in; nobody writes it before the caller has
        done its work."""
        self._closing.add(tenant_id)  # Else those who write without a break would put it off for ever.
        try:
            while (database := self._open.get(tenant_id)) and not database.is_idle:
                database.wait()  # Meanwhile it may be closed to make room, and opened anew.
            self._close(tenant_id)
            self.left_logs.take_in(tenant_id)
            yield
            self._close(tenant_id)  # Who reads may have opened it meanwhile.
        finally:
            self._closing.discard(tenant_id)

    def refuse_closing(self, tenant_id: str) -> None:
        """Raise Busy if a tenant may not be written, since its file is about to be removed or replaced."""
        if tenant_id in self._closing:
            raise Busy

    def look_over(self) -> None:
        """Note positions of open files, let go of those that somebody removed or replaced, take in logs that are due.

        What was not used since the last look rests, and is closed if it was not used for many.
        """
        for tenant_id, database in list(self._open.items()):
            if self._open.get(tenant_id) is not database:
                continue  # Another greenlet closed it.
            if not database.is_in_place:
                self.let_go(tenant_id, database)
                continue
            if self._rollbacks:
                self._rollbacks.note(tenant_id, database)
            self._rest(tenant_id, database)
            yield_if_due()
        self.left_logs.tidy()
        if self._rollbacks:
            self._rollbacks.save()

    def _rest(self, tenant_id: str, database: SQLiteDatabase) -> None:
        if database.idle_looks > _LOOKS_UNTIL_CLOSED and database.is_idle:
            self._close(tenant_id, leaves_log=not self.left_logs.is_full)
        elif database.idle_looks:
            database.rest()
        database.idle_looks += 1

    def let_go(self, tenant_id: str, database: SQLiteDatabase) -> None:
        """Close a file that is not at its path any more, and keep what it held: its last bytes go with the descriptor.

        Nothing is kept if another process removed it since the account was closed.
        """
        database.wait()
        if self._open.get(tenant_id) is not database:
            return  # Another greenlet did.
        del self._open[tenant_id]
        self.missed.send(tenant_id)
        if not self._is_account_closed(tenant_id):
            keep_open_aside(database, self._folder.replaced)
        database.close()

    def close_all(self) -> None:
        """Close every file, each when its last write is done, and leave no log."""
        while self._open:
            with self.closed(next(iter(self._open))):
                pass
        self.left_logs.take_all_in()
