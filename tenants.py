"""Where data lives: the directory of customers and one database a tenant, opened when needed.

Knows: the data folder, which file belongs to whom, how accounts and files come and go together. Must not know: requests,
sockets, tokens, the rules of sync. Paths are made from UUIDs that were parsed, never from text that came from outside.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from blinker import Signal

from protocol.errors import Busy, EmailTaken, InvalidTenantId, TenantNotFound
from storage import main_database
from storage.declarations import compatibility
from storage.positions import place
from storage.sqlite import tenant_files
from storage.sqlite.database import Moved, Store
from storage.sqlite.errors import EngineError, reason_of
from storage.sqlite.file_replacement import forget_aside, keep_open_aside, take_over
from storage.sqlite.files import is_filled, put_file, sync_folder
from storage.sqlite.folder_locks import SERVER_LOCK, alone, hold_alone, shared
from storage.sqlite.orphaned_files import remove_leftovers
from storage.sqlite.rollback_detection import Incarnations
from storage.sqlite.tenant_files import new_tenant_file, open_tenant_file, remove_file

T = TypeVar("T")
_REGISTRATIONS_LOCK = "registrations.lock"
_IS_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)
log = logging.getLogger("syncapp.tenants")


class MainDatabaseBroken(RuntimeError):
    """The directory of customers can't be opened; as text it says which file, why, and what to do."""


class NoData(RuntimeError):
    """There is no data where a command is to find some; making a folder there would hide that."""


