"""Handles a pull from its parsed body to a streamed answer.

Knows: how an answer is planned and written chunk by chunk, and what is recorded about the device. Must not know: routes,
SQL, engines, JWT. The statements are in ``pull_reader``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from accounts.tokens import Identity
from api.limits import limits_of
from api.push_handler import check_body_tenant
from models import synced_tables
from protocol.codec import Cursor, encode, format_time
from protocol.messages import Pull, unknown_table_errors
from protocol.pull_parser import parse_pending, parse_pull
from protocol.seen_rows import Evidence
from server.quotas import Quotas
from settings import Settings
from storage import positions, pull_reader
from storage.devices import Seen, expired, expired_at, reached
from storage.positions import now_ms
from storage.pull_reader import Chunk, Page
from tenants import Tenants

_FIRST_CHUNK_ROWS, _MAX_CHUNK_ROWS, _CHUNK_BYTES = 250, 500, 262_144
_ReadRows = Callable[[str, int, int], Chunk]
"""Reads a chunk of a table: after which sequence, how many rows."""


class PullHandler:
    """Handles pulls of all tenants."""

    def __init__(self, settings: Settings, tenants: Tenants, seen: Seen, quotas: Quotas) -> None:
        self._settings, self._tenants, self._seen, self._quotas = settings, tenants, seen, quotas
        self._tables = {name: table.rules for name, table in synced_tables().items()}
        self._limits = limits_of(settings)

    def pull(self, identity: Identity, body: object, device_id: str | None) -> Iterator[bytes]:
        """Give the chunks of the answer to a pull.

        Raises: ValidationError, ResyncRequired, InvalidTenantId, TenantMismatch.
        """
        check_body_tenant(identity, body)
        pull = parse_pull(body, self._tables, self._limits)
        skew_ms = self._settings.clock_skew_seconds * 1000
        pushed = self._evidence(identity, device_id) if pull.since is None else None

        def plan() -> Page:
            """Decide the page, and whether the device went back."""
            at = expired_at(device_id) if device_id and pull.since is not None else None
            if at is not None and isinstance(pull.since, Cursor):
                raise expired(at)
            page = pull_reader.page_of(pull, now_ms(), skew_ms, is_expired=at is not None, pushed=pushed)
            if device_id is None or not isinstance(pull.since, Cursor):
                return page
            return page._replace(went_back=self._seen.had_more(identity.tenant_id, device_id, page.starts, page.epoch))

        return self._answer(identity, device_id, plan)

    def pull_pending(self, identity: Identity, body: object, device_id: str | None) -> Iterator[bytes]:
        """Give the chunks of the answer to a pull of pending rows; to a device that names itself, all that it has not
        pulled yet.

        Raises: ValidationError, ResyncRequired, InvalidTenantId, TenantMismatch.
        """
        check_body_tenant(identity, body)
        tables, unknown = parse_pending(body, self._tables)
        if device_id is None:
            return self._marked_rows(identity.tenant_id, tables, unknown)
        if isinstance(body, dict) and body.get("cursor") is not None:
            return self.pull(identity, body, device_id)
        return self._rows_not_pulled(identity, tables, unknown, device_id)

    def _marked_rows(self, tenant_id: str, tables: Sequence[str], unknown: Sequence[str]) -> Iterator[bytes]:
        """Give the rows that are marked as pending."""
        here = self._tenants.read(tenant_id, positions.position)

        def rows(table: str, after: int, count: int) -> Chunk:
            """Read a chunk of a table's pending rows."""
            found = self._tenants.read(tenant_id, lambda: pull_reader.pending_rows(table, after, count))
            return self._counted(tenant_id, found)

        tail = {"syncTimestamp": format_time(here.clock), "cursor": here.cursor, "hasMore": False}
        tail |= unknown_table_errors(unknown)
        return _write(dict.fromkeys(tables, 0), unknown, rows, lambda: tail, self._yield_turn(tenant_id))

    def _rows_not_pulled(
        self, identity: Identity, tables: Sequence[str], unknown: Sequence[str], device_id: str
    ) -> Iterator[bytes]:
        """Give what a device has not pulled yet of each table, with every tombstone."""
        self._seen.try_to_save(identity.tenant_id)

        def plan() -> Page:
            """Decide the page from how far the device has pulled each table."""
            is_expired = expired_at(device_id) is not None
            pull = Pull(tables, None, self._limits.pull_rows, unknown_tables=unknown)
            return pull_reader.pending_page(reached(device_id, tables), pull, is_expired=is_expired)

        return self._answer(identity, device_id, plan)

    def _evidence(self, identity: Identity, device_id: str | None) -> Evidence:
        return self._seen.evidences.find(identity.tenant_id, device_id, identity.session_id, self._tenants.read)

    def _record(self, identity: Identity, device_id: str | None, page: Page) -> None:
        """Record what a device says that it has, and what it is sent."""
        tenant_id, now, before = identity.tenant_id, now_ms(), self._evidence(identity, device_id)
        self._seen.evidences.pulled(tenant_id, before, page, now)
        if device_id:  # A device that went back is told so until it takes another ID, even if this answer is lost.
            positions = {} if page.went_back else page.starts
            self._seen.note(tenant_id, device_id, positions, now, page.epoch, identity.session_id)
        is_from_start = page.claimed == 0 and (device_id or before.is_kept)  # An expired one is live again.
        if is_from_start or self._seen.evidences.is_due(tenant_id):
            self._seen.try_to_save(tenant_id)

    def _answer(self, identity: Identity, device_id: str | None, plan: Callable[[], Page]) -> Iterator[bytes]:
        """Give the chunks of an answer. The first rows are of the read that plans it; any other chunk is read on its own,
        so that no transaction stays open meanwhile.
        """
        tenant_id, may_have_moved = identity.tenant_id, False

        def begin() -> tuple[Page, dict[str, Chunk]]:
            """Plan the page and read its first rows."""
            page = plan()
            return page, pull_reader.first_rows(page, _FIRST_CHUNK_ROWS)

        page, first = self._tenants.read(tenant_id, begin)
        self._record(identity, device_id, page)

        def rows(table: str, after: int, count: int) -> Chunk:
            """Give a chunk of a table's rows on the page."""
            nonlocal may_have_moved
            chunk = first.pop(table, None)
            if chunk is None:
                may_have_moved = True
                chunk = self._tenants.read(tenant_id, lambda: pull_reader.rows_of(page, table, after, count))
            return self._counted(tenant_id, chunk)

        def tail() -> dict[str, Any]:
            """Say what the page is, once all of its rows were read."""
            if page.has_more or not may_have_moved:
                return _tail(page)
            has_moved_on = self._tenants.read(tenant_id, lambda: pull_reader.has_moved_on(page))
            return _tail(page._replace(has_more=True, digest=None) if has_moved_on else page)

        return _write(page.starts, page.unknown_tables, rows, tail, self._yield_turn(tenant_id))

    def _counted(self, tenant_id: str, chunk: Chunk) -> Chunk:
        """Count a chunk's rows as pulled."""
        self._quotas.usage.of(tenant_id).rows_pulled += chunk.count
        return chunk

    def _yield_turn(self, tenant_id: str) -> Callable[[], None]:
        return partial(self._quotas.scheduler.yield_turn, tenant_id)


