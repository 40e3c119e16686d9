"""One WebSocket as Engine.IO uses it: a line, that takes frames past the queue and waits for nothing by a greenlet.

Knows: how Engine.IO and gevent-websocket serve a WebSocket, its queue, its tasks, and when its network takes more. Must not
know: Socket.IO, rooms, what is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import gevent
from engineio.async_drivers.gevent import WebSocketWSGI
from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import CLOSE, NOOP, PING, Packet
from engineio.payload import Payload
from gevent.event import Event
from gevent.queue import Empty, JoinableQueue

from inlets import KEY, Inlet

log = logging.getLogger("syncapp.socket")


def install(engine: Any) -> dict[str, Line]:
    """Have an Engine.IO server use lines, and no greenlet that waits for one; give those there are, by Engine.IO ID."""
    lines: dict[str, Line] = {}
    own = {"websocket": lambda handler, _: Line(handler, lines), "queue": _Queue}
    engine._async = {**engine._async, **own}
    start_task = engine.start_background_task

    def start(target: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Start a task of Engine.IO's; those of which each socket has one are done in another way."""
        name = getattr(target, "__qualname__", "")
        if name == "Socket._websocket_handler.<locals>.writer":
            line = _line.get()
            line.writer = _Writer(line, line._socket.queue)
            return line.writer
        if name == "Socket._send_ping":
            return _ping_later(target.__self__)  # type: ignore[attr-defined]
        return start_task(target, *values, **named)

    engine.start_background_task = start
    return lines


def _ping_later(socket: Any) -> None:
    """Do what ``Socket._send_ping`` does, by a timer."""
    timer = gevent.get_hub().loop.timer(socket.server.ping_interval)
    timer.start(_ping, socket, timer)


def _ping(socket: Any, timer: Any) -> None:
    timer.close()
    if not socket.closing and not socket.closed:
        socket.last_ping = time.time()
        socket.send(Packet(PING))


class _Rest(Packet):  # type: ignore[misc]
    """Stands in a socket's queue for bytes that its network has not taken yet."""

    def encode(self, b64: bool = False) -> str:
        """Give nothing: the line knows what is left."""
        return ""


class _Queue(JoinableQueue):  # type: ignore[misc]
    """The packets that wait for a socket; one answer to polling has no more than each client takes.

    Source: engineio/payload.py, ``max_decode_packets``: a client of python-engineio ends the connection over more.
    No client is told by a close packet that its session ends, but sees its connection end: python-engineio takes the packet
    as wanted, and does not come back (engineio/base_client.py, ``SERVER_DISCONNECT``). A poll is still to be answered.
    """

    _taken = 0
    told: Callable[[], None] | None = None
    """Called when something was put into it."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a packet behind the others."""
        is_close = item is not None and item.packet_type == CLOSE
        super().put(Packet(NOOP) if is_close else item, block, timeout)
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

    def abort(self) -> None:
        """End at once, with all that is still to be sent."""
        self._sock.abort()

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
