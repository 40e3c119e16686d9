"""Whether a tenant's file is the one that was there last, or an older copy that came back by itself.

Knows: what the main database holds of each file's position, and when that is brought up to date. Must not know: requests,
sockets, where files lie. A file that something else restored under us (``litestream restore``, a copy) keeps its epoch: a
device that was ahead would get the rows that are written from here on, and never those that it missed.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from protocol.errors import Moved
from storage import last_positions, positions
from storage.sqlite.database import SQLiteDatabase

KnownPosition = tuple[str, int]
"""The epoch and the sequence of a file."""

log = logging.getLogger("syncapp.incarnations")


class RollbackDetection:
    """The last position of each tenant's file, as the main database knows it; ``save`` brings that up to date."""

    def __init__(self, main: SQLiteDatabase) -> None:
        self._main = main
        self._marks: dict[str, object] = {}
        self._unsaved: dict[str, KnownPosition] = {}

    def known(self, tenant_id: str) -> KnownPosition | None:
        """Give the epoch and the sequence that are known of a tenant."""
        return self._unsaved.get(tenant_id) or self._main.read(lambda: last_positions.last_position(tenant_id))

    def opened(self, tenant_id: str, database: SQLiteDatabase, now: int) -> bool:
        """Look at a file that was just opened; one that went back begins a new epoch.

        True if the epoch is another than before.
        """
        here, known = database.read(_here), self.known(tenant_id)
        if fault := went_back(known, here):
            database.run_now(lambda: positions.begin_epoch(now))
            here = database.read(_here)
            log.error("tenant %s: %s; it has a new epoch now, so that devices pull from the start", tenant_id, fault)
        elif known and known[0] != here[0]:
            log.warning("tenant %s was restored: after change %d there comes change %d", tenant_id, known[1], here[1])
        self._marks[tenant_id] = database.mark
        if known != here:
            self._unsaved[tenant_id] = here
        return known is not None and known[0] != here[0]

    def note(self, tenant_id: str, database: SQLiteDatabase) -> None:
        """Note the position of an open file, if it was written since that was noted last.

        One that can't be read is in the log alone: who has it noted may work for another tenant.
        """
        if self._marks.get(tenant_id) is not database.mark:
            self._marks[tenant_id] = database.mark
            try:
                self._unsaved[tenant_id] = database.read(_here)
            except Exception:
                log.exception("the position of tenant %s can't be read", tenant_id)

    def closed(self, tenant_id: str, database: SQLiteDatabase) -> None:
        """Note the position of a file that is about to be closed."""
        self.note(tenant_id, database)
        self._marks.pop(tenant_id, None)

    def save(self) -> None:
        """Write what was noted since the last time, all at once."""
        if unsaved := dict(self._unsaved):
            with suppress(Moved):  # Nobody writes these files any more.
                self._main.write(lambda: last_positions.note_positions(unsaved))
            for tenant_id, noted in unsaved.items():
                if self._unsaved.get(tenant_id) == noted:
                    del self._unsaved[tenant_id]

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant whose account is closed."""
        self._marks.pop(tenant_id, None)
        self._unsaved.pop(tenant_id, None)


def _here() -> KnownPosition:
    """Read the position of an open file by the statement that pushes use: SQLite has it ready then."""
    here = positions.position()
    return here.epoch, here.sequence


def went_back(known: KnownPosition | None, here: KnownPosition) -> str | None:
    """Say that a file is at a change before one that is known of it, if it is."""
    if known is None or known[0] != here[0] or here[1] >= known[1]:
        return None
    return f"its file went back by itself, from change {known[1]} to {here[1]}"
