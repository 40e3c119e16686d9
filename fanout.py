"""Telling sockets: one packet, one frame, the same bytes to each, at once where the network takes them.

Knows: how Socket.IO, Engine.IO and gevent-websocket make bytes of an event, and when a socket can take them. Must not
know: what is told, and to whom. A socket that polls, upgrades, or has not taken all that was sent before gets its packets
through the library's own queue, so that each hears everything in order.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import gevent
from engineio.async_drivers.gevent import WebSocketWSGI
from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import PING, Packet
from engineio.payload import Payload
from gevent.event import Event
from gevent.queue import Empty, JoinableQueue

from inlets import KEY, Inlet
from turns import breathe
from wire import encode

log = logging.getLogger("syncapp.socket")

_SLICE_SOCKETS = 128
"""Sockets told between two breaths."""


def frame_of(packet: Packet) -> bytes:
    """Give the WebSocket frame that the library would send for a packet of text."""
    return _frame(packet.encode().encode())


def _frame(text: bytes) -> bytes:
    """Write a frame of text from a server. Source: RFC 6455 section 5.2."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size <= 0xFFFF:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


def _frames(packets: Iterable[bytes]) -> bytes:
    return b"".join(map(_frame, packets))


class _Rest(Packet):  # type: ignore[misc]
    """Stands in a socket's queue for bytes that its network has not taken yet."""

    def encode(self, b64: bool = False) -> str:
        """Give nothing: the line knows what is left."""
        return ""


class _Queue(JoinableQueue):  # type: ignore[misc]
    """The packets that wait for a socket; one answer to polling has no more than each client takes.

    Source: engineio/payload.py, ``max_decode_packets``: a client of python-engineio ends the connection over more.
    """

    _taken = 0
    told: Callable[[], None] | None = None
    """Called when something was put into it."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a packet behind the others."""
        super().put(item, block, timeout)
        if self.told:
            self.told()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take a packet; the library waits for the first of an answer, and takes the others as long as there are any."""
        self._taken = 1 if block else self._taken + 1
        if self._taken > Payload.max_decode_packets:
            raise Empty
        return super().get(block, timeout)


class _Opened(BaseException):
    """Leaves the library's handler when a socket is open: only its loop is left to do. It catches every Exception."""


class Line(WebSocketWSGI):  # type: ignore[misc]
    """A WebSocket as Engine.IO uses it, that also takes frames past the queue while that is empty."""

    def __init__(self, handler: Callable[..., Any], lines: dict[str, Line]) -> None:
        super().__init__(handler, None)
        self._socket: Any = handler.__self__  # type: ignore[attr-defined]
        self._lines = lines
        self._inlet: Inlet | None = None
        self.writer: _Writer | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Serve the WebSocket until it ends, or is open and its inlet may wait for more."""
        self._inlet = environ.get(KEY)
        self._lines[self._socket.sid] = self
        token = _line.set(self)
        try:
            return super().__call__(environ, start_response)
        except _Opened:
            return self._leave_to_inlet()
        finally:
            _line.reset(token)
            if not (self._inlet and self._inlet.take):
                self._forget()

    def _leave_to_inlet(self) -> list[bytes]:
        assert self._inlet
        self._sock.read_on(self._inlet)
        self.environ = None
        self._inlet.take = self._take
        self._inlet.ends.append(self._end)
        return []

    def wait(self) -> Any:
        """Wait for a message, as long as the library's handler is needed for what comes."""
        if self._inlet and self._socket.upgraded:
            raise _Opened
        return super().wait()

    def _take(self) -> bool:
        """Take a message as a round of the library's loop does, and tell whether others may follow."""
        try:
            message = self._sock.receive()
        except Exception:  # It is broken, or closed already.
            return False
        if message is None:
            return False
        try:
            self._socket.receive(Packet(encoded_packet=message))
        except UnknownPacketError:
            return True
        except SocketIsClosedError:
            return False
        except Exception as error:  # ``Contained`` says the same of what is not left to an inlet.
            log.warning("a connection was ended", extra={"reason": type(error).__name__})
            return False
        return True

    def _end(self) -> None:
        """Do what the library does after its loop."""
        socket = self._socket
        socket.queue.put(None)
        if self.writer:
            self.writer.join()
            self.writer = None  # They hold each other.
        socket.close(wait=False, abort=True, reason=socket.server.reason.TRANSPORT_CLOSE)
        socket.server.sockets.pop(socket.sid, None)
        self._forget()

    def _forget(self) -> None:
        if self._lines.get(self._socket.sid) is self:
            del self._lines[self._socket.sid]

    def send(self, message: str) -> None:
        """Send a packet from the queue; one without content stands for what is left of a frame."""
        if message:
            self._sock.send(message)
        else:
            self._sock.raw_write(b"")

    def takes(self, frames: bytes) -> bool:
        """Send whole frames at once if nothing has to go before them; what the network leaves goes by the queue."""
        socket = self._socket
        if not socket.upgraded or socket.closing or socket.queue.qsize() or not self._sock.takes(frames):
            return False
        if self._sock.has_rest:
            socket.queue.put(_Rest())
        return True


