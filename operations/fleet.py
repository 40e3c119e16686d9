"""Goes over many tenants, a bounded number at once, and says how far it is.

Knows: how work is spread, how a rate and the time that is left are said, how Ctrl-C ends it. Must not know: what is done
with a tenant, engines, the command line. The work runs in greenlets of one process: what waits for the disk overlaps, what
computes does not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
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
    """Do ``work`` for each tenant, ``jobs`` at once, and give its result or what it raised, in the order of their ends.

    Raises: KeyboardInterrupt after a Ctrl-C, once those that were under way are done.
    """
    with _interrupt_noted() as is_interrupted:
        wanted = itertools.takewhile(lambda _: not is_interrupted(), tenant_ids)
        yield from Pool(jobs).imap_unordered(partial(_tried, work), wanted, maxsize=jobs)
        if is_interrupted():
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupt_noted() -> Iterator[Callable[[], bool]]:
    """Have a Ctrl-C be noted, and another end the process at once.

    Else it is raised wherever the process is: in the midst of a tenant, which would count as failed, and the rest go on.
    """
    found: list[int] = []

    def note(number: int, _: object) -> None:
        """Note it, and say so, whatever is being written just now."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        found.append(number)
        os.write(2, b"Ends when those under way are done; Ctrl-C again ends it at once.\n")

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # It is ignored, as under nohup.
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(found)
    finally:
        signal.signal(signal.SIGINT, before)


def _tried(work: Callable[[str], T], tenant_id: str) -> tuple[str, T | Exception]:
    try:
        return tenant_id, work(tenant_id)
    except Exception as error:
        return tenant_id, error
