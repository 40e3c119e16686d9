"""What a tenant has, in a few numbers: for the operator's lists.

Knows: the statements that count, bound to one tenant by the caller; each reads a few rows, however many the tenant has.
Must not know: whose it is, engines, how the numbers are shown.
"""

from __future__ import annotations

from typing import NamedTuple

from models import connection
from storage.dialect import dialect
from storage.positions import position


class Summary(NamedTuple):
    """Rows that are not deleted, by table; devices that name themselves; times in milliseconds, None if there was none.

    ``size_bytes`` is what ``disk_quota`` counts: with history and what was deleted.
    """

    size_bytes: int
    rows: dict[str, int]
    devices: int
    last_seen_at: int | None
    sequence: int
    changed_at: int | None
    open_conflicts: int


def summary() -> Summary:
    """Sum a tenant up."""
    sql, here = connection(), position()
    rows = {str(table): int(count) for table, count in sql.execute("SELECT table_name, count FROM _digests")}
    devices, seen_at = sql.execute("SELECT count(*), max(last_seen_at) FROM _devices").fetchone()
    (conflicts,) = sql.execute("SELECT count(*) FROM _conflicts WHERE state = ?", ("open",)).fetchone()
    size_bytes, changed_at = -dialect().spare_bytes(0), here.clock if here.sequence else None
    return Summary(size_bytes, rows, devices, seen_at, here.sequence, changed_at, conflicts)
