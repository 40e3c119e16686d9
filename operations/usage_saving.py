"""Stores what tenants use, each minute: a crash loses the last one.

Knows: how often, to which day a count belongs, how long it is kept. Must not know: SQL, requests, what is counted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from protocol.errors import OutcomeUnknown
from server.usage import Counts, Usage
from storage import usage as stored
from storage.engine import Database

DAY_SECONDS = 86_400
_EVERY_SECONDS = 60.0
_TENANTS_AT_ONCE = 200


def day_of(seconds: float) -> int:
    """Give the number of a day in UTC."""
    return int(seconds // DAY_SECONDS)


class UsageSaving:
    """Brings the counts of this process into the directory."""

    def __init__(
        self,
        usage: Usage,
        directory: Database,
        note_sockets: Callable[[], None],
        process: str,
        keep_days: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``note_sockets`` notes the sockets that are open, when a day begins."""
        self._usage, self._directory, self._note_sockets = usage, directory, note_sockets
        self._process, self._keep_days, self._clock = process, keep_days, clock
        self._day = day_of(clock())
        self._pending: dict[int, dict[str, Counts]] = {}
        """By day, what is still to be stored."""

    def seconds_left(self) -> float:
        """Tell in how many seconds to save: at midnight too, so that each count comes to its day."""
        return min(_EVERY_SECONDS, DAY_SECONDS - self._clock() % DAY_SECONDS)

    def save(self) -> None:
        """Store what was counted since the last time.

        Raises: what a write raises; nothing is lost then, and it is stored with the next.
        """
        self._take()
        for day, counts in list(self._pending.items()):
            while counts:
                self._store(day, {one: counts[one] for one in list(counts)[:_TENANTS_AT_ONCE]})
            del self._pending[day]

    def _take(self) -> None:
        today = day_of(self._clock())
        if taken := self._usage.take():
            pending = self._pending.setdefault(self._day, {})
            for tenant_id, counts in taken.items():
                pending.setdefault(tenant_id, Counts()).add(counts)
        if today != self._day:
            self._day = today
            self._note_sockets()

    def _store(self, day: int, part: dict[str, Counts]) -> None:
        with contextlib.suppress(OutcomeUnknown):  # It may be stored: rather too little than twice.
            self._directory.write(lambda: stored.add(day, part, self._process))
        for tenant_id in part:
            del self._pending[day][tenant_id]

    def forget_old(self) -> None:
        """Remove what is older than it is kept."""
        oldest = day_of(self._clock()) - self._keep_days
        while self._directory.write(lambda: stored.forget_before(oldest)):
            pass
