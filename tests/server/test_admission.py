"""Who of a tenant's requests begins, waits, or is refused, and that nobody who waited is forgotten.

Seen to fail with: nobody let in when one ends; a place kept by who was ended while it waited; no deadline; a queue without
a bound; the last of the queue let in first; bytes of who waits not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from protocol.errors import Busy
from server import admission
from server.admission import Admission, _Pace
from server.scheduler import Scheduler
from settings import Settings

FOR_EVER_MS = 60_000


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admission_of(clock: Callable[[], float] | None = None, **settings: Any) -> Admission:
    limits = {"max_tenant_requests": 2, "max_tenant_waiting": 3, "tenant_wait_ms": FOR_EVER_MS} | settings
    return Admission(Settings(**limits), Scheduler(), *([clock] if clock else []))


class Request:
    """A request in a greenlet of its own: it enters, and leaves when it is told to."""

    def __init__(self, to: Admission, tenant_id: str = "a", size: int = 0) -> None:
        self.has_begun, self.may_end = Event(), Event()
        self.greenlet = gevent.spawn(self._run, to, tenant_id, size)
        gevent.sleep(0)

    def _run(self, to: Admission, tenant_id: str, size: int) -> Busy | None:
        try:
            to.enter(tenant_id, size)
        except Busy as problem:
            return problem
        self.has_begun.set()
        self.may_end.wait()
        to.leave(tenant_id, size)
        return None

    @property
    def waits(self) -> bool:
        return not self.has_begun.is_set() and not self.greenlet.dead

    def begins(self) -> bool:
        return bool(self.has_begun.wait(20))

    def end(self) -> None:
        self.may_end.set()
        self.greenlet.join()

    def refused(self) -> Busy:
        """Give the error with which it was refused."""
        problem: Busy = self.greenlet.get(timeout=20)
        assert isinstance(problem, Busy), problem
        return problem


def ended(requests: list[Request], of: Admission) -> None:
    """Have all end, and see that nothing is held of anybody."""
    for request in requests:
        request.may_end.set()
    gevent.joinall([request.greenlet for request in requests], timeout=20, raise_error=True)
    assert of._tenants == {}


def test_requests_beyond_the_limit_wait_and_begin_in_order_when_others_end() -> None:
    subject = admission_of()
    requests = [Request(subject) for _ in range(5)]
    assert [request.begins() for request in requests[:2]] == [True, True]
    for number in range(2, 5):
        assert [request.waits for request in requests[2:]] == [False] * (number - 2) + [True] * (5 - number)
        requests[number - 2].end()
        assert requests[number].begins()
    ended(requests, subject)


def test_request_that_waited_for_as_long_as_it_may_is_refused_and_holds_nothing() -> None:
    subject = admission_of(tenant_wait_ms=10)
    running = [Request(subject) for _ in range(2)]
    late = Request(subject, size=9)
    assert str(late.refused()) == "Too many requests of this tenant are under way. Try again soon."
    assert subject._tenants["a"].held_bytes == 0 and not subject._tenants["a"].waiting
    running[0].end()
    after = Request(subject)
    assert after.begins()
    ended([*running, after], subject)


def test_stall_is_no_reason_to_refuse_who_waits() -> None:
    """Fault: a deadline of what one may expect to wait: each slow write to the disk refused all who came meanwhile."""
    subject = admission_of(tenant_wait_ms=500)
    requests = [Request(subject) for _ in range(4)]
    gevent.sleep(0.6)
    for number in range(2):
        assert requests[number + 2].waits
        requests[number].end()
        assert requests[number + 2].begins()
    ended(requests, subject)


def test_more_than_may_wait_are_refused_at_once() -> None:
    subject = admission_of()
    requests = [Request(subject) for _ in range(5)]
    assert subject.refusal("a") and Request(subject).refused()
    assert subject.refusal("b") is None
    requests[0].end()
    assert requests[2].begins() and subject.refusal("a") is None
    ended(requests, subject)


def test_queue_is_as_long_as_is_served_in_time_at_the_pace_of_before() -> None:
    """A hundredth of a second each, and 0.8 s to wait: more than 80 in all are too many, though a thousand may wait."""
    clock = Clock()
    subject = admission_of(clock, max_tenant_requests=1, max_tenant_waiting=1_000, tenant_wait_ms=800)
    requests = [Request(subject) for _ in range(601)]
    for number in range(600):
        clock.now += 0.01
        requests[number].end()
        assert requests[number + 1].begins()
    pace = subject._tenants["a"].pace_seconds
    assert 0.008 < pace < 0.011
    queue = []
    while subject.refusal("a") is None:
        queue.append(Request(subject))
    assert len(queue) == int(0.8 / pace) and queue[-1].waits  # And one is running.
    ended([*requests, *queue], subject)


def test_few_may_wait_after_a_stall_and_so_it_is_seen_that_it_is_over() -> None:
    clock = Clock()
    subject = admission_of(clock, max_tenant_requests=1, max_tenant_waiting=1_000)
    first, second = Request(subject), Request(subject)
    clock.now += 1_000_000  # Longer than anybody waits, for one place.
    first.end()
    requests = [second, *(Request(subject) for _ in range(admission._ALWAYS_WAITING))]
    assert len(subject._tenants["a"].waiting) == admission._ALWAYS_WAITING and subject.refusal("a")
    ended(requests, subject)


def test_bytes_of_those_who_wait_count_too() -> None:
    subject = admission_of(max_tenant_body_bytes=1_048_576, max_body_bytes=1_024)
    requests = [Request(subject, size=300_000) for _ in range(3)]
    assert requests[2].waits
    assert Request(subject, size=300_000).refused()
    small = Request(subject, size=1_000)
    assert small.waits
    ended([*requests, small], subject)


@pytest.mark.parametrize("is_let_in", [False, True], ids=["in the queue", "just let in"])
def test_greenlet_that_is_ended_while_it_waits_keeps_no_place(is_let_in: bool) -> None:
    """Fault: the place of one that was let in, and ended before it could begin, was lost for ever."""
    subject = admission_of(max_tenant_requests=1)
    subject.enter("a", 5)
    unlucky, next_one = Request(subject, size=5), Request(subject, size=5)
    unlucky.greenlet.kill(block=not is_let_in)
    subject.leave("a", 5)
    assert next_one.begins()
    ended([next_one], subject)


def test_tenant_that_waits_makes_no_other_wait() -> None:
    subject = admission_of()
    crowd = [Request(subject) for _ in range(5)]
    other = Request(subject, "b")
    assert other.begins() and crowd[2].waits and subject._refused.begun == 3
    ended([*crowd, other], subject)


def test_scheduler_is_asked_by_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So how long the others wait is known here, and bounded."""
    scheduler, waiting = Scheduler(), list[int]()
    subject = Admission(Settings(), scheduler)
    wait_turn = scheduler.wait_turn

    def noting(tenant_id: str) -> None:
        waiting.append(subject._tenants["a"].starting)
        wait_turn(tenant_id)

    monkeypatch.setattr(scheduler, "wait_turn", noting)
    requests = [Request(subject) for _ in range(100)]
    assert all(request.begins() for request in requests)
    assert len(waiting) == 100 and max(waiting) == admission._MOST_STARTING
    ended(requests, subject)


