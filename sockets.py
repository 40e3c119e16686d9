"""Real time over Socket.IO: authentication, rooms by tenant, notifications and events (docs/api.md, real time).

Knows: which socket belongs to which tenant, what ends it, types of notification. Must not know: SQL, engines, how a push is
stored, Engine.IO.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gevent
from cachetools import TTLCache
from flask import Flask
from msgspec import Raw

from accounts.tokens import LIVE_SECONDS, Identity, Tokens, check_tenant
from protocol import codec
from protocol.codec import Cursor, format_time, parse_cursor
from protocol.errors import (
    Busy,
    Problem,
    RateLimited,
    SessionEnded,
    TokenExpired,
    Unauthorized,
    as_acknowledgement,
    invalid,
)
from protocol.identifiers import parse_device_id
from protocol.messages import Position
from protocol.notifications import STATUS_TEXTS, parse_texts
from server import log_format
from server.bus.bus import Bus
from server.bus.messages import Process
from server.metrics import EVENT_SECONDS, REFUSALS
from server.quotas import Quotas
from server.scheduler import yield_if_due
from server.websocket.announcements import Announcements
from server.websocket.events import Read
from server.websocket.receiver import check_not_refused
from server.websocket.socketio_server import SocketIOServer
from settings import Settings
from storage import positions
from storage.devices import Seen
from storage.positions import missed, now_ms
from tenants import Tenants

log = logging.getLogger("syncapp.socket")

_SWEEP_SECONDS = 1.0
_MOST_ENDED = 10_000
_GOODBYE_SECONDS = 2.0
"""How long a refused socket may take to receive the error and leave."""

Answer = dict[str, Any]


@dataclass(slots=True)
class _Client:
    """A client of the main namespace: its Engine.IO ID, and its identity once it is authenticated."""

    engine_id: str
    identity: Identity | None = None
    device_id: str | None = None
    is_being_checked: bool = False
    """Whether its token is looked into at this moment."""


class Caller(NamedTuple):
    """The sender of an event: an authenticated socket, and the device that it named."""

    sid: str
    identity: Identity
    device_id: str | None


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
        bus: Bus,
        version: str,
    ) -> None:
        self._settings, self._tenants, self._tokens, self._seen = settings, tenants, tokens, seen
        self._quotas = quotas
        self._clients: dict[str, _Client] = {}
        self._authenticated_by_tenant: Counter[str] = Counter()
        """Authenticated sockets by tenant."""
        self._just_ended: TTLCache[str, Problem] = TTLCache(_MOST_ENDED, 5 * LIVE_SECONDS)
        """Sessions of which another process may have told while a token was still trusted here."""
        self._server = SocketIOServer(app, settings, quotas, self._tenant_of, self._close_unauthenticated)
        self._unauthenticated = self._server.unauthenticated
        for event, handle in (
            ("connect", self._connected),
            ("disconnect", self._disconnected),
            ("authenticate", self._authenticate_event),
        ):
            self._server.io.on(event, handle)
        self.on("ping", self._ping)
        self.on("sync_status_update", self._relay_status)
        self._announcements = Announcements(
            self._server.broadcaster,
            bus,
            self._authenticated_by_tenant.__contains__,
            tenants.positions,
            self._close_sessions,
            self.look_at_sessions,
            now_ms,
            Process(settings.process_name, version),
        )
        self.announce, self.notify = self._announcements.announce, self._announcements.notify
        self.look, self.processes = self._announcements.look, self._announcements.processes
        self.is_alone = self._announcements.is_alone
        tokens.ended.connect(self._sessions_ended)

    @property
    def events(self) -> list[str]:
        """List the events that clients may emit."""
        return self._server.events.names

    def held(self) -> dict[str, int]:
        """Count what is held: sessions, clients, rooms."""
        return self._server.held() | {"clients": len(self._clients)}

    def connected(self) -> int:
        """Count the authenticated sockets."""
        return self._authenticated_by_tenant.total()

    def connected_of(self, tenant_id: str) -> int:
        """Count those of a tenant."""
        return self._authenticated_by_tenant.get(tenant_id, 0)

    def note_usage(self) -> None:
        """Note how many sockets each tenant has: a day begins with those of the day before."""
        for tenant_id, count in self._authenticated_by_tenant.items():
            self._quotas.usage.of(tenant_id).note_sockets(count)

    def unauthenticated(self) -> int:
        """Count the sockets that have not authenticated yet."""
        return len(self._unauthenticated)

    def start(self) -> None:
        """Start the sweep for sockets that do not authenticate or are silent, and for tokens that expire."""
        gevent.spawn(self._watch)
        self._announcements.start()

    # --- connecting --------------------------------------------------------------------------------------------------

    def _connected(self, sid: str, environ: object = None, auth: object = None, *_: object) -> None:
        if sid in self._clients:  # A client emitted an event of this name.
            return
        self._clients[sid] = _Client(self._server.engine_id_of(sid))
        if isinstance(auth, dict) and auth.get("token") is not None:
            self._authenticate(sid, auth)

    def _disconnected(self, sid: str, reason: object = None, *_: object) -> None:
        if self._server.is_connected(sid):  # The same.
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
        client = self._clients.get(sid)
        if client is None:
            return  # It has left.
        client.is_being_checked = True
        try:
            self._check(sid, body)
        finally:
            client.is_being_checked = False

    def _check(self, sid: str, body: Answer) -> None:
        """Add a socket to its tenant's room, or send it an error and close it."""
        try:
            check_not_refused()
            identity = self._tokens.verify(body.get("token"))
            check_tenant(identity, body.get("tenantId"))
            cursor = None if body.get("cursor") is None else parse_cursor(body["cursor"])
            device_id = parse_device_id(body.get("deviceId"), "deviceId")
            self._announcements.expect_listener(identity.tenant_id)
            here, greeting = self._greeting(identity, cursor)
            identity = self._tokens.verify(body["token"])  # Its session may have ended while the greeting was read.
            client = self._clients.get(sid)
            if client is None:
                return  # It left meanwhile.
            if problem := self._just_ended.get(identity.session_id):
                raise problem
            self._leave(sid, client)
            most = self._quotas.of(identity.tenant_id).settings.max_tenant_sockets
            if self._authenticated_by_tenant[identity.tenant_id] >= most:
                raise RateLimited("This tenant has as many sockets as it may have.", retry_after_seconds=1)
        except Problem as problem:
            self._refuse(sid, problem)
        except Exception:
            log.exception("authenticating a socket failed")
            self._refuse(sid, Problem())
        else:
            self._join(sid, client, identity, device_id)
            self._emit("authenticated", greeting, sid)
            self._announcements.greeted(client.engine_id, identity.tenant_id, here)

    def _leave(self, sid: str, client: _Client) -> None:
        """Leave the room of the tenant that a socket authenticated for before."""
        if client.identity:
            self._server.io.leave_room(sid, client.identity.tenant_id)
            self._forget_authenticated(client.identity)
            client.identity = None

    def _join(self, sid: str, client: _Client, identity: Identity, device_id: str | None) -> None:
        self._authenticated_by_tenant[identity.tenant_id] += 1
        self._quotas.usage.of(identity.tenant_id).note_sockets(self._authenticated_by_tenant[identity.tenant_id])
        self._unauthenticated.discard(client.engine_id)
        client.identity, client.device_id = identity, device_id
        if device_id:
            self._seen.note(identity.tenant_id, device_id, {}, now_ms(), session_id=identity.session_id)
        self._server.io.enter_room(sid, identity.tenant_id)
        log_format.write_line(log, logging.INFO, "socket joined", {"tenant": identity.tenant_id})

    def _forget_authenticated(self, identity: Identity) -> None:
        self._authenticated_by_tenant[identity.tenant_id] -= 1
        if not self._authenticated_by_tenant[identity.tenant_id]:
            del self._authenticated_by_tenant[identity.tenant_id]

    def _greeting(self, identity: Identity, cursor: Cursor | None) -> tuple[Position, Answer]:
        here, count = self._tenants.read(identity.tenant_id, lambda: missed(cursor))
        greeting = {"success": True, "tenantId": identity.tenant_id, "timestamp": format_time(now_ms())}
        greeting |= {"cursor": here.cursor, "missed": here.sequence if count is None else count}
        return here, greeting | ({"resyncRequired": True} if count is None else {})

    def _refuse(self, sid: str, problem: Problem) -> None:
        REFUSALS[problem.code,] += 1
        log_format.write_line(log, logging.INFO, "socket refused", {"code": problem.code})
        client = self._clients.get(sid)
        self._emit("authentication_error", {"message": str(problem), "code": problem.code}, sid)
        self._server.io.disconnect(sid)
        if client and client.engine_id in self._server:
            self._unauthenticated.refuse(client.engine_id, _GOODBYE_SECONDS)

    # --- closing -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            gevent.sleep(_SWEEP_SECONDS)
            try:
                self._sweep(time.time())
            except Exception:
                log.exception("the sweep of sockets failed")

    def _sweep(self, now: float) -> None:
        """Close sockets that did not authenticate in time, those of expired tokens, and those that answer no ping."""
        for sid, client in list(self._clients.items()):
            if client.identity and client.identity.expires_at <= now:
                self._refuse(sid, TokenExpired())
                yield_if_due()
        late = Unauthorized(f"The socket did not authenticate within {self._settings.socket_auth_seconds} s.")
        for engine_id in self._unauthenticated.late():
            its = self._clients.get(self._server.sid_of(engine_id) or "")
            is_our_fault = its is not None and its.is_being_checked  # As while the database hangs.
            self._close_unauthenticated(engine_id, Busy() if is_our_fault else late)
        self._server.close_silent()
        self._server.log_refused()

    def _close_unauthenticated(self, engine_id: str, problem: Problem) -> None:
        if sid := self._server.sid_of(engine_id):
            self._refuse(sid, problem)
        self._server.close(engine_id)
        self._unauthenticated.discard(engine_id)

    def _sessions_ended(self, session_ids: Iterable[str]) -> None:
        self._announcements.sessions_ended(session_ids)
        self._close_sessions(session_ids)

    def look_at_sessions(self) -> None:
        """Close the sockets of sessions that have ended unheard, or whose customers were suspended: another process died or
        could tell nobody, or a command of the operator's ended them."""
        here = {client.identity.session_id for client in self._clients.values() if client.identity}
        self._refuse_sessions(self._tokens.problems_of(here))

    def _close_sessions(self, session_ids: Iterable[str]) -> None:
        self._refuse_sessions(dict.fromkeys(session_ids, SessionEnded()))

    def _refuse_sessions(self, problems: Mapping[str, Problem]) -> None:
        self._just_ended.update(problems)
        for sid, client in list(self._clients.items()):
            if client.identity and (problem := problems.get(client.identity.session_id)):
                self._refuse(sid, problem)
                yield_if_due()

    def _tenant_of(self, engine_id: str) -> str | None:
        """Return a socket's tenant, None before it has authenticated."""
        client = self._clients.get(self._server.sid_of(engine_id) or "")
        return client.identity.tenant_id if client and client.identity else None

    def close(self) -> None:
        """Close all sockets when the server stops; clients see a lost connection and reconnect."""
        self._announcements.close()
        self._server.close_all()

    # --- notifications -----------------------------------------------------------------------------------------------

    def _emit(self, event: str, payload: Answer, to: str, but: str | None = None) -> None:
        self._server.io.emit(event, payload, to=to, skip_sid=but)

    def has_several(self, tenant_id: str) -> bool:
        """Tell whether more than one authenticated socket of a tenant is open."""
        return self._authenticated_by_tenant.get(tenant_id, 0) > 1

    def let_notify(self, tenant_id: str) -> None:
        """Have notifications sent before the caller goes on: many may wait for them, and only one for the answer."""
        if tenant_id in self._authenticated_by_tenant:
            gevent.sleep(0)

    def announce_restored(self, tenant_id: str) -> None:
        """Notify a tenant's devices that their cursors are invalid after a restore."""
        self._announcements.announce_restored(tenant_id, self._tenants.read(tenant_id, positions.position))

    # --- events ------------------------------------------------------------------------------------------------------

    def on(self, event: str, handle: Callable[[Caller, Any], Answer | Raw | None], read: Read = codec.decode) -> None:
        """Handle an event of authenticated sockets; the result or an error is its acknowledgement.

        This bypasses Flask-SocketIO, which makes a Flask request context for each event. ``read`` parses the event's body.
        """

        def serve(sid: str, body: object = None, *_: object) -> Answer | Raw:
            """Run the handler for the caller, and time it."""
            began = time.perf_counter()
            try:
                check_not_refused()
                caller = self._caller(sid)
                self._quotas.usage.of(caller.identity.tenant_id).requests += 1
                return handle(caller, body) or {"success": True}
            except Problem as problem:
                REFUSALS[problem.code,] += 1
                return as_acknowledgement(problem)
            except Exception:
                REFUSALS[Problem.code,] += 1
                log.exception("an event failed", extra={"event": event})
                return as_acknowledgement(Problem())
            finally:
                EVENT_SECONDS.observe(time.perf_counter() - began, event)

        self._server.events.on(event, serve, read)

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
        self._announcements.relay(caller.identity.tenant_id, "sync_status_update", texts)
