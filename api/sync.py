"""Push and pull, over HTTP and as socket events (docs/api.md).

Knows: how a push travels from bytes to the disk and on to the listeners, how a pull leaves as a stream. Must not know:
engines, SQL, JWT details. The rules are in ``merge``, the statements in ``push_writer``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any, cast

from flask import Blueprint
from msgspec import Raw

from accounts.tokens import Identity, Tokens, check_tenant
from api.auth import bearer
from api.limits import EVENT_PULL_BYTES, KEY_CHARACTERS, announced_limits
from models import described_common_columns, synced_tables
from protocol.codec import Cursor, Row, decode, decode_push, encode, format_time
from protocol.errors import InvalidJson, PayloadTooLarge, Problem, StillRunning, invalid
from protocol.identifiers import parse_device_id
from protocol.messages import EDIT_FIELDS, SERVER_FIELDS, Applied, Limits, Pull, Push, Strategy, unknown_table
from protocol.notifications import Notification, parse_test_notification
from protocol.pull_parser import parse_pending, parse_pull
from protocol.push_parser import parse_push
from protocol.seen_rows import Evidence
from server.http.exchange import Reply, View, answer, current_exchange, read_body, read_json, stream, success
from server.quotas import Quotas
from server.scheduler import yield_if_due
from settings import Settings
from sockets import Answer, Caller, Sockets
from storage import disk_quota, idempotency, positions, pull_reader, push_writer, seen_rows
from storage.devices import Seen, expired, expired_at, reached
from storage.positions import now_ms
from storage.pull_reader import Page, Slice
from tenants import Tenants

Around = Callable[[Callable[[], Applied]], Applied]

NOT_DECIDED = SERVER_FIELDS | EDIT_FIELDS
"""Fields of a row that nobody decides on: the server sets them, or they describe the edit itself."""

_FIRST_SLICE_ROWS, _MOST_SLICE_ROWS, _SLICE_BYTES = 250, 500, 262_144
IDEMPOTENCY_KEY = re.compile(rf'"?([\x21\x23-\x7e]{{1,{KEY_CHARACTERS}}})"?', re.ASCII)


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
        self._settings, self._tenants, self._tokens, self._sockets = settings, tenants, tokens, sockets
        self._seen, self._quotas = seen, quotas
        self._tables = {name: table.rules for name, table in synced_tables().items()}
        self._limits = Limits(
            settings.max_push_rows, settings.max_pull_rows, settings.max_row_bytes, settings.max_name_characters
        )
        self._strategy = cast(Strategy, settings.conflict_strategy)
        self._running: set[tuple[str, str]] = set()
        sockets.on("sync_push", self._push_event, decode_push)
        sockets.on("sync_pull", self._pull_event)

    @property
    def hot_views(self) -> dict[str, View]:
        """Give the views that crowds ask for, by their addresses."""
        return {"/api/client/sync/push": self.push, "/api/client/sync/pull": self.pull}

    def blueprint(self) -> Blueprint:
        """Lay the endpoints out."""
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
            push = self._parse(identity, decode_push(raw), stated_device())
            try:
                reply = self.once(identity, raw, lambda around: self._store(identity.tenant_id, push, around))
            except InvalidJson:
                decode(raw)  # Where in the whole body it is that a row can't be read.
                raise
        if self._quotas.is_alone(identity.tenant_id):  # Else its group was told before anyone of it goes on.
            self._sockets.let_tell(identity.tenant_id)
        return reply

    def pull(self) -> Reply:
        """Answer a pull, as a stream if it is long."""
        identity = bearer(self._tokens)
        return stream(self._parts(identity.tenant_id, self._plan(identity, read_json(), stated_device())))

    def pull_pending(self) -> Reply:
        """Give the rows marked as pending, or to a device that names itself all that it has not pulled yet."""
        identity = bearer(self._tokens)
        body, device_id, tenant_id = read_json(), stated_device(), identity.tenant_id
        _check_body(identity, body)
        tables, unknown = parse_pending(body, self._tables)
        if device_id and body.get("cursor") is not None:
            return stream(self._parts(tenant_id, self._plan(identity, body, device_id)))
        if device_id:
            return stream(self._parts(tenant_id, self._pending_page(identity, tables, unknown, device_id)))
        place = self._tenants.read(tenant_id, positions.place)

        def rows(table: str, after: int, count: int) -> Slice:
            return self._tenants.read(tenant_id, lambda: pull_reader.pending_rows(table, after, count))

        tail = {"syncTimestamp": format_time(place.clock), "cursor": place.cursor, "hasMore": False}
        tail |= _errors_of(unknown)
        turn = partial(self._quotas.scheduler.yield_turn, tenant_id)
        return stream(_envelope(dict.fromkeys(tables, 0), unknown, rows, tail, turn))

    def health(self) -> Reply:
        """Say that sync is served."""
        return answer({"success": True, "message": "Sync service is healthy", "timestamp": format_time(now_ms())})

    def notify(self) -> Reply:
        """Send a test notification to the caller's own tenant."""
        identity = bearer(self._tokens)
        body = read_json()
        _check_body(identity, body)
        self._sockets.notify(identity.tenant_id, parse_test_notification(body, now_ms()))
        return success({"message": "Test notification sent"})

    def limits(self) -> Reply:
        """Announce every limit a client can meet."""
        return success(announced_limits(self._settings))

    def tables(self) -> Reply:
        """Tell which tables are synced, and their columns."""
        tables = {name: table.described() for name, table in synced_tables().items()}
        return success({"tables": tables, "everyRow": described_common_columns()})

    # --- push --------------------------------------------------------------------------------------------------------

    def _parse(self, identity: Identity, body: object, device_id: str | None = None) -> Push:
        _check_body(identity, body)
        known = self._evidence(identity, device_id)
        push = parse_push(body, self._tables, self._limits, now_ms(), device_id, known)
        self._quotas.spend_rows(identity.tenant_id, push.count)
        return push

    def _evidence(self, identity: Identity, device_id: str | None) -> Evidence:
        return self._seen.evidences.find(identity.tenant_id, device_id, identity.session_id, self._tenants.read)

    def _push_event(self, caller: Caller, body: object) -> Answer:
        push = self._parse(caller.identity, body, caller.device_id)
        return _push_answer(self._store(caller.identity.tenant_id, push))

    def once(self, identity: Identity, raw: bytes, store: Callable[[Around], Applied]) -> Reply:
        """Answer a request that changes something; under its ``Idempotency-Key`` it is done once and answered again.

        ``raw`` is its body. ``store`` makes the change and is given what must be stored with it.
        Raises: StillRunning, IdempotencyMismatch.
        """
        tenant_id, key = identity.tenant_id, stated_key()
        if key is None:
            return answer(_push_answer(store(lambda write: write())))
        mark = idempotency.mark_of_request(current_exchange().path, raw)
        kept = self._tenants.read(tenant_id, lambda: idempotency.kept_answer(key, mark, now_ms()))
        if kept is not None:
            return Reply(kept, headers=[*Reply(kept).headers, ("Idempotent-Replayed", "true")])
        if (tenant_id, key) in self._running:
            raise StillRunning

        def keep(write: Callable[[], Applied]) -> Applied:
            applied = write()
            idempotency.keep_answer(key, mark, encode(_push_answer(applied)), now_ms())
            return applied

        self._running.add((tenant_id, key))
        try:
            return answer(_push_answer(store(keep)))
        finally:
            self._running.discard((tenant_id, key))

    def change_row(
        self, identity: Identity, table: str, row_id: str, fields: Row, around: Around, base_version: int | None
    ) -> Applied:
        """Make a change that a person decided on, as a push of one row; ``base_version``: what they had before them.

        ``around`` is called with the writing of it, inside the transaction, for what must come with it or not at all.
        Raises: ValidationError for a field that the table does not take.
        """
        data = {name: value for name, value in fields.items() if name not in NOT_DECIDED} | {"id": row_id}
        change = {"table": table, "operation": "update", "data": data, "baseVersion": base_version}
        push = self._parse(identity, change, stated_device())
        return self._store(identity.tenant_id, push, around)

    def _store(self, tenant_id: str, push: Push, around: Around = lambda write: write()) -> Applied:
        """Take a push to the disk; the tenant's listeners hear of it before anyone can ask for it."""

        def write() -> Applied:
            now, settings = now_ms(), self._settings
            applied = push_writer.apply(push, settings.max_row_bytes, now, yield_if_due, self._strategy)
            seen_rows.note_first_push(push.evidence, applied, now)
            disk_quota.check(applied, settings.tenant_stored_bytes, settings.max_row_bytes)
            return applied

        def told(applied: Applied) -> None:
            positions.note_commit(applied.after)
            self._seen.evidences.pushed(tenant_id, push.evidence, applied)
            self._sockets.announce(tenant_id, applied)

        if push.device_id:
            self._seen.note(tenant_id, push.device_id, {}, now_ms())
        try:
            return self._tenants.write(
                tenant_id,
                lambda: around(write),
                told,
                is_alone=self._quotas.is_alone(tenant_id),
            )
        except Exception as error:
            if not isinstance(error, Problem) or error.status >= 500:
                self._tell_failure(tenant_id, push.tables)
            raise

    def _tell_failure(self, tenant_id: str, tables: Set[str]) -> None:
        """Tell the tenant's devices of a push that failed for a reason of ours."""
        name = next(iter(tables)) if len(tables) == 1 else "batch"
        text = (
            f"Sync error for {name}: the server could not store a push. Nothing of it was kept; it can be sent again."
        )
        self._sockets.notify(tenant_id, Notification("sync_error", name, text, timestamp=format_time(now_ms())))

    # --- pull --------------------------------------------------------------------------------------------------------

    def _plan(self, identity: Identity, body: object, device_id: str | None) -> Page:
        _check_body(identity, body)
        pull = parse_pull(body, self._tables, self._limits)
        skew_ms = self._settings.clock_skew_seconds * 1000
        pushed = self._evidence(identity, device_id) if pull.since is None else None

        def plan() -> Page:
            at = expired_at(device_id) if device_id and pull.since is not None else None
            if at is not None and isinstance(pull.since, Cursor):
                raise expired(at)
            page = pull_reader.page_of(pull, now_ms(), skew_ms, is_expired=at is not None, pushed=pushed)
            if device_id is None or not isinstance(pull.since, Cursor):
                return page
            return page._replace(went_back=self._seen.had_more(identity.tenant_id, device_id, page.starts, page.epoch))

        return self._noted(identity, device_id, self._tenants.read(identity.tenant_id, plan))

    def _pending_page(self, identity: Identity, tables: Sequence[str], unknown: Sequence[str], device_id: str) -> Page:
        """Plan what a device has not pulled yet, of each table from where it is known to be, with every tombstone."""
        self._seen.try_to_save(identity.tenant_id)

        def plan() -> Page:
            is_expired = expired_at(device_id) is not None
            pull = Pull(tables, None, self._limits.pull_rows, unknown_tables=unknown)
            return pull_reader.pending_page(reached(device_id, tables), pull, is_expired=is_expired)

        return self._noted(identity, device_id, self._tenants.read(identity.tenant_id, plan))

    def _noted(self, identity: Identity, device_id: str | None, page: Page) -> Page:
        """Note what a device says that it has, and what it is sent."""
        tenant_id, now, before = identity.tenant_id, now_ms(), self._evidence(identity, device_id)
        self._seen.evidences.pulled(tenant_id, before, page, now)
        if device_id:  # What went back is told so until it goes by another name, also if this answer is lost.
            self._seen.note(tenant_id, device_id, {} if page.went_back else page.starts, now, page.epoch)
        if page.claimed == 0 and (device_id or before.is_kept):  # It starts anew; an expired one is live from here on.
            self._seen.try_to_save(tenant_id)
        return page

    def _parts(self, tenant_id: str, page: Page) -> Iterator[bytes]:
        """Make the answer of a pull slice by slice; each slice is read anew, so that nothing is held meanwhile."""

        def rows(table: str, after: int, count: int) -> Slice:
            return self._tenants.read(tenant_id, lambda: pull_reader.rows_of(page, table, after, count))

        tail: dict[str, Any] = {"syncTimestamp": page.sync_timestamp, "cursor": page.cursor, "hasMore": page.has_more}
        if page.is_complete:
            tail["complete"] = True
        if page.went_back:
            tail["wentBack"] = True
        if page.digest is not None:
            tail["digest"] = page.digest
        tail |= _errors_of(page.unknown_tables)
        turn = partial(self._quotas.scheduler.yield_turn, tenant_id)
        return _envelope(page.starts, page.unknown_tables, rows, tail, turn)

    def _pull_event(self, caller: Caller, body: object) -> Raw:
        """Answer a pull in one acknowledgement, which is therefore bounded."""
        parts, size = [], 0
        for part in self._parts(caller.identity.tenant_id, self._plan(caller.identity, body, caller.device_id)):
            parts.append(part)
            size += len(part)
            if size > EVENT_PULL_BYTES:
                raise PayloadTooLarge(
                    f"The answer is larger than {EVENT_PULL_BYTES:,} bytes. Pull with a cursor and a smaller limit,"
                    " or over HTTP."
                )
        return Raw(b"".join(parts))


