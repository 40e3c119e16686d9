"""A tenant's database as a file: opened and made what this version needs, begun, removed.

Knows: which schema a tenant's file has. Must not know: whose file it is, where it lies, requests.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from functools import cache, partial
from pathlib import Path

from storage import schema
from storage.sqlite.database import Store
from storage.sqlite.files import file_bytes, look_into, sync_folder


def file_name(tenant_id: str) -> str:
    """Name a tenant's file: from a UUID that is parsed, whatever the text was."""
    return f"tenant_{uuid.UUID(tenant_id).hex}.db"


def open_tenant_file(path: Path, most_waiting: int = 1000) -> Store:
    """Open a tenant's file, wherever it lies, and make it what this version needs."""

    def prepare() -> None:
        schema.prepare_tenant(time.time_ns() // 1_000_000)

    return Store.open(path, prepare, schema.tenant_fingerprint(), most_waiting)


def is_current(path: Path) -> bool:
    """Tell whether a tenant's file is what this version needs."""
    return bool(look_into(path, schema.is_current))


def new_tenant_file(now: int) -> bytes:
    """Give the bytes of a new tenant's file. To lay out its tables takes 20 times as long as to copy them."""
    return file_bytes(_laid_out(), partial(schema.begin_tenant, now))


@cache
def _laid_out() -> bytes:
    return file_bytes(b"", schema.lay_out_tenant, schema.tenant_fingerprint())


def remove_file(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it, for good."""
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()
    sync_folder(path.parent)
