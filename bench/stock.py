"""Starts the server with parts of libraries in the place of ours, so that a benchmark can hold both against each other.

usage: `python bench/stock.py PART[,PART…]`, or `node bench/run.mjs --stock PART[,PART…]`. Only for measuring: parts of the
libraries lack limits that ours have. So this is no setting, and nothing that serves users imports it. What each part is
worth stands in `server/README.md`, "Debts to libraries".
"""

# ruff: noqa: E402 -- what is imported first hides what is not needed
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import syncapp  # First, for its monkey patch.

syncapp.import_server()

# isort: split
import flask
from gevent.pywsgi import Input
from geventwebsocket.websocket import Header
from socketio import Manager

from api.sync import Sync
from server import log_format
from server.http import handler
from server.http.handler import Handler
from server.websocket import announcements, broadcast, socketio_server
from server.websocket.broadcast import Broadcaster
from server.websocket.events import Events
from server.websocket.frames import BoundedWebSocket
from server.websocket.receiver import Receiver
from server.websocket.socketio_server import SocketIOServer


def replace(owner: Any, name: str, value: object) -> None:
    """Put a value in the place of one that a module or a class has. Raises: AttributeError if it has none."""
    getattr(owner, name)
    setattr(owner, name, value)


def pywsgi() -> None:
    """Have gevent's handler read requests and write responses."""
    for name in ("handle_one_request", "start_response", "_write_with_headers", "_write", "_sendall"):
        delattr(Handler, name)
    Input.left = 0  # How much of a body is unread, which gevent's does not tell.


def frames() -> None:
    """Have gevent-websocket parse and build frames."""
    del BoundedWebSocket.read_message, BoundedWebSocket.read_frame

    def text_frames(texts: Iterable[bytes]) -> bytes:
        header = Header.encode_header
        return b"".join([header(True, BoundedWebSocket.OPCODE_TEXT, b"", len(text), 0) + text for text in texts])

    replace(broadcast, "text_frames", text_frames)


def idle_reader() -> None:
    """Keep a greenlet for each socket that waits for frames."""
    replace(handler, "IdleReader", lambda _: None)


def engineio() -> None:
    """Have Engine.IO serve WebSockets: three greenlets and a queue for each, through which all is sent."""
    idle_reader()
    replace(broadcast, "install", lambda _: {})
    replace(Receiver, "_wait_until_drained", lambda self, engine_id: engine_id in self._engine.sockets)


def emit() -> None:
    """Have python-socketio send an event to a room: one packet and one frame for each socket."""
    replace(announcements, "packet_of", lambda event, payload: (event, payload))
    replace(Broadcaster, "send_packets", _emit_each)


def _emit_each(self: Any, room: str, packets: Iterable[tuple[str, object]]) -> None:
    for event, payload in packets:
        self._io.emit(event, payload, to=room)


def socketio() -> None:
    """Have python-socketio parse, dispatch and acknowledge events."""
    replace(Events, "_receive", lambda self, engine_id, data: self._receive_by_library(engine_id, data))


def flask_socketio() -> None:
    """Have Flask-SocketIO call the handlers of events, with a request context of Flask for each."""

    def keep_environs(self: Any) -> None:
        def on(event: str, serve: Callable[..., Any], *_: object) -> None:
            self._socket_io.on_event(event, lambda body=None: serve(flask.request.sid, body))  # type: ignore[attr-defined]

        self.events.on = on

    replace(SocketIOServer, "_forget_environs", keep_environs)


def flask_routes() -> None:
    """Have Flask route pushes and pulls."""
    replace(Sync, "hot_views", {})


def rooms() -> None:
    """Have python-socketio keep the rooms of clients."""
    replace(socketio_server, "Rooms", Manager)


def logging() -> None:
    """Have ``logging`` make a record for the line of each request."""
    replace(log_format, "write_line", lambda logger, level, message, extra: logger.log(level, message, extra=extra))


PARTS = {
    part.__name__: part
    for part in (pywsgi, frames, idle_reader, engineio, emit, socketio, flask_socketio, flask_routes, rooms, logging)
}


def use(names: Iterable[str]) -> None:
    """Put the named parts of libraries in the place of ours. Raises: SystemExit for a name that is none."""
    for name in names:
        if name not in PARTS:
            raise SystemExit(f"There is no part {name!r}. The parts are {', '.join(PARTS)}.")
        PARTS[name]()


if __name__ == "__main__":
    use(sys.argv.pop(1).split(",") if len(sys.argv) > 1 else [""])
    syncapp.main()
