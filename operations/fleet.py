"""Goes over many tenants, a bounded number at once, and says how far it is.

Knows: how work is spread, how a rate and the time that is left are said. Must not know: what is done with a tenant,
engines, the command line. The work runs in greenlets of one process: what waits for the disk overlaps, what computes does
not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from gevent.pool import Pool

T = TypeVar("T")
_SAID_EVERY_SECONDS = 2.0


class Progress:
    """Says how many are done, how many a second, and how long the rest may take."""

    def __init__(
        self, total: int, what: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``what``: the noun for many of them."""
        self._total, self._what, self._say, self._clock = total, what, say, clock
        self._done = 0
        self._began = self._said = clock()

    def note(self) -> None:
        """Count one that is done; a line is said every other second, and at the end if there was one before."""
        self._done += 1
        now = self._clock()
        is_end = self._done == self._total and self._said > self._began
        if is_end or now - self._said >= _SAID_EVERY_SECONDS:
            self._said = now
            self._say(self._line(now - self._began))

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds if seconds > 0 else 0.0
        left = f", {_duration((self._total - self._done) / rate)} left" if self._done < self._total and rate else ""
        return f"{self._done:,} of {self._total:,} {self._what}, {rate:,.1f} a second{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def over(tenant_ids: Iterable[str], work: Callable[[str], T], jobs: int) -> Iterator[tuple[str, T | Exception]]:
    """Do ``work`` for each tenant, ``jobs`` at once, and give its result or what it raised, in the order of their ends."""
    yield from Pool(jobs).imap_unordered(partial(_tried, work), tenant_ids, maxsize=jobs)


def _tried(work: Callable[[str], T], tenant_id: str) -> tuple[str, T | Exception]:
    try:
        return tenant_id, work(tenant_id)
    except Exception as error:
        return tenant_id, error
