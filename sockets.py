"""Real time: who listens to which tenant, and what they are told (contract section 6).

Knows: Socket.IO, authentication of sockets, rooms, the types of notification, the bounds of a listener. Must not know:
SQL, engines, how a push is stored.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import gevent
from flask import Flask, request
from flask_socketio import SocketIO
from msgspec import Raw

import frames
import ledger
import wire
from changes import Applied
from devices import Seen
from errors import (
    Busy,
    InvalidJson,
    MethodNotAllowed,
    OriginNotAllowed,
    Problem,
    RateLimited,
    TokenExpired,
    Unauthorized,
    ValidationError,
    as_body,
)
from ledger import missed
from notices import NOTE_TYPES, Notification, notifications_of
from parsing import checked_device
from settings import Settings
from tenants import Tenants, now_ms
from tokens import Identity, Tokens, check_tenant
from web import is_allowed_origin
from wire import Cursor, format_time, parse_cursor

log = logging.getLogger("syncapp.socket")

_SWEEP_SECONDS = 1.0

STATUS_TEXTS = {"status": 100, "entityType": 64}
TEST_NOTE_TEXTS = {"type": 32, "entityType": 64, "entityId": 64, "message": 500}
"""The texts that clients have sent to others, and their lengths."""

Answer = dict[str, Any]
Wsgi = Callable[..., Iterable[bytes]]


@dataclass(slots=True)
class _Member:
    """A connected socket: its engine's ID, and who it is once it has shown a token."""

    engine_id: str
    identity: Identity | None = None
    device_id: str | None = None


class _Json:
    """The JSON of the Socket.IO server: strict like the HTTP one, and rows go out as the bytes that are stored."""

    @staticmethod
    def dumps(value: object, **_: object) -> str:
        """Write JSON as the library asks for it, as text."""
        return wire.encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: object) -> Any:
        """Read strict JSON."""
        try:
            return wire.decode(text)
        except InvalidJson as problem:
            raise ValueError(str(problem)) from None  # What the library expects of a JSON module.


