"""Who has not authenticated: no more than may be, and nobody is closed before his turn."""

from __future__ import annotations

import time

import gevent
import pytest

from protocol.errors import Busy, Problem
from server.websocket import strangers
from server.websocket.strangers import Strangers

MOST = 3
LONG = 1000.0


class Door:
    """Strangers, and what became of them."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.strangers = Strangers(MOST, MOST, self._close)

    def _close(self, engine_id: str, problem: Problem) -> None:
        assert problem.code == "busy"
        self.closed.append(engine_id)
        self.strangers.discard(engine_id)

    def enter(self, engine_id: str) -> None:
        self.strangers.make_room()
        self.strangers.add(engine_id, LONG)
        assert len(self.strangers) <= MOST


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(strangers, "_TURN_SECONDS", LONG)
    door = Door()
    for name in "abc":
        door.enter(name)
    return door


def test_longest_here_makes_room_once_it_had_its_turn(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_TURN_SECONDS", 0.0)
    for name in "def":
        door.enter(name)
    assert door.closed == ["a", "b", "c"]


def test_newcomers_wait_for_those_before_them_and_come_in_their_order(door: Door) -> None:
    entered: list[str] = []

    def enter(name: str) -> None:
        door.enter(name)
        entered.append(name)

    waiting = [gevent.spawn(enter, name) for name in "def"]
    gevent.sleep(0)
    assert not any(one.ready() for one in waiting)
    for number, name in enumerate("bca"):
        door.strangers.discard(name)
        gevent.joinall(waiting, timeout=60, count=number + 1)
    assert (entered, door.closed) == (["d", "e", "f"], [])


def test_no_more_wait_than_may_be_there(door: Door) -> None:
    waiting = [gevent.spawn(door.enter, name) for name in "def"]
    gevent.sleep(0)
    with pytest.raises(Busy):
        door.enter("g")
    gevent.killall(waiting)
    door.strangers.discard("a")
    door.enter("h")
    assert door.closed == []


def test_those_whose_time_is_over_are_listed_and_a_new_time_counts_anew() -> None:
    one = Strangers(MOST, MOST, lambda *_: None)
    one.add("short", 0.0)
    one.add("long", LONG)
    time.sleep(0.001)
    assert one.late() == ["short"]
    one.add("short", LONG)
    assert one.late() == []
