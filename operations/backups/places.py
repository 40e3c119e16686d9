"""Where backups are kept: what a place of objects does, and a folder as such a place.

Knows: how an object comes there whole or not at all, how it is read, listed and removed. Must not know: what is in an
object, which are needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from operations.backups.manifest import BackupError
from server.disk_space import NO_ROOM
from server.durable_files import sync_file, sync_folder

_MAKING = ".making-"


class PlaceUnusable(BackupError):
    """A place of backups can't be used now; as text it says why."""


class Place(Protocol):
    """Keeps objects by their names. All methods raise PlaceUnusable."""

    def put(self, name: str, file: Path) -> None:
        """Keep a file's contents under a name: all of it, on the disk, or nothing."""

    def get(self, name: str, file: Path) -> None:
        """Write an object into a file. Raises: BackupError also if there is none."""

    def names(self, folder: str) -> list[str]:
        """List the objects whose names begin with a folder and a slash."""

    def remove(self, names: list[str]) -> None:
        """Remove objects; those that are not there are none."""


class Folder:
    """A folder, for its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, file: Path) -> None:
        """Copy a file under another name, and rename it once it is on the disk."""
        target = self._path / name
        making, is_new = target.with_name(_MAKING + target.name), not target.parent.exists()
        with _told(f"There is no room in {self._path} for the backup.", self._path):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with file.open("rb") as source, os.fdopen(descriptor, "wb") as copy:
                    shutil.copyfileobj(source, copy)
                sync_file(making)
                making.rename(target)
            except BaseException:
                making.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)
            if is_new:  # Else a crash may take a new folder, with all that is in it.
                sync_folder(self._path)
                sync_folder(self._path.parent)

    def get(self, name: str, file: Path) -> None:
        """Copy an object into a file."""
        with _told("There is no room for what is read of the backup.", self._path):
            shutil.copyfile(self._path / name, file)

    def names(self, folder: str) -> list[str]:
        """List a folder, without what is being made."""
        if not (self._path / folder).exists() and (self._path.is_dir() or not self._path.exists()):
            return []
        with _told("", self._path), os.scandir(self._path / folder) as found:
            return sorted(f"{folder}/{one.name}" for one in found if not one.name.startswith(_MAKING))

    def remove(self, names: list[str]) -> None:
        """Remove files, and what an interrupted run was making beside them."""
        folders = {(self._path / name).parent for name in names}
        with _told("", self._path):
            for name in names:
                (self._path / name).unlink(missing_ok=True)
            for folder in folders:
                for left in folder.glob(f"{_MAKING}*"):
                    left.unlink(missing_ok=True)
                sync_folder(folder)


@contextmanager
def _told(no_room: str, place: Path) -> Iterator[None]:
    """Tell what a disk says in a sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise BackupError(f"{error.filename} is missing") from None
    except OSError as error:
        if error.errno in NO_ROOM and no_room:
            raise PlaceUnusable(no_room) from None
        raise PlaceUnusable(f"{place} can't be used: {error.strerror}.") from None
