"""Locks of a data folder against other processes.

Knows: flock(2). Must not know: what is done under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

SERVER_LOCK = "server.lock"
"""Held by the server that works in a data folder."""

log = logging.getLogger("syncapp.tenants")


class DataFolderInUse(RuntimeError):
    """Another server process works in this data folder; two would corrupt it."""


def has_server(folder: Path) -> bool:
    """Tell whether a server works in a data folder; nothing is made there."""
    path = folder / SERVER_LOCK
    if not path.exists():
        return False
    try:
        os.close(hold_alone(path, 0))
    except DataFolderInUse:
        return True
    return False


def hold_alone(path: Path, wait_seconds: int) -> int:
    """Hold a file locked as long as this process lives, so that no second server works in the same folder."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up, is_said = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= give_up:
                os.close(descriptor)
                raise DataFolderInUse(f"Another server is running in {path.parent}. Stop it first.") from None
            if not is_said:
                log.warning(
                    "another server is running in %s; waiting up to %d s for its end", path.parent, wait_seconds
                )
                is_said = True
            time.sleep(0.1)


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a lock together with others who share it."""
    with _held(path, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock alone, after those who share it."""
    with _held(path, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _held(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
