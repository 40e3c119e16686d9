"""Makes a copy into a file that is ready to replace a tenant's.

Knows: the order in which what reaches the disk. Must not know: where the copy is from, whose it is, who takes it over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.durable_files import sync_file, sync_folder
from storage import positions
from storage.sqlite.tenant_files import open_tenant_file, remove_file


def lay_ready(ready: Path, put: Callable[[Path], object]) -> str:
    """Make the file ``ready`` of one that ``put`` writes, under a new epoch, so that no old cursor fits it; give the epoch.

    It has its name once all of it is on the disk.
    """
    making = ready.with_suffix(".making")
    remove_file(making)
    try:
        put(making)
        epoch = begin_epoch(making)
        sync_file(making)
    except BaseException:  # It may be the disk that is full.
        remove_file(making)
        raise
    making.rename(ready)
    sync_folder(ready.parent)
    return epoch


def begin_epoch(file: Path) -> str:
    """Begin a new epoch in a file that nobody has open, and give it."""
    database = open_tenant_file(file)
    try:
        database.run_now(lambda: positions.begin_epoch(positions.now_ms()))
        return database.read(positions.incarnation)[0]
    finally:
        database.close()