def _tail(page: Page) -> dict[str, Any]:
    """Give what an answer says of itself."""
    tail: dict[str, Any] = {"syncTimestamp": page.sync_timestamp, "cursor": page.cursor, "hasMore": page.has_more}
    if page.is_complete:
        tail["complete"] = True
    if page.went_back:
        tail["wentBack"] = True
    if page.digest is not None:
        tail["digest"] = page.digest
    return tail | unknown_table_errors(page.unknown_tables)


def _write(
    starts: Mapping[str, int],
    unknown_tables: Sequence[str],
    rows: _ReadRows,
    tail: Callable[[], dict[str, Any]],
    yield_turn: Callable[[], None],
) -> Iterator[bytes]:
    """Write the answer of a pull around rows that are JSON already; other requests go on after each chunk."""
    lead = b'{"success":true,"data":{' + b"".join(encode(table) + b":[]," for table in unknown_tables)
    for table, since in starts.items():
        lead += encode(table) + b":["
        after, count = since, _FIRST_CHUNK_ROWS
        while (chunk := rows(table, after, count)).count:
            yield lead
            yield chunk.json
            after, lead = chunk.last, b","
            if chunk.is_end:
                break
            count = min(_MAX_CHUNK_ROWS, _CHUNK_BYTES * chunk.count // len(chunk.json) + 1)
            yield_turn()
        lead = b"]," if after > since else lead + b"],"
    yield (lead[:-1] if starts else lead) + b"}," + encode(tail())[1:]
