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

_MAX_A_ROUND = 8
"""Requests of one tenant that go on in one round."""

_MAX_UNAUTHENTICATED_A_ROUND = 32
"""The same of all who have not authenticated: twice as many as are accepted in one, so that a crowd does not pile up."""

_YIELD_SECONDS = 1e-6

_LARGE_BYTES = 262_144
"""From here on, parsing a body blocks the event loop for milliseconds, and its objects take much memory."""

_UNLOCKED = nullcontext()


def yield_to_loop() -> None:
    """Yield to the event loop: everything that is ready runs first.

    ``gevent.sleep(0)`` does not: gevent runs up to 50 greenlets that sleep so before it looks at network and clock again.
    """
    gevent.sleep(_YIELD_SECONDS)


def yield_if_due(seconds: float = 1e-3) -> None:
    """Yield to the event loop if it had no round for so long; long work calls this often."""
    if time.time() - gevent.get_hub().loop.now() > seconds:  # The loop notes the time when it begins a round.
        yield_to_loop()


def is_more_ready() -> bool:
    """Tell whether this round of the event loop has more to hand out, such as other sockets that can be read."""
    return bool(gevent.get_hub().loop.pendingcnt)


def _most(tenant_id: str) -> int:
    return _MAX_A_ROUND if tenant_id else _MAX_UNAUTHENTICATED_A_ROUND


class Scheduler:
    """The queues in which requests and events wait, one for each tenant."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Waiter[None]]] = {}
        self._resumed: dict[str, int] = {}
        """How many requests of each tenant went on in this round."""
        self._round_ends = gevent.get_hub().loop.timer(0)
        self._locks: dict[str, Semaphore] = {}
        self._holders: Counter[str] = Counter()

    def wait_turn(self, tenant_id: str) -> None:
        """Return in this round if few requests of the tenant went on in it, else in a later one, first in, first out.

        ``""`` stands for all who have not authenticated.
        """
        resumed = self._resumed.get(tenant_id, 0)
        if not self._resumed:
            self._round_ends.start(self._next_round)
        if resumed < _most(tenant_id):
            self._resumed[tenant_id] = resumed + 1
            return
        self._wait(tenant_id)

    def yield_turn(self, tenant_id: str) -> None:
        """Return in a later round, for work that is done in time slices."""
        if not self._resumed:
            self._round_ends.start(self._next_round)
            self._resumed[tenant_id] = 0
        self._wait(tenant_id)

    def let_waiting_go_first(self, tenant_id: str, seconds: float) -> None:
        """Return in the round after that in which the last request of the tenant went on that waits for its turn.

        It returns at once if none does, and soon after so many seconds if others come all the time.
        """
        end = time.monotonic() + seconds
        while tenant_id in self._queues and time.monotonic() < end:
            self.yield_turn(tenant_id)
            if tenant_id not in self._queues:
                self.yield_turn(tenant_id)

    def _wait(self, tenant_id: str) -> None:
        waiter: Waiter[None] = Waiter()
        self._queues.setdefault(tenant_id, deque()).append(waiter)
        waiter.get()

    def _next_round(self) -> None:
        """Run in the event loop, once a round as long as requests come."""
        self._resumed, queues = {}, self._queues
        self._queues = {}
        waiters: list[Waiter[None]] = []
        for tenant_id, queue in queues.items():
            some = [queue.popleft() for _ in range(min(len(queue), _most(tenant_id)))]
            self._resumed[tenant_id] = len(some)
            if queue:
                self._queues[tenant_id] = queue
            waiters += some
        self._round_ends.stop()
        if self._resumed:
            self._round_ends.start(self._next_round)
        for waiter in waiters:
            waiter.switch(None)

    def exclusive(self, tenant_id: str, size_bytes: int) -> AbstractContextManager[None]:
        """Run large requests of a tenant one after the other, so that the body of only one is in memory as objects."""
        return self._exclusive(tenant_id) if size_bytes >= _LARGE_BYTES else _UNLOCKED

    @contextmanager
    def _exclusive(self, tenant_id: str) -> Iterator[None]:
        self._holders[tenant_id] += 1
        try:
            with self._locks.setdefault(tenant_id, Semaphore(1)):
                yield
        finally:
            self._holders[tenant_id] -= 1
            if not self._holders[tenant_id]:
                del self._holders[tenant_id], self._locks[tenant_id]
