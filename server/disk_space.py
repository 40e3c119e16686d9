"""Whether the disk of the data folder is full, or nearly so: noted when a write fails, checked until there is room again.

Knows: the errors of a full disk, that it is logged once. Must not know: the engine, whose data it is, requests. While it is
nearly full, changes are refused that take more of it: SQLite then still finds the room that it needs for the rest.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

log = logging.getLogger("syncapp.room")

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LEAST_BYTES = 1024 * 1024
_LOOK_SECONDS = 1.0


class Room:
    """Whether the disk has room. One line is logged when it is full or nearly so, and one when it no longer is."""

    def __init__(self) -> None:
        self.is_full = self.is_low = False
        self.least_free_bytes = 0
        """With fewer the disk is nearly full, until there is a quarter more: else each small file would turn it."""
        self._looked = -_LOOK_SECONDS

    def note_full(self) -> None:
        """Note that a write failed for lack of room."""
        if not self.is_full:
            log.error("the disk is full: nothing is stored until there is room; pulls go on")
        self.is_full = True

    def look(self, folder: Path) -> bool:
        """Check whether a folder has room, at most once a second, and tell."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._look_whether_low(folder)
            if not self.is_full and has_none(folder):
                self.note_full()
            elif self.is_full and _can_take(folder):
                log.warning("there is room on the disk again")
                self.is_full = False
        return not self.is_full

    def _look_whether_low(self, folder: Path) -> None:
        bound = self.least_free_bytes
        is_low = _free(folder)[0] < (bound + bound // 4 if self.is_low else bound)
        if is_low and not self.is_low:
            log.error("the disk is nearly full: pushes are refused until there is room; pulls and deletes go on")
        elif self.is_low and not is_low:
            log.warning("the disk has room again: pushes are taken")
        self.is_low = is_low


room = Room()
"""Of this process, which has one data folder."""


def has_none(folder: Path) -> bool:
    """Tell whether bytes or inodes have practically run out."""
    free_bytes, has_names = _free(folder)
    return free_bytes < _LEAST_BYTES or not has_names


def _free(folder: Path) -> tuple[int, bool]:
    """Give the bytes that are free, and whether an inode is; some of both may be reserved for root."""
    found, is_root = os.statvfs(folder), os.geteuid() == 0
    blocks, files = (found.f_bfree, found.f_ffree) if is_root else (found.f_bavail, found.f_favail)
    return blocks * found.f_frsize, found.f_files == 0 or files > 0


def _can_take(folder: Path) -> bool:
    """Try to allocate some room, which finds disk quotas too; where that is not supported, check what is free."""
    path = folder / "room.probe"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _LEAST_BYTES)
    except OSError as error:
        return error.errno not in NO_ROOM and not has_none(folder)
    finally:
        path.unlink(missing_ok=True)
    return True
