"""A tenant's database, and the directory's, as files: opened and made what this version needs, begun, removed.

Knows: which schema each has. Must not know: whose file it is, where it lies, requests.
"""

from __future__ import annotations

import contextlib
from functools import cache, partial
from pathlib import Path

from server.durable_files import sync_folder
from storage import main_database, moving, schema, tenant_check
from storage.positions import incarnation, now_ms
from storage.sqlite.database import SQLiteDatabase
from storage.sqlite.files import faults_of, file_bytes, look_into, migrate


def open_main_file(path: Path, most_waiting: int = 1000) -> SQLiteDatabase:
    """Open a main database, wherever it lies."""
    return SQLiteDatabase.open(path, main_database.prepare, main_database.FINGERPRINT, most_waiting, moving.DIRECTORY)


def open_tenant_file(path: Path, most_waiting: int = 1000) -> SQLiteDatabase:
    """Open a tenant's file, wherever it lies, and make it what this version needs."""

    def prepare() -> None:
        """Bring the tables of the file to this version."""
        schema.prepare_tenant(now_ms())

    return SQLiteDatabase.open(path, prepare, schema.tenant_fingerprint(), most_waiting, moving.TENANT)


def migrate_file(path: Path) -> None:
    """Make a tenant's file what this version needs; threads wait for the disk, so that others may be migrated meanwhile."""
    migrate(path, lambda: schema.prepare_tenant(now_ms()), schema.tenant_fingerprint())


def check_file(path: Path) -> tuple[list[str], tuple[str, int] | None]:
    """Check a tenant's file from end to end, and give what is wrong and its position; run it in a thread."""
    if found := faults_of(path):
        return found, None
    return look_into(path, lambda: (tenant_check.faults(), incarnation()))


def is_current(path: Path) -> bool:
    """Tell whether a tenant's file is what this version needs."""
    return bool(look_into(path, schema.is_current))


def new_tenant_file(now: int) -> bytes:
    """Give the bytes of a new tenant's file. To lay out its tables takes 20 times as long as to copy them."""
    return file_bytes(_laid_out(), partial(schema.begin_tenant, now))


@cache
def _laid_out() -> bytes:
    def lay_out() -> None:
        """Make all tables."""
        schema.lay_out()
        schema.begin_tables()

    return file_bytes(b"", lay_out, schema.tenant_fingerprint())


def remove_file(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it, for good."""
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()
    sync_folder(path.parent)