class Sockets:
    """All sockets of this server."""

    def __init__(self, app: Flask, settings: Settings, tenants: Tenants, tokens: Tokens, seen: Seen) -> None:
        self._settings, self._tenants, self._tokens, self._seen = settings, tenants, tokens, seen
        self._members: dict[str, _Member] = {}
        self._strangers: dict[str, float] = {}
        self._present: Counter[str] = Counter()
        """Authenticated sockets by tenant."""
        frames.install(settings.max_frame_bytes)
        quiet = logging.getLogger("syncapp.socketio")
        quiet.setLevel(logging.CRITICAL)  # The library logs payloads and what hostile clients send, with tracebacks.
        self._io = SocketIO(
            app,
            async_mode="gevent",
            async_handlers=False,  # One event of a socket after the other: order, and a flood waits in its own network.
            always_connect=True,  # So that a refusal can be told before the connection ends.
            manage_session=False,
            cors_allowed_origins=lambda origin, environ: is_allowed_origin(origin, environ, settings.cors_origins),
            max_http_buffer_size=settings.max_frame_bytes,
            ping_interval=settings.ping_interval_seconds,
            ping_timeout=settings.ping_timeout_seconds,
            json=_Json,
            logger=quiet,
            engineio_logger=quiet,
        )
        app.wsgi_app = _Contained(app.wsgi_app, settings.cors_origins, self._is_full)  # type: ignore[method-assign]
        self._engine = self._io.server.eio
        self._send_packet, self._engine.send_packet = self._engine.send_packet, self._send_bounded
        self._take_message, self._engine.handlers["message"] = self._engine.handlers["message"], self._take_text
        self._engine.disconnect = self._close_engine  # The library's own waits for a client that may never come.
        self._io.on_event("connect", self._connected)
        self._io.on_event("disconnect", self._disconnected)
        self._io.on_event("authenticate", self._authenticate_event)
        self.on("ping", self._ping)
        self.on("sync_status_update", self._relay_status)
        tokens.ended.connect(self._sessions_ended)

    def start(self) -> None:
        """Begin to watch for sockets that do not authenticate and for tokens that expire."""
        gevent.spawn(self._watch)

    # --- joining -----------------------------------------------------------------------------------------------------

    def _connected(self, auth: object = None) -> None:
        sid = _sid()
        self._members[sid] = _Member(self._io.server.manager.eio_sid_from_sid(sid, "/"))
        if isinstance(auth, dict) and auth.get("token") is not None:
            self._authenticate(sid, auth)

    def _disconnected(self, reason: object = None) -> None:
        member = self._members.pop(_sid(), None)
        if member and member.identity:
            self._leave(member.identity)
            log.info("socket left", extra={"tenant": member.identity.tenant_id, "reason": str(reason)[:40]})

    def _authenticate_event(self, body: object = None, *_: object) -> None:
        self._authenticate(_sid(), body if isinstance(body, dict) else {})

    def _authenticate(self, sid: str, body: Answer) -> None:
        """Let a socket into its tenant's room, or say why not and end it."""
        try:
            identity = self._tokens.verify(body.get("token"))
            check_tenant(identity, body.get("tenantId"))
            cursor = None if body.get("cursor") is None else parse_cursor(body["cursor"])
            device_id = checked_device(body.get("deviceId"), "deviceId")
            greeting = self._greeting(identity, cursor)
            if self._present[identity.tenant_id] >= self._settings.max_tenant_sockets:
                raise RateLimited("This tenant has as many sockets as it may have.", retry_after_seconds=1)
        except Problem as problem:
            return self._refuse(sid, problem)
        except Exception:
            log.exception("authenticating a socket failed")
            return self._refuse(sid, Problem())
        member = self._members[sid]
        if member.identity:
            self._io.server.leave_room(sid, member.identity.tenant_id)
            self._leave(member.identity)
        self._present[identity.tenant_id] += 1
        member.identity, member.device_id = identity, device_id
        if device_id:
            self._seen.note(identity.tenant_id, device_id, {}, now_ms())
        self._io.server.enter_room(sid, identity.tenant_id)
        self._emit("authenticated", greeting, sid)
        return log.info("socket joined", extra={"tenant": identity.tenant_id})

    def _leave(self, identity: Identity) -> None:
        self._present[identity.tenant_id] -= 1
        if not self._present[identity.tenant_id]:
            del self._present[identity.tenant_id]

    def _is_full(self) -> bool:
        """Tell whether so many have connected without saying who they are that no more are let in."""
        strangers = len(self._engine.sockets) - self._present.total()
        return strangers >= self._settings.max_stranger_sockets

    def _greeting(self, identity: Identity, cursor: Cursor | None) -> Answer:
        place, count = self._tenants.read(identity.tenant_id, lambda: missed(cursor))
        greeting = {"success": True, "tenantId": identity.tenant_id, "timestamp": format_time(now_ms())}
        greeting |= {"cursor": place.cursor, "missed": place.sequence if count is None else count}
        return greeting | ({"resyncRequired": True} if count is None else {})

    def _refuse(self, sid: str, problem: Problem) -> None:
        log.info("socket refused", extra={"code": problem.code})
        self._emit("authentication_error", {"message": str(problem), "code": problem.code}, sid)
        self._io.server.disconnect(sid)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            gevent.sleep(_SWEEP_SECONDS)
            try:
                self._sweep(time.time())
            except Exception:
                log.exception("looking after sockets failed")

    def _sweep(self, now: float) -> None:
        """End sockets that have not authenticated in time, at whatever stage they are, and those of expired tokens."""
        for sid, member in list(self._members.items()):
            if member.identity and member.identity.expires_at <= now:
                self._refuse(sid, TokenExpired())
        known = {member.engine_id for member in self._members.values() if member.identity}
        strangers = self._engine.sockets.keys() - known
        deadlines = {key: self._strangers.get(key, now + self._settings.socket_auth_seconds) for key in strangers}
        self._strangers = deadlines
        for engine_id in [key for key, deadline in deadlines.items() if deadline <= now]:
            self._end_stranger(engine_id)

    def _end_stranger(self, engine_id: str) -> None:
        late = Unauthorized(f"The socket did not authenticate within {self._settings.socket_auth_seconds} s.")
        for sid, member in list(self._members.items()):
            if member.engine_id == engine_id:
                self._refuse(sid, late)
        self._close_engine(engine_id)

    def _sessions_ended(self, session_ids: Iterable[str]) -> None:
        ended = set(session_ids)
        for sid, member in list(self._members.items()):
            if member.identity and member.identity.session_id in ended:
                self._refuse(sid, Unauthorized("The session has ended. Log in again."))

    def _take_text(self, engine_id: str, data: object) -> None:
        """Take a packet, unless it is or announces binary: no event here has any, and the library would collect it all."""
        if isinstance(data, str) and data[:1] not in ("5", "6"):
            self._take_message(engine_id, data)
        else:
            self._close_engine(engine_id)

    def _close_engine(self, engine_id: str, abort: bool = False) -> None:
        socket = self._engine.sockets.get(engine_id)
        if socket and not socket.closed:
            socket.close(wait=False, abort=abort)

    def close(self) -> None:
        """Tell every socket that this server ends; clients take it as a lost connection and come back."""
        for engine_id in list(self._engine.sockets):
            self._close_engine(engine_id)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _emit(self, event: str, payload: Answer, to: str, but: str | None = None) -> None:
        self._io.server.emit(event, payload, to=to, skip_sid=but)

    def notify(self, tenant_id: str, notification: Notification) -> None:
        """Send a notification to every socket of a tenant."""
        self._emit("sync_notification", notification.payload(), tenant_id)

    def announce(self, tenant_id: str, applied: Applied) -> None:
        """Tell a tenant of a push that is on disk: each table once, each conflict, and that it is complete."""
        for notification in notifications_of(applied):
            self.notify(tenant_id, notification)

    def announce_restored(self, tenant_id: str) -> None:
        """Tell a tenant's devices that their cursors are of a database that is no more."""
        place = self._tenants.read(tenant_id, ledger.place)
        text = "The data was restored from a backup: pull again from the start"
        self.notify(tenant_id, Notification("data_available", "batch", text, cursor=place.cursor))

    def _send_bounded(self, engine_id: str, packet: Any) -> None:
        """Queue a packet for a socket, unless it has fallen too far behind: then it goes, and comes back to pull."""
        socket = self._engine.sockets.get(engine_id)
        if socket and not socket.closed and self._is_behind(socket):
            log.warning("a socket fell behind and was closed")
            socket.queue.queue.clear()
            self._close_engine(engine_id, abort=True)
            return
        self._send_packet(engine_id, packet)

    def _is_behind(self, socket: Any) -> bool:
        waiting = socket.queue.qsize()
        if waiting < 8:
            return False
        size = sum(len(packet.data or "") for packet in socket.queue.queue if packet is not None)
        return bool(waiting >= self._settings.socket_queue_messages or size > self._settings.socket_queue_bytes)

    # --- events ------------------------------------------------------------------------------------------------------

    def on(self, event: str, handle: Callable[[Identity, Any], Answer | Raw | None]) -> None:
        """Serve an event of authenticated sockets; the answer, or the failure in the one shape, is its acknowledgement."""

        def serve(body: object = None, *_: object) -> Answer | Raw:
            gevent.sleep()  # Answers to a burst of events go out between them instead of filling the queue.
            try:
                return handle(self._identity(), body) or {"success": True}
            except Problem as problem:
                return dict(as_body(problem))
            except Exception:
                log.exception("an event failed", extra={"event": event})
                return dict(as_body(Problem()))

        self._io.on_event(event, serve)

    def _identity(self) -> Identity:
        """Tell who the socket of the running event is; its token may have expired since."""
        member = self._members.get(_sid())
        if member is None or member.identity is None:
            raise Unauthorized("Authenticate first: emit authenticate with a token.")
        if member.identity.expires_at <= time.time():
            raise TokenExpired()
        return member.identity

    def device_id(self) -> str | None:
        """Tell which device the socket of the running event said it is."""
        return self._members[_sid()].device_id

    def _ping(self, identity: Identity, body: object) -> None:
        self._emit("pong", {"timestamp": format_time(now_ms())}, _sid())

    def _relay_status(self, identity: Identity, body: object) -> None:
        """Pass a device's status on to the tenant's other sockets, with nothing else that it sent."""
        said = checked_texts(body, STATUS_TEXTS)
        if "status" not in said:
            raise ValidationError("status must be a text.", details=[{"path": "status", "error": "must be a text"}])
        self._emit("sync_status_update", said, identity.tenant_id, but=_sid())

    def test_notification(self, body: object) -> Notification:
        """Read a test notification from a request's body.

        Raises: ValidationError.
        """
        said = checked_texts(body, TEST_NOTE_TEXTS)
        kind = said.get("type", "data_available")
        if kind not in NOTE_TYPES:
            sentence = "must be one of " + ", ".join(NOTE_TYPES)
            raise ValidationError(f"type {sentence}.", details=[{"path": "type", "error": sentence}])
        return Notification(
            kind,  # type: ignore[arg-type]
            said.get("entityType", "test"),
            said.get("message", "Test notification"),
            said.get("entityId"),
        )


