"""One WebSocket as Engine.IO uses it: its frames go past the queue, and no greenlet waits for it.

Knows: how Engine.IO and gevent-websocket serve a WebSocket, its queue, its tasks, and when its network takes more. Must not
know: Socket.IO, rooms, what is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import CLOSE, NOOP, PING, Packet
from engineio.payload import Payload
from gevent.event import Event
from gevent.queue import Empty, JoinableQueue

from server.idle_reader import KEY, Inlet

log = logging.getLogger("syncapp.socket")

_UPGRADE_SECONDS = 10.0
"""How long a WebSocket may be open without taking over the session that it was opened for."""


def install(engine: Any) -> dict[str, Line]:
    """Have an Engine.IO server use ``Line``, and no greenlet that waits for one; give those there are, by Engine.IO ID."""
    lines: dict[str, Line] = {}
    own = {"websocket": lambda handler, _: Line(handler.__self__, lines), "queue": _Queue}
    engine._async = {**engine._async, **own}
    start_task = engine.start_background_task

    def start(target: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Start a task of Engine.IO's; that of which each socket has one is done in another way."""
        if getattr(target, "__qualname__", "") == "Socket._send_ping":
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
    """Stands in a socket's queue for bytes that the kernel has not taken yet."""

    def encode(self, b64: bool = False) -> str:
        """Give nothing: the connection knows what is left."""
        return ""


class _Queue(JoinableQueue):  # type: ignore[misc]
    """The packets that wait for a socket; one answer to polling has no more than each client takes.

    Source: engineio/payload.py, ``max_decode_packets``: a client of python-engineio ends the connection over more.
    No client is told by a close packet that its session ends, but sees its connection end: python-engineio takes the packet
    as wanted, and does not come back (engineio/base_client.py, ``SERVER_DISCONNECT``).
    """

    _taken = 0
    told: Callable[[], None] | None = None
    """Called when something was put into it."""
    is_waited_for = False
    """Whether somebody waits for something to be put into it."""
    is_over = False
    """Whether nobody takes packets any more, or the last of them is in it."""
    _shorter: Event | None = None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a packet behind the others."""
        if item is not None and item.packet_type == CLOSE:
            return
        super().put(item, block, timeout)
        if item is None:
            self.end()
        if self.told:
            self.told()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take a packet; the library waits for the first of an answer, and takes the others as long as there are any."""
        self._taken = 1 if block else self._taken + 1
        if self._taken > Payload.max_decode_packets:
            raise Empty
        self.is_waited_for = block and not self.qsize()
        try:
            return super().get(block, timeout)
        finally:
            self.is_waited_for = False
            if self._shorter:
                self._shorter.set()

    def wait_while(self, is_long: Callable[[], bool]) -> None:
        """Wait until others have taken enough of it, or nobody will."""
        while not self.is_over and is_long():
            self._shorter = Event()
            self._shorter.wait()
        self._shorter = None

    def end(self) -> None:
        """Note that it is over: nobody is to wait for room in it."""
        self.is_over = True
        if self._shorter:
            self._shorter.set()


class Line:
    """A WebSocket connection as Engine.IO uses it, that also takes frames past the queue while that is empty."""

    def __init__(self, socket: Any, lines: dict[str, Line]) -> None:
        self._socket, self._lines = socket, lines
        self._sock: Any = None
        self._inlet: Inlet | None = None
        self.writer: _Writer | None = None

    def __call__(self, environ: dict[str, Any], _: Callable[..., Any]) -> list[bytes]:
        """Serve the WebSocket until it ends, or is open and its inlet may wait for more."""
        self._sock, self._inlet = environ["wsgi.websocket"], environ.get(KEY)
        if self._lines.setdefault(self._socket.sid, self) is not self:  # A session has one; this ends at once.
            return []
        try:
            if self._opens():
                self.writer = _Writer(self, self._socket.queue)
                self._serve()
        finally:
            if not (self._inlet and self._inlet.take):
                self._forget()
        return []

    def _opens(self) -> bool:
        """Begin a session, or take one over from polling; tell whether that came about."""
        socket = self._socket
        if not socket.connected:
            socket.connected = socket.upgraded = True
            return True
        socket.queue.told = self._end_with_session
        try:
            with gevent.Timeout(_UPGRADE_SECONDS, False):
                socket.upgraded = self._takes_over()
        finally:
            socket.upgrading, socket.queue.told = False, None
        return bool(socket.upgraded)

    def _end_with_session(self) -> None:
        if self._socket.closed:
            self.abort()

    def _takes_over(self) -> bool:
        """Exchange the probe; until it came polling goes on, since a proxy may have let nothing but the handshake pass.

        Source: Engine.IO protocol 4, "Upgrade".
        """
        socket = self._socket
        if self._sock.receive() != "2probe" or socket.closed:
            return False
        socket.upgrading = True  # From here on a poll is told that there is nothing.
        if socket.queue.is_waited_for:
            socket.queue.put(Packet(NOOP))
        self.send("3probe")
        return self._sock.receive() == "5" and not socket.closed

    def _serve(self) -> None:
        if self._inlet:
            self._sock.read_on(self._inlet)
            self._inlet.take = self._take
            self._inlet.ends.append(self._end)
        else:
            while self._take():
                pass
            self._end()

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

    def close_soon(self) -> None:
        """Bound how long the last packets may take: whoever reads nothing would keep them all."""
        self._sock.close_soon()

    def close(self) -> None:
        """Say goodbye."""
        self._sock.close()

    def abort(self) -> None:
        """End at once, with all that is still to be sent."""
        self._sock.abort()

    def takes(self, frames: bytes) -> bool:
        """Send whole frames at once if nothing has to go before them; what the kernel leaves goes by the queue."""
        socket = self._socket
        if not socket.upgraded or socket.closing or socket.queue.qsize() or not self._sock.takes(frames):
            return False
        if self._sock.has_rest:
            socket.queue.put(_Rest())
        return True


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
        if self._queue.is_over:
            self._line.close_soon()
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
        self._queue.end()
        self._is_over.set()
        self._line.close()

    def join(self) -> None:
        """Wait until the last packet is written or can't be."""
        self._is_over.wait()
