"""Push and pull in this process, without a server: what ``sync`` does between the request and the disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent

from models import synced_tables
from protocol.messages import Limits, PushResult, Strategy, Table
from protocol.pull_parser import parse_pull
from protocol.push_parser import parse_push
from protocol.seen_rows import NOBODY, Evidence
from storage import positions, pull_reader, push_writer
from storage.look_ahead import first_wanted
from storage.positions import now_ms
from tenants import Tenants
from tests.conftest import JSON

LIMITS = Limits(push_rows=10_000, pull_rows=10_000, row_bytes=65_536, name_characters=64)
SKEW_MS = 300_000


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run in a greenlet each, and give what each gave or raised."""
    greenlets = [gevent.spawn(caught, work) for work in works]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def caught(work: Callable[[], Any]) -> Any:
    """Give what it gives or raises."""
    try:
        return work()
    except Exception as error:
        return error


def tables() -> dict[str, Table]:
    return {name: table.rules for name, table in synced_tables().items()}


def push(
    tenants: Tenants,
    tenant_id: str,
    body: JSON,
    now: int | None = None,
    strategy: Strategy = "merge",
    after: Callable[[PushResult], None] | None = None,
    device_id: str | None = None,
    evidence: Evidence = NOBODY,
    around: Callable[[Callable[[], PushResult]], PushResult] = lambda write: write(),
) -> PushResult:
    """Push at the time ``now``; like the server's, it lets others run between its rows."""
    at = now_ms() if now is None else now
    parsed = parse_push(body, tables(), LIMITS, at, device_id, evidence)

    def write() -> PushResult:
        return push_writer.apply(parsed, LIMITS.row_bytes, at, lambda: gevent.sleep(0), strategy)

    return tenants.write(tenant_id, lambda: around(write), after, ahead=partial(first_wanted, parsed))


def seen_all(tenants: Tenants, tenant_id: str, session: str | None = "session") -> Evidence:
    """Give the evidence of a device that has said that it has everything."""
    here = tenants.read(tenant_id, positions.position)
    return Evidence("it", session, here.epoch, known=dict.fromkeys(tables(), here.sequence))


def pull(tenants: Tenants, tenant_id: str, body: JSON, now: int | None = None) -> JSON:
    """Pull at the time ``now``, with the answer of the endpoint; the rows of each table are read in chunks of 7."""
    parsed = parse_pull(body, tables(), LIMITS)
    at = now_ms() if now is None else now
    page = tenants.read(tenant_id, lambda: pull_reader.page_of(parsed, at, SKEW_MS))
    data: dict[str, list[Any]] = {}
    for table in page.tables:
        after, found = page.since, data.setdefault(table, [])
        while (some := tenants.read(tenant_id, lambda: pull_reader.rows_of(page, table, after, 7))).count:
            found += some.rows()
            after = some.last
            gevent.sleep(0)
    return {"data": data, "cursor": page.cursor, "syncTimestamp": page.sync_timestamp, "hasMore": page.has_more}


def rows(tenants: Tenants, tenant_id: str, table: str = "end_user") -> list[JSON]:
    """All rows of a table, tombstones not among them."""
    found: list[JSON] = pull(tenants, tenant_id, {"table": table})["data"][table]
    return found
