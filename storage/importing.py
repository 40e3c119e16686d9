"""Brings an export back: all of it into an empty tenant, or its rows into one that goes on, by the rules of a push.

Knows: the statements that fill a tenant, and what a row of another database is here, bound to one tenant by the caller.
Must not know: archives, the command line, Flask, sockets, engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from models import connection, synced_tables
from protocol.codec import Row, decode_stored, encode, format_time
from protocol.messages import EDIT_FIELDS, SERVER_FIELDS, StoredRow
from storage import digest
from storage.merge_base import rows_where
from storage.positions import now_ms
from storage.push_batch import INSERT_LOGGED, insert_row
from storage.rewind import values_of
from storage.system_tables import Conflict, Device

_AT_ONCE = 500
NEVER = 0
"""Stands for a change before a row's first one that is held: no change has this sequence."""

ELSEWHERE = 2**53 - 1
"""A base that no row here has: so an edit is merged as one that was made in another database (``merge_base``)."""


class LogEntry(NamedTuple):
    """A change as the log has it; ``row`` as the table takes it now."""

    sequence: int
    table: str
    id: str
    version: int
    previous: int | None
    committed_at: int
    edited_at: int
    device_id: str | None
    fields: Sequence[str] | None
    row: Row


# --- all of it, into an empty tenant ---------------------------------------------------------------------------------


def fill(entries: Iterable[LogEntry], conflicts: Iterable[Row], devices: Iterable[Row]) -> None:
    """Fill an empty tenant with a history, in the order of its changes, and with what comes with it."""
    newest: dict[tuple[str, str], int] = {}
    known, purged_until, purged_at, clock = 0, 0, 0, 0
    entries = iter(entries)
    while some := list(islice(entries, _AT_ONCE)):
        connection().executemany(INSERT_LOGGED, [_logged(entry) for entry in some])
        for entry in some:
            newest[entry.table, entry.id] = entry.sequence
            if entry.sequence > known + 1:  # What is not held may have been a deletion.
                purged_until, purged_at = entry.sequence - 1, clock
            known, clock = entry.sequence, entry.committed_at
    _fill_tables(newest)
    connection().execute(
        "UPDATE _meta SET sequence = ?, clock = ?, purged_until = ?, purged_at = ?",
        (known, max(clock, now_ms()), purged_until, purged_at),
    )
    for conflict in conflicts:
        Conflict.create(**conflict)
    for device in devices:
        Device.create(**device)


def _logged(entry: LogEntry) -> tuple[Any, ...]:
    about = entry.version, entry.previous, entry.committed_at, entry.edited_at, entry.device_id
    fields = None if entry.fields is None else encode(entry.fields).decode()
    return entry.sequence, entry.table, entry.id, *about, fields, encode(entry.row).decode(), 0, None


def _fill_tables(newest: Mapping[tuple[str, str], int]) -> None:
    """Make the rows of their newest changes."""
    differences = {name: digest.Difference() for name in synced_tables()}
    sql = connection()
    for (name, _), sequence in newest.items():
        (text,) = sql.execute("SELECT row FROM _changes WHERE seq = ?", (sequence,)).fetchone()
        row, table = decode_stored(text), synced_tables()[name]
        stored = StoredRow(row, row["version"], sequence, 0)
        sql.execute(insert_row(name, table.columns), values_of(table, stored))
        differences[name].replace(None, stored)
    for name, difference in differences.items():
        digest.change(name, difference)


# --- its rows, into a tenant that goes on ----------------------------------------------------------------------------


class Incoming(NamedTuple):
    """A row of another database: what it is there, and when it was edited last."""

    table: str
    row: Row
    edited_at: int


def incoming(after: int, count: int) -> tuple[list[Incoming], int]:
    """Read some rows of the bound database in the order of their changes after one, and tell where that ended."""
    found: list[tuple[int, str, str, int]] = []
    for name in synced_tables():
        page = (
            f'SELECT c.seq, c.table_name, c.row, c.edited_at FROM "{name}" AS e JOIN _changes AS c ON c.seq = e._seq'
            " WHERE e._seq > ? ORDER BY e._seq LIMIT ?"
        )
        found += connection().execute(page, (after, count)).fetchall()
    some = sorted(found)[:count]
    rows = [Incoming(name, decode_stored(row), edited_at) for _, name, row, edited_at in some]
    return rows, some[-1][0] if some else after


def operations_of(rows: Sequence[Incoming]) -> list[Row]:
    """Write rows of another database as operations of a push to the bound one.

    A row is the one here that has its id, unless both have other ``Unique_id``: then it is the one with its own, or a new
    one, since devices count up to the same ids. That is how the rows of a push are found (``row_identity``).
    """
    here: dict[tuple[str, str], Row] = {}
    by_name: dict[tuple[str, str], str] = {}
    for table in {one.table for one in rows}:
        own = [one.row for one in rows if one.table == table]
        here |= {(table, row["id"]): row for row, _ in _found(table, "id", [row["id"] for row in own])}
        named = _found(table, "Unique_id", [row["Unique_id"] for row in own if row.get("Unique_id")])
        for row, name in sorted(named, key=lambda pair: (pair[0]["is_deleted"], pair[0]["id"]), reverse=True):
            by_name[table, name] = row["id"]
    found = ((one, _id_here(one, here, by_name)) for one in rows)
    return [_operation(one, row_id) for one, row_id in found if row_id or not one.row["is_deleted"]]


def _found(table: str, column: str, values: Sequence[str]) -> list[tuple[Row, str]]:
    rows = rows_where(table, column, values) if values else ()
    return [(decode_stored(body), value) for _, body, *_, value in rows]


def _id_here(one: Incoming, here: Mapping[tuple[str, str], Row], by_name: Mapping[tuple[str, str], str]) -> str | None:
    name, same = one.row.get("Unique_id"), here.get((one.table, one.row["id"]))
    if not name or (same is not None and same.get("Unique_id") in (None, "", name)):
        return str(one.row["id"])
    return by_name.get((one.table, name), None if same else str(one.row["id"]))


def _operation(one: Incoming, row_id: str | None) -> Row:
    sent = SERVER_FIELDS if not one.row["is_deleted"] else one.row.keys() - EDIT_FIELDS
    data = {name: value for name, value in one.row.items() if name not in sent}
    about = {"table": one.table, "timestamp": format_time(one.edited_at)}
    if row_id is None:
        return {**about, "operation": "create", "data": data}
    kind = "delete" if one.row["is_deleted"] else "update"
    return {**about, "operation": kind, "data": {"id": row_id, **data}, "baseVersion": ELSEWHERE}