def test_those_who_are_refused_are_told_different_times() -> None:
    subject = admission_of()
    requests = [Request(subject) for _ in range(5)]
    told = [Request(subject).refused().retry_after_seconds for _ in range(6)]
    assert sorted(told) == [1, 1, 2, 2, 3, 3]  # type: ignore[type-var]
    kept = [refusal.retry_after_seconds for _ in range(3) if (refusal := subject.refusal("a"))]
    assert sorted(kept) == [1, 2, 3]  # type: ignore[type-var]
    ended(requests, subject)


def test_refusals_are_given_at_a_pace_and_all_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the timer started again after it had fired, which has no time left then: all were given at once."""
    monkeypatch.setattr(admission, "_INTERVAL_SECONDS", 0.05)
    subject, began = admission_of(), time.monotonic()
    requests = [Request(subject) for _ in range(5)]
    refused = [Request(subject) for _ in range(admission._MOST_REFUSED + 10 * admission._LEAST_REFUSED)]
    assert sum(request.greenlet.dead for request in refused) >= admission._MOST_REFUSED
    assert all(request.refused() for request in refused)
    assert time.monotonic() - began > 0.25  # Half of the ten intervals. Others' load only adds to it.
    ended(requests, subject)


def test_as_many_are_refused_as_begin_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_INTERVAL_SECONDS", 60)
    pace, most, least = _Pace(), admission._MOST_REFUSED, admission._LEAST_REFUSED
    waiting = [gevent.spawn(pace.wait) for _ in range(100)]
    given = []
    for begun in (5, 0, 1_000):
        gevent.sleep(0)
        given.append(sum(one.dead for one in waiting))
        pace.begun = begun
        gevent.get_hub().loop.run_callback(pace._next_interval)
    gevent.sleep(0)
    given.append(sum(one.dead for one in waiting))
    assert given == [most, most + 5, most + 5 + least, most + 5 + least + most]
    gevent.killall(waiting)


def test_only_one_in_flight_is_alone() -> None:
    subject = admission_of(max_tenant_requests=1)
    assert subject.is_alone("a")
    first = Request(subject)
    assert first.begins() and subject.is_alone("a")
    second = Request(subject)
    assert not subject.is_alone("a") and subject.is_alone("b")
    ended([first, second], subject)
