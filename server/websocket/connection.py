"""One WebSocket connection as Engine.IO uses it: frames bypass the queue, and no greenlet waits for it.

Knows: how Engine.IO and gevent-websocket serve a WebSocket, its queue, its tasks, when the kernel takes more. Must not
know: Socket.IO, rooms, what is sent.
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

from server.idle_reader import KEY, IdleReader

log = logging.getLogger("syncapp.socket")

_UPGRADE_SECONDS = 10.0
"""How long a WebSocket may be open without taking over the session that it was opened for."""


def install(engine: Any) -> dict[str, WebSocketConnection]:
    """Have an Engine.IO server use ``WebSocketConnection``; return the open ones, by Engine.IO ID."""
    connections: dict[str, WebSocketConnection] = {}
    # ``handler`` is the bound method ``Socket._websocket_handler`` of the library.
    own = {"websocket": lambda handler, _: WebSocketConnection(handler.__self__, connections), "queue": _Queue}
    engine._async = {**engine._async, **own}
    start_task = engine.start_background_task

    def start(target: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Start a background task of Engine.IO; the one that each socket has is replaced by a timer."""
        if getattr(target, "__qualname__", "") == "Socket._send_ping":
            return _start_ping_timer(target.__self__)  # type: ignore[attr-defined]
        return start_task(target, *values, **named)

    engine.start_background_task = start
    disconnected = engine.handlers["disconnect"]

    def end(engine_id: str, reason: str) -> None:
        """Stop the timer, which would keep the closed session for the rest of the interval."""
        engine.sockets[engine_id].queue.stop_ping_timer()
        disconnected(engine_id, reason)

    engine.handlers["disconnect"] = end
    return connections


def _start_ping_timer(socket: Any) -> None:
    """Do what ``Socket._send_ping`` does, by a timer."""
    if not socket.closing and not socket.closed:
        socket.queue.start_ping_timer(socket.server.ping_interval, socket)


def _ping(socket: Any) -> None:
    socket.queue.stop_ping_timer()
    socket.last_ping = time.time()
    socket.send(Packet(PING))


class _Unsent(Packet):  # type: ignore[misc]
    """Stands in a socket's queue for the unsent rest of a frame."""

    def encode(self, b64: bool = False) -> str:
        """Return nothing: the WebSocket has the rest."""
        return ""


class _Queue(JoinableQueue):  # type: ignore[misc]
    """The packets that wait for a socket; the response to one poll has no more than each client takes.

    Source: engineio/payload.py, ``max_decode_packets``: a client of python-engineio ends the connection over more.
    Close packets are not sent, the connection just ends: python-engineio takes such a packet as final, and does not
    reconnect (engineio/base_client.py, ``SERVER_DISCONNECT``).
    """

    _in_this_poll = 0
    on_put: Callable[[], None] | None = None
    """Called after each put."""
    is_waited_for = False
    """Whether a greenlet waits in ``get``."""
    is_over = False
    """Whether no packets are taken any more, or the last one is in it."""
    _became_shorter: Event | None = None
    _ping_timer: Any = None

    def start_ping_timer(self, seconds: float, socket: Any) -> None:
        """Have a ping sent in so many seconds; the queue holds the timer, since the library's socket knows of none."""
        self.stop_ping_timer()
        self._ping_timer = gevent.get_hub().loop.timer(seconds)
        self._ping_timer.start(_ping, socket)

    def stop_ping_timer(self) -> None:
        """Send no ping."""
        if self._ping_timer:
            self._ping_timer.close()
            self._ping_timer = None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append a packet."""
        if item is not None and item.packet_type == CLOSE:
            return
        super().put(item, block, timeout)
        if item is None:
            self.end()
        if self.on_put:
            self.on_put()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take a packet; the library waits for the first of a response, and takes the others as long as there are any."""
        self._in_this_poll = 1 if block else self._in_this_poll + 1
        if self._in_this_poll > Payload.max_decode_packets:
            raise Empty
        self.is_waited_for = block and not self.qsize()
        try:
            return super().get(block, timeout)
        finally:
            self.is_waited_for = False
            self._wake()

    def wait_while(self, is_long: Callable[[], bool]) -> None:
        """Wait until enough packets were taken, or it has ended."""
        while not self.is_over and is_long():
            self._became_shorter = self._became_shorter or Event()
            self._became_shorter.wait()

    def _wake(self) -> None:
        """Wake all that wait for it to become shorter: a POST may, and the WebSocket that took its session over."""
        if self._became_shorter:
            became_shorter, self._became_shorter = self._became_shorter, None
            became_shorter.set()

    def end(self) -> None:
        """Note that it has ended, and wake those that wait for it to become shorter."""
        self.is_over = True
        self._wake()


