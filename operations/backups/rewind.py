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

from operations.backups import manifest as manifests
from operations.backups import restore as restoring
from operations.backups import retrieval
from operations.backups.scratch import scratch_folder
from server.durable_files import sync_file, sync_folder
from server.scheduler import yield_if_due
from settings import Settings
from storage import positions, rewind
from storage.engine import Database, Engine
from storage.moments import Preview
from storage.positions import now_ms
from storage.sqlite.files import take_log_in
from storage.sqlite.tenant_files import open_tenant_file

Source = Path | str | None
"""Where an earlier moment may be: a backup's folder, a tenant's file, or as text which backup in BACKUP_TO."""


@contextlib.contextmanager
def past_of(
    engine: Engine, settings: Settings, tenant_id: str, source: Source
) -> Iterator[tuple[Database, str] | None]:
    """Open a copy of what a source has of a tenant, with the source's name for the record; None if there is none.

    Raises: BackupError if it is damaged, or has not this tenant.
    """
    if source is None:
        yield None
        return
    with scratch_folder() as scratch:
        file, name = _file_of_source(engine, settings, tenant_id, source, scratch / "read.db")
        restoring.copy_of_tenant(engine, file, tenant_id, copy := scratch / "past.db")
        database = open_tenant_file(copy)
        try:
            yield database, name
        finally:
            database.close()


def _file_of_source(
    engine: Engine, settings: Settings, tenant_id: str, source: Path | str, read: Path
) -> tuple[Path, str]:
    """Give the file that a source has of a tenant, which may be made as ``read``, and the source's name."""
    if isinstance(source, str):
        with retrieval.kept(settings, source) as backup:
            backup.tenant(tenant_id, read)
            return read, backup.catalogue.name
    if source.is_dir():
        restoring.choose(engine, source, tenant_id, with_closed=True)  # Which verifies it.
        return manifests.file_in(source, tenant_id), str(source)
    return source, str(source)


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
        """Write them, and begin the epoch."""
        written = rewind.write(preview.rows, now_ms(), yield_if_due, preview.entries)
        positions.begin_epoch(now_ms())
        return len(written.applied.results)

    return database.write(write)
