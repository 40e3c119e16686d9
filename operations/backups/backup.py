"""Makes a backup while the server runs, and removes older ones.

Knows: the order in which files reach the disk, when no backup may be removed. Must not know: the command line, requests,
sockets, how a backup is verified. A backup is a folder ``syncapp-<UTC time>`` with ``main.db``, ``tenants/`` and
``manifest.json``. It gets that name when all of it is on the disk, so that every folder of that name is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from operations.backups import manifest as manifests
from operations.backups.manifest import BackupError, Manifest
from operations.backups.scratch import is_no_room
from operations.backups.verification import verify
from protocol.errors import StorageFull
from server.durable_files import sync_folder
from storage import main_database
from storage.engine import Engine
from storage.sqlite.errors import reason_of

_NAME = "syncapp-%Y%m%dT%H%M%SZ"
_SCRATCH = ".syncapp-"
Report = Callable[[str], None]


class BackupResult(NamedTuple):
    """A new backup, what is missing in it, and why older ones were not removed, if they should have been."""

    path: Path
    missing: Mapping[str, str]
    kept: str | None


def make(engine: Engine, to: Path, tenant_id: str | None, keep: int | None, report: Report) -> BackupResult:
    """Back up all tenants, or one; then remove all but the newest ``keep`` backups, if nothing is lost with them.

    A customer whose file can't be copied is named, and the others are backed up.
    Raises: BackupError if nothing can be backed up: then nothing appears, and nothing old is removed.
    """
    is_new, began = not to.exists(), time.time()
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(to), tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=to) as scratch:
        made = Path(scratch) / "backup"
        made.mkdir(mode=0o700)
        try:
            manifest = _copy_all(engine, made, tenant_id, report)
        except StorageFull:
            raise BackupError(f"There is no room in {to} for the backup.") from None
        target = to / datetime.now(UTC).strftime(_NAME)
        if target.exists():
            raise BackupError(f"{target} exists already.")
        _put_in_place(made, target, manifest)
        if is_new:
            sync_folder(to.parent)
        for held in manifest.tenants:  # Files that a restore replaced are kept until the next backup.
            engine.forget_replaced(held, began)
        kept = _prune(engine, target, keep, Path(scratch), report) if keep else None
    return BackupResult(target, manifest.missing, kept)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder of backups against other backups, and remove the remains of an interrupted one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left)
        yield
    except BlockingIOError:
        raise BackupError(f"Another backup is being made in {folder}.") from None
    finally:
        os.close(descriptor)


def _copy_all(engine: Engine, made: Path, tenant_id: str | None, report: Report) -> Manifest:
    (made / "tenants").mkdir(mode=0o700)
    engine.copy_directory(made / "main.db")
    ids = sorted(manifests.customers_in(made / "main.db"))
    if tenant_id is not None and tenant_id not in ids:
        raise BackupError(f"There is no tenant {tenant_id}.")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    files = {"main.db": manifests.flush_and_hash(made / "main.db")}
    manifest = Manifest(manifests.FORMAT, now, tenant_id, files, {}, {}, [])
    for wanted in [tenant_id] if tenant_id else ids:
        _copy_one(engine, made, wanted, manifest, report)
    if manifest.missing and not manifest.tenants:
        raise BackupError("; ".join(f"{one}: {why}" for one, why in manifest.missing.items()))
    return manifest


def _copy_one(engine: Engine, made: Path, tenant_id: str, manifest: Manifest, report: Report) -> None:
    """Copy a tenant's file and read its state. If that fails, the manifest says why.

    Raises: StorageFull, which is no fault of this file.
    """
    target = manifests.file_in(made, tenant_id)
    try:
        fault = engine.fault_of(tenant_id)
        if fault is None:
            engine.copy_to(tenant_id, target)
            state = manifests.state_of(target)
            if Path(f"{target}-wal").exists():  # SQLite could not take it in, and says nothing when it closes a file.
                raise StorageFull
            manifest.tenants[tenant_id] = state
            manifest.files[f"tenants/{target.name}"] = manifests.flush_and_hash(target)
            report(f"{tenant_id}: backed up as of change {state['sequence']}")
            return
    except Exception as error:
        if is_no_room(error):
            raise StorageFull from None
        fault = f"it can't be copied: {reason_of(error)}"
    target.unlink(missing_ok=True)
    if engine.directory.read(lambda: main_database.customer_by_id(tenant_id)) is None:
        manifest.closed.append(tenant_id)
        report(f"{tenant_id}: closed meanwhile")
    else:
        manifest.missing[tenant_id] = fault
        report(f"{tenant_id}: {fault}")


def _put_in_place(made: Path, target: Path, manifest: Manifest) -> None:
    """Give a backup its name once all of it is on the disk: files, then the folders that name them, then the rename.

    Source: fsync(2): the file's entry in its folder needs an fsync of the folder.
    """
    manifests.write(made, manifest)
    sync_folder(made / "tenants")
    sync_folder(made)
    made.rename(target)
    sync_folder(target.parent)


def backups_in(folder: Path) -> list[Path]:
    """List the backups in a folder, the newest first."""
    return sorted((path.parent for path in folder.glob(f"syncapp-*/{manifests.NAME}")), reverse=True)


# --- pruning -------------------------------------------------------------------------------------------------------


def _prune(engine: Engine, new: Path, keep: int, scratch: Path, report: Report) -> str | None:
    """Remove the oldest backups, or give the reason not to. The last backup of a customer who did not close the account
    stays."""
    older = [path for path in backups_in(new.parent) if path != new]
    why = _reason_not_to_prune(new, older, report)
    if why:
        return why
    closed = engine.directory.read(main_database.closed_ids)
    staying = [new, *older]
    for path in reversed(staying[keep:]):
        held = _tenants_in(path)
        others = set[str]().union(*(_tenants_in(other) or () for other in staying if other != path))
        alone = set() if held is None else held - others - closed
        if held is None or alone:
            report(f"{path.name} stays: no other backup holds {', '.join(sorted(alone)) or 'what it does'}")
            continue
        path.rename(scratch / path.name)  # A half-removed folder must not look like a backup.
        sync_folder(new.parent)
        shutil.rmtree(scratch / path.name)
        staying.remove(path)
        report(f"removed {path.name}")
    return None


def _reason_not_to_prune(new: Path, older: Sequence[Path], report: Report) -> str | None:
    """Give the reason not to remove older backups: this one is damaged, or has fewer tenants than the last one."""
    checked = verify(new, lambda _: None)
    for tenant_id, fault in checked.faults.items():
        report(f"{tenant_id}: {fault}")
    if not checked.is_good:
        return f"{new.name} is not whole."
    counts = ((len(_tenants_in(path) or ()), path.name) for path in older if not _is_of_one_tenant(path))
    before, name = next(counts, (0, ""))
    if len(checked.good) < before:
        return f"{new.name} holds {len(checked.good)} tenants, and {name} before it {before}."
    return None


def _tenants_in(backup: Path) -> set[str] | None:
    """Give the tenants in a backup; None if it can't be read."""
    try:
        return set(manifests.read(backup).tenants)
    except BackupError:
        return None


def _is_of_one_tenant(backup: Path) -> bool:
    try:
        return manifests.read(backup).only is not None
    except BackupError:
        return False
