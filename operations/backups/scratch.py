"""Folders for what is taken apart and put together: private, gone in the end, also after a kill.

Knows: how such a folder is known to be nobody's any more, what a full disk looks like. Must not know: what is in it.
It lies in TMPDIR. Each has a file by which it is known as one of these, whatever people call their own folders there, and
whoever uses it holds a lock on that. One that nobody holds was left by a process that was killed, with what customers have
in clear, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operations.backups.places import PlaceUnusable
from protocol.errors import StorageFull
from server.disk_space import NO_ROOM

_PREFIX, _MARK = "syncapp-scratch-", ".syncapp-scratch"
_YOUNG_SECONDS = 60
"""One that was made a moment ago may not be locked yet."""


def is_no_room(error: BaseException) -> bool:
    """Tell whether a full disk is to blame, and not what was read or written."""
    return isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in NO_ROOM)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder, and remove those that were left.

    Raises: PlaceUnusable if there is no room for what is put there.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # It is in use, or just gone.
            _remove_if_left(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as scratch:
        descriptor = _locked(Path(scratch), fcntl.LOCK_EX, os.O_CREAT)
        try:
            yield Path(scratch)
        except (StorageFull, OSError) as error:
            if not is_no_room(error):
                raise
            raise PlaceUnusable(f"There is no room in {place} (TMPDIR), in which this is put together.") from None
        finally:
            os.close(descriptor)


def _locked(folder: Path, how: int, flags: int = 0) -> int:
    """Lock a folder of these and give what holds it. Raises: OSError, also if it is none."""
    descriptor = os.open(folder / _MARK, os.O_RDONLY | flags, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_left(folder: Path) -> None:
    """Remove a folder that nobody holds. One that is young is not even looked at with a lock, for its owner is about to."""
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mtime > time.time() - _YOUNG_SECONDS:
        return
    descriptor = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
