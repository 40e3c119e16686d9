"""Admission: whether a request of a tenant may begin, waits for its turn, or is refused at once.

The queue is bounded by time and not by number: on a fast machine it is long, on a slow one short, and whoever is let in is
answered while its client still waits. Knows: how many requests of a tenant are in flight and wait, how fast they get their
turn, how many bytes they hold. Must not know: requests, sockets, rates (``quotas``).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable

import gevent
from gevent.hub import Waiter

from protocol.errors import Busy
from server.scheduler import Scheduler
from settings import Settings

_MOST_STARTING = 16
"""Requests of a tenant that the scheduler is asked to let go on: two rounds, so that it never runs dry and the others wait
here, where how long they wait is known."""

_ALWAYS_WAITING = 64
"""So many may wait however slowly the queue seems to move: a stall says nothing about the time after it."""

_PATIENCE = 10
"""How many times as long as expected one waits at most: a stall is no reason to refuse who is served soon after it."""

_MEAN_OF = 256
"""The pace is a mean over so many places."""

_RETRY_SECONDS = (1, 2, 3)
"""When those who are refused may come back, in turn: they do not come all at once."""

_INTERVAL_SECONDS = 0.004
_LEAST_REFUSED, _MOST_REFUSED = 2, 16
"""In each interval, and in each round of the event loop, as many are refused as began, within these bounds. A refusal costs
a tenth of a push: so they take a tenth of the core, however little of it there is. To wait for one costs nothing."""


def _busy(retry_after_seconds: int) -> Busy:
    sentence = "Too many requests of this tenant are under way. Try again soon."
    return Busy(sentence, retry_after_seconds=retry_after_seconds)


_retry_seconds, _refusals = itertools.cycle(_RETRY_SECONDS), itertools.cycle([_busy(wait) for wait in _RETRY_SECONDS])


class _Waiting(Waiter):  # type: ignore[misc]
    """A request that waits."""

    __slots__ = ("is_let_in",)

    def __init__(self) -> None:
        super().__init__()
        self.is_let_in = False


class _Tenant:
    """What is in flight of one tenant, and who waits."""

    __slots__ = ("_moved_at", "held_bytes", "pace_seconds", "running", "starting", "waiting")

    def __init__(self) -> None:
        self.running = self.starting = self.held_bytes = 0
        """``starting`` are those of the running that have not got their turn in the scheduler yet."""
        self.waiting: deque[_Waiting] = deque()
        self.pace_seconds = 0.0
        """How long one waits for each place in the queue, on average."""
        self._moved_at = 0.0

    def let_in(self) -> None:
        """Count a request as in flight."""
        self.running += 1
        self.starting += 1

    def join(self, waiting: _Waiting, now: float) -> None:
        """Put one at the end of the queue."""
        if not self.waiting:
            self._moved_at = now
        self.waiting.append(waiting)

    def let_in_first(self, now: float) -> _Waiting:
        """Let the first of the queue in, and learn how fast it moves."""
        self.pace_seconds += (now - self._moved_at - self.pace_seconds) / _MEAN_OF
        self._moved_at = now
        first = self.waiting.popleft()
        first.is_let_in = True
        self.let_in()
        return first


class _Pace:
    """Lets as many be refused as begin, first in, first out."""

    def __init__(self) -> None:
        self.begun = 0
        """How many requests have begun in this interval, of all tenants."""
        self._waiting: deque[Waiter[None]] = deque()
        self._left = _MOST_REFUSED
        self._interval_ends = gevent.get_hub().loop.timer(_INTERVAL_SECONDS, _INTERVAL_SECONDS)
        """It repeats: libev starts one that has fired with no time left."""
        self._is_counting = False

    def wait(self) -> None:
        """Return at once if few were refused in this interval, else in a later one."""
        if not self._is_counting:
            self._is_counting = True
            self._interval_ends.start(self._next_interval)
        if self._left:
            self._left -= 1
            return
        waiter: Waiter[None] = Waiter()
        self._waiting.append(waiter)
        waiter.get()

    def _next_interval(self) -> None:
        """Run in the event loop, once an interval as long as somebody comes."""
        self._left, self.begun = max(_LEAST_REFUSED, min(self.begun, _MOST_REFUSED)), 0
        first = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._left))]
        self._left -= len(first)
        if not first:
            self._interval_ends.stop()
            self._is_counting = False
        for waiter in first:
            waiter.switch(None)


class Admission:
    """Lets requests and events of each tenant begin, first in, first out."""

    def __init__(self, settings: Settings, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_running, self._most_waiting = settings.max_tenant_requests, settings.max_tenant_waiting
        self._most_bytes, self._wait_seconds = settings.max_tenant_body_bytes, settings.tenant_wait_ms / 1000
        self._scheduler, self._clock, self._refused = scheduler, clock, _Pace()
        self._tenants: dict[str, _Tenant] = {}
        """Only those of which something is in flight or waits."""

    def enter(self, tenant_id: str, held_bytes: int) -> None:
        """Return when a request that holds so many bytes may begin; its caller must have it ``leave``.

        Raises: Busy if it would have to wait for too long, or had to, or if the tenant's requests hold too many bytes.
        """
        tenant = self._tenants.get(tenant_id) or _Tenant()
        if tenant.held_bytes + held_bytes > self._most_bytes or self._is_queue_full(tenant):
            self._refused.wait()
            raise _busy(next(_retry_seconds))
        self._tenants[tenant_id] = tenant
        tenant.held_bytes += held_bytes
        if tenant.waiting or not self._has_place(tenant):
            self._wait(tenant_id, tenant, held_bytes)
        else:
            tenant.let_in()
        try:
            self._scheduler.wait_turn(tenant_id)
        except BaseException:
            self.leave(tenant_id, held_bytes)
            raise
        finally:
            tenant.starting -= 1
            self._refused.begun += 1
            self._let_in_waiting(tenant)

    def leave(self, tenant_id: str, held_bytes: int) -> None:
        """Note the end of a request that had begun, so that another may."""
        tenant = self._tenants[tenant_id]
        tenant.running -= 1
        self._let_in_waiting(tenant)
        self._give_back(tenant_id, tenant, held_bytes)

    def hold(self, tenant_id: str, more_bytes: int) -> None:
        """Count memory that the body of a request takes beyond what was known when it began; it may be negative."""
        self._tenants[tenant_id].held_bytes += more_bytes

    def refusal(self, tenant_id: str) -> Busy | None:
        """Return why a request that comes now is refused, as ``enter`` would; the error is kept, so it can't be raised."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None or not self._is_queue_full(tenant):
            return None
        self._refused.wait()
        return next(_refusals)

    def in_flight(self) -> dict[str, float]:
        """Count the requests of all tenants that run, and those that wait to."""
        tenants = self._tenants.values()
        return {
            "running": sum(tenant.running for tenant in tenants),
            "waiting": sum(len(tenant.waiting) for tenant in tenants),
        }

    def is_alone(self, tenant_id: str) -> bool:
        """Tell whether at most one request or event of a tenant is in flight."""
        tenant = self._tenants.get(tenant_id)
        return tenant is None or tenant.running + len(tenant.waiting) <= 1

    def _has_place(self, tenant: _Tenant) -> bool:
        return tenant.running < self._most_running and tenant.starting < _MOST_STARTING

    def _is_queue_full(self, tenant: _Tenant) -> bool:
        """Tell whether who comes now would wait for too long."""
        waiting = len(tenant.waiting)
        if waiting < min(_ALWAYS_WAITING, self._most_waiting):
            return False
        before = waiting + tenant.running
        return waiting >= self._most_waiting or before * tenant.pace_seconds > self._wait_seconds

    def _let_in_waiting(self, tenant: _Tenant) -> None:
        if not tenant.waiting:
            return
        now, loop = self._clock(), gevent.get_hub().loop
        while tenant.waiting and self._has_place(tenant):
            loop.run_callback(tenant.let_in_first(now).switch, None)

    def _wait(self, tenant_id: str, tenant: _Tenant, held_bytes: int) -> None:
        """Wait to be let in, for as long as one may. Raises: Busy."""
        waiting = _Waiting()
        tenant.join(waiting, self._clock())
        timer = gevent.get_hub().loop.timer(self._wait_seconds * _PATIENCE)
        timer.start(waiting.switch, None)
        try:
            waiting.get()
        except BaseException:  # Its greenlet was ended.
            self._leave_queue(tenant_id, tenant, waiting, held_bytes)
            raise
        finally:
            timer.close()
        if not waiting.is_let_in:
            self._leave_queue(tenant_id, tenant, waiting, held_bytes)
            raise _busy(next(_retry_seconds))

    def _leave_queue(self, tenant_id: str, tenant: _Tenant, waiting: _Waiting, held_bytes: int) -> None:
        if waiting.is_let_in:
            tenant.starting -= 1
            self.leave(tenant_id, held_bytes)
        else:
            tenant.waiting.remove(waiting)
            self._give_back(tenant_id, tenant, held_bytes)

    def _give_back(self, tenant_id: str, tenant: _Tenant, held_bytes: int) -> None:
        tenant.held_bytes -= held_bytes
        if not tenant.running and not tenant.waiting:
            del self._tenants[tenant_id]
