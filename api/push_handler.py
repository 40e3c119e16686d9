"""Handles a push from its parsed body to the disk and the tenant's listeners.

Knows: who is notified of a push, how a repeated request gets its first answer. Must not know: routes, SQL, engines, JWT,
what a push writes (``push_transaction``). The rules are in ``merge``.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from typing import Any, cast

from msgspec import Raw

from accounts.tokens import Identity, Tokens, check_tenant
from api.limits import limits_of
from api.request_headers import device_id_header, idempotency_key_header
from models import synced_tables
from protocol.codec import Row, encode, format_time
from protocol.errors import OutcomeUnknown, Problem, StillRunning, StorageNearlyFull
from protocol.messages import EDIT_FIELDS, SERVER_FIELDS, Push, PushResult, Strategy, unknown_table_errors
from protocol.notifications import Notification
from protocol.push_parser import parse_push, takes_more
from server.disk_space import room
from server.http.exchange import Reply, answer, current_exchange
from server.maintenance import maintenance
from server.metrics import CONFLICTS, PUSHES, ROWS
from server.quotas import Quotas
from server.scheduler import is_more_ready
from settings import Settings
from sockets import Sockets
from storage import idempotency, push_transaction
from storage.devices import Seen
from storage.look_ahead import first_wanted
from storage.positions import now_ms
from tenants import Tenants

Around = Callable[[Callable[[], PushResult]], PushResult]
"""Called with the writing of a push, inside its transaction, to write something more together with it."""

_NOT_EDITABLE = SERVER_FIELDS | EDIT_FIELDS
"""Fields of a row that no person edits: the server sets them, or they describe the edit itself."""


class PushHandler:
    """Handles pushes of all tenants."""

    def __init__(
        self, settings: Settings, tenants: Tenants, tokens: Tokens, sockets: Sockets, seen: Seen, quotas: Quotas
    ) -> None:
        self._settings, self._tenants, self._tokens, self._sockets = settings, tenants, tokens, sockets
        self._seen, self._quotas = seen, quotas
        self._tables = {name: table.rules for name, table in synced_tables().items()}
        self._limits = limits_of(settings)
        self._strategy = cast(Strategy, settings.conflict_strategy)
        self._running: set[tuple[str, str]] = set()
        """Tenants and idempotency keys of requests that run in this process."""

    def parse(self, identity: Identity, body: object, device_id: str | None) -> Push:
        """Parse the body of a push, and count its rows against the tenant's quota.

        Raises: ValidationError, PayloadTooLarge, InvalidTenantId, TenantMismatch, RateLimited, TenantReadOnly,
        UnderMaintenance, StorageNearlyFull.
        """
        check_body_tenant(identity, body)
        self._tokens.must_take_changes(identity)
        maintenance.must_be_over()
        evidence = self._seen.evidences.find(identity.tenant_id, device_id, identity.session_id, self._tenants.read)
        push = parse_push(body, self._tables, self._limits, now_ms(), device_id, evidence)
        if room.is_low and takes_more(push):
            raise StorageNearlyFull
        self._quotas.spend_rows(identity.tenant_id, push.count)
        return push

    def store(self, identity: Identity, push: Push, around: Around = lambda write: write()) -> PushResult:
        """Store a push on disk, and notify the tenant's listeners before anyone can pull it.

        Raises: any error; after an unforeseen one the listeners get ``sync_error``, after OutcomeUnknown a hint to pull if
        it was stored.
        """
        tenant_id = identity.tenant_id
        row_bytes, stored_bytes = self._settings.max_row_bytes, self._quotas.of(tenant_id).settings.tenant_stored_bytes
        write = partial(push_transaction.write, push, row_bytes, stored_bytes, self._strategy)

        def committed(applied: PushResult) -> None:
            """Count a push, note what the device has seen by it, and notify the listeners."""
            PUSHES[()] += 1
            if applied.conflicts:
                CONFLICTS[()] += len(applied.conflicts)
            ROWS[()] += len(applied.results)
            used = self._quotas.usage.of(tenant_id)
            used.pushes += 1
            used.rows_pushed += len(applied.results)
            push_transaction.note_committed(tenant_id, push, applied, self._seen.evidences)
            self._sockets.announce(tenant_id, applied)

        if push.device_id:
            self._seen.note(tenant_id, push.device_id, {}, now_ms(), session_id=identity.session_id)
        try:
            is_alone = self._is_alone(tenant_id)
            ahead = partial(first_wanted, push)
            applied = self._tenants.write(tenant_id, lambda: around(write), committed, is_alone=is_alone, ahead=ahead)
            if self._seen.evidences.is_due(tenant_id):
                self._seen.try_to_save(tenant_id)
            return applied
        except idempotency.AlreadyAnswered:
            raise
        except OutcomeUnknown:
            self._sockets.look(tenant_id)
            raise
        except Exception as error:
            if not isinstance(error, Problem) or error.status >= 500:
                self._notify_failure(tenant_id, push.tables)
            raise

    def _is_alone(self, tenant_id: str) -> bool:
        """Tell whether no other push of a tenant is here, or ready to be read: they would share a commit."""
        may_more_come = self._sockets.has_several(tenant_id) and is_more_ready()
        return self._quotas.admission.is_alone(tenant_id) and not may_more_come

    def _notify_failure(self, tenant_id: str, tables: Set[str]) -> None:
        """Notify the tenant's devices of a push that failed for a reason of the server's."""
        name = next(iter(tables)) if len(tables) == 1 else "batch"
        text = (
            f"Sync error for {name}: the server could not store a push. Nothing of it was kept; it can be sent again."
        )
        self._sockets.notify(tenant_id, Notification("sync_error", name, text, timestamp=format_time(now_ms())))

    def run_once(self, identity: Identity, raw: bytes, store: Callable[[Around], PushResult]) -> Reply:
        """Run a request that changes something once under its ``Idempotency-Key``; a repeat gets the first answer.

        ``raw`` is its body. ``store`` makes the change, and is given what must be stored with it.
        Raises: StillRunning, IdempotencyMismatch.
        """
        tenant_id, key = identity.tenant_id, idempotency_key_header()
        if key is None:
            return answer(push_answer(store(lambda write: write())))
        mark = idempotency.mark_of_request(current_exchange().path, raw)
        kept = self._tenants.read(tenant_id, lambda: idempotency.kept_answer(key, mark, now_ms()))
        if kept is not None:
            return _replayed(kept)
        if (tenant_id, key) in self._running:
            raise StillRunning
        self._running.add((tenant_id, key))
        try:
            return answer(push_answer(store(partial(idempotency.write_once, key, mark, now_ms(), answer_of=_encoded))))
        except idempotency.AlreadyAnswered as error:  # In another process, since the look above.
            return _replayed(error.answer)
        finally:
            self._running.discard((tenant_id, key))

    def change_row(
        self, identity: Identity, table: str, row_id: str, fields: Row, around: Around, base_version: int | None
    ) -> PushResult:
        """Store a change that a person decided on, as a push of one row; ``base_version`` is the version that they saw.

        Raises: ValidationError for a field that the table does not accept.
        """
        data = {name: value for name, value in fields.items() if name not in _NOT_EDITABLE} | {"id": row_id}
        change = {"table": table, "operation": "update", "data": data, "baseVersion": base_version}
        push = self.parse(identity, change, device_id_header())
        return self.store(identity, push, around)


def _replayed(kept: bytes) -> Reply:
    """Give an answer again that was kept under the key of its request."""
    return Reply(kept, headers=[*Reply(kept).headers, ("Idempotent-Replayed", "true")])


def _encoded(applied: PushResult) -> bytes:
    return encode(push_answer(applied))


def check_body_tenant(identity: Identity, body: object) -> None:
    """Refuse a body that names another tenant.

    Raises: InvalidTenantId, TenantMismatch.
    """
    if isinstance(body, dict):
        check_tenant(identity, body.get("tenantId"))


def push_answer(applied: PushResult) -> dict[str, Any]:
    """Give the body of the answer to a push."""
    return {
        "success": True,
        "data": [None if row is None else Raw(row) for row in applied.rows],
        "syncTimestamp": format_time(applied.known_until),
        "cursor": applied.after.cursor,
        "previousCursor": applied.before.cursor,
        "results": applied.results,
        "conflicts": applied.conflicts + applied.replayed_conflicts,
        **unknown_table_errors(applied.unknown_tables),
    }
