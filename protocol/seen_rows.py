"""What the server knows about the rows that a device has seen, as a value.

Knows: up to which position a device has seen a table. Must not know: how the server learnt it
(``storage.seen_rows``), rows, what becomes of a change, Flask, peewee, sockets, files, the clock.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple


class Evidence(NamedTuple):
    """What is known about the rows that a device has seen, in one incarnation (``epoch``) of the database.

    ``who`` names the device, or the ``session`` of its token if it does not name itself. By table, the device confirmed
    everything up to ``known`` and was sent everything up to ``sent``. ``row_device_id`` is the ``device_id`` in its rows; a
    session with several of them is shared by several devices, and nobody knows which of them pulled.
    """

    who: str = ""
    session: str | None = None
    epoch: str = ""
    known: Mapping[str, int] = {}
    sent: Mapping[str, int] = {}
    row_device_id: str | None = None
    is_shared: bool = False
    seen_at: int = 0
    first_push: int | None = None
    """The position before its first push: later deletions may be of rows that it created."""
    may_have_deleted: bool = False
    """Whether one of these deletions may be its own."""
    is_kept: bool = False
    """Whether the database may have a record of it."""
    own: tuple[tuple[int, int], ...] = ()
    """The first and last of changes that it made since, each of a row of which it had seen all before."""

    @property
    def name(self) -> str:
        """Give its name in the log of changes."""
        return self.session or self.who.removeprefix("device ")

    def positions(self, table: str, epoch: str) -> tuple[int, int]:
        """Give the positions up to which the device has seen a table, for certain and perhaps."""
        if self.is_shared or epoch != self.epoch:
            return 0, 0
        known = self.known.get(table, 0)
        return known, max(known, self.sent.get(table, 0))

    def has_made(self, sequence: int, epoch: str) -> bool:
        """Tell whether the device made a change, and had seen all of its row before."""
        if self.is_shared or epoch != self.epoch:
            return False
        at = bisect(self.own, sequence, key=itemgetter(0)) - 1
        return at >= 0 and sequence <= self.own[at][1]

    def is_of(self, stated: object, held: object) -> bool:
        """Tell whether a row with this ``device_id`` may come from this device; ``held`` is the existing row's, which a
        device sends back as it was pulled."""
        has_device_id = self.session is not None and self.row_device_id is not None and isinstance(stated, str)
        return not has_device_id or stated in (held, self.row_device_id)

    def until(self, epoch: str) -> int:
        """Give the position up to which the device has seen every table that it ever asked for or pushed to."""
        if self.is_shared or epoch != self.epoch or not self.known.keys() >= self.sent.keys():
            return 0
        return min(self.known.values(), default=0)


NOBODY = Evidence()