class WebSocketConnection:
    """A WebSocket connection as Engine.IO uses it, which also sends frames past the queue while that is empty."""

    def __init__(self, socket: Any, connections: dict[str, WebSocketConnection]) -> None:
        self._socket, self._connections = socket, connections
        self._websocket: Any = None
        self._reader: IdleReader | None = None
        self.writer: _Writer | None = None

    def __call__(self, environ: dict[str, Any], _: Callable[..., Any]) -> list[bytes]:
        """Serve the WebSocket until it ends, or until its idle reader takes over."""
        self._websocket, self._reader = environ["wsgi.websocket"], environ.get(KEY)
        if self._connections.setdefault(self._socket.sid, self) is not self:  # A session has one only.
            return []
        try:
            if self._open():
                self.writer = _Writer(self, self._socket.queue)
                self._serve()
        finally:
            if not (self._reader and self._reader.receive_one):
                self._forget()
        return []

    def _open(self) -> bool:
        """Begin a session, or upgrade one that polls; tell whether it succeeded."""
        socket = self._socket
        if not socket.connected:
            socket.connected = socket.upgraded = True
            return True
        socket.queue.on_put = self._end_with_session
        try:
            with gevent.Timeout(_UPGRADE_SECONDS, False):
                socket.upgraded = self._upgrade()
        finally:
            socket.upgrading, socket.queue.on_put = False, None
        return bool(socket.upgraded)

    def _end_with_session(self) -> None:
        if self._socket.closed:
            self.abort()

    def _upgrade(self) -> bool:
        """Exchange the probe; polling goes on until it was received, since a proxy may pass nothing but the handshake.

        Source: Engine.IO protocol 4, "Upgrade".
        """
        socket = self._socket
        if self._websocket.receive() != "2probe" or socket.closed:
            return False
        socket.upgrading = True  # From here on a poll is answered with a noop.
        if socket.queue.is_waited_for:
            socket.queue.put(Packet(NOOP))
        self.send("3probe")
        return self._websocket.receive() == "5" and not socket.closed

    def _serve(self) -> None:
        if self._reader:
            self._websocket.read_from(self._reader)
            self._reader.receive_one = self._receive_one
            self._reader.on_end.append(self._end)
        else:
            while self._receive_one():
                pass
            self._end()

    def _receive_one(self) -> bool:
        """Receive a message as one round of the library's loop does, and tell whether others may follow."""
        try:
            message = self._websocket.receive()
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
        except Exception as error:  # ``SocketIOMiddleware`` does so without an idle reader.
            log.warning("a connection was closed", extra={"reason": type(error).__name__})
            return False
        return True

    def _end(self) -> None:
        """Close the session, as the library does after its loop."""
        socket = self._socket
        socket.queue.put(None)
        if self.writer:
            self.writer.join()
            self.writer = None  # A reference cycle.
        socket.close(wait=False, abort=True, reason=socket.server.reason.TRANSPORT_CLOSE)
        socket.server.sockets.pop(socket.sid, None)
        self._forget()

    def _forget(self) -> None:
        if self._connections.get(self._socket.sid) is self:
            del self._connections[self._socket.sid]

    def send(self, message: str) -> None:
        """Send a packet from the queue; an empty one stands for the unsent rest of a frame."""
        if message:
            self._websocket.send(message)
        else:
            self._websocket.raw_write(b"")

    def close_soon(self) -> None:
        """Limit how long sending the last packets may take, since the client may not read."""
        self._websocket.close_soon()

    def close(self) -> None:
        """Close with a close frame."""
        self._websocket.close()

    def abort(self) -> None:
        """Close at once; what is unsent is dropped."""
        self._websocket.abort()

    def send_nowait(self, frames: bytes) -> bool:
        """Send whole frames without waiting, if nothing has to be sent before them; an unsent rest goes by the queue."""
        socket = self._socket
        if not socket.upgraded or socket.closing or socket.queue.qsize() or not self._websocket.send_nowait(frames):
            return False
        if self._websocket.has_unsent:
            socket.queue.put(_Unsent())
        return True


class _Writer:
    """Writes the packets of a queue, with a greenlet only while there are any; for Engine.IO it is its writer's task.

    A waiting greenlet costs 16 KiB, since CPython 3.11 allocates each a stack chunk for its frames.
    """

    def __init__(self, connection: WebSocketConnection, queue: _Queue) -> None:
        self._connection, self._queue = connection, queue
        self._is_writing, self._is_over = False, Event()
        queue.on_put = self._start
        self._start()

    def _start(self) -> None:
        if self._queue.is_over:
            self._connection.close_soon()
        if not self._is_writing and not self._is_over.is_set():
            self._is_writing = True
            gevent.spawn(self._write)

    def _write(self) -> None:
        try:
            while self._queue.qsize() and not self._is_over.is_set():
                self._write_one(self._queue.get())
        except Exception:  # The library too closes the connection after any exception.
            self._end()
        finally:
            self._is_writing = False

    def _write_one(self, packet: Packet | None) -> None:
        self._queue.task_done()
        if packet is None:
            self._end()
        else:
            self._connection.send(packet.encode())

    def _end(self) -> None:
        self._queue.on_put = None
        self._queue.end()
        self._is_over.set()
        self._connection.close()

    def join(self) -> None:
        """Wait until the last packet is written or can't be."""
        self._is_over.wait()