def stated_device() -> str | None:
    """Read which device a request says it comes from.

    Raises: ValidationError.
    """
    return parse_device_id(current_exchange().header("X-Device-Id"), "X-Device-Id")


def stated_key() -> str | None:
    """Read a request's ``Idempotency-Key``, with or without the quotes that the draft wants.

    Raises: ValidationError.
    """
    stated = current_exchange().header("Idempotency-Key")
    if stated is None:
        return None
    key = IDEMPOTENCY_KEY.fullmatch(stated)
    if not key:
        raise invalid("Idempotency-Key", f"must be 1 to {KEY_CHARACTERS} visible ASCII characters without quotes")
    return key[1]


def _check_body(identity: Identity, body: object) -> None:
    """Refuse a body that names another tenant."""
    if isinstance(body, dict):
        check_tenant(identity, body.get("tenantId"))


def _push_answer(applied: Applied) -> dict[str, Any]:
    return {
        "success": True,
        "data": [None if row is None else Raw(row) for row in applied.rows],
        "syncTimestamp": format_time(applied.known_until),
        "cursor": applied.after.cursor,
        "previousCursor": applied.before.cursor,
        "results": applied.results,
        "conflicts": applied.conflicts + applied.replayed_conflicts,
        **_errors_of(applied.unknown_tables),
    }


def _errors_of(unknown_tables: Collection[str]) -> dict[str, Any]:
    """Answer for tables that are not synced, each for itself; nothing if there are none."""
    return {"errors": {name: unknown_table(name) for name in unknown_tables}} if unknown_tables else {}


def _envelope(
    starts: Mapping[str, int],
    unknown_tables: Sequence[str],
    rows: Callable[[str, int, int], Slice],
    tail: dict[str, Any],
    pause: Callable[[], None],
) -> Iterator[bytes]:
    """Write the answer of a pull around rows that are JSON already; ``pause`` lets others go on."""
    lead = b'{"success":true,"data":{' + b"".join(encode(table) + b":[]," for table in unknown_tables)
    for table, since in starts.items():
        lead += encode(table) + b":["
        after, count = since, _FIRST_SLICE_ROWS
        while (slice_ := rows(table, after, count)).count:
            yield lead
            yield slice_.json
            after, lead = slice_.last, b","
            if slice_.count < count:
                break
            count = min(_MOST_SLICE_ROWS, _SLICE_BYTES * slice_.count // len(slice_.json) + 1)
            pause()
        lead = b"]," if after > since else lead + b"],"
    yield (lead[:-1] if starts else lead) + b"}," + encode(tail)[1:]
