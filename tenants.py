"""Where data lives: the directory of customers and one database a tenant, opened when needed.

Knows: the data folder, which file belongs to whom, how accounts and files come and go together. Must not know: requests,
sockets, tokens, the rules of sync. Paths are made from UUIDs that were parsed, never from text that came from outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import directory
import migration
import schema
from errors import Busy, EmailTaken, InvalidTenantId, TenantNotFound
from files import file_bytes, look_into, put_file
from ledger import place
from storage import EngineError, Store

T = TypeVar("T")
_LOCK = "server.lock"
_IS_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)
log = logging.getLogger("syncapp.tenants")


class DataFolderInUse(RuntimeError):
    """Another server process works in this data folder; two would corrupt it."""


class MainDatabaseBroken(RuntimeError):
    """The directory of customers can't be opened; as text it says which file, why, and what to do."""


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
    """The data folder of one installation."""

    def __init__(
        self,
        folder: Path,
        *,
        most_open: int = 256,
        most_waiting: int = 1000,
        lock_wait_seconds: int = 0,
        is_server: bool = True,
        retiring: Collection[str] = (),
    ) -> None:
        """Open the directory; a server has the folder for itself, and puts right what a crash left half done.

        ``lock_wait_seconds``: how long to wait for a server before this one to end. ``retiring``: declared tables that
        are no longer, although there are rows in them.
        Raises: DataFolderInUse, MigrationRefused.
        """
        self.folder = folder
        self._files = folder / "tenants"
        for path in (folder, self._files):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.is_server = is_server
        self._lock = _lock(folder / _LOCK, lock_wait_seconds) if is_server else None
        self._most_open, self._most_waiting = most_open, most_waiting
        self._open: OrderedDict[str, Store] = OrderedDict()
        self._closing: set[str] = set()
        self.directory = self._open_directory(folder / "main.db")
        if is_server:
            self._accept(retiring)
            self._recover()

    def _open_directory(self, path: Path) -> Store:
        try:
            return Store.open(path, directory.prepare, directory.FINGERPRINT, self._most_waiting)
        except EngineError as error:
            raise MainDatabaseBroken(f"{path} can't be opened: {error}. Put it back from a backup.") from None

    def _accept(self, retiring: Collection[str]) -> None:
        """Have the declared tables accepted, before any tenant's file is touched."""
        try:
            for difference in migration.accept(self.directory, self.files(), retiring):
                log.info("tables: %s", difference.sentence)
        except BaseException:
            self.close()
            raise

    def files(self) -> Iterator[tuple[str, Path]]:
        """Give every customer's ID with the file of its tenant."""
        for tenant_id in sorted(self.directory.read(directory.customer_ids)):
            path = self.path_of(tenant_id)
            if path.exists() and path.stat().st_size:
                yield tenant_id, path

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
        return self._store(tenant_id).write(work, after, is_alone=is_alone)

    def path_of(self, tenant_id: str) -> Path:
        """Give the file of a tenant: ``tenant_`` and its UUID without dashes."""
        return self._files / f"tenant_{uuid.UUID(tenant_id).hex}.db"

    def _store(self, tenant_id: str) -> Store:
        store = self._open.get(tenant_id)
        if store is None:
            path = self.path_of(tenant_id)
            if not path.exists():
                raise TenantNotFound
            if path.stat().st_size == 0:
                raise LookupError(f"{path.name} is empty")  # Opening it would write into it.
            self._make_room()
            store = self._open_file(path)
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
                if is_current(path):
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
            self._open.pop(tenant_id).close()

    @property
    def open_count(self) -> int:
        """Count the databases that are open."""
        return len(self._open)

    # --- accounts ----------------------------------------------------------------------------------------------------

    def provision(self, customer: directory.Customer) -> None:
        """Create a customer and its database, both or neither.

        The database comes first and the directory's row makes it count: a crash between leaves an empty file that the
        next start removes, and the e-mail address free for the next attempt.
        Raises: EmailTaken.
        """
        with self._holding("registrations.lock", fcntl.LOCK_SH):
            self._provision(customer, self.path_of(customer.id))

    def _provision(self, customer: directory.Customer, path: Path) -> None:
        new = path.with_suffix(".new")

        def insert() -> None:
            if directory.customer_by_email(customer.email):
                raise EmailTaken
            customer.save(force_insert=True)

        try:
            put_file(new, new_tenant_file())
            os.replace(new, path)
            sync_folder(self._files)
            self.directory.write(insert)
        except Exception:  # What is none ends this greenlet only, and the insert may still come: the next start looks.
            _remove(new)
            _remove(path)
            raise

    def close_account(self, customer_id: str, proven: str | None = None) -> list[str]:
        """Remove a customer and its database; return the sessions that end. What a crash leaves, the next start does.

        Raises: InvalidCredentials if ``proven``, the hash that its password was compared with, is not its hash any more.
        """
        sessions = self.directory.write(lambda: directory.remove_customer(customer_id, proven))
        self._finish_closing(customer_id)
        return sessions

    def _finish_closing(self, tenant_id: str) -> None:
        self._close_store(tenant_id)
        self.restored_path_of(tenant_id).unlink(missing_ok=True)
        _remove(self.path_of(tenant_id))
        self.directory.write(lambda: directory.finish_closing(tenant_id))

    def _close_store(self, tenant_id: str) -> None:
        """Close a tenant's file when its last write is done; nothing can begin one before the caller goes on."""
        self._closing.add(tenant_id)  # Else those who write without a break would put it off for ever.
        try:
            while (store := self._open.get(tenant_id)) and not store.is_idle:
                store.wait()  # Meanwhile it may be closed to make room, and opened anew.
            if store:
                self._open.pop(tenant_id).close()
        finally:
            self._closing.discard(tenant_id)

    # --- restored files ----------------------------------------------------------------------------------------------

    def restored_path_of(self, tenant_id: str) -> Path:
        """Give where ``backup.restore`` lays a tenant's file ready to be taken over."""
        return self.path_of(tenant_id).with_suffix(".restored")

    def take_all_restored(self) -> list[str]:
        """Take over every file that lies ready, and give the tenants' IDs."""
        ids = []
        for path in self._files.glob("tenant_*.restored"):
            name = path.stem.removeprefix("tenant_")
            if _IS_HEX.fullmatch(name):  # Anything else is not of our making and is left alone.
                ids.append(str(uuid.UUID(name)))
                self.take_restored(ids[-1])
        return ids

    def take_restored(self, tenant_id: str) -> None:
        """Put a restored file in the place of a tenant's, whose last write is waited for."""
        path = self.path_of(tenant_id)
        self._close_store(tenant_id)
        for suffix in ("-wal", "-shm"):  # They belong to the old file and would be read into the new one.
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(self.restored_path_of(tenant_id), path)
        sync_folder(self._files)

    def has_server(self) -> bool:
        """Tell whether a server works in this folder."""
        return has_server(self.folder)

    # --- start and end -----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Finish closings, and remove what registrations left that never came to an end."""
        self.take_all_restored()
        for tenant_id in self.directory.read(directory.unfinished_closings):
            self._finish_closing(tenant_id)
        with self._holding("registrations.lock", fcntl.LOCK_EX):  # One by the operator may be under way.
            self._remove_unfinished()

    @contextlib.contextmanager
    def _holding(self, name: str, how: int) -> Iterator[None]:
        """Hold a lock of this folder against other processes."""
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _remove_unfinished(self) -> None:
        for path in [*self._files.glob("tenant_*.new*"), *self._files.glob("tenant_*.making*")]:
            path.unlink()
        known = {uuid.UUID(customer_id).hex for customer_id in self.directory.read(directory.customer_ids)}
        for path in self._files.glob("tenant_*.db"):
            if path.stem.removeprefix("tenant_") not in known:
                self._remove_if_empty(path)

    def _remove_if_empty(self, path: Path) -> None:
        """Remove a file that belongs to nobody, unless someone's rows are in it: then only say so."""
        try:
            store = self._open_file(path)
        except Exception:
            log.exception("%s belongs to no customer and can't be opened; it was left alone", path.name)
            return
        sequence = store.read(place).sequence
        store.close()
        if sequence == 0:
            _remove(path)
        else:
            log.warning("%s belongs to no customer but holds rows; it was left alone", path.name)

    def close(self) -> None:
        """Close every database, each when its last write is done."""
        while self._open:
            self._close_store(next(iter(self._open)))
        self.directory.wait()
        self.directory.close()
        if self._lock is not None:
            os.close(self._lock)


