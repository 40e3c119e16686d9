"""Fair scheduling: in each round of the event loop, a few requests or events of each tenant go on.

A tenant with a thousand requests then costs the others no more waiting than one with a few does. A few rather than one,
since what comes in one round can share a commit. Knows: greenlets, the event loop. Must not know: what the work is.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import gevent
from gevent.hub import Waiter
from gevent.lock import Semaphore

_AT_ONCE = 8
"""Pieces of a tenant's work that go on in one round."""

_MOMENT_SECONDS = 1e-6

_LARGE_BYTES = 262_144
"""From here on, reading a body holds the event loop for milliseconds, and what it becomes holds much memory."""


_NOT_ALONE = nullcontext()


def breathe() -> None:
    """Let all others go on who can.

    ``gevent.sleep(0)`` does not: gevent runs up to 50 greenlets that sleep so before it looks at network and clock again.
    """
    gevent.sleep(_MOMENT_SECONDS)


def breathe_at_times(seconds: float = 1e-3) -> None:
    """Let all others go on if the event loop could not for so long; for what long work calls often."""
    if time.time() - gevent.get_hub().loop.now() > seconds:  # The loop notes the time when it begins a round.
        breathe()


class Turns:
    """The lines in which the work of tenants waits."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Waiter[None]]] = {}
        self._taken: dict[str, int] = {}
        """How many pieces of each went on in this round."""
        self._round_ends = gevent.get_hub().loop.timer(0)
        self._alone: dict[str, Semaphore] = {}
        self._holders: Counter[str] = Counter()

    def take(self, who: str) -> None:
        """Return in this round if few of ``who`` went on in it yet, else in a later one, in the order of the calls."""
        taken = self._taken.get(who, 0)
        if not self._taken:
            self._round_ends.start(self._next_round)
        if taken < _AT_ONCE:
            self._taken[who] = taken + 1
            return
        self._wait(who)

    def pass_on(self, who: str) -> None:
        """Return in a later round: long work goes on when all others had their turn."""
        if not self._taken:
            self._round_ends.start(self._next_round)
            self._taken[who] = 0
        self._wait(who)

    def _wait(self, who: str) -> None:
        waiter: Waiter[None] = Waiter()
        self._lines.setdefault(who, deque()).append(waiter)
        waiter.get()

    def _next_round(self) -> None:
        """Run in the event loop, once a round as long as somebody takes turns."""
        self._taken, lines = {}, self._lines
        self._lines = {}
        going: list[Waiter[None]] = []
        for who, line in lines.items():
            some = [line.popleft() for _ in range(min(len(line), _AT_ONCE))]
            self._taken[who] = len(some)
            if line:
                self._lines[who] = line
            going += some
        self._round_ends.stop()
        if self._taken:
            self._round_ends.start(self._next_round)
        for waiter in going:
            waiter.switch(None)

    def alone(self, who: str, size_bytes: int) -> AbstractContextManager[None]:
        """Let large work of ``who`` go on one after the other, so that only one is in memory as more than bytes."""
        return self._alone_of(who) if size_bytes >= _LARGE_BYTES else _NOT_ALONE

    @contextmanager
    def _alone_of(self, who: str) -> Iterator[None]:
        self._holders[who] += 1
        try:
            with self._alone.setdefault(who, Semaphore(1)):
                yield
        finally:
            self._holders[who] -= 1
            if not self._holders[who]:
                del self._holders[who], self._alone[who]
