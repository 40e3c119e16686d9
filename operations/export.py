"""Exports a tenant as one archive: everything as lines of JSON, and its database as a file of SQLite's.

Knows: what the archive has, how a file is made whole or not at all. Must not know: the command line, SQL, requests.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from protocol.codec import encode
from server.durable_files import sync_folder
from storage.engine import Engine
from storage.export import parts
from storage.main_database import Customer
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
    if target.exists():
        raise FileExistsError(errno.EEXIST, "There is such a file already", str(target))
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as scratch:
        copy, made = Path(scratch, "tenant.db"), Path(scratch, "made.zip")
        engine.copy_to(customer.id, copy)
        open_tenant_file(copy).close()  # An older version's file becomes one of this version.
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            counts = _write(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED), customer, copy)
            os.fsync(file.fileno())
        made.rename(target)
        sync_folder(target.parent)
    return counts


def _write(archive: zipfile.ZipFile, customer: Customer, copy: Path) -> dict[str, int]:
    account: dict[str, Any] = {name: getattr(customer, name) for name in _ACCOUNT}
    with archive:
        archive.writestr("README.txt", _ABOUT)
        archive.writestr("account.json", encode(account))

        def write_all() -> dict[str, int]:
            """Write every part, each row by row."""
            return {name: _write_lines(archive, name, lines) for name, lines in parts().items()}

        counts = look_into(copy, write_all)
        with copy.open("rb") as source, archive.open("tenant.db", "w", force_zip64=True) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    return counts


def _write_lines(archive: zipfile.ZipFile, name: str, lines: Callable[[], Iterable[bytes]]) -> int:
    with archive.open(name, "w", force_zip64=True) as part:
        return sum(part.write(line + b"\n") > 0 for line in lines())
