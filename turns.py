"""Whose turn it is: in each round of the event loop, a few pieces of each tenant's work go on.

A tenant with a thousand requests then costs the others no more waiting than one with a few does. A few rather than one,
since what comes in one round can share a commit. Knows: greenlets, the event loop. Must not know: what the work is.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterator

import gevent
from gevent.hub import Waiter
from gevent.lock import Semaphore

_AT_ONCE = 8
"""Pieces of a tenant's work that go on in one round."""

_LARGE_BYTES = 262_144
"""From here on, reading a body holds the event loop for milliseconds, and what it becomes holds much memory."""


class Turns:
    """The lines in which the work of tenants waits."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Waiter[None]]] = {}
        self._taken: dict[str, int] = {}
        """How many pieces of each went on in this round."""
        self._alone: dict[str, Semaphore] = {}
        self._holders: Counter[str] = Counter()

    def take(self, who: str) -> None:
        """Return in this round if few of ``who`` went on in it yet, else in a later one, in the order of the calls."""
        taken = self._taken.get(who, 0)
        if taken == 0:
            gevent.get_hub().loop.run_callback(self._next_round, who)
        if taken < _AT_ONCE:
            self._taken[who] = taken + 1
            return
        waiter: Waiter[None] = Waiter()
        self._lines.setdefault(who, deque()).append(waiter)
        waiter.get()

    def _next_round(self, who: str) -> None:
        """Run in the event loop, once a round for each who went on in the last."""
        line = self._lines.get(who, ())
        going = [self._lines[who].popleft() for _ in range(min(len(line), _AT_ONCE))]
        if not going:
            del self._taken[who]
            self._lines.pop(who, None)
            return
        self._taken[who] = len(going)
        gevent.get_hub().loop.run_callback(self._next_round, who)
        for waiter in going:
            waiter.switch(None)

    @contextlib.contextmanager
    def alone(self, who: str, size_bytes: int) -> Iterator[None]:
        """Let large work of ``who`` go on one after the other, so that only one is in memory as more than bytes."""
        if size_bytes < _LARGE_BYTES:
            yield
            return
        self._holders[who] += 1
        try:
            with self._alone.setdefault(who, Semaphore(1)):
                yield
        finally:
            self._holders[who] -= 1
            if not self._holders[who]:
                del self._holders[who], self._alone[who]
