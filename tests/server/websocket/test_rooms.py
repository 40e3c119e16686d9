"""Who is in which room: as the library's manager says, without a search through all rooms when one leaves."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import socketio

from server.websocket.rooms import Rooms

CLIENTS, TENANTS, STEPS = 6, 3, 400


class Engine:
    """Gives IDs."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def generate_id(self) -> str:
        return f"client {next(self._count)}"


class Server:
    """As much of a server as a manager needs."""

    packet_class = socketio.packet.Packet

    def __init__(self) -> None:
        self.eio = Engine()


def made(kind: type[socketio.Manager]) -> socketio.Manager:
    manager = kind()
    manager.set_server(Server())
    return manager


def state(manager: socketio.Manager, sids: list[str], names: list[str]) -> Any:
    """Tell all that the server asks of a manager."""
    rooms = {room: sorted(manager.get_participants("/", room)) for room in [None, *names, *sids]}
    sockets = (
        [(manager.is_connected(sid, "/"), manager.eio_sid_from_sid(sid, "/")) for sid in sids] if rooms[None] else []
    )
    pending = (manager.pending_connect, manager.pending_disconnect, manager.callbacks)
    return rooms, sockets, [manager.sid_from_eio_sid(f"socket {n}", "/") for n in range(STEPS)], pending


def step(manager: socketio.Manager, action: str, sid: str, room: str, number: int) -> object:
    """Do one thing, as the library's server does it."""
    if action == "connect":
        return manager.connect(manager.pre_connect(f"socket {number}", "/"), "/")
    if action == "enter":
        return manager.is_connected(sid, "/") and manager.enter_room(sid, "/", room)
    if action == "leave":
        return manager.leave_room(sid, "/", room)
    if manager.is_connected(sid, "/"):
        manager.pre_disconnect(sid, "/")
        manager.disconnect(sid, "/")
    return None


def test_rooms_are_those_of_the_library_whatever_happens(chance: random.Random) -> None:
    ours, theirs = made(Rooms), made(socketio.Manager)
    names, sids = [f"tenant {n}" for n in range(TENANTS)], ["client 0"]
    for number in range(STEPS):
        action = chance.choice(["connect", "enter", "enter", "leave", "disconnect"])
        sid, room = chance.choice(sids[-CLIENTS:]), chance.choice(names)
        results = [step(manager, action, sid, room, number) for manager in (ours, theirs)]
        assert results[0] == results[1]
        if action == "connect":
            sids.append(str(results[0]))
        assert state(ours, sids, names) == state(theirs, sids, names)


def test_nobody_enters_the_room_that_is_anothers_own() -> None:
    rooms = made(Rooms)
    one, other = (rooms.connect(rooms.pre_connect(name, "/"), "/") for name in ("socket 1", "socket 2"))
    with pytest.raises(ValueError):
        rooms.enter_room(one, "/", other)
    assert list(rooms.get_participants("/", other)) == [(other, "socket 2")]


class Unsearched(dict[Any, Any]):
    """Rooms of many, in which nobody looks one after the other."""

    def __iter__(self) -> Any:
        raise AssertionError("all rooms were looked through")

    items = values = keys = copy = __iter__


def test_client_that_leaves_does_not_cost_a_look_at_all_rooms_and_keeps_nothing() -> None:
    """Seen to fail with the library's own manager."""
    rooms = made(Rooms)
    sid = rooms.connect(rooms.pre_connect("socket", "/"), "/")
    rooms.enter_room(sid, "/", "tenant")
    rooms.rooms["/"] = Unsearched(rooms.rooms["/"])
    rooms.pre_disconnect(sid, "/")
    rooms.disconnect(sid, "/")
    assert (rooms.rooms, rooms._entered, rooms.pending_disconnect) == ({}, {}, {})
