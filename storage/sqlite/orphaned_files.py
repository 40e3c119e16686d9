"""What registrations and restores leave that never came to an end, and files that are nobody's.

Knows: how such files are called. Must not know: requests, who the customers are.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from storage.positions import position
from storage.sqlite.tenant_files import open_tenant_file, remove_file

log = logging.getLogger("syncapp.tenants")


def remove_leftovers(folder: Path, known: Collection[str]) -> None:
    """Remove what was being made, and empty databases whose names nobody ``known`` has."""
    for path in [*folder.glob("tenant_*.new*"), *folder.glob("tenant_*.making*")]:
        path.unlink()
    for path in folder.glob("tenant_*.db"):
        if path.name not in known:
            _remove_if_empty(path)


def _remove_if_empty(path: Path) -> None:
    """Remove a file that belongs to nobody, unless someone's rows are in it: then only say so."""
    try:
        database = open_tenant_file(path)
    except Exception:
        log.exception("%s belongs to no customer and can't be opened; it was left alone", path.name)
        return
    sequence = database.read(position).sequence
    database.close()
    if sequence == 0:
        remove_file(path)
    else:
        log.warning("%s belongs to no customer but holds rows; it was left alone", path.name)
