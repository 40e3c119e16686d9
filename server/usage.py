"""Counts what each tenant uses, as plain numbers in memory until somebody stores them.

Knows: what is counted. Must not know: days, databases, requests, sockets. To count costs a look-up and an addition.
"""

from __future__ import annotations

from typing import Self

COUNTED = ("requests", "pushes", "rows_pushed", "rows_pulled", "bytes_in", "bytes_out")
"""What adds up. ``sockets`` does not: it is the most that were open at once."""


class Counts:
    """What one tenant used.

    ``requests``: requests and events that were admitted. ``rows_pushed``: rows of pushes that were stored. Bytes are those
    of bodies and of packets of sockets, as they were sent, without heads and frames.
    """

    __slots__ = (*COUNTED, "sockets")

    def __init__(self) -> None:
        self.requests = self.pushes = self.rows_pushed = self.rows_pulled = 0
        self.bytes_in = self.bytes_out = self.sockets = 0

    def add(self, other: Self) -> None:
        """Add what was used at another time."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.note_sockets(other.sockets)

    def note_sockets(self, count: int) -> None:
        """Note that so many sockets are open at once."""
        self.sockets = max(self.sockets, count)


class Usage:
    """What the tenants used since it was taken last. Only the event loop counts."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}

    def of(self, tenant_id: str) -> Counts:
        """Give a tenant's counts, to be added to at once: after a pause they may have been taken."""
        found = self._counts.get(tenant_id)
        if found is None:
            found = self._counts[tenant_id] = Counts()
        return found

    def take(self) -> dict[str, Counts]:
        """Give all counts by tenant, and begin anew."""
        taken, self._counts = self._counts, {}
        return taken
