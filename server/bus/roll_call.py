"""Asks which processes are on a bus, from beside them.

Knows: that a process hears what it publishes itself, if its bus works. Must not know: brokers, sockets, storage.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

import gevent
import msgspec
from gevent.event import Event

from server.bus.bus import Bus, Subscriber
from server.bus.messages import Header, Process, header_of, message_of, process_of

_HEARD_SECONDS, _ANSWER_SECONDS = 5.0, 0.5


class RollCall(NamedTuple):
    """Whether the bus works, and who answered."""

    is_heard: bool
    processes: list[Process]


def call_roll(bus: Bus) -> RollCall:
    """Ask, and close the bus."""
    name, is_heard = secrets.token_hex(8), Event()
    found: dict[str, Process] = {}

    def ask() -> None:
        """Ask who is there."""
        bus.publish("", message_of(Header(name, "who")))

    def hear(message: bytes) -> None:
        """Note who answers, and the question itself, which comes back if the bus works."""
        try:
            header = header_of(message)
        except msgspec.DecodeError:  # Of a newer version.
            return
        if header.sender == name:
            is_heard.set()
        elif header.kind == "alive":
            found[header.sender] = process_of(header)

    bus.start(Subscriber(hear, ask, lambda _: message_of(Header(name, "who"))))
    is_heard.wait(_HEARD_SECONDS)
    if is_heard.is_set():
        gevent.sleep(_ANSWER_SECONDS)
    bus.close()
    return RollCall(is_heard.is_set(), sorted(found.values()))
