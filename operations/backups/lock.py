"""Lets one run of backups of an installation be at work, whichever process or machine it is in.

Knows: a lock in the data folder, which ends with its process, and a lease in PostgreSQL, which ends by time. Must not know:
what a run does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from operations.backups.manifest import BackupError
from settings import Settings
from storage.engine import Engine
from storage.sqlite.engine import SQLiteEngine
from storage.sqlite.folder_locks import DataFolderInUse, hold_alone

_LEASE, _LEASE_SECONDS = "backup", 300.0
_LOCK = "backup.lock"


class Underway(BackupError):
    """Another run is at work."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(f"Another backup run is at work{hint}.")


@contextmanager
def alone(engine: Engine, settings: Settings) -> Iterator[Callable[[], None]]:
    """Be the only run; gives what is to be called each minute or so.

    Raises: Underway.
    """
    if isinstance(engine, SQLiteEngine):
        try:
            descriptor = hold_alone(settings.data_dir / _LOCK, 0)
        except DataFolderInUse:
            raise Underway from None
        try:
            yield lambda: None
        finally:
            os.close(descriptor)
        return

    def renew() -> None:
        """Keep the lease. Raises: Underway if another run has taken it."""
        if not engine.lease(_LEASE, _LEASE_SECONDS):
            raise Underway(f", or was killed in the last {_LEASE_SECONDS // 60:.0f} minutes")

    renew()
    try:
        yield renew
    finally:
        engine.lease(_LEASE, 0)


def is_underway(engine: Engine, settings: Settings) -> bool:
    """Tell whether a run is at work."""
    try:
        with alone(engine, settings):
            return False
    except Underway:
        return True
