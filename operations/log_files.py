"""Reads the lines of ``LOG_FILE`` and of the files that it was before, in order, also while the server rotates them.

Knows: files and how they are renamed (``server.log_file``). Must not know: what is in a line, the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from server.log_file import rotated


def lines(path: Path, after: float, goes_on: Callable[[], bool]) -> Iterator[bytes]:
    """Give each whole line, the oldest first; files that were last written before ``after``, in seconds, are left out.

    ``goes_on`` is called when all that is there was given; it waits, and tells whether to look again.
    Raises: OSError if a file is there and can't be read.
    """
    newest: BinaryIO | None = None
    try:
        while True:
            newer = _newer_than(newest, path)
            for file in newer:
                if newest is not None:  # It has been renamed, and gets no further line.
                    yield from _lines_of(newest)
                    newest.close()
                newest = file
                if newer[-1] is file or os.fstat(file.fileno()).st_mtime >= after:
                    yield from _lines_of(file)
            if newest is not None and not newer:
                yield from _lines_of(newest)
            if not newer and not goes_on():
                return
    finally:
        if newest is not None:
            newest.close()


def _newer_than(known: BinaryIO | None, path: Path) -> list[BinaryIO]:
    """Open the files that are newer than the one that is known, the oldest first.

    The newest is opened first: one that is renamed meanwhile is met again under its next name, and none is missed.
    While the server renames, one name is missing.
    """
    last = None if known is None else _identity(known)
    found: dict[tuple[int, int], BinaryIO] = {}
    number = missing = 0
    while missing < 2:
        try:
            file = rotated(path, number).open("rb")
        except FileNotFoundError:
            missing += 1
        else:
            missing, one = 0, _identity(file)
            if one == last or one in found:
                file.close()
            else:
                found[one] = file
            if one == last:
                break
        number += 1
    return [*found.values()][::-1]


def _identity(file: BinaryIO) -> tuple[int, int]:
    """Tell files apart, whatever their names are; one that is open keeps its number."""
    about = os.fstat(file.fileno())
    return about.st_dev, about.st_ino


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Give the lines from where it was read to last; one whose end is not there yet comes another time."""
    if os.fstat(file.fileno()).st_size < file.tell():  # Somebody emptied it: logrotate's copytruncate.
        file.seek(0)
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        yield line
