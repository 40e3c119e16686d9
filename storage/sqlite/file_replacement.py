"""Replaces the contents of a tenant's file by restored ones, and keeps what was there.

Knows: files, and in which order they are replaced. Must not know: whose they are, where restored contents are from.
"""

from __future__ import annotations

import logging
import os
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from protocol.errors import StorageFull
from server.disk_threads import disk
from server.durable_files import sync_folder
from storage.sqlite.database import SQLiteDatabase
from storage.sqlite.files import copy_file, replace_contents

log = logging.getLogger("syncapp.takeover")


def take_over(ready: Path, path: Path, aside: Path) -> None:
    """Put the contents of ``ready`` in the place of ``path``, and keep what was there in the folder ``aside``.

    They go into the file that is there, in one transaction: Litestream and others that have it open follow a file, not a
    name, and would mix pages of two. Whenever this dies, ``path`` is the old or the new, and ``ready`` is there for
    another attempt.
    Raises: Busy, StorageFull.
    """
    if path.exists() and path.stat().st_size:
        keep_aside(path, aside)
        if disk.in_thread(partial(replace_contents, ready, path)):
            ready.unlink()
            sync_folder(ready.parent)
            return
        log.warning(
            "%s can't take restored contents in and is replaced; restart Litestream if it follows it", path.name
        )
    for suffix in ("-wal", "-shm"):  # They belong to the old file and would be read into the new one.
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.replace(ready, path)
    sync_folder(path.parent)
    sync_folder(ready.parent)


def keep_aside(path: Path, folder: Path) -> Path:
    """Copy a file into a folder, under its name and the time; byte by byte if it is no sound database."""
    folder.mkdir(mode=0o700, exist_ok=True)
    making = path.with_suffix(".replaced.making")
    making.unlink(missing_ok=True)
    kept = name_aside(path, folder)
    try:
        disk.in_thread(partial(copy_file, path, making))
    except StorageFull:
        raise
    except Exception:
        _copy_bytes(path, making, kept)
    making.rename(kept)
    sync_folder(folder)
    return kept


def keep_open_aside(database: SQLiteDatabase, folder: Path) -> None:
    """Keep what is in an open file that is not at its path any more; its write-ahead log goes, since it is of that file.

    Else the next to open a file under this name would read the log into it.
    """
    name, kept = database.path.name, name_aside(database.path, folder)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        database.keep_as(kept)
        database.remove_log()
        sync_folder(folder)
        log.error("%s was removed or replaced under the server; what it held is kept as %s", name, kept.name)
    except Exception:
        log.exception("%s was removed or replaced under the server, and what it held can't be kept", name)


def keep_log_aside(path: Path, folder: Path) -> None:
    """Keep the log of a file that is not at its path any more: who opens another there would read it into that."""
    wal, kept = Path(f"{path}-wal"), Path(f"{name_aside(path, folder)}-wal")
    folder.mkdir(mode=0o700, exist_ok=True)
    Path(f"{path}-shm").unlink(missing_ok=True)
    if wal.exists():
        wal.rename(kept)
        sync_folder(folder)
        sync_folder(path.parent)
        log.error(
            "%s was removed or replaced while it was closed; its last commits are kept as %s", path.name, kept.name
        )


def name_aside(path: Path, folder: Path) -> Path:
    """Name what is kept of a file in a folder: by its name and the time."""
    return folder / f"{path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.db"


def _copy_bytes(path: Path, making: Path, kept: Path) -> None:
    log.warning("%s can't be read as a database; its bytes are kept as %s", path.name, kept.name)
    making.touch(0o600)
    shutil.copyfile(path, making)
    if Path(f"{path}-wal").exists():
        shutil.copyfile(f"{path}-wal", f"{kept}-wal")


def forget_replaced(folder: Path, stem: str, before: float) -> None:
    """Remove what was kept of a file until ``before``, in seconds since 1970."""
    for path in folder.glob(f"{stem}-*"):
        if path.stat().st_mtime <= before:
            path.unlink()