def now_ms() -> int:
    """Give the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def parse_tenant_id(text: object) -> str:
    """Read a tenant ID in the form that tokens and the directory have.

    Raises: InvalidTenantId unless it is a UUID, with or without dashes.
    """
    try:
        if not isinstance(text, str) or len(text) not in (32, 36):
            raise ValueError
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidTenantId from None


class Tenants:
    """The data folder of one installation. ``missed`` is sent with the ID of a tenant whose file was not at its place."""

    def __init__(
        self,
        folder: Path,
        *,
        most_open: int = 256,
        most_waiting: int = 1000,
        lock_wait_seconds: int = 0,
        is_server: bool = True,
        retiring: Collection[str] = (),
        creates: bool = True,
    ) -> None:
        """Open the directory; a server has the folder for itself, and puts right what a crash left half done.

        ``lock_wait_seconds``: how long to wait for a server before this one to end. ``retiring``: declared tables that
        are no longer, although there are rows in them. ``creates``: whether a folder without data is begun.
        Raises: DataFolderInUse, MigrationRefused, NoData.
        """
        if not (creates or is_filled(folder / "main.db")):
            raise NoData(f"There is no data in {folder.resolve()}. Set DATA_DIR to the server's data folder.")
        self.folder = folder
        self._files = folder / "tenants"
        for path in (folder, self._files):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.is_server = is_server
        self._lock = hold_alone(folder / SERVER_LOCK, lock_wait_seconds) if is_server else None
        self._most_open, self._most_waiting = most_open, most_waiting
        self._open: OrderedDict[str, Store] = OrderedDict()
        self._closing: set[str] = set()
        self.directory = self._open_directory(folder / "main.db")
        self._incarnations = Incarnations(self.directory)
        self._anew: set[str] = set()
        self.missed = Signal()
        if is_server:
            self._accept(retiring)
            self._recover()

    def _open_directory(self, path: Path) -> Store:
        try:
            return Store.open(path, main_database.prepare, main_database.FINGERPRINT, self._most_waiting)
        except EngineError as error:
            raise MainDatabaseBroken(
                f"{path} can't be opened: {reason_of(error)}. Put it back from a backup."
            ) from None

    def _accept(self, retiring: Collection[str]) -> None:
        """Have the declared tables accepted, before any tenant's file is touched."""
        try:
            for difference in compatibility.accept(self.directory, self.files(), retiring):
                log.info("tables: %s", difference.sentence)
        except BaseException:
            self.close()
            raise

    def files(self) -> Iterator[tuple[str, Path]]:
        """Give every customer's ID with the file of its tenant."""
        for tenant_id in sorted(self.directory.read(main_database.customer_ids)):
            if self.fault_of(tenant_id) is None:
                yield tenant_id, self.path_of(tenant_id)

    def fault_of(self, tenant_id: str) -> str | None:
        """Tell, as one can from outside, whether a customer's file is not there."""
        try:
            return None if self.path_of(tenant_id).stat().st_size else "its file is empty"
        except FileNotFoundError:
            return "its file is missing"

    # --- one tenant --------------------------------------------------------------------------------------------------

    def read(self, tenant_id: str, query: Callable[[], T]) -> T:
        """Run a query bound to a tenant; it must not switch greenlets.

        Raises: TenantNotFound.
        """
        return self._store(tenant_id).read(query)

    def write(
        self,
        tenant_id: str,
        work: Callable[[], T],
        after: Callable[[T], None] | None = None,
        *,
        is_alone: bool = False,
    ) -> T:
        """Run ``work`` bound to a tenant in a transaction, and ``after`` once that is on disk (see ``Store.write``).

        Raises: TenantNotFound, and what ``Store.write`` raises.
        """
        if tenant_id in self._closing:
            raise Busy
        store = self._store(tenant_id)
        try:
            return store.write(work, after, is_alone=is_alone)
        except Moved:
            self._let_go(tenant_id, store)
            raise

    def path_of(self, tenant_id: str) -> Path:
        """Give the file of a tenant: ``tenant_`` and its UUID without dashes."""
        return self._files / tenant_files.file_name(tenant_id)

    def _store(self, tenant_id: str) -> Store:
        store = self._open.get(tenant_id)
        if store is None:
            path = self.path_of(tenant_id)
            if not path.exists():
                self.missed.send(tenant_id)
                raise TenantNotFound
            if path.stat().st_size == 0:
                self.missed.send(tenant_id)
                raise LookupError(f"{path.name} is empty")  # Opening it would write into it.
            self._make_room()
            store = self._open_file(path)
            if self.is_server and self._incarnations.opened(tenant_id, store, now_ms()):
                self._anew.add(tenant_id)
            self._open[tenant_id] = store
        self._open.move_to_end(tenant_id)
        return store

    def migrate(self, say: Callable[[str], None]) -> tuple[int, int]:
        """Make every tenant's file what this version needs; give how many were not, and how many can't be.

        Else each becomes it when it is opened next.
        """
        migrated = failed = 0
        for tenant_id, path in self.files():
            try:
                if tenant_files.is_current(path):
                    continue
                self._open_file(path).close()
                migrated += 1
                say(f"{tenant_id}: migrated")
            except Exception as error:
                failed += 1
                say(f"{tenant_id}: can't be migrated: {error}")
        return migrated, failed

    def _open_file(self, path: Path) -> Store:
        return open_tenant_file(path, self._most_waiting)

    def _make_room(self) -> None:
        """Close the tenants unused for longest; one that is being written stays, even beyond the bound."""
        surplus = len(self._open) + 1 - self._most_open
        for tenant_id in [key for key, store in self._open.items() if store.is_idle][: max(0, surplus)]:
            self._close_if_open(tenant_id)

    def _close_if_open(self, tenant_id: str) -> None:
        if store := self._open.pop(tenant_id, None):
            try:
                if self.is_server:
                    self._incarnations.closed(tenant_id, store)
            finally:
                store.close()

    def is_open(self, tenant_id: str) -> bool:
        """Tell whether a tenant's database is open."""
        return tenant_id in self._open

    def place_known_of(self, tenant_id: str) -> tuple[str, int] | None:
        """Give the epoch and the sequence where a tenant's file stood last, as far as that was noted."""
        return self._incarnations.known(tenant_id)

    @property
    def open_count(self) -> int:
        """Count the databases that are open."""
        return len(self._open)

    # --- accounts ----------------------------------------------------------------------------------------------------

    def provision(self, customer: main_database.Customer) -> None:
        """Create a customer and its database, both or neither.

        The database comes first and the directory's row makes it count: a crash between leaves an empty file that the
        next start removes, and the e-mail address free for the next attempt.
        Raises: EmailTaken.
        """
        with shared(self.folder / _REGISTRATIONS_LOCK):
            self._provision(customer, self.path_of(customer.id))

    def _provision(self, customer: main_database.Customer, path: Path) -> None:
        new = path.with_suffix(".new")

        def insert() -> None:
            if main_database.customer_by_email(customer.email):
                raise EmailTaken
            customer.save(force_insert=True)

        try:
            put_file(new, new_tenant_file(now_ms()))
            os.replace(new, path)
            sync_folder(self._files)
            self.directory.write(insert)
        except Exception:  # What is none ends this greenlet only, and the insert may still come: the next start looks.
            remove_file(new)
            remove_file(path)
            raise

    def close_account(self, customer_id: str, proven: str | None = None) -> list[str]:
        """Remove a customer and its database; return the sessions that end. What a crash leaves, the next start does.

        Raises: InvalidCredentials if ``proven``, the hash that its password was compared with, is not its hash any more.
        """
        sessions = self.directory.write(lambda: main_database.remove_customer(customer_id, proven))
        self._finish_closing(customer_id)
        return sessions

    def _finish_closing(self, tenant_id: str) -> None:
        with self._closed(tenant_id):
            path = self.path_of(tenant_id)
            self.restored_path_of(tenant_id).unlink(missing_ok=True)
            remove_file(path)
            forget_aside(self.aside, path.stem, math.inf)
            shutil.rmtree(
                path.with_name(f".{path.name}-litestream"), ignore_errors=True
            )  # Pages of it, of Litestream's.
            self._incarnations.forget(tenant_id)
        self.directory.write(lambda: main_database.finish_closing(tenant_id, int(time.time())))

    @contextlib.contextmanager
    def _closed(self, tenant_id: str) -> Iterator[None]:
        """Close a tenant's file when its last write is done; nobody writes it before the caller has done its work."""
        self._closing.add(tenant_id)  # Else those who write without a break would put it off for ever.
        try:
            while (store := self._open.get(tenant_id)) and not store.is_idle:
                store.wait()  # Meanwhile it may be closed to make room, and opened anew.
            self._close_if_open(tenant_id)
            yield
            self._close_if_open(tenant_id)  # Who reads may have opened it meanwhile.
        finally:
            self._closing.discard(tenant_id)

    # --- files that others remove or replace -------------------------------------------------------------------------

    def look_at_open(self) -> None:
        """Note where open files stand, and let go of those that somebody removed or replaced."""
        for tenant_id, store in list(self._open.items()):
            if store.is_in_place:
                self._incarnations.note(tenant_id, store)
            else:
                self._let_go(tenant_id, store)
        self._incarnations.save()

    def _let_go(self, tenant_id: str, store: Store) -> None:
        """Close a file that is not at its path any more, and keep what it held: its last bytes go with the descriptor."""
        store.wait()
        if self._open.get(tenant_id) is not store:
            return  # Another greenlet did.
        del self._open[tenant_id]
        self.missed.send(tenant_id)
        keep_open_aside(store, self.aside)
        store.close()

    # --- restored files ----------------------------------------------------------------------------------------------

    def restored_path_of(self, tenant_id: str) -> Path:
        """Give where ``restore`` lays a tenant's file ready to be taken over."""
        return self.path_of(tenant_id).with_suffix(".restored")

    def take_all_restored(self) -> list[str]:
        """Take over every file that lies ready, and give the tenants that began a new epoch since this was asked last.

        One that can't be taken stays for another time.
        """
        for path in self._files.glob("tenant_*.restored"):
            name = path.stem.removeprefix("tenant_")
            if _IS_HEX.fullmatch(name):  # Anything else is not of our making and is left alone.
                try:
                    self.take_restored(str(uuid.UUID(name)))
                except Exception:
                    log.exception("%s can't be taken over; it is tried again", path.name)
        anew, self._anew = self._anew, set()
        return sorted(anew)

    def take_restored(self, tenant_id: str) -> None:
        """Put restored contents in the place of a tenant's, whose last write is waited for.

        What was there is kept in the folder ``replaced``, until the next backup.
        """
        with self._closed(tenant_id):
            take_over(self.restored_path_of(tenant_id), self.path_of(tenant_id), self.aside)
        if self.is_server:
            self.read(tenant_id, place)  # It is looked at in opening, and the log says so.

    @property
    def aside(self) -> Path:
        """Give the folder where what a restore replaced is kept."""
        return self.folder / "replaced"

    # --- start and end -----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Finish closings, and remove what registrations left that never came to an end."""
        self.take_all_restored()
        for tenant_id in self.directory.read(main_database.unfinished_closings):
            self._finish_closing(tenant_id)
        with alone(self.folder / _REGISTRATIONS_LOCK):  # One by the operator may be under way.
            known = {tenant_files.file_name(one) for one in self.directory.read(main_database.customer_ids)}
            remove_leftovers(self._files, known)

    def close(self) -> None:
        """Close every database, each when its last write is done."""
        while self._open:
            with self._closed(next(iter(self._open))):
                pass
        try:
            self._incarnations.save()
        except Exception:  # A disk that is full, or main.db gone: the next start knows less.
            log.exception("where files stand could not be noted")
        self.directory.wait()
        self.directory.close()
        if self._lock is not None:
            os.close(self._lock)
