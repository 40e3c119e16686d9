"""What each tenant used, by day in UTC: kept in the main database, added up over processes.

Knows: the table and the statements on it, bound by the caller to the directory. Must not know: who counts
(``server.usage``), when it is stored, the command line. Days are numbers, counted from 1970 on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from peewee import IntegerField, TextField

from models import Bound, JsonField, connection
from storage.dialect import dialect

ADDED = ("requests", "pushes", "rows_pushed", "rows_pulled", "bytes_in", "bytes_out")
ORDERS = (*ADDED, "most_sockets")
_COLUMNS = ", ".join(ORDERS)
_DAY_DIGITS = 5
_REMOVED_AT_ONCE = 500


class DailyUsage(Bound):
    """What one tenant used on one day. ``key`` is the day and the tenant, so that a day is one range of the table.

    ``sockets`` has by the name of each process how many were open there at once at the most; ``most_sockets`` is their sum.
    """

    key = TextField(primary_key=True)
    requests = IntegerField()
    pushes = IntegerField()
    rows_pushed = IntegerField()
    rows_pulled = IntegerField()
    bytes_in = IntegerField()
    bytes_out = IntegerField()
    most_sockets = IntegerField()
    sockets = JsonField()

    class Meta:
        table_name = "daily_usage"
        without_rowid = True


class Counted(Protocol):
    """What is added to a day (see ``server.usage.Counts``)."""

    requests: int
    pushes: int
    rows_pushed: int
    rows_pulled: int
    bytes_in: int
    bytes_out: int
    sockets: int


class Used(NamedTuple):
    """What a tenant used on a day, or on several: ``most_sockets`` is that of the day that had the most."""

    tenant_id: str
    requests: int = 0
    pushes: int = 0
    rows_pushed: int = 0
    rows_pulled: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    most_sockets: int = 0

    def plus(self, other: Used) -> Used:
        """Add another day of the same tenant."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in ADDED}
        return self._replace(**sums, most_sockets=max(self.most_sockets, other.most_sockets))


def _key(day: int, tenant_id: str) -> str:
    return f"{day:0{_DAY_DIGITS}}{tenant_id}"


def _used(key: str, *counts: int) -> Used:
    return Used(key[_DAY_DIGITS:], *counts)


# --- stored ----------------------------------------------------------------------------------------------------------


def add(day: int, counts: Mapping[str, Counted], process: str) -> None:
    """Add to a day what tenants used at one process; of a tenant that is no more, nothing.

    It is read before it is written: a write has the directory to itself, in all processes.
    """
    among = dialect().is_among
    listed = dialect().listed
    there = connection().execute(f"SELECT id FROM customers WHERE {among('id')}", (listed(counts),))
    tenant_ids = [str(row[0]) for row in there]
    keys = [_key(day, one) for one in tenant_ids]
    sql = f"SELECT key, {', '.join(ADDED)}, sockets FROM daily_usage WHERE {among('key')}"
    known = {str(key): values for key, *values in connection().execute(sql, (listed(keys),))}
    rows = [_sum(key, known.get(key), counts[one], process) for key, one in zip(keys, tenant_ids, strict=True)]
    connection().executemany(_UPSERT, rows)


_ALL = [str(field.column_name) for field in DailyUsage._meta.sorted_fields]
_UPSERT = (
    f"INSERT INTO daily_usage ({', '.join(_ALL)}) VALUES ({', '.join('?' * len(_ALL))}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _ALL[1:])
)


def _sum(key: str, known: list[Any] | None, new: Counted, process: str) -> tuple[str | int, ...]:
    """Make the row of a day, of what is known of it already and what is new."""
    *before, text = known or [*[0] * len(ADDED), "{}"]
    sockets: dict[str, int] = json.loads(text)
    if new.sockets > sockets.get(process, 0):
        sockets[process] = new.sockets
    sums = [count + getattr(new, name) for name, count in zip(ADDED, before, strict=True)]
    return key, *sums, sum(sockets.values()), json.dumps(sockets)


# --- read ------------------------------------------------------------------------------------------------------------


def usage_of(tenant_id: str, days: Iterable[int]) -> dict[int, Used]:
    """Give what a tenant used on each of some days; days without use are not there."""
    keys = [_key(day, tenant_id) for day in days]
    sql = f"SELECT key, {_COLUMNS} FROM daily_usage WHERE {dialect().is_among('key')} ORDER BY key"
    found = connection().execute(sql, (dialect().listed(keys),))
    return {int(key[:_DAY_DIGITS]): _used(key, *counts) for key, *counts in found}


def busiest(day: int, limit: int, order: str = "requests") -> list[Used]:
    """List the tenants that used most on a day, by one of ``ORDERS``."""
    if order not in ORDERS:
        raise ValueError(order)
    sql = f"SELECT key, {_COLUMNS} FROM daily_usage WHERE key >= ? AND key < ? ORDER BY {order} DESC, key LIMIT ?"
    return [_used(*row) for row in connection().execute(sql, (_key(day, ""), _key(day + 1, ""), limit))]


def usage_on(day: int) -> Iterator[Used]:
    """Give what each tenant used on a day."""
    sql = f"SELECT key, {_COLUMNS} FROM daily_usage WHERE key >= ? AND key < ? ORDER BY key"
    for row in connection().execute(sql, (_key(day, ""), _key(day + 1, ""))):
        yield _used(*row)


# --- removed ---------------------------------------------------------------------------------------------------------


def forget_tenant(tenant_id: str) -> None:
    """Remove what is known of a tenant that is no more."""
    ends = next(iter(connection().execute("SELECT min(key), max(key) FROM daily_usage")))
    if ends[0] is not None:
        first, last = (int(key[:_DAY_DIGITS]) for key in ends)
        keys = [_key(day, tenant_id) for day in range(first, last + 1)]
        sql = f"DELETE FROM daily_usage WHERE {dialect().is_among('key')}"
        connection().execute(sql, (dialect().listed(keys),))


def forget_before(day: int) -> bool:
    """Remove some of what is older than a day; tell whether there is more of it."""
    sql = "SELECT key FROM daily_usage WHERE key < ? ORDER BY key LIMIT ?"
    keys = [str(row[0]) for row in connection().execute(sql, (_key(day, ""), _REMOVED_AT_ONCE))]
    if keys:
        connection().execute(f"DELETE FROM daily_usage WHERE {dialect().is_among('key')}", (dialect().listed(keys),))
    return len(keys) == _REMOVED_AT_ONCE