_line: ContextVar[Line] = ContextVar("line")
"""The line that the running greenlet serves."""


class _Writer:
    """Writes what waits for a socket, with a greenlet only while something does; for Engine.IO it is its writer's task.

    A greenlet that waits costs 16 KiB, since CPython 3.11 gives each a piece of stack for its frames.
    """

    def __init__(self, line: Line, queue: _Queue) -> None:
        self._line, self._queue = line, queue
        self._is_writing, self._is_over = False, Event()
        queue.told = self._begin
        self._begin()

    def _begin(self) -> None:
        if not self._is_writing and not self._is_over.is_set():
            self._is_writing = True
            gevent.spawn(self._write)

    def _write(self) -> None:
        try:
            while self._queue.qsize() and not self._is_over.is_set():
                self._write_one(self._queue.get())
        except Exception:  # Whatever it is, the connection is of no more use; the library thinks so too.
            self._end()
        finally:
            self._is_writing = False

    def _write_one(self, packet: Packet | None) -> None:
        self._queue.task_done()
        if packet is None:
            self._end()
        else:
            self._line.send(packet.encode())

    def _end(self) -> None:
        self._queue.told = None
        self._is_over.set()
        self._line.close()

    def join(self) -> None:
        """Wait until the last packet is written or can't be."""
        self._is_over.wait()


class _Waiting:
    """What a room is to be told, and the answers that sockets of it get after that."""

    __slots__ = ("answers", "is_under_way", "told")

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.answers: dict[str, list[bytes]] = {}
        self.is_under_way = False
        """Whether some are being told already: an answer then is not to wait for all of them."""


class Fanout:
    """The lines of a Socket.IO server, and what its rooms are still to be told."""

    def __init__(self, io: Any, queue: Callable[[str, Packet], None]) -> None:
        """``queue`` puts a packet into the queue of a socket, named by its Engine.IO ID."""
        self._io, self._queue = io, queue
        self._lines: dict[str, Line] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._late: dict[str, list[bytes]] = {}
        """By socket, what waits until its room has been told."""
        own = {"websocket": lambda handler, _: Line(handler, self._lines), "queue": _Queue}
        io.eio._async = {**io.eio._async, **own}
        self._start_task = io.eio.start_background_task
        io.eio.start_background_task = self._start

    def _start(self, target: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Start a task of Engine.IO's; those of which each socket has one are done without a greenlet that waits."""
        name = getattr(target, "__qualname__", "")
        if name == "Socket._websocket_handler.<locals>.writer":
            line = _line.get()
            line.writer = _Writer(line, line._socket.queue)
            return line.writer
        if name == "Socket._send_ping":
            return self._ping_later(target.__self__)  # type: ignore[attr-defined]
        return self._start_task(target, *values, **named)

    def _ping_later(self, socket: Any) -> None:
        """Do what ``Socket._send_ping`` does, by a timer."""
        timer = gevent.get_hub().loop.timer(self._io.eio.ping_interval)
        timer.start(self._ping, socket, timer)

    def _ping(self, socket: Any, timer: Any) -> None:
        timer.close()
        if not socket.closing and not socket.closed:
            socket.last_ping = time.time()
            socket.send(Packet(PING))

    def send(self, engine_id: str, packet: Packet) -> None:
        """Send a packet to one socket, behind those that go there before it."""
        late = self._late.get(engine_id)
        if packet.binary:
            self._queue(engine_id, packet)
        elif late is None:
            self._hand_over(engine_id, [packet.encode().encode()])
        else:
            late.append(packet.encode().encode())

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
        if not (line and line.takes(frames or _frames(packets))):
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
        frames, rooms = _frames(told), self._io.manager.rooms
        listeners = list(self._io.manager.get_participants("/", room))
        if answers:
            listeners.sort(key=lambda listener: listener[1] not in answers)  # Who waits for an answer comes first.
        for start in range(0, len(listeners), _SLICE_SOCKETS):
            some = listeners[start : start + _SLICE_SOCKETS]
            if start:
                breathe()
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
