"""Who has not authenticated: no more than may be, and nobody is closed before his turn."""

from __future__ import annotations

import time

import gevent
import pytest

from protocol.errors import Busy, Problem
from server.websocket import unauthenticated
from server.websocket.unauthenticated import UnauthenticatedSockets

MOST = 3
LONG = 1000.0


class Crowd:
    """Unauthenticated sockets, and what became of them."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.sockets = UnauthenticatedSockets(MOST, MOST, self._close)

    def _close(self, engine_id: str, problem: Problem) -> None:
        assert problem.code == "busy"
        self.closed.append(engine_id)
        self.sockets.discard(engine_id)

    def enter(self, engine_id: str) -> None:
        self.sockets.make_room()
        self.sockets.add(engine_id, LONG)
        assert len(self.sockets) <= MOST


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    monkeypatch.setattr(unauthenticated, "_GRACE_SECONDS", LONG)
    crowd = Crowd()
    for name in "abc":
        crowd.enter(name)
    return crowd


def test_longest_here_makes_room_after_its_time_of_grace(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unauthenticated, "_GRACE_SECONDS", 0.0)
    for name in "abc":
        crowd.sockets.add(name, LONG)
    for name in "def":
        crowd.enter(name)
    assert crowd.closed == ["a", "b", "c"]


def test_newcomers_wait_for_those_before_them_and_come_in_their_order(crowd: Crowd) -> None:
    entered: list[str] = []

    def enter(name: str) -> None:
        crowd.enter(name)
        entered.append(name)

    waiting = [gevent.spawn(enter, name) for name in "def"]
    gevent.sleep(0)
    assert not any(one.ready() for one in waiting)
    for number, name in enumerate("bca"):
        crowd.sockets.discard(name)
        gevent.joinall(waiting, timeout=60, count=number + 1)
    assert (entered, crowd.closed) == (["d", "e", "f"], [])


def test_newcomer_does_not_overtake_those_that_wait(crowd: Crowd) -> None:
    """Fault: who came as a place was free took it, though others had waited for it longer."""
    waiting = gevent.spawn(crowd.enter, "d")
    gevent.sleep(0)
    crowd.sockets.discard("a")
    newcomer = gevent.spawn(crowd.enter, "e")
    gevent.joinall([waiting], timeout=60)
    assert waiting.ready() and not newcomer.ready()
    crowd.sockets.discard("b")
    gevent.joinall([newcomer], timeout=60)
    assert newcomer.ready() and crowd.closed == []


def test_refused_ones_make_room_at_once_and_all_that_are_too_many_do(crowd: Crowd) -> None:
    """As when a tenant's sessions end: more are refused at once than may be here, and each has a time to leave."""
    for name in "bxyz":
        crowd.sockets.refuse(name, LONG)
    crowd.enter("d")
    assert sorted(crowd.closed) == ["b", "x", "y", "z"]


def test_stop_lets_nobody_in_and_ends_the_waiting(crowd: Crowd) -> None:
    waiting = gevent.spawn(crowd.enter, "d")
    gevent.sleep(0)
    crowd.sockets.stop()
    with pytest.raises(Busy):
        waiting.get(timeout=60)
    crowd.sockets.discard("a")
    with pytest.raises(Busy):
        crowd.enter("e")


def test_no_more_wait_than_may_be_there(crowd: Crowd) -> None:
    waiting = [gevent.spawn(crowd.enter, name) for name in "def"]
    gevent.sleep(0)
    with pytest.raises(Busy):
        crowd.enter("g")
    gevent.killall(waiting)
    crowd.sockets.discard("a")
    crowd.enter("h")
    assert crowd.closed == []


def test_those_whose_time_is_over_are_listed_and_a_new_time_counts_anew() -> None:
    one = UnauthenticatedSockets(MOST, MOST, lambda *_: None)
    one.add("short", 0.0)
    one.add("long", LONG)
    time.sleep(0.001)
    assert one.late() == ["short"]
    one.add("short", LONG)
    assert one.late() == []
