"""Takes a tenant back to a moment, from a command: which copy tells the moment, and how a file is made of it.

Knows: backups and files of tenants. Must not know: the command line, requests, sockets, how a moment is found or written
(``storage.time_machine``).
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from operations import backup_manifest as manifests
from operations import restore as restoring
from server.durable_files import sync_file, sync_folder
from server.scheduler import yield_if_due
from storage import positions, rewind
from storage.engine import Database, Engine
from storage.moments import Preview
from storage.positions import now_ms
from storage.sqlite.files import take_log_in
from storage.sqlite.tenant_files import open_tenant_file


@contextlib.contextmanager
def past_of(engine: Engine, tenant_id: str, backup: Path | None) -> Iterator[Database | None]:
    """Open a copy of what a backup has of a tenant, or of a tenant's file; None if none is given.

    Raises: BackupError if it is damaged, or has not this tenant.
    """
    if backup is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "past.db")
        if backup.is_dir():
            restoring.choose(engine, backup, tenant_id, with_closed=True)  # Which verifies it.
            backup = manifests.file_in(backup, tenant_id)
        restoring.copy_of_tenant(engine, backup, tenant_id, copy)
        database = open_tenant_file(copy)
        try:
            yield database
        finally:
            database.close()


@contextlib.contextmanager
def file_of(engine: Engine, tenant_id: str, target: Path) -> Iterator[Database]:
    """Copy a tenant, let the caller work on the copy, and make it the file ``target`` unless that fails.

    Raises: TenantNotFound, StorageFull, OSError, also if there is such a file.
    """
    if target.exists():
        raise FileExistsError(errno.EEXIST, "There is such a file already", str(target))
    with tempfile.TemporaryDirectory(prefix=".rewind-", dir=target.parent) as scratch:
        copy = Path(scratch, "tenant.db")
        engine.copy_to(tenant_id, copy)
        database = open_tenant_file(copy)
        try:
            yield database
        finally:
            database.close()
        take_log_in(copy)
        sync_file(copy)
        copy.rename(target)
        sync_folder(target.parent)


def write_file(database: Database, preview: Preview) -> int:
    """Make the rows of a copy what they were, all at once, and begin a new epoch; give how many rows that were."""

    def write() -> int:
        written = rewind.write(preview.rows, now_ms(), yield_if_due, preview.entries)
        positions.begin_epoch(now_ms())
        return len(written.applied.results)

    return database.write(write)
