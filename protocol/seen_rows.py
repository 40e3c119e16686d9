"""What is known of the rows that a device has seen, as a value.

Knows: when a place in the order of commits counts for a device. Must not know: how it came to be known
(``storage.seen_rows``), rows, what becomes of a change, Flask, peewee, sockets, files, the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Evidence(NamedTuple):
    """What is known of the rows that a device has seen, in one incarnation (``epoch``) of the database.

    ``who`` names it, ``session`` is that of its token if it does not name itself. By table: up to ``known`` it has said
    that it has everything, up to ``sent`` it was answered. ``speaker`` is the ``device_id`` that its rows state; a session
    in which several do is of several devices, so that nobody knows who of them pulled.
    """

    who: str = ""
    session: str | None = None
    epoch: str = ""
    known: Mapping[str, int] = {}
    sent: Mapping[str, int] = {}
    speaker: str | None = None
    is_shared: bool = False
    seen_at: int = 0
    first_push: int | None = None
    """The place before its first push: deletions after it may be of rows that it made."""
    may_have_deleted: bool = False
    """Whether one of these deletions may be its own."""
    is_kept: bool = False
    """Whether a file may say that it knows of any row."""

    @property
    def name(self) -> str:
        """Give its name as the log of changes has it."""
        return self.session or self.who.removeprefix("device ")

    def places(self, table: str, epoch: str) -> tuple[int, int]:
        """Give up to where a table is known to be seen, and up to where it perhaps is."""
        if self.is_shared or epoch != self.epoch:
            return 0, 0
        known = self.known.get(table, 0)
        return known, max(known, self.sent.get(table, 0))

    def is_of(self, stated: object, held: object) -> bool:
        """Tell whether a row that states a ``device_id`` may come from this device; ``held``: what the row had, which is
        sent back as it was pulled."""
        speaks = self.session is not None and self.speaker is not None and isinstance(stated, str)
        return not speaks or stated in (held, self.speaker)

    def until(self, epoch: str) -> int:
        """Give up to where everything is known that this device ever asked for or pushed to."""
        if self.is_shared or epoch != self.epoch or not self.known.keys() >= self.sent.keys():
            return 0
        return min(self.known.values(), default=0)


NOBODY = Evidence()
