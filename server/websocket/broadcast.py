"""One notification to many sockets: one packet, one frame, the same bytes to each, at once where a socket takes them.

Knows: how Socket.IO and Engine.IO make bytes of an event, and which rooms wait to be told. Must not
know: what is told, and to whom. A socket that polls, upgrades, or has not taken all that was sent before gets its packets
through the library's own queue, so that each hears everything in order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gevent
from engineio.exceptions import SocketIsClosedError
from engineio.packet import Packet

from protocol.codec import encode
from server.scheduler import yield_to_loop
from server.websocket import connection
from server.websocket.frames import text_frames

_SLICE_SOCKETS = 128
"""Sockets told before all others go on."""


class _Waiting:
    """What a room is to be told, and the answers that sockets of it get after that."""

    __slots__ = ("answers", "is_under_way", "told")

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.answers: dict[str, list[bytes]] = {}
        self.is_under_way = False
        """Whether some are being told already: an answer then is not to wait for all of them."""


class Fanout:
    """The WebSocket connections of a Socket.IO server, and what its rooms are still to be told."""

    def __init__(self, io: Any, queue: Callable[[str, Packet], None]) -> None:
        """``queue`` puts a packet into the queue of a socket, named by its Engine.IO ID."""
        self._io, self._queue = io, queue
        self._lines = connection.install(io.eio)
        self._waiting: dict[str, _Waiting] = {}
        self._late: dict[str, list[bytes]] = {}
        """By socket, what waits until its room has been told."""

    def send(self, engine_id: str, packet: Packet) -> None:
        """Send a packet to one socket, behind those that go there before it."""
        late = self._late.get(engine_id)
        if packet.binary:
            self._queue(engine_id, packet)
        elif late is None:
            self._hand_over(engine_id, [packet.encode().encode()])
        else:
            late.append(packet.encode().encode())

    def abort(self, engine_id: str) -> None:
        """End the WebSocket of one socket at once, with all that is still to be sent."""
        line = self._lines.get(engine_id)
        if line:
            line.abort()

    def tell(self, event: str, payload: object, room: str) -> None:
        """Tell an event to each socket of a room; what is told before others run leaves together."""
        waiting = self._waiting.get(room)
        if waiting is None:
            waiting = self._waiting[room] = _Waiting()
            gevent.spawn(self._tell_room, room, waiting)
        waiting.told.append(b"42" + encode((event, payload)))

    def answer(self, engine_id: str, message: bytes, room: str | None) -> None:
        """Send a message to one socket: with what its room is about to be told, after that, else at once."""
        waiting = self._waiting.get(room or "")
        if waiting and not waiting.is_under_way and engine_id not in self._late:
            self._late[engine_id] = waiting.answers[engine_id] = []
        late = self._late.get(engine_id)
        if late is None:
            self._hand_over(engine_id, [b"4" + message])
        else:
            late.append(b"4" + message)

    def _hand_over(self, engine_id: str, packets: list[bytes], frames: bytes = b"") -> None:
        """Send packets at once if their socket's network takes them, else queue them; ``frames``: them, if ready."""
        line = self._lines.get(engine_id)
        if not (line and line.takes(frames or text_frames(packets))):
            with contextlib.suppress(SocketIsClosedError):
                for packet in packets:
                    self._queue(engine_id, Packet(encoded_packet=packet.decode()))

    def _tell_room(self, room: str, waiting: _Waiting) -> None:
        try:
            while waiting.told:
                told, waiting.told, waiting.is_under_way = waiting.told, [], True
                self._tell_all(room, told, waiting.answers)
        finally:
            del self._waiting[room]
            for engine_id in waiting.answers:  # None, unless this broke off.
                del self._late[engine_id]

    def _tell_all(self, room: str, told: list[bytes], answers: dict[str, list[bytes]]) -> None:
        frames, rooms = text_frames(told), self._io.manager.rooms
        listeners = list(self._io.manager.get_participants("/", room))
        if answers:
            listeners.sort(key=lambda listener: listener[1] not in answers)  # Who waits for an answer comes first.
        for start in range(0, len(listeners), _SLICE_SOCKETS):
            some = listeners[start : start + _SLICE_SOCKETS]
            if start:
                yield_to_loop()
                here = rooms.get("/", {}).get(room, ())
                some = [listener for listener in some if listener[0] in here]  # Others have left meanwhile.
            for _, engine_id in some:
                if engine_id in answers:
                    self._hand_over(engine_id, told + self._answers_of(engine_id, answers))
                else:
                    self._hand_over(engine_id, told, frames)
        for engine_id in list(answers):  # They left the room, and wait for their answers all the same.
            self._hand_over(engine_id, self._answers_of(engine_id, answers))

    def _answers_of(self, engine_id: str, answers: dict[str, list[bytes]]) -> list[bytes]:
        del self._late[engine_id]
        return answers.pop(engine_id)
