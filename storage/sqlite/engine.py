"""The SQLite engine: the data folder of an installation, with a file a tenant and one for the directory of customers.

Knows: how files of tenants come and go together with the directory's rows, and what a crash leaves of that. Must not know:
requests, sockets, tokens, the rules of sync.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from protocol.errors import TenantNotFound
from server.bus.bus import Bus, NoBus
from server.disk_space import room
from server.disk_threads import disk
from server.durable_files import sync_folder
from storage import last_positions, main_database
from storage.engine import About, Answers, CanNotOpen, NotRestored
from storage.positions import answers, incarnation, now_ms, position
from storage.sqlite.attempt_windows import AttemptWindows
from storage.sqlite.connections import sqlite_version
from storage.sqlite.data_folder import DataFolder, is_filled
from storage.sqlite.database import SQLiteDatabase
from storage.sqlite.errors import EngineError, reason_of
from storage.sqlite.file_replacement import forget_replaced, take_over
from storage.sqlite.files import copy_file, look_into, put_file
from storage.sqlite.folder_locks import alone, has_server, hold_alone, shared
from storage.sqlite.open_files import OpenFiles, TenantDatabase
from storage.sqlite.orphaned_files import remove_leftovers
from storage.sqlite.restored_files import begin_epoch, lay_ready
from storage.sqlite.rollback_detection import RollbackDetection, went_back
from storage.sqlite.tenant_files import (
    check_file,
    is_current,
    migrate_file,
    new_tenant_file,
    open_main_file,
    open_tenant_file,
    remove_file,
)

T = TypeVar("T")
_RESTORE_SECONDS = 60.0
log = logging.getLogger("syncapp.tenants")


class MainDatabaseBroken(RuntimeError):
    """The directory of customers can't be opened; as text it says which file, why, and what to do."""


class NoData(RuntimeError):
    """There is no data where a command is to find some; making a folder there would hide that."""


