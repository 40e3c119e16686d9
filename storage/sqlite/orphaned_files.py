"""Removes what unfinished registrations and restores left, and empty files that are nobody's.

Knows: how such files are called. Must not know: requests, who the customers are.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Container, Iterator
from pathlib import Path

from server.durable_files import sync_folder
from storage.positions import position
from storage.sqlite.data_folder import DataFolder, tenant_of
from storage.sqlite.tenant_files import open_tenant_file, remove_file

_IS_LEFTOVER = re.compile(r"tenant_(.*(\.db|\.(new|making).*)|[0-9a-f]{32}\.restored)")
log = logging.getLogger("syncapp.tenants")


def remove_leftovers(folder: DataFolder, known: Container[str]) -> None:
    """Remove what was being made, and empty databases of tenants that are not ``known``.

    What an older version restored lay ready beside the tenants' files: it goes where it is looked for now.
    """
    for path in [*_leftovers(folder.tenants, known), *_leftovers(folder.restored, known)]:
        if path.suffix == ".db":
            _remove_if_empty(path)
        elif path.suffix != ".restored":
            path.unlink()
        elif not (ready := folder.restored / path.name).exists():
            path.rename(ready)
            sync_folder(folder.restored)


def _leftovers(folder: Path, known: Container[str]) -> Iterator[Path]:
    """Find them in one reading of a folder: ``Path.glob`` takes ten times as long, and there may be 100,000 tenants."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if tenant_of(name) not in known and _IS_LEFTOVER.fullmatch(name):
                yield folder / name


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