def open_tenant_file(path: Path, most_waiting: int = 1000) -> Store:
    """Open a tenant's file, wherever it lies, and make it what this version needs."""
    return Store.open(path, schema.prepare_tenant, schema.tenant_fingerprint(), most_waiting)


def is_current(path: Path) -> bool:
    """Tell whether a tenant's file is what this version needs."""
    return bool(look_into(path, schema.is_current))


def new_tenant_file() -> bytes:
    """Give the bytes of a new tenant's file. To lay out its tables takes 20 times as long as to copy them."""
    return file_bytes(_laid_out(), partial(schema.begin_tenant, now_ms()))


@cache
def _laid_out() -> bytes:
    return file_bytes(b"", schema.lay_out_tenant, schema.tenant_fingerprint())


def has_server(folder: Path) -> bool:
    """Tell whether a server works in a data folder; nothing is made there."""
    path = folder / _LOCK
    if not path.exists():
        return False
    try:
        os.close(_lock(path, 0))
    except DataFolderInUse:
        return True
    return False


def _lock(path: Path, wait_seconds: int) -> int:
    """Hold a file locked as long as this process lives, so that no second server works in the same folder."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up, is_said = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= give_up:
                os.close(descriptor)
                raise DataFolderInUse(f"Another server is running in {path.parent}. Stop it first.") from None
            if not is_said:
                log.warning(
                    "another server is running in %s; waiting up to %d s for its end", path.parent, wait_seconds
                )
                is_said = True
            time.sleep(0.1)


def sync_folder(folder: Path) -> None:
    """Make a rename or a removal survive a power loss (fsync(2): a file's entry is in its folder)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()
    sync_folder(path.parent)
