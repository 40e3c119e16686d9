"""The endpoints of sync, and the Socket.IO events that do the same (docs/api.md).

Knows: routes, and what each takes and answers. Must not know: engines, SQL, JWT, how a push is stored (``push_handler``)
or a pull answered (``pull_handler``).
"""

from __future__ import annotations

from flask import Blueprint
from msgspec import Raw

from accounts.tokens import Tokens
from api.auth import bearer
from api.limits import EVENT_PULL_BYTES, announced_limits
from api.pull_handler import PullHandler
from api.push_handler import PushHandler, check_body_tenant, push_answer
from api.request_headers import device_id_header
from models import described_common_columns, synced_tables
from protocol.codec import decode, decode_push, format_time
from protocol.errors import InvalidJson, PayloadTooLarge, Problem
from protocol.notifications import parse_test_notification
from server.http.exchange import Reply, View, answer, current_exchange, read_body, read_json, stream, success
from server.quotas import Quotas
from settings import Settings
from sockets import Answer, Caller, Sockets
from storage.devices import Seen
from storage.positions import now_ms
from tenants import Tenants


class Sync:
    """The endpoints under ``/api/client`` and the events that do the same."""

    def __init__(
        self,
        settings: Settings,
        tenants: Tenants,
        tokens: Tokens,
        sockets: Sockets,
        seen: Seen,
        quotas: Quotas,
    ) -> None:
        self._settings, self._tokens, self._sockets, self._quotas = settings, tokens, sockets, quotas
        self.pushes = PushHandler(settings, tenants, tokens, sockets, seen, quotas)
        self._pulls = PullHandler(settings, tenants, seen, quotas)
        sockets.on("sync_push", self._push_event, decode_push)
        sockets.on("sync_pull", self._pull_event)

    @property
    def hot_views(self) -> dict[str, View]:
        """Give the views that get most requests, by their addresses."""
        return {"/api/client/sync/push": self.push, "/api/client/sync/pull": self.pull}

    def blueprint(self) -> Blueprint:
        """Give the routes."""
        routes = Blueprint("sync", __name__, url_prefix="/api")
        views: list[tuple[str, str, View]] = [
            ("POST", "/client/sync/push", self.push),
            ("POST", "/client/sync/pull", self.pull),
            ("POST", "/client/sync/pull-pending", self.pull_pending),
            ("GET", "/client/sync/health", self.health),
            ("POST", "/client/notifications/test", self.notify),
            ("GET", "/limits", self.limits),
            ("GET", "/tables", self.tables),
        ]
        for method, path, view in views:
            routes.add_url_rule(path, view.__name__, view, methods=[method])
        return routes

    # --- endpoints ---------------------------------------------------------------------------------------------------

    def push(self) -> Reply:
        """Take a push."""
        identity = bearer(self._tokens)
        raw = read_body()
        with current_exchange().exclusive():
            push = self.pushes.parse(identity, decode_push(raw), device_id_header())
            try:
                reply = self.pushes.run_once(identity, raw, lambda around: self.pushes.store(identity, push, around))
            except InvalidJson:
                decode(raw)  # Raises the same with the position in the whole body.
                raise
        if self._quotas.admission.is_alone(identity.tenant_id):  # Otherwise notifications wait for those of the others.
            self._sockets.let_notify(identity.tenant_id)
        return reply

    def pull(self) -> Reply:
        """Answer a pull, as a stream if it is long."""
        identity = bearer(self._tokens)
        return stream(self._pulls.pull(identity, read_json(), device_id_header()))

    def pull_pending(self) -> Reply:
        """Give the rows marked as pending, or to a device that names itself all that it has not pulled yet."""
        identity = bearer(self._tokens)
        return stream(self._pulls.pull_pending(identity, read_json(), device_id_header()))

    def health(self) -> Reply:
        """Say that sync is served."""
        return answer({"success": True, "message": "Sync service is healthy", "timestamp": format_time(now_ms())})

    def notify(self) -> Reply:
        """Send a test notification to the caller's own tenant."""
        identity = bearer(self._tokens)
        body = read_json()
        check_body_tenant(identity, body)
        self._sockets.notify(identity.tenant_id, parse_test_notification(body, now_ms()))
        return success({"message": "Test notification sent"})

    def limits(self) -> Reply:
        """Announce every limit a client can meet: to who shows a token that counts, those of its tenant."""
        return success(announced_limits(self._settings_of_caller()))

    def _settings_of_caller(self) -> Settings:
        token = (current_exchange().header("Authorization") or "").partition(" ")[2].strip()
        try:
            return self._quotas.of(self._tokens.verify(token).tenant_id).settings if token else self._settings
        except Problem:  # What holds for all is told to everybody.
            return self._settings

    def tables(self) -> Reply:
        """Tell which tables are synced, and their columns."""
        tables = {name: table.described() for name, table in synced_tables().items()}
        return success({"tables": tables, "everyRow": described_common_columns()})

    # --- events ------------------------------------------------------------------------------------------------------

    def _push_event(self, caller: Caller, body: object) -> Answer:
        self._tokens.must_be_live(caller.identity)  # Of a socket that has been open for long.
        push = self.pushes.parse(caller.identity, body, caller.device_id)
        return push_answer(self.pushes.store(caller.identity, push))

    def _pull_event(self, caller: Caller, body: object) -> Raw:
        """Answer a pull in one acknowledgement, whose size is therefore limited."""
        chunks, size = [], 0
        for chunk in self._pulls.pull(caller.identity, body, caller.device_id):
            chunks.append(chunk)
            size += len(chunk)
            if size > EVENT_PULL_BYTES:
                raise PayloadTooLarge(
                    f"The answer is larger than {EVENT_PULL_BYTES:,} bytes. Pull with a cursor and a smaller limit,"
                    " or over HTTP."
                )
        return Raw(b"".join(chunks))
