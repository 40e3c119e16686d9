"""Whose turn it is: in each round of the event loop, one piece of each tenant's work goes on.

A tenant with a thousand requests then costs the others no more waiting than one with a single request does. Who is alone
waits for nobody. Knows: greenlets, the event loop. Must not know: what the work is.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterator

import gevent
from gevent.hub import Waiter
from gevent.lock import Semaphore

_LARGE_BYTES = 262_144
"""From here on, reading a body holds the event loop for milliseconds, and what it becomes holds much memory."""


class Turns:
    """The lines in which the work of tenants waits."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Waiter[None]]] = {}
        self._alone: dict[str, Semaphore] = {}
        self._holders: Counter[str] = Counter()

    def take(self, who: str) -> None:
        """Return in this round if nothing of ``who`` went on in it yet, else in a later one, in the order of the calls."""
        line = self._lines.get(who)
        if line is None:
            self._lines[who] = deque()
            gevent.get_hub().loop.run_callback(self._call_next, who)
            return
        waiter: Waiter[None] = Waiter()
        line.append(waiter)
        waiter.get()

    def _call_next(self, who: str) -> None:
        """Run in the event loop, once a round for each who went on in the last."""
        line = self._lines[who]
        if not line:
            del self._lines[who]
            return
        gevent.get_hub().loop.run_callback(self._call_next, who)
        line.popleft().switch(None)

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
