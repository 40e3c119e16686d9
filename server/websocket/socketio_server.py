"""The Socket.IO server: that of the libraries, with our handshakes, frames, connections, events and limits.

Knows: Flask-SocketIO, python-socketio and Engine.IO, how they are put together with our parts, how much may wait for a
listener. Must not know: tokens, who may listen, what is sent, SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from flask import Flask
from flask_socketio import SocketIO

from protocol.errors import Problem, as_acknowledgement
from server.http.exchange import is_allowed_origin
from server.metrics import REFUSALS
from server.quotas import Quotas
from server.scheduler import yield_if_due
from server.websocket import frames
from server.websocket.broadcast import Broadcaster
from server.websocket.events import Events, Json, TextPacket
from server.websocket.handshake import SocketIOMiddleware
from server.websocket.receiver import Receiver
from server.websocket.rooms import Rooms
from server.websocket.unauthenticated import UnauthenticatedSockets
from settings import Settings

log = logging.getLogger("syncapp.socket")

_GATHER_SECONDS = 0.005
"""How long notifications wait for more: to send one to each of 64 sockets costs as much as several pushes."""


def _socket_io(app: Flask, settings: Settings) -> SocketIO:
    quiet = logging.getLogger("syncapp.socketio")
    quiet.setLevel(logging.CRITICAL)  # The library logs payloads and what hostile clients send, with tracebacks.
    return SocketIO(
        app,
        async_mode="gevent",
        async_handlers=False,  # Events of a socket run in order, and a flood waits in its own socket's buffer.
        always_connect=True,  # So that an error can be sent before the connection is closed.
        manage_session=False,
        client_manager=Rooms(),
        monitor_clients=False,  # ``close_silent`` does so; the library keeps all sockets of a moment for a round of 20 s.
        cors_allowed_origins=lambda origin, environ: is_allowed_origin(origin, environ, settings.cors_origins),
        max_http_buffer_size=settings.max_frame_bytes,
        ping_interval=settings.ping_interval_seconds,
        ping_timeout=settings.ping_timeout_seconds,
        serializer=TextPacket,
        json=Json,
        logger=quiet,
        engineio_logger=quiet,
    )


class SocketIOServer:
    """The Socket.IO server of an application: sockets by Engine.IO ID, clients of its one namespace by ``sid``."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        quotas: Quotas,
        tenant_of: Callable[[str], str | None],
        close_unauthenticated: Callable[[str, Problem], None],
    ) -> None:
        """``tenant_of`` returns a socket's tenant, whose room has the same name; None before it has authenticated.

        ``close_unauthenticated`` closes a socket that has not, and tells it why.
        """
        self._settings, self._quotas, self._tenant_of = settings, quotas, tenant_of
        frames.install(settings.max_frame_bytes)
        other = app.wsgi_app
        self._socket_io = _socket_io(app, settings)
        self.io = self._socket_io.server
        self._engine = self.io.eio
        if settings.process_name:
            self._begin_ids_with(settings.process_name)
        most, most_waiting = settings.max_stranger_sockets, settings.max_connections // 4
        self.unauthenticated = UnauthenticatedSockets(most, most_waiting, close_unauthenticated)
        make_room = self.unauthenticated.make_room
        middleware = SocketIOMiddleware(app.wsgi_app, other, self._engine, settings.cors_origins, make_room)
        self.log_refused = middleware.log_refused
        app.wsgi_app = middleware  # type: ignore[method-assign]
        self._send_packet = self._engine.send_packet
        self.broadcaster = Broadcaster(self.io, self._queue_bounded, self._gather, tenant_of, self._note_sent)
        self._engine.send_packet = self.broadcaster.send
        self.events = Events(self.io, self._acknowledge)
        Receiver(self._engine, quotas, tenant_of, self._is_slow, self.close, self._close_flooding)
        self._engine.disconnect = self.close  # The library's own waits for the client.
        self._forget_environs()
        self._forget_closed()

    def _begin_ids_with(self, process_name: str) -> None:
        """Have the IDs of sessions name this process, so that proxies find it again."""
        generate_id = self._engine.generate_id
        self._engine.generate_id = lambda: f"{process_name}.{generate_id()}"

    def _forget_environs(self) -> None:
        """Keep no environ for the life of a socket: nothing here needs it, and it takes 3 KiB."""
        connected = self._engine.handlers["connect"]

        def connect(engine_id: str, _: object) -> None:
            """Connect a session that is to authenticate in time."""
            self.unauthenticated.add(engine_id, self._settings.socket_auth_seconds)
            connected(engine_id, {})

        self._engine.on("connect", connect)

    def _forget_closed(self) -> None:
        """Do not count a closed session as unauthenticated though its client is slow to leave."""
        disconnected = self._engine.handlers["disconnect"]

        def forget(engine_id: str, reason: str) -> None:
            """Forget a session that has closed."""
            disconnected(engine_id, reason)
            self._engine.sockets.pop(engine_id, None)
            self.unauthenticated.discard(engine_id)

        self._engine.on("disconnect", forget)

    def held(self) -> dict[str, int]:
        """Count what is held: sessions, rooms."""
        return {"sockets": len(self._engine.sockets), "rooms": len(self.io.manager.rooms.get("/", {}))}

    def __contains__(self, engine_id: str) -> bool:
        return engine_id in self._engine.sockets

    def sid_of(self, engine_id: str) -> str | None:
        """Return the ``sid`` of a socket's client, None if it has not connected to the namespace."""
        sid: str | None = self.io.manager.sid_from_eio_sid(engine_id, "/")
        return sid

    def engine_id_of(self, sid: str) -> str:
        """Return the socket of a client."""
        engine_id: str = self.io.manager.eio_sid_from_sid(sid, "/")
        return engine_id

    def is_connected(self, sid: str) -> bool:
        """Tell whether a client is connected to the namespace."""
        return bool(self.io.manager.is_connected(sid, "/"))

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self, engine_id: str, abort: bool = False) -> None:
        """Close a socket without waiting for its client."""
        socket = self._engine.sockets.get(engine_id)
        if socket and not socket.closed:
            socket.close(wait=False, abort=abort)

    def close_silent(self) -> None:
        """Close the sockets that have not answered a ping in time."""
        for engine_id in list(self._engine.sockets):
            socket = self._engine.sockets.get(engine_id)
            if socket and not socket.closing and not socket.closed:
                socket.check_ping_timeout()
            yield_if_due()

    def close_all(self) -> None:
        """Close all sockets when the server stops, and let none in; clients see a lost connection and reconnect."""
        self.unauthenticated.stop()
        for engine_id in list(self._engine.sockets):
            self.close(engine_id)

    def _close_flooding(self, engine_id: str, problem: Problem) -> None:
        REFUSALS[problem.code,] += 1
        log.warning("a socket that sent too many events was closed", extra={"tenant": self._tenant_of(engine_id)})
        if sid := self.sid_of(engine_id):
            self.io.emit("error", as_acknowledgement(problem), to=sid)
            self.io.disconnect(sid)
        self.close(engine_id)

    # --- sending -----------------------------------------------------------------------------------------------------

    def _acknowledge(self, engine_id: str, message: bytes) -> None:
        """Send an acknowledgement, after the notifications of the push that it acknowledges."""
        self.broadcaster.answer(engine_id, message, self._tenant_of(engine_id))

    def _note_sent(self, tenant_id: str, size_bytes: int) -> None:
        self._quotas.usage.of(tenant_id).bytes_out += size_bytes

    def _gather(self, room: str) -> None:
        """Let notifications wait for those of a busy tenant's other pushes, so that all leave in one send to each socket.

        Those whose pushes shared a commit go on first: their acknowledgements leave with its notifications.
        """
        if not self._quotas.admission.is_alone(room):
            gevent.sleep(0)
            self._quotas.scheduler.let_waiting_go_first(room, _GATHER_SECONDS)

    def _queue_bounded(self, engine_id: str, packet: Any) -> None:
        """Queue a packet for a socket; one that has fallen too far behind is closed instead, and will pull again."""
        socket = self._engine.sockets.get(engine_id)
        if socket and not socket.closed and self._is_behind(socket):
            log.warning("a socket fell behind and was closed")
            socket.queue.queue.clear()
            self.close(engine_id, abort=True)
            self.broadcaster.abort(engine_id)
            return
        self._send_packet(engine_id, packet)

    def _is_behind(self, socket: Any, divisor: int = 1) -> bool:
        """Tell whether a socket's queue has reached its limit, or the given fraction of it (2 means half)."""
        waiting = socket.queue.qsize() * divisor
        if waiting < 8:
            return False
        size = sum(len(packet.data or "") for packet in socket.queue.queue if packet is not None) * divisor
        return bool(waiting >= self._settings.socket_queue_messages or size > self._settings.socket_queue_bytes)

    def _is_slow(self, socket: Any) -> bool:
        return self._is_behind(socket, 2)
