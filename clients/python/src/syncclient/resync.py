"""Starting anew from the server without losing what only this device has.

Knows: why a device starts anew, and what becomes then of rows that the server has not, or has otherwise. Must not know:
HTTP, how a page is pulled. A device starts anew with a null cursor and a new generation, over the rows that it holds;
when the last page is in, the rows of earlier generations are those that the server has no more. All of it is written in
the transactions of the pages, so that it goes on where a crash left it.

Why it started anew (``reason`` in the replica):
- ``missed``: deletions that the device missed are purged, or the digest did not fit. What the server has not is deleted.
- ``restored``: the server came back from a backup that may be older than this device. What the device holds is then worth
  as much as what the server has, and what it holds later goes back as edits, with the time when it was made and the
  version that it was: the server decides by its history, field by field, and keeps what loses.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

from . import records, rows
from .replica import get_meta, set_meta
from .wire import SERVER_FIELDS, Row, content_of

Reason = Literal["missed", "restored"]


def begin(connection: sqlite3.Connection, reason: Reason) -> None:
    """Start anew. That a server was restored stays true until the device has all of it."""
    before = get_meta(connection, "resync")
    generation = get_meta(connection, "generation") + 1
    worse = "restored" if "restored" in (before, reason) else reason
    if reason == "restored":
        records.leave_behind(connection)
    set_meta(connection, cursor=None, generation=generation, resync=worse)


def take_back(connection: sqlite3.Connection, table: str, row: Row, generation: int) -> None:
    """Queue what this device holds later than a restored server gives it, before that is stored over it."""
    held = rows.held(connection, table, row["id"])
    if held is None or _generation_of(connection, table, row["id"]) == generation:
        return
    ours, theirs = _content(held), _content(row)
    different = {name: ours.get(name) for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    if not different:
        return
    operation = "delete" if ours["is_deleted"] else "update"
    rows.queue(connection, table, row["id"], operation, different, _edited_at(held), _base(held, row), is_edit=False)


def _base(held: Row, row: Row) -> int:
    """Say what a row that goes back is based on.

    The server's row is older: it is from the backup, and ours grew out of it. It is newer with a higher version: it grew
    out of ours, or out of an ancestor, and its history tells. It is newer with no higher version: both grew apart, which
    is said with a version that it never had.
    """
    if row["updatedAt"] < held["updatedAt"]:
        return int(row["version"])
    if row["version"] > held["version"]:
        return int(held["version"])
    return int(held["version"]) + 1


def end(connection: sqlite3.Connection, reason: Reason, generation: int) -> list[tuple[str, str]]:
    """See to the rows that the server has no more, after the last page; give which."""
    gone = rows.of_earlier_generations(connection, generation)
    for table, row_id in gone:
        held = rows.held(connection, table, row_id)
        assert held is not None
        waits = rows.has_edits(connection, table, row_id)
        rows.forget(connection, table, row_id)
        if not held["is_deleted"] and (
            reason == "restored" or (waits and not _ends_deleted(connection, table, row_id))
        ):
            fields = content_of(held) | {"is_deleted": 0}
            rows.queue(connection, table, row_id, "create", fields, _edited_at(held), held["version"], is_edit=False)
    set_meta(connection, resync=None)
    return gone


def _ends_deleted(connection: sqlite3.Connection, table: str, row_id: str) -> bool:
    return rows.visible(connection, table, row_id) is None


def _generation_of(connection: sqlite3.Connection, table: str, row_id: str) -> int:
    sql = "SELECT generation FROM rows WHERE table_name = ? AND id = ?"
    return int(connection.execute(sql, (table, row_id)).fetchone()[0])


def _content(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in SERVER_FIELDS | {"last_updated", "device_id"}}


def _edited_at(held: Row) -> str:
    return str(held.get("last_updated") or held["updatedAt"])
