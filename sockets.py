"""Real time over Socket.IO: authentication, rooms by tenant, notifications and events (docs/api.md, real time).

Knows: Socket.IO, which socket belongs to which tenant, types of notification, limits of a listener. Must not know: SQL,
engines, how a push is stored.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gevent
from flask import Flask
from flask_socketio import SocketIO
from msgspec import Raw

from accounts.tokens import Identity, Tokens, check_tenant
from protocol import codec
from protocol.codec import Cursor, format_time, parse_cursor
from protocol.errors import (
    Problem,
    RateLimited,
    TokenExpired,
    Unauthorized,
    as_acknowledgement,
    invalid,
)
from protocol.identifiers import parse_device_id
from protocol.messages import PushResult
from protocol.notifications import STATUS_TEXTS, Notification, notifications_of, parse_texts
from server import log_format
from server.http.exchange import is_allowed_origin
from server.quotas import Quotas
from server.websocket import frames
from server.websocket.broadcast import Broadcaster
from server.websocket.events import Events, Json, Read, TextPacket
from server.websocket.handshake import SocketIOMiddleware
from server.websocket.receiver import Receiver, check_not_refused
from server.websocket.unauthenticated import UnauthenticatedSockets
from settings import Settings
from storage import positions
from storage.devices import Seen
from storage.positions import missed, now_ms
from tenants import Tenants

log = logging.getLogger("syncapp.socket")

_SWEEP_SECONDS = 1.0
_GOODBYE_SECONDS = 2.0
"""How long a refused socket may take to receive the error and leave."""

Answer = dict[str, Any]


@dataclass(slots=True)
class _Client:
    """A client of the main namespace: its Engine.IO ID, and its identity once it is authenticated."""

    engine_id: str
    identity: Identity | None = None
    device_id: str | None = None


class Caller(NamedTuple):
    """The sender of an event: an authenticated socket, and the device that it named."""

    sid: str
    identity: Identity
    device_id: str | None


def _socket_io(app: Flask, settings: Settings) -> SocketIO:
    quiet = logging.getLogger("syncapp.socketio")
    quiet.setLevel(logging.CRITICAL)  # The library logs payloads and what hostile clients send, with tracebacks.
    return SocketIO(
        app,
        async_mode="gevent",
        async_handlers=False,  # Events of a socket run in order, and a flood waits in its own socket's buffer.
        always_connect=True,  # So that an error can be sent before the connection is closed.
        manage_session=False,
        cors_allowed_origins=lambda origin, environ: is_allowed_origin(origin, environ, settings.cors_origins),
        max_http_buffer_size=settings.max_frame_bytes,
        ping_interval=settings.ping_interval_seconds,
        ping_timeout=settings.ping_timeout_seconds,
        serializer=TextPacket,
        json=Json,
        logger=quiet,
        engineio_logger=quiet,
    )


class Sockets:
    """All sockets of this server."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        tenants: Tenants,
        tokens: Tokens,
        seen: Seen,
        quotas: Quotas,
    ) -> None:
        self._settings, self._tenants, self._tokens, self._seen = settings, tenants, tokens, seen
        self._clients: dict[str, _Client] = {}
        most, most_waiting = settings.max_stranger_sockets, settings.max_connections // 4
        self._unauthenticated = UnauthenticatedSockets(most, most_waiting, self._close_unauthenticated)
        self._authenticated_by_tenant: Counter[str] = Counter()
        """Authenticated sockets by tenant."""
        frames.install(settings.max_frame_bytes)
        other = app.wsgi_app
        self._io = _socket_io(app, settings)
        self._engine = self._io.server.eio
        middleware = SocketIOMiddleware(
            app.wsgi_app, other, self._engine, settings.cors_origins, self._unauthenticated.make_room
        )
        self._log_refused = middleware.log_refused
        app.wsgi_app = middleware  # type: ignore[method-assign]
        self._send_packet = self._engine.send_packet
        self._broadcaster = Broadcaster(self._io.server, self._queue_bounded)
        self._engine.send_packet = self._broadcaster.send
        self._events = Events(self._io.server, self._acknowledge)
        Receiver(self._engine, quotas, self._tenant_of, self._is_slow, self._close_engine, self._close_flooding)
        self._engine.disconnect = self._close_engine  # The library's own waits for the client.
        self._forget_environs()
        self._forget_closed()
        self._register_handlers()
        tokens.ended.connect(self._sessions_ended)

    def _register_handlers(self) -> None:
        self._io.server.on("connect", self._connected)
        self._io.server.on("disconnect", self._disconnected)
        self._io.server.on("authenticate", self._authenticate_event)
        self.on("ping", self._ping)
        self.on("sync_status_update", self._relay_status)

    @property
    def events(self) -> list[str]:
        """List the events that clients may emit."""
        return self._events.names

    def held(self) -> dict[str, int]:
        """Count what is held: sessions, clients, rooms."""
        rooms = self._io.server.manager.rooms.get("/", {})
        return {"sockets": len(self._engine.sockets), "clients": len(self._clients), "rooms": len(rooms)}

    def connected(self) -> int:
        """Count the authenticated sockets."""
        return self._authenticated_by_tenant.total()

    def start(self) -> None:
        """Start the sweep for sockets that do not authenticate and for tokens that expire."""
        gevent.spawn(self._watch)

    # --- connecting --------------------------------------------------------------------------------------------------

    def _forget_environs(self) -> None:
        """Keep no environ for the life of a socket: nothing here needs it, and it takes 3 KiB."""
        connected = self._engine.handlers["connect"]

        def connect(engine_id: str, _: object) -> None:
            self._unauthenticated.add(engine_id, self._settings.socket_auth_seconds)
            connected(engine_id, {})

        self._engine.on("connect", connect)

    def _forget_closed(self) -> None:
        """Do not count a closed session as unauthenticated though its client is slow to leave."""
        disconnected = self._engine.handlers["disconnect"]

        def forget(engine_id: str, reason: str) -> None:
            disconnected(engine_id, reason)
            self._engine.sockets.pop(engine_id, None)
            self._unauthenticated.discard(engine_id)

        self._engine.on("disconnect", forget)

    def _connected(self, sid: str, environ: object = None, auth: object = None, *_: object) -> None:
        if sid in self._clients:  # A client emitted an event of this name.
            return
        self._clients[sid] = _Client(self._io.server.manager.eio_sid_from_sid(sid, "/"))
        if isinstance(auth, dict) and auth.get("token") is not None:
            self._authenticate(sid, auth)

    def _disconnected(self, sid: str, reason: object = None, *_: object) -> None:
        if self._io.server.manager.is_connected(sid, "/"):  # The same.
            return
        client = self._clients.pop(sid, None)
        if client and client.identity:
            self._forget_authenticated(client.identity)
            self._unauthenticated.add(client.engine_id, self._settings.socket_auth_seconds)
            about = {"tenant": client.identity.tenant_id, "reason": str(reason)[:40]}
            log_format.write_line(log, logging.INFO, "socket left", about)

    def _authenticate_event(self, sid: str, body: object = None, *_: object) -> None:
        self._authenticate(sid, body if isinstance(body, dict) else {})

    def _authenticate(self, sid: str, body: Answer) -> None:
        """Add a socket to its tenant's room, or send it an error and close it."""
        try:
            check_not_refused()
            identity = self._tokens.verify(body.get("token"))
            check_tenant(identity, body.get("tenantId"))
            cursor = None if body.get("cursor") is None else parse_cursor(body["cursor"])
            device_id = parse_device_id(body.get("deviceId"), "deviceId")
            greeting = self._greeting(identity, cursor)
            if self._authenticated_by_tenant[identity.tenant_id] >= self._settings.max_tenant_sockets:
                raise RateLimited("This tenant has as many sockets as it may have.", retry_after_seconds=1)
        except Problem as problem:
            return self._refuse(sid, problem)
        except Exception:
            log.exception("authenticating a socket failed")
            return self._refuse(sid, Problem())
        client = self._clients.get(sid)
        if client is None:
            return None  # It left while its token was verified.
        if client.identity:
            self._io.server.leave_room(sid, client.identity.tenant_id)
            self._forget_authenticated(client.identity)
        self._authenticated_by_tenant[identity.tenant_id] += 1
        self._unauthenticated.discard(client.engine_id)
        client.identity, client.device_id = identity, device_id
        if device_id:
            self._seen.note(identity.tenant_id, device_id, {}, now_ms())
        self._io.server.enter_room(sid, identity.tenant_id)
        self._emit("authenticated", greeting, sid)
        return log_format.write_line(log, logging.INFO, "socket joined", {"tenant": identity.tenant_id})

    def _forget_authenticated(self, identity: Identity) -> None:
        self._authenticated_by_tenant[identity.tenant_id] -= 1
        if not self._authenticated_by_tenant[identity.tenant_id]:
            del self._authenticated_by_tenant[identity.tenant_id]

    def _greeting(self, identity: Identity, cursor: Cursor | None) -> Answer:
        here, count = self._tenants.read(identity.tenant_id, lambda: missed(cursor))
        greeting = {"success": True, "tenantId": identity.tenant_id, "timestamp": format_time(now_ms())}
        greeting |= {"cursor": here.cursor, "missed": here.sequence if count is None else count}
        return greeting | ({"resyncRequired": True} if count is None else {})

    def _refuse(self, sid: str, problem: Problem) -> None:
        log_format.write_line(log, logging.INFO, "socket refused", {"code": problem.code})
        client = self._clients.get(sid)
        self._emit("authentication_error", {"message": str(problem), "code": problem.code}, sid)
        self._io.server.disconnect(sid)
        if client and client.engine_id in self._engine.sockets:
            self._unauthenticated.add(client.engine_id, _GOODBYE_SECONDS)

    # --- closing -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            gevent.sleep(_SWEEP_SECONDS)
            try:
                self._sweep(time.time())
            except Exception:
                log.exception("the sweep of sockets failed")

    def _sweep(self, now: float) -> None:
        """Close sockets that did not authenticate in time, at whatever stage they are, and those of expired tokens."""
        for sid, client in list(self._clients.items()):
            if client.identity and client.identity.expires_at <= now:
                self._refuse(sid, TokenExpired())
        late = Unauthorized(f"The socket did not authenticate within {self._settings.socket_auth_seconds} s.")
        for engine_id in self._unauthenticated.late():
            self._close_unauthenticated(engine_id, late)
        self._log_refused()

    def _close_unauthenticated(self, engine_id: str, problem: Problem) -> None:
        if sid := self._io.server.manager.sid_from_eio_sid(engine_id, "/"):
            self._refuse(sid, problem)
        self._close_engine(engine_id)
        self._unauthenticated.discard(engine_id)

    def _sessions_ended(self, session_ids: Iterable[str]) -> None:
        ended = set(session_ids)
        for sid, client in list(self._clients.items()):
            if client.identity and client.identity.session_id in ended:
                self._refuse(sid, Unauthorized("The session has ended. Log in again."))

    def _close_flooding(self, engine_id: str, problem: Problem) -> None:
        log.warning("a socket that sent too many events was closed", extra={"tenant": self._tenant_of(engine_id)})
        for sid in [sid for sid, client in self._clients.items() if client.engine_id == engine_id]:
            self._emit("error", as_acknowledgement(problem), sid)
            self._io.server.disconnect(sid)
        self._close_engine(engine_id)

    def _tenant_of(self, engine_id: str) -> str | None:
        """Return a socket's tenant, None before it has authenticated."""
        client = self._clients.get(self._io.server.manager.sid_from_eio_sid(engine_id, "/") or "")
        return client.identity.tenant_id if client and client.identity else None

    def _close_engine(self, engine_id: str, abort: bool = False) -> None:
        socket = self._engine.sockets.get(engine_id)
        if socket and not socket.closed:
            socket.close(wait=False, abort=abort)

    def close(self) -> None:
        """Close all sockets when the server stops; clients see a lost connection and reconnect."""
        for engine_id in list(self._engine.sockets):
            self._close_engine(engine_id)

    # --- notifications -----------------------------------------------------------------------------------------------

    def _emit(self, event: str, payload: Answer, to: str, but: str | None = None) -> None:
        self._io.server.emit(event, payload, to=to, skip_sid=but)

    def notify(self, tenant_id: str, notification: Notification) -> None:
        """Send a notification to every socket of a tenant."""
        self._broadcaster.broadcast("sync_notification", notification, tenant_id)

    def announce(self, tenant_id: str, applied: PushResult) -> None:
        """Notify a tenant of a push that is on disk: each table once, each conflict, and that it is complete."""
        if tenant_id not in self._authenticated_by_tenant:
            return
        for notification in notifications_of(applied, now_ms()):
            self.notify(tenant_id, notification)

    def let_notify(self, tenant_id: str) -> None:
        """Have notifications sent before the caller goes on: many may wait for them, and only one for the answer."""
        if tenant_id in self._authenticated_by_tenant:
            gevent.sleep(0)

    def announce_restored(self, tenant_id: str) -> None:
        """Notify a tenant's devices that their cursors are invalid after a restore."""
        here = self._tenants.read(tenant_id, positions.position)
        text = "The data was restored from a backup: pull again from the start"
        self.notify(
            tenant_id,
            Notification("data_available", "batch", text, cursor=here.cursor, timestamp=format_time(now_ms())),
        )

    def _queue_bounded(self, engine_id: str, packet: Any) -> None:
        """Queue a packet for a socket; one that has fallen too far behind is closed instead, and will pull again."""
        socket = self._engine.sockets.get(engine_id)
        if socket and not socket.closed and self._is_behind(socket):
            log.warning("a socket fell behind and was closed")
            socket.queue.queue.clear()
            self._close_engine(engine_id, abort=True)
            self._broadcaster.abort(engine_id)
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

    # --- events ------------------------------------------------------------------------------------------------------

    def on(self, event: str, handle: Callable[[Caller, Any], Answer | Raw | None], read: Read = codec.decode) -> None:
        """Handle an event of authenticated sockets; the result or an error is its acknowledgement.

        This bypasses Flask-SocketIO, which makes a Flask request context for each event. ``read`` parses the event's body.
        """

        def serve(sid: str, body: object = None, *_: object) -> Answer | Raw:
            try:
                check_not_refused()
                return handle(self._caller(sid), body) or {"success": True}
            except Problem as problem:
                return as_acknowledgement(problem)
            except Exception:
                log.exception("an event failed", extra={"event": event})
                return as_acknowledgement(Problem())

        self._events.on(event, serve, read)

    def _acknowledge(self, engine_id: str, message: bytes) -> None:
        """Send an acknowledgement, after the notifications of the push that it acknowledges."""
        self._broadcaster.answer(engine_id, message, self._tenant_of(engine_id))

    def _caller(self, sid: str) -> Caller:
        """Return the sender of an event. Raises: Unauthorized, TokenExpired."""
        client = self._clients.get(sid)
        if client is None or client.identity is None:
            raise Unauthorized("Authenticate first: emit authenticate with a token.")
        if client.identity.expires_at <= time.time():
            raise TokenExpired()
        return Caller(sid, client.identity, client.device_id)

    def _ping(self, caller: Caller, body: object) -> None:
        self._emit("pong", {"timestamp": format_time(now_ms())}, caller.sid)

    def _relay_status(self, caller: Caller, body: object) -> None:
        """Relay a device's status to the tenant's other sockets, without further fields."""
        texts = parse_texts(body, STATUS_TEXTS)
        if "status" not in texts:
            raise invalid("status", "must be a text")
        self._emit("sync_status_update", texts, caller.identity.tenant_id, but=caller.sid)
