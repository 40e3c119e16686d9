"""Reads and writes the manifest of a backup, and hashes its files and rows.

Knows: the forms of ``manifest.json``, this version's and older ones, and the state of one tenant's file. Must not know: the
command line, how a backup is made, verified or restored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from models import synced_tables
from protocol.messages import Pull
from storage import digest, main_database, positions, pull_reader
from storage.engine import Database
from storage.positions import now_ms
from storage.schema import tenant_fingerprint
from storage.sqlite.data_folder import file_name
from storage.sqlite.errors import reason_of
from storage.sqlite.tenant_files import open_main_file, open_tenant_file

NAME = "manifest.json"
FORMAT = 2
_CHUNK_ROWS = 1000
_BLOCK_BYTES = 1024 * 1024

State = dict[str, Any]
"""The state of a tenant's file: its epoch and sequence, by table the digest that devices know (``digests``) and the hash
over the rows' bytes (``rows``), and the ``schema`` under which these were read."""


class BackupError(RuntimeError):
    """A backup or a restore is not possible; its text says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a backup. Format 1 has neither ``files`` nor ``only`` nor ``missing``."""

    format: int = 1
    made: str = ""
    only: str | None = None
    """The tenant, if the backup is of one alone."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file by its path in the backup."""
    tenants: dict[str, State] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """By customer, why its file is not in the backup."""
    closed: list[str] = field(default_factory=list)
    """Customers of ``main.db`` who closed their accounts while the backup was made."""

    @property
    def has_hashes(self) -> bool:
        """Tell whether files can be compared byte by byte."""
        return self.format >= 2


def read(backup: Path) -> Manifest:
    """Read a backup's manifest.

    Raises: BackupError if there is none, or it is of a newer version.
    """
    if not (backup / NAME).exists():
        raise BackupError(f"{backup} is no backup: it has no {NAME}.{_hint(backup)}")
    try:
        manifest = msgspec.json.decode((backup / NAME).read_bytes(), type=Manifest)
        names = [file_name(tenant_id) for tenant_id in (*manifest.tenants, *manifest.missing)]
        if manifest.format > FORMAT:
            raise ValueError(f"it is of format {manifest.format}, and this version knows {FORMAT}")
        if manifest.has_hashes and not {"main.db", *map("tenants/{}".format, names)} >= set(manifest.files):
            raise ValueError("it names files that are no tenant's")
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BackupError(f"{backup} is no backup: {reason_of(error)}") from None
    return manifest


def _hint(folder: Path) -> str:
    inside = sorted(path.parent.name for path in folder.glob(f"*/{NAME}"))
    return f" Backups are in it, the newest is {folder / inside[-1]}." if inside else ""


def write(folder: Path, manifest: Manifest) -> None:
    """Write a manifest and flush it to the disk."""
    descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(manifest), file, indent=1)
        file.flush()
        os.fsync(descriptor)


def file_in(backup: Path, tenant_id: str) -> Path:
    """Give a tenant's file in a backup."""
    return backup / "tenants" / file_name(tenant_id)


def flush_and_hash(path: Path) -> str:
    """Flush a file to the disk, and give its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _hash_of(path)


def copy_and_hash(source: Path, target: Path) -> str:
    """Copy a file, for its owner only, and give the SHA-256 of what was copied."""
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    whole = hashlib.sha256()
    with os.fdopen(descriptor, "wb") as file:
        for block in _blocks(source):
            whole.update(block)
            file.write(block)
    return whole.hexdigest()


def _hash_of(path: Path) -> str:
    whole = hashlib.sha256()
    for block in _blocks(path):
        whole.update(block)
    return whole.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


# --- a tenant's file -------------------------------------------------------------------------------------------------


def state_of(file: Path) -> State:
    """Read the state of a tenant's file, and pull all its rows through the code that serves devices.

    Raises: BackupError if the rows are not those of the digests that are stored with them.
    """
    database = open_tenant_file(file)
    try:
        here, digests = database.read(positions.position_and_digests)
        pull = Pull(list(synced_tables()), None, None)
        page = database.read(lambda: pull_reader.page_of(pull, now_ms(), 0))
        pulled = {table: _pull_all(database, page, table) for table in page.tables}
    finally:
        database.close()
    synced = {name: digests[name] for name in pulled}  # There may be digests of tables that are no longer synced.
    if synced != {name: of_rows for name, (of_rows, _) in pulled.items()}:
        raise BackupError("the rows that a device pulls do not give the digest that is stored with them")
    rows = {name: sha256 for name, (_, sha256) in pulled.items()}
    schema = tenant_fingerprint()
    return {"epoch": here.epoch, "sequence": here.sequence, "digests": synced, "rows": rows, "schema": schema}


def stored_state() -> State:
    """Read the state of the file that this code is bound to, of any version."""
    here, digests = positions.position_and_digests()
    return {"epoch": here.epoch, "sequence": here.sequence, "digests": digests}


def _pull_all(database: Database, page: pull_reader.Page, table: str) -> tuple[dict[str, Any], str]:
    """Pull a table's rows; give their digest as devices know it, and the SHA-256 over their JSON in its order."""
    after, count, whole, contents = page.since, 0, 0, hashlib.sha256()
    while (chunk := database.read(lambda: pull_reader.rows_of(page, table, after, _CHUNK_ROWS))).count:
        for row in chunk.rows():
            count, whole = count + 1, whole ^ digest.number_of(row["id"], row["version"])
        contents.update(chunk.json + b",")
        after = chunk.last
    return {"count": count, "hash": digest.text_of(whole)}, contents.hexdigest()


def customers_in(main: Path) -> dict[str, main_database.Customer]:
    """List the customers of a main database that nobody else uses, by their IDs."""
    database = open_main_file(main)
    try:
        return {customer.id: customer for customer in database.read(lambda: list(main_database.Customer.select()))}
    finally:
        database.close()
