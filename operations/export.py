"""Exports a tenant as one archive: everything as lines of JSON, and its database as a file of SQLite's.

Knows: what the archive has, how a file is made whole or not at all, how a server sends one while it is made. Must not
know: the command line, SQL, requests.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import gevent
from gevent.queue import Queue

from protocol.codec import encode
from protocol.errors import Busy, NotFound
from server.durable_files import sync_folder
from storage.engine import Engine
from storage.export import parts
from storage.main_database import Customer, customer_by_id
from storage.sqlite.files import look_into
from storage.sqlite.tenant_files import open_tenant_file

_ABOUT = """All that syncapp holds of one customer, as of one moment.

account.json     who it is
rows/TABLE.jsonl the rows as apps have them, one a line; deleted ones have is_deleted 1
history.jsonl    each change that is still held, with the row after it
conflicts.jsonl  edits that lost against others, with both sides
devices.jsonl    devices that named themselves
tenant.db        the same as a database of SQLite: sqlite3 tenant.db '.tables'
"""
_SCRATCH = ".export-"
_THERE = "There is such a file already"
_MOST_AT_ONCE = 2
_PORTION_BYTES, _PORTIONS_AHEAD = 65_536, 4
_WORK_SECONDS = 1e-3
_ACCOUNT = (
    "id",
    "email",
    "name",
    "firstName",
    "lastName",
    "companyName",
    "phone",
    "subscriptionPlan",
    "createdAt",
    "state",
)


def export(engine: Engine, customer: Customer, target: Path) -> dict[str, int]:
    """Write the archive, and give how many lines each part has. A file that is there is not replaced.

    Raises: TenantNotFound, StorageFull, OSError, also if there is such a file; nothing of a new file is left then.
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", str(target.parent))
    if target.exists():
        raise FileExistsError(errno.EEXIST, _THERE, str(target))
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=target.parent) as scratch:
        copy, made = _copied(engine, customer.id, scratch), Path(scratch, "made.zip")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            counts = _write(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED), customer, copy, lambda: None)
            os.fsync(file.fileno())
        _put(made, target)
    return counts


def _put(made: Path, target: Path) -> None:
    """Give a file its name, unless another has it by now."""
    try:
        target.hardlink_to(made)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, _THERE, str(target)) from None
    except OSError:  # A file system without links.
        made.rename(target)
    sync_folder(target.parent)


def _copied(engine: Engine, tenant_id: str, folder: str) -> Path:
    copy = Path(folder, "tenant.db")
    engine.copy_to(tenant_id, copy)
    open_tenant_file(copy).close()  # An older version's file becomes one of this version.
    return copy


class Exports:
    """The archives that a server sends while they are made: a few at once, one a tenant, others go on between two lines."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """``folder``: where a tenant's copy lies meanwhile; what a crash left there is removed."""
        self._engine, self._folder = engine, folder if folder.is_dir() else None
        self._running: set[str] = set()
        for left in self._folder.glob(f"{_SCRATCH}*") if self._folder else ():
            shutil.rmtree(left, ignore_errors=True)

    def archive_of(self, tenant_id: str) -> Archive:
        """Begin a tenant's archive; whoever takes no more of it must close it.

        Raises: Busy while the tenant's, or too many, are being made; NotFound, TenantNotFound, StorageFull.
        """
        customer = self._engine.directory.read(partial(customer_by_id, tenant_id))
        if customer is None:
            raise NotFound("This account does not exist any more.")
        if tenant_id in self._running or len(self._running) >= _MOST_AT_ONCE:
            raise Busy("An export is being made already. Try again when it is done.", retry_after_seconds=10)
        self._running.add(tenant_id)
        return Archive(partial(self._write, customer), partial(self._running.discard, tenant_id))

    def _write(self, customer: Customer, target: _Portions) -> None:
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._folder) as scratch:
            copy = _copied(self._engine, customer.id, scratch)
            archive = zipfile.ZipFile(cast(IO[bytes], target), "w", zipfile.ZIP_DEFLATED, compresslevel=1)
            _write(archive, customer, copy, _give_way)
            target.send()


class Archive:
    """An archive in portions, as it is made by a greenlet that waits where nobody takes them."""

    def __init__(self, write: Callable[[_Portions], None], ended: Callable[[], None]) -> None:
        """Wait for the first portion, so that what fails before is raised here."""
        self._queue: Queue[bytes | Exception] = Queue(_PORTIONS_AHEAD)
        self._ended, self._is_over = ended, False
        self._writer = gevent.spawn(self._run, write)
        try:
            self._first: bytes | None = self._take()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        portion, self._first = self._first or (b"" if self._is_over else self._take()), None
        if not portion:
            self._is_over = True
            raise StopIteration
        return portion

    def close(self) -> None:
        """End the writer, wherever it is, and remove what it made."""
        self._is_over = True  # What it still writes on its way out is taken by nobody.
        self._writer.kill()
        self._ended()

    def _run(self, write: Callable[[_Portions], None]) -> None:
        try:
            write(_Portions(self._put))
            self._put(b"")
        except Exception as error:
            self._put(error)

    def _put(self, portion: bytes | Exception) -> None:
        if not self._is_over:
            self._queue.put(portion)

    def _take(self) -> bytes:
        portion: bytes | Exception = self._queue.get()
        if isinstance(portion, Exception):
            raise portion
        return portion


class _Portions:
    """A file that is only written: what is written goes on in portions."""

    def __init__(self, put: Callable[[bytes], object]) -> None:
        self._put = put
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Take what is written, and send a portion when it is whole."""
        self._waiting += data
        if len(self._waiting) >= _PORTION_BYTES:
            self.send()
        return len(data)

    def flush(self) -> None:
        """Do nothing: portions go when they are whole."""

    def send(self) -> None:
        """Send what is left."""
        if self._waiting:
            self._put(bytes(self._waiting))
        self._waiting.clear()


def _give_way() -> None:
    """Rest after each millisecond of work, twice as long: the same loop serves everybody else."""
    if time.time() - gevent.get_hub().loop.now() > _WORK_SECONDS:  # The loop notes the time when it begins a round.
        gevent.sleep(2 * _WORK_SECONDS)


def _write(archive: zipfile.ZipFile, customer: Customer, copy: Path, give_way: Callable[[], None]) -> dict[str, int]:
    account: dict[str, Any] = {name: getattr(customer, name) for name in _ACCOUNT}
    with archive:
        archive.writestr("README.txt", _ABOUT)
        archive.writestr("account.json", encode(account))

        def write_all() -> dict[str, int]:
            """Write every part, each row by row."""
            return {name: _write_lines(archive, name, lines, give_way) for name, lines in parts().items()}

        counts = look_into(copy, write_all)
        with copy.open("rb") as source, archive.open("tenant.db", "w", force_zip64=True) as target:
            while part := source.read(_PORTION_BYTES):
                target.write(part)
                give_way()
    return counts


def _write_lines(
    archive: zipfile.ZipFile, name: str, lines: Callable[[], Iterable[bytes]], give_way: Callable[[], None]
) -> int:
    with archive.open(name, "w", force_zip64=True) as part:
        count = 0
        for count, line in enumerate(lines(), 1):  # noqa: B007 -- counted to the last
            part.write(line + b"\n")
            give_way()
    return count
