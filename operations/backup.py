"""How a backup is made while the server runs, and which older ones then go.

Knows: in which order what reaches the disk, when nothing may be removed. Must not know: the command line, requests,
sockets, what the check of a backup looks at. A backup is a folder ``syncapp-<UTC time>`` with ``main.db``, ``tenants/``
and ``manifest.json``; it has that name when all of it is on the disk, so that whatever stands there is complete.
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

from operations import backup_manifest as manifests
from operations.backup_manifest import BackupError, Manifest
from operations.backup_verification import verify
from protocol.errors import StorageFull
from server.durable_files import sync_folder
from storage import main_database
from storage.sqlite.engine import SQLiteEngine
from storage.sqlite.errors import reason_of
from storage.sqlite.file_replacement import forget_replaced
from storage.sqlite.files import copy_file

_NAME = "syncapp-%Y%m%dT%H%M%SZ"
_SCRATCH = ".syncapp-"
Say = Callable[[str], None]


class Made(NamedTuple):
    """A new backup, what is missing in it, and why older ones were not removed although they were to be."""

    path: Path
    missing: Mapping[str, str]
    kept: str | None


def make(engine: SQLiteEngine, to: Path, tenant_id: str | None, keep: int | None, say: Say) -> Made:
    """Back up all tenants, or one; then remove all but the newest ``keep`` backups, if nothing is lost with them.

    A customer whose file can't be copied is named, and the others are backed up.
    Raises: BackupError if nothing can be backed up: then nothing appears, and nothing old is removed.
    """
    is_new, began = not to.exists(), time.time()
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone_in(to), tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=to) as scratch:
        made = Path(scratch) / "backup"
        made.mkdir(mode=0o700)
        manifest = _copy_all(engine, made, tenant_id, say)
        target = to / datetime.now(UTC).strftime(_NAME)
        if target.exists():
            raise BackupError(f"{target} exists already.")
        _put_in_place(made, target, manifest)
        if is_new:
            sync_folder(to.parent)
        for held in manifest.tenants:  # What restores before this one replaced was kept until now.
            forget_replaced(engine.folder.replaced, engine.folder.path_of(held).stem, began)
        kept = _prune(engine, target, keep, Path(scratch), say) if keep else None
    return Made(target, manifest.missing, kept)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder of backups against other backups, and remove what one that was killed left in it."""
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


def _copy_all(engine: SQLiteEngine, made: Path, tenant_id: str | None, say: Say) -> Manifest:
    (made / "tenants").mkdir(mode=0o700)
    copy_file(engine.folder.main, made / "main.db")
    ids = sorted(manifests.customers_in(made / "main.db"))
    if tenant_id is not None and tenant_id not in ids:
        raise BackupError(f"There is no tenant {tenant_id}.")
    if not ids and any(engine.folder.tenants.glob("tenant_*.db")):
        raise BackupError(
            f"main.db of {engine.folder.path} knows no customer, but tenants' files are there: put it back."
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    files = {"main.db": manifests.sealed(made / "main.db")}
    manifest = Manifest(manifests.FORMAT, now, tenant_id, files, {}, {}, [])
    for wanted in [tenant_id] if tenant_id else ids:
        _copy_one(engine, made, wanted, manifest, say)
    if manifest.missing and not manifest.tenants:
        raise BackupError("; ".join(f"{one}: {why}" for one, why in manifest.missing.items()))
    return manifest


def _copy_one(engine: SQLiteEngine, made: Path, tenant_id: str, manifest: Manifest, say: Say) -> None:
    """Copy a tenant's file and read where it stands; why that can't be goes into the manifest.

    Raises: BackupError if there is no room, which is no fault of this file.
    """
    target = manifests.file_in(made, tenant_id)
    try:
        fault = engine.folder.fault_of(tenant_id)
        if fault is None:
            engine.copy_to(tenant_id, target)
            manifest.tenants[tenant_id] = state = manifests.state_of(target)
            manifest.files[f"tenants/{target.name}"] = manifests.sealed(target)
            say(f"{tenant_id}: {state['sequence']} changes")
            return
    except StorageFull:
        raise BackupError(f"There is no room in {made.parent.parent} for the backup.") from None
    except Exception as error:
        fault = f"it can't be copied: {reason_of(error)}"
    target.unlink(missing_ok=True)
    if tenant_id not in engine.directory.read(main_database.customer_ids):
        manifest.closed.append(tenant_id)
        say(f"{tenant_id}: closed meanwhile")
    else:
        manifest.missing[tenant_id] = fault
        say(f"{tenant_id}: {fault}")


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


# --- which go --------------------------------------------------------------------------------------------------------


def _prune(engine: SQLiteEngine, new: Path, keep: int, scratch: Path, say: Say) -> str | None:
    """Remove the oldest backups, or tell why not. Each that alone holds a customer who never closed the account stays."""
    older = [path for path in backups_in(new.parent) if path != new]
    why = _why_not(new, older, say)
    if why:
        return why
    closed = engine.directory.read(main_database.closed_ids)
    staying = [new, *older]
    for path in reversed(staying[keep:]):
        held = _held(path)
        others = set[str]().union(*(_held(other) or () for other in staying if other != path))
        alone = set() if held is None else held - others - closed
        if held is None or alone:
            say(f"{path.name} stays: no other backup holds {', '.join(sorted(alone)) or 'what it does'}")
            continue
        path.rename(scratch / path.name)  # What is half removed looks like no backup.
        sync_folder(new.parent)
        shutil.rmtree(scratch / path.name)
        staying.remove(path)
        say(f"removed {path.name}")
    return None


def _why_not(new: Path, older: Sequence[Path], say: Say) -> str | None:
    """Tell why nothing may be removed for this backup: it is not whole, or holds fewer tenants than the last one."""
    checked = verify(new, lambda _: None)
    for tenant_id, fault in checked.faults.items():
        say(f"{tenant_id}: {fault}")
    if not checked.is_good:
        return f"{new.name} is not whole."
    counts = ((len(_held(path) or ()), path.name) for path in older if not _is_of_one(path))
    before, name = next(counts, (0, ""))
    if len(checked.good) < before:
        return f"{new.name} holds {len(checked.good)} tenants, and {name} before it {before}."
    return None


def _held(backup: Path) -> set[str] | None:
    """Tell which tenants a backup holds; None if it can't be read."""
    try:
        return set(manifests.read(backup).tenants)
    except BackupError:
        return None


def _is_of_one(backup: Path) -> bool:
    try:
        return manifests.read(backup).only is not None
    except BackupError:
        return False