class SQLiteEngine:
    """The storage of one installation in a folder (see ``storage.engine.Engine``)."""

    def __init__(
        self,
        folder: Path,
        *,
        most_open: int = 256,
        most_waiting: int = 1000,
        lock_wait_seconds: int = 0,
        is_server: bool = True,
        creates: bool = True,
        least_free_bytes: int = 0,
    ) -> None:
        """Open the directory; a server has the folder for itself.

        ``lock_wait_seconds``: how long to wait for a server before this one to end. ``creates``: whether a folder without
        data is begun. ``least_free_bytes``: with fewer the disk counts as nearly full.
        Raises: DataFolderInUse, MainDatabaseBroken, NoData.
        """
        self.folder, self.is_server = DataFolder(folder), is_server
        room.least_free_bytes = least_free_bytes
        if not (creates or is_filled(self.folder.main)):
            raise NoData(f"There is no data in {folder.resolve()}. Set DATA_DIR to the server's data folder.")
        self.folder.make()
        self._lock = hold_alone(self.folder.server_lock, lock_wait_seconds) if is_server else None
        self.directory = _open_directory(self.folder.main, most_waiting)
        self.rollbacks = RollbackDetection(self.directory)
        watching = self.rollbacks if is_server else None
        self.files = OpenFiles(self.folder, most_open, most_waiting, watching, self._is_account_closed)

    def _is_account_closed(self, tenant_id: str) -> bool:
        return self.directory.read(lambda: main_database.is_closed(tenant_id))

    # --- tenants -----------------------------------------------------------------------------------------------------

    def tenant(self, tenant_id: str) -> TenantDatabase:
        """Give a tenant's database, whose file is opened when it is used."""
        return TenantDatabase(self.files, tenant_id)

    def ask_each(self, tenant_ids: Iterable[str], statements: Sequence[str]) -> dict[str, Answers]:
        """Ask some tenants, one file after the other."""
        found = {}
        for tenant_id in tenant_ids:
            with contextlib.suppress(TenantNotFound):
                found[tenant_id] = self.tenant(tenant_id).read(partial(answers, statements))
        return found

    def tenant_ids(self) -> list[str]:
        """List the customers whose files are there."""
        return [
            one for one in sorted(self.directory.read(main_database.customer_ids)) if self.folder.fault_of(one) is None
        ]

    @property
    def place(self) -> str:
        """Give the folder's path."""
        return str(self.folder.path.resolve())

    @property
    def replaced(self) -> Path:
        """Give the folder in which a restore keeps what it replaced."""
        return self.folder.replaced

    def fault_of(self, tenant_id: str) -> str | None:
        """Tell, as one can from outside, whether a customer's file is not there."""
        return self.folder.fault_of(tenant_id)

    def owner_of(self, epoch: str) -> str | None:
        """Tell whose file is of an epoch."""
        return self.directory.read(partial(last_positions.owner_of, epoch))

    def create(self, tenant_id: str, note: Callable[[], object]) -> None:
        """Create an empty tenant and run ``note`` in the directory, both or neither.

        The file comes first and the directory's row makes it count: a crash between leaves an empty file that the next
        start removes.
        """
        with shared(self.folder.registrations_lock):
            self._create(self.folder.path_of(tenant_id), note)

    def _create(self, path: Path, note: Callable[[], object]) -> None:
        new = path.with_suffix(".new")
        try:
            put_file(new, new_tenant_file(now_ms()))
            os.replace(new, path)
            sync_folder(path.parent)
            self.directory.write(note)
        except Exception:  # What is none ends this greenlet only, and the note may still come: the next start looks.
            remove_file(new)
            remove_file(path)
            raise

    def remove(self, tenant_id: str) -> None:
        """Remove a tenant's file and all that was kept of it, when its last write is done."""
        with self.files.closed(tenant_id):
            path = self.folder.path_of(tenant_id)
            self.folder.restored_path_of(tenant_id).unlink(missing_ok=True)
            remove_file(path)
            self.forget_replaced(tenant_id, math.inf)
            forget_replaced(self.folder.before_migration, path.stem, math.inf)
            pages = path.with_name(f".{path.name}-litestream")  # Of Litestream's, with pages of the file.
            shutil.rmtree(pages, ignore_errors=True)
            self.rollbacks.forget(tenant_id)

    def recover(self, known: Callable[[], Collection[str]]) -> None:
        """Take restored files over, and remove what registrations left that never came to an end."""
        self._take_all_restored()
        with alone(self.folder.registrations_lock):  # One by the operator may be under way.
            remove_leftovers(self.folder, self.directory.read(known))

    def peek(self, tenant_id: str, query: Callable[[], T]) -> T:
        """Run a query bound to a tenant's file as it lies there; it may run in a thread."""
        return look_into(self.folder.path_of(tenant_id), query)

    def is_current(self, tenant_id: str) -> bool:
        """Tell whether a tenant's file is what this version needs."""
        return is_current(self.folder.path_of(tenant_id))

    def migrate(self, tenant_id: str) -> None:
        """Make a tenant's file what this version needs, without keeping it open; others may be migrated meanwhile."""
        migrate_file(self.folder.path_of(tenant_id))

    def faults_in(self, tenant_id: str) -> list[str]:
        """Check a tenant's file from end to end."""
        if fault := self.fault_of(tenant_id):
            return [fault]
        known = self.rollbacks.known(tenant_id)  # First, since the file may be written on meanwhile.
        found, here = disk.in_thread(partial(check_file, self.folder.path_of(tenant_id)))
        fault = went_back(known, here) if here else None
        return [*found, fault] if fault else found

    def rewrite(self, tenant_id: str | None, work: Callable[[], T]) -> T:
        """Run ``work`` bound to a tenant, which begins with it if need be, or to the directory, also if it moved away."""
        if tenant_id is None:
            return self.directory.rewrite(work)
        path = self.folder.path_of(tenant_id)
        if path.exists():
            return self.files.database(tenant_id).rewrite(work)
        new = path.with_suffix(".new")
        remove_file(new)  # Of one that was killed.
        put_file(new, new_tenant_file(now_ms()))
        database = open_tenant_file(new)
        try:
            result = database.rewrite(work)
        except BaseException:
            database.close()
            remove_file(new)
            raise
        database.close()
        os.replace(new, path)
        sync_folder(path.parent)
        return result

    # --- copies and restored files -----------------------------------------------------------------------------------

    def copy_to(self, tenant_id: str, file: Path) -> None:
        """Copy a tenant's file as of one moment."""
        if self.folder.fault_of(tenant_id):
            raise TenantNotFound
        disk.in_thread(partial(copy_file, self.folder.path_of(tenant_id), file))

    def copy_directory(self, file: Path) -> None:
        """Copy main.db as of one moment.

        Raises: StorageFull; CanNotOpen if it knows no customer, although there are tenants' files.
        """
        is_empty = not self.directory.read(partial(main_database.customer_ids_after, "", 1))
        if is_empty and any(self.folder.tenants.glob("tenant_*.db")):
            raise CanNotOpen(
                f"main.db of {self.folder.path} knows no customer, but tenants' files are there: put it back."
            )
        copy_file(self.folder.main, file)

    def restore_from(self, tenant_id: str, file: Path) -> str:
        """Put a copy in the place of a tenant's file, under a new epoch, which it returns.

        Raises: NotRestored.
        """
        epoch = self.lay_ready(tenant_id, partial(copy_file, file))
        self.wait_until_taken({tenant_id: epoch})
        return epoch

    def lay_ready(
        self, tenant_id: str, put: Callable[[Path], object], note: Callable[[], object] = lambda: None
    ) -> str:
        """Lay a file that ``put`` writes ready to be taken over, under a new epoch, which it returns."""
        epoch = lay_ready(self.folder.restored_path_of(tenant_id), put)
        self.directory.write(note)
        return epoch

    def wait_until_taken(self, epochs: Mapping[str, str], wait_seconds: float = _RESTORE_SECONDS) -> None:
        """Wait until the files that lie ready are in their places: a running server takes them over within a second.

        Raises: NotRestored.
        """
        give_up = time.monotonic() + wait_seconds
        for tenant_id in epochs:
            while self.folder.restored_path_of(tenant_id).exists():
                if self.is_server or not has_server(self.folder.path):
                    self._take_restored(tenant_id)
                elif time.monotonic() > give_up:
                    raise NotRestored("The running server does not take the restored files over; its log says why.")
                else:
                    time.sleep(0.1)
        lost = [tenant_id for tenant_id, epoch in epochs.items() if self._epoch_of(tenant_id) != epoch]
        if lost:
            raise NotRestored(f"Closed or restored by someone else meanwhile: {', '.join(lost)}.")

    def _epoch_of(self, tenant_id: str) -> str | None:
        return None if self.folder.fault_of(tenant_id) else self.peek(tenant_id, incarnation)[0]

    def begin_epoch(self, tenant_id: str) -> str:
        """Begin a new epoch in a tenant's file; it is found when the file is opened next.

        Raises: TenantNotFound; CanNotOpen beside a server.
        """
        if not self.is_server and has_server(self.folder.path):
            raise CanNotOpen(f"A server is at work in {self.place}: stop it first.")
        if self.fault_of(tenant_id):
            raise TenantNotFound
        with self.files.closed(tenant_id):
            epoch = begin_epoch(self.folder.path_of(tenant_id))
        self._look_at(tenant_id)
        return epoch

    def forget_replaced(self, tenant_id: str, before: float) -> None:
        """Remove what was kept of a tenant's file until ``before``."""
        forget_replaced(self.folder.replaced, self.folder.path_of(tenant_id).stem, before)

    def forget_migrated(self, before: float) -> None:
        """Remove copies of files that were made until ``before``."""
        forget_replaced(self.folder.before_migration, "tenant_*", before)

    def renewed(self) -> list[str]:
        """Take over the files that lie ready, and list the tenants that began a new epoch since this was asked last."""
        self._take_all_restored()
        renewed, self.files.renewed = self.files.renewed, set()
        return sorted(renewed)

    def _take_all_restored(self) -> None:
        """Take over what lies ready; what can't be taken stays for another time."""
        for tenant_id in self.folder.lying_ready():
            try:
                self._take_restored(tenant_id)
            except Exception:
                log.exception("%s can't be taken over; it is tried again", self.folder.restored_path_of(tenant_id).name)

    def _take_restored(self, tenant_id: str) -> None:
        """Put restored contents in the place of a tenant's, whose last write is waited for."""
        with self.files.closed(tenant_id):
            take_over(self.folder.restored_path_of(tenant_id), self.folder.path_of(tenant_id), self.folder.replaced)
        self._look_at(tenant_id)

    def _look_at(self, tenant_id: str) -> None:
        """Have a server look at a tenant's file, which it does in opening it, and the log says so."""
        if self.is_server:
            self.tenant(tenant_id).read(position)

    # --- while it runs -----------------------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Look whether the disk has room, note positions, let go of files that somebody removed or replaced, and let rest
        what nobody uses."""
        room.look(self.folder.path)
        self.files.look_over()

    def has_room(self) -> bool:
        """Tell whether the disk has room."""
        return room.look(self.folder.path)

    def is_intact(self) -> bool:
        """Tell whether main.db is still the file that was opened."""
        return self.directory.is_in_place

    def kept_secret(self, make: Callable[[], str]) -> None:
        """Keep none: backups copy the directory, and the data folder has room for a file beside it."""

    def keep_secret(self, secret: str) -> bool:
        """Keep none."""
        return False

    def about(self) -> About:
        """Describe the storage."""
        return About("SQLite " + ".".join(map(str, sqlite_version())), None)

    @cached_property
    def attempt_counts(self) -> AttemptWindows:
        """Count attempts in memory: a restart resets them."""
        return AttemptWindows()

    def lease(self, name: str, seconds: float) -> bool:
        """Agree: one process has the files."""
        return True

    def bus(self, channel: str) -> Bus:
        """Give none: one process has the files."""
        return NoBus()

    def give_up_after(self, seconds: float) -> None:
        """Do nothing: what a disk has begun it ends."""

    def close(self) -> None:
        """Close every database, each when its last write is done."""
        self.files.close_all()
        try:
            self.rollbacks.save()
        except Exception:  # A disk that is full, or main.db gone: the next start knows less.
            log.exception("the positions of files could not be noted")
        self.directory.wait()
        self.directory.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _open_directory(path: Path, most_waiting: int) -> SQLiteDatabase:
    try:
        return open_main_file(path, most_waiting)
    except EngineError as error:
        raise MainDatabaseBroken(f"{path} can't be opened: {reason_of(error)}. Put it back from a backup.") from None
