"""Broadcasts one notification to many sockets: encoded once, one frame, the same bytes to each, sent without waiting.

Knows: how Socket.IO and Engine.IO encode an event, what is pending for which room. Must not know: what is sent, and to
whom. A socket that polls, upgrades, or has not taken all earlier bytes gets its packets through the library's own queue, so
that each receives everything in order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from engineio.exceptions import SocketIsClosedError
from engineio.packet import Packet

from protocol.codec import encode
from server.scheduler import yield_to_loop
from server.websocket.connection import install
from server.websocket.frames import text_frames

_BATCH_SOCKETS = 128
"""Sockets that are sent to before the next yield to the event loop."""


def packet_of(event: str, payload: object) -> bytes:
    """Encode an event as the packet that each socket gets (Socket.IO protocol 5, EVENT in an Engine.IO message)."""
    return b"42" + encode((event, payload))


class _Pending:
    """The messages that are pending for a room, and the acknowledgements that its sockets get after them."""

    __slots__ = ("answers", "is_under_way", "messages")

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.answers: dict[str, list[bytes]] = {}
        self.is_under_way = False
        """Whether sending has begun: further acknowledgements do not wait for it."""


class Broadcaster:
    """The WebSocket connections of a Socket.IO server, and the pending messages of its rooms."""

    def __init__(
        self,
        io: Any,
        queue: Callable[[str, Packet], None],
        gather: Callable[[str], None],
        room_of: Callable[[str], str | None],
        note_sent: Callable[[str, int], None],
    ) -> None:
        """``queue`` puts a packet into the queue of the socket of an Engine.IO ID; ``room_of`` gives the room of one.

        ``gather`` waits for a moment while messages for a room, or acknowledgements of its sockets, are about to come.
        ``note_sent`` is told how many bytes of packets go to sockets of a room.
        """
        self._io, self._queue, self._gather, self._room_of, self._note_sent = io, queue, gather, room_of, note_sent
        self._connections = install(io.eio)
        self._pending: dict[str, _Pending] = {}
        self._delayed: dict[str, list[bytes]] = {}
        """By socket, packets that wait until the messages of its room are sent."""

    def send(self, engine_id: str, packet: Packet) -> None:
        """Send a packet to one socket, after those that are delayed for it."""
        delayed = self._delayed.get(engine_id)
        if packet.binary:
            self._queue(engine_id, packet)
            return
        encoded = packet.encode().encode()
        if room := self._room_of(engine_id):
            self._note_sent(room, len(encoded))
        if delayed is None:
            self._send_packet(engine_id, encoded)
        else:
            delayed.append(encoded)

    def abort(self, engine_id: str) -> None:
        """Close the WebSocket of one socket at once; what is unsent is dropped."""
        connection = self._connections.get(engine_id)
        if connection:
            connection.abort()

    def send_packets(self, room: str, packets: Sequence[bytes]) -> None:
        """Send packets to each socket of a room; those of one round of the event loop are sent together."""
        pending = self._pending.get(room)
        if pending is None:
            pending = self._pending[room] = _Pending()
            gevent.spawn(self._send_to_room, room, pending)
        pending.messages += packets

    def answer(self, engine_id: str, message: bytes, room: str | None) -> None:
        """Send a message to one socket, together with pending messages of its room, after them."""
        if room:
            self._note_sent(room, len(message) + 1)
        pending = self._pending.get(room or "")
        if pending and not pending.is_under_way and engine_id not in self._delayed:
            self._delayed[engine_id] = pending.answers[engine_id] = []
        delayed = self._delayed.get(engine_id)
        if delayed is None:
            self._send_packet(engine_id, b"4" + message)
        else:
            delayed.append(b"4" + message)

    def _send_packet(self, engine_id: str, packet: bytes) -> None:
        self._send(engine_id, [packet], text_frames([packet]))

    def _send(self, engine_id: str, packets: list[bytes], frames: bytes) -> None:
        """Send packets, of which ``frames`` are made, without waiting if the kernel takes them, else queue them."""
        connection = self._connections.get(engine_id)
        if not (connection and connection.send_nowait(frames)):
            with contextlib.suppress(SocketIsClosedError):
                for packet in packets:
                    self._queue(engine_id, Packet(encoded_packet=packet.decode()))

    def _send_to_room(self, room: str, pending: _Pending) -> None:
        try:
            while pending.messages:
                self._gather(room)
                messages, pending.messages, pending.is_under_way = pending.messages, [], True
                self._send_to_all(room, messages, pending.answers)
        finally:
            del self._pending[room]
            for engine_id in pending.answers:  # Empty, unless sending failed.
                del self._delayed[engine_id]

    def _send_to_all(self, room: str, messages: list[bytes], answers: dict[str, list[bytes]]) -> None:
        frames, rooms = text_frames(messages), self._io.manager.rooms
        size = sum(map(len, messages))
        listeners = list(self._io.manager.get_participants("/", room))
        if answers:
            listeners.sort(
                key=lambda listener: listener[1] not in answers
            )  # Those that wait for an acknowledgement come first.
        for start in range(0, len(listeners), _BATCH_SOCKETS):
            batch = listeners[start : start + _BATCH_SOCKETS]
            if start:
                yield_to_loop()
                still_there = rooms.get("/", {}).get(room, ())
                batch = [listener for listener in batch if listener[0] in still_there]  # Others have left meanwhile.
            self._note_sent(room, len(batch) * size)
            for _, engine_id in batch:
                own = self._answers_of(engine_id, answers) if engine_id in answers else []
                self._send(engine_id, messages + own, frames + text_frames(own) if own else frames)
        for engine_id in list(answers):  # They left the room meanwhile.
            own = self._answers_of(engine_id, answers)
            self._send(engine_id, own, text_frames(own))

    def _answers_of(self, engine_id: str, answers: dict[str, list[bytes]]) -> list[bytes]:
        del self._delayed[engine_id]
        return answers.pop(engine_id)