class _Contained:
    """Says what the Socket.IO library refuses in our shape, and ends a connection on which it stumbles with one line."""

    def __init__(self, application: Wsgi, origins: Iterable[str], is_full: Callable[[], bool]) -> None:
        self._application, self._origins, self._is_full = application, origins, is_full

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/socket.io/"):
            return self._application(environ, start_response)
        is_refused = "sid=" not in environ["QUERY_STRING"] and self._is_full()
        if "wsgi.websocket" in environ:  # It speaks frames by now, no answer can follow.
            return [] if is_refused else self._attempt(environ, start_response) or []
        if is_refused:
            return self._refuse(start_response, Busy("Too many sockets are connecting. Try again soon."))
        if not is_allowed_origin(environ.get("HTTP_ORIGIN"), environ, self._origins):
            return self._refuse(start_response, OriginNotAllowed())
        refused: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if status[0] == "4":
                return refused.append(status)
            return start_response(status, headers, *more)

        parts = self._attempt(environ, start)
        if parts is not None and not refused:
            return parts
        sentence = f"Socket.IO refused this: {_said(parts)}." if parts else None
        problem = MethodNotAllowed() if refused and refused[0][:3] == "405" else ValidationError(sentence)
        return self._refuse(start_response, problem)

    def _attempt(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        try:
            return self._application(environ, start_response)
        except Exception as error:
            log.warning("a connection was ended", extra={"reason": type(error).__name__})
            return None

    def _refuse(self, start_response: Callable[..., Any], problem: Problem) -> Iterable[bytes]:
        request_id = str(uuid.uuid4())
        headers = [("Content-Type", "application/json"), ("X-Request-ID", request_id)]
        if problem.retry_after_seconds is not None:
            headers.append(("Retry-After", str(problem.retry_after_seconds)))
        start_response(f"{problem.status} {HTTPStatus(problem.status).phrase}", headers)
        return [wire.encode(as_body(problem, request_id))]


def _said(parts: Iterable[bytes]) -> str:
    """Read what the library answered, a sentence as JSON or as plain text."""
    return b"".join(parts).decode("utf-8", "replace").strip().strip('".')


def checked_texts(body: object, lengths: dict[str, int]) -> dict[str, str]:
    """Take the named texts out of a body, each within its length; what is absent is left out.

    Raises: ValidationError.
    """
    if not isinstance(body, dict):
        raise ValidationError("The body must be an object.", details=[{"path": "$", "error": "must be an object"}])
    said = {}
    for name, most in lengths.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not 1 <= len(value) <= most:
            sentence = f"must be a text of 1 to {most} characters"
            raise ValidationError(f"{name} {sentence}.", details=[{"path": name, "error": sentence}])
        said[name] = value
    return said


def _sid() -> str:
    return str(request.sid)  # type: ignore[attr-defined]
