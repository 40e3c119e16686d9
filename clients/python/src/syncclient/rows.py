"""Stores rows, and the edits of them that the server has not answered yet.

Knows: how an edit is queued, how unsent edits cover the server's rows, how rows are read. Must not know: HTTP, when
anything is sent. Every function runs inside a transaction of the caller's, so that a row and its outbox never differ.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .wire import SERVER_FIELDS, Row, encode

_VISIBLE, _OF_ROW = "coalesce(local, server)", "table_name = ? AND row_id = ?"

SEEN, EARLIER = 2_147_483_647, 2_147_483_646
"""Versions that no row has: the base of an edit of a row from before a restore. An edit that saw the row which this device
gives back (``SEEN``) is based on that, once it is answered; one of before (``EARLIER``) is settled with it by time."""


class Edit(NamedTuple):
    """An edit in the outbox, as it is sent."""

    seq: int
    op_id: str
    table: str
    row_id: str
    operation: str
    fields: Row
    timestamp: str
    base_version: int
    is_edit: bool

    @property
    def opens(self) -> bool:
        """Tell whether it may make its row, so that edits after it make no sense without it."""
        return self.operation == "create" or not self.is_edit


def visible(connection: sqlite3.Connection, table: str, row_id: str) -> Row | None:
    """Give a row as the app sees it, None if there is none or it is deleted."""
    sql = f"SELECT {_VISIBLE} FROM rows WHERE table_name = ? AND id = ? AND is_hidden = 0"
    found = connection.execute(sql, (table, row_id)).fetchone()
    return json.loads(found[0]) if found else None


def visible_rows(connection: sqlite3.Connection, table: str, equals: Mapping[str, Any]) -> list[Row]:
    """Give the rows of a table as the app sees them, those whose fields equal the given ones, in the order of ids."""
    wanted = "".join(f" AND json_extract({_VISIBLE}, ?) IS ?" for _ in equals)
    sql = f"SELECT {_VISIBLE} FROM rows WHERE table_name = ? AND is_hidden = 0{wanted} ORDER BY id"
    values = [value for name, one in equals.items() for value in (f'$."{name}"', one)]
    return [json.loads(text) for (text,) in connection.execute(sql, (table, *values))]


def put(connection: sqlite3.Connection, table: str, row_id: str, fields: Row, timestamp: str) -> Row:
    """Create a row, or change fields of one; what changes nothing is no edit. Give the row as the app sees it now.

    A row that was read a while ago says by its ``version`` what its reader saw: what came since is not undone untold.
    """
    before = visible(connection, table, row_id)
    told = {name: value for name, value in fields.items() if name not in SERVER_FIELDS}
    read = _read_version(before, fields)
    if before is None:
        queue(connection, table, row_id, "create", told | {"is_deleted": 0}, timestamp)
    else:
        changed = {name: value for name, value in told.items() if name not in before or not _same(before[name], value)}
        if changed:
            queue(connection, table, row_id, "update", changed, timestamp, read)
    return visible(connection, table, row_id) or {}


def _read_version(before: Row | None, fields: Row) -> int | None:
    """Give the version that a row was read at, None if it is that of the row now, or not said."""
    version = fields.get("version")
    if before is None or type(version) is not int or version < 0 or version == before["version"]:
        return None
    return version if version < before["version"] else EARLIER  # Read before a restore.


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values say the same; a flag may be 0 or false, but within JSON these are two things."""
    if isinstance(one, dict | list) and isinstance(other, dict | list):
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    return bool(one == other)


def delete(connection: sqlite3.Connection, table: str, row_id: str, timestamp: str) -> None:
    """Delete a row; one that is not there stays so."""
    if visible(connection, table, row_id) is not None:
        queue(connection, table, row_id, "delete", {"is_deleted": 1}, timestamp)


def queue(
    connection: sqlite3.Connection,
    table: str,
    row_id: str,
    operation: str,
    fields: Row,
    timestamp: str,
    base_version: int | None = None,
    is_edit: bool = True,
) -> None:
    """Put an edit into the outbox and lay it over its row.

    It is based on the version that the server gave last, 0 if the server never gave the row. What is no edit of a
    person's (``is_edit``) goes ahead of all that are.
    """
    if base_version is None:
        base_version = _base_version(connection, table, row_id)
    values = (is_edit, uuid.uuid4().hex, table, row_id, operation, encode(fields), timestamp, base_version)
    columns = "is_edit, op_id, table_name, row_id, operation, fields, timestamp, base_version"
    connection.execute(f"INSERT INTO outbox ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    if is_edit:  # The last of all: it lies over what is seen already, however many edits that is.
        _show(connection, table, row_id, _laid(_seen(connection, table, row_id), fields, timestamp))
    else:
        lay_over(connection, table, row_id)


def _base_version(connection: sqlite3.Connection, table: str, row_id: str) -> int:
    if connection.execute(f"SELECT 1 FROM outbox WHERE {_OF_ROW} AND is_edit = 0", (table, row_id)).fetchone():
        return SEEN
    found = connection.execute("SELECT version FROM rows WHERE table_name = ? AND id = ?", (table, row_id)).fetchone()
    return int(found[0]) if found else 0


def rebase(
    connection: sqlite3.Connection, table: str, row_id: str, held: int, seen: int, grew_out_of: int | None
) -> None:
    """Base the edits that wait on versions of a restored database, under new names: the backup may know the old ones.

    ``held``: the version that the row had; ``seen``: what an edit is based on that saw it. One that saw less saw the
    version that the row ``grew_out_of``, if it is known, or an earlier one.
    """
    connection.execute(
        "UPDATE outbox SET op_id = lower(hex(randomblob(16))), base_version = CASE WHEN base_version = :held THEN :seen"
        " WHEN :grew_out_of IS NULL THEN :earlier ELSE min(base_version, :grew_out_of) END"
        " WHERE table_name = :table AND row_id = :row_id AND base_version BETWEEN 1 AND :earlier - 1",
        {"held": held, "seen": seen, "grew_out_of": grew_out_of, "earlier": EARLIER, "table": table, "row_id": row_id},
    )


def settle_seen(connection: sqlite3.Connection, table: str, row_id: str, version: int) -> None:
    """Base the edits that saw a row which this device gave back on the version that it has now."""
    connection.execute(
        f"UPDATE outbox SET base_version = ? WHERE {_OF_ROW} AND base_version = ?", (version, table, row_id, SEEN)
    )


def follow(connection: sqlite3.Connection, table: str, from_id: str, to_id: str, version: int) -> None:
    """Have the edits of a row follow it to the id that the server gave it, based on the version that it has there."""
    connection.execute(
        f"UPDATE outbox SET row_id = ?, base_version = ? WHERE {_OF_ROW}", (to_id, version, table, from_id)
    )


def fold(connection: sqlite3.Connection, refused: Edit) -> bool:
    """Take the updates that wait right after a refused edit into it, under a new name; tell whether there are any."""
    following = []
    for edit in _edits(connection, f"WHERE {_OF_ROW}", (refused.table, refused.row_id, -1)):
        if edit.op_id != refused.op_id:
            if edit.operation != "update":
                break
            following.append(edit)
    if not following:
        return False
    fields = {name: value for name, value in refused.fields.items() if name != "last_updated"}
    for edit in following:
        fields |= edit.fields
        remove_edit(connection, edit)
    values = (uuid.uuid4().hex, encode(fields), following[-1].timestamp, refused.op_id)
    connection.execute("UPDATE outbox SET op_id = ?, fields = ?, timestamp = ? WHERE op_id = ?", values)
    return True


def edits(connection: sqlite3.Connection, limit: int = -1) -> list[Edit]:
    """Give the edits that wait, in the order in which they are sent."""
    return list(_edits(connection, "", (limit,)))


def count_edits(connection: sqlite3.Connection) -> int:
    """Count the edits that wait."""
    return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])


def _edits(connection: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> Iterator[Edit]:
    columns = "seq, op_id, table_name, row_id, operation, fields, timestamp, base_version, is_edit"
    found = connection.execute(f"SELECT {columns} FROM outbox {where} ORDER BY is_edit, seq LIMIT ?", values)
    for seq, op_id, table, row_id, operation, fields, timestamp, base_version, is_edit in found.fetchall():
        yield Edit(seq, op_id, table, row_id, operation, json.loads(fields), timestamp, base_version, bool(is_edit))


def remove_edit(connection: sqlite3.Connection, edit: Edit) -> None:
    """Take an edit that was answered out of the outbox; the caller lays the others over its row anew."""
    connection.execute("DELETE FROM outbox WHERE op_id = ?", (edit.op_id,))


def lay_over(connection: sqlite3.Connection, table: str, row_id: str) -> None:
    """Make a row what the app sees: as the server gave it, with the edits that wait laid over; gone if neither is there."""
    server = held(connection, table, row_id)
    waiting = list(_edits(connection, f"WHERE {_OF_ROW}", (table, row_id, -1)))
    if server is None and not waiting:
        connection.execute("DELETE FROM rows WHERE table_name = ? AND id = ?", (table, row_id))
        return
    row = server or _unknown(row_id)
    for edit in waiting:
        row = _laid(row, edit.fields, edit.timestamp)
    _show(connection, table, row_id, row, is_local=bool(waiting))


def _seen(connection: sqlite3.Connection, table: str, row_id: str) -> Row:
    sql = f"SELECT {_VISIBLE} FROM rows WHERE table_name = ? AND id = ?"
    found = connection.execute(sql, (table, row_id)).fetchone()
    return json.loads(found[0]) if found else _unknown(row_id)


def _unknown(row_id: str) -> Row:
    return {"id": row_id, "version": 0, "is_deleted": 0}


def _laid(row: Row, fields: Row, timestamp: str) -> Row:
    return row | fields | {"last_updated": timestamp, "sync_status": "pending"}


def _show(connection: sqlite3.Connection, table: str, row_id: str, row: Row, is_local: bool = True) -> None:
    connection.execute(
        "INSERT INTO rows (table_name, id, local, is_hidden) VALUES (:table, :id, :local, :is_hidden)"
        " ON CONFLICT DO UPDATE SET local = :local, is_hidden = :is_hidden",
        {
            "table": table,
            "id": row_id,
            "local": encode(row) if is_local else None,
            "is_hidden": bool(row["is_deleted"]),
        },
    )


def store(connection: sqlite3.Connection, table: str, row: Row, generation: int) -> bool:
    """Store a row as the server gave it, under the edits that wait; give whether it is new to us.

    The server's ``updatedAt`` rises with every commit, so that an answer that came late can be told.
    """
    row_id = row["id"]
    sql = "SELECT server, generation FROM rows WHERE table_name = ? AND id = ?"
    held, held_generation = connection.execute(sql, (table, row_id)).fetchone() or (None, None)
    is_late = held and held_generation == generation and json.loads(held)["updatedAt"] > row["updatedAt"]
    if is_late:
        return False
    text, is_tombstone = encode(row), bool(row.get("is_deleted"))
    connection.execute(
        "INSERT INTO rows (table_name, id, server, version, is_tombstone, is_hidden, generation)"
        " VALUES (:table, :id, :server, :version, :is_tombstone, :is_tombstone, :generation) ON CONFLICT DO UPDATE"
        " SET server = :server, version = :version, is_tombstone = :is_tombstone, generation = :generation,"
        " is_hidden = iif(local IS NULL, :is_tombstone, is_hidden)",
        {"table": table, "id": row_id, "server": text, "version": row["version"]}
        | {"is_tombstone": is_tombstone, "generation": generation},
    )
    return text != held


def held(connection: sqlite3.Connection, table: str, row_id: str) -> Row | None:
    """Give a row as the server last gave it, tombstones too."""
    found = connection.execute("SELECT server FROM rows WHERE table_name = ? AND id = ?", (table, row_id)).fetchone()
    return json.loads(found[0]) if found and found[0] else None


def forget(connection: sqlite3.Connection, table: str, row_id: str) -> None:
    """Forget what the server gave of a row that it has no more; edits that wait stay."""
    connection.execute(
        "UPDATE rows SET server = NULL, version = 0, is_tombstone = 0 WHERE table_name = ? AND id = ?", (table, row_id)
    )
    lay_over(connection, table, row_id)


def of_earlier_generations(connection: sqlite3.Connection, table: str, generation: int) -> list[str]:
    """List the rows of a table that its latest first pull did not give."""
    sql = "SELECT id FROM rows WHERE table_name = ? AND generation < ? AND server IS NOT NULL"
    return [row_id for (row_id,) in connection.execute(sql, (table, generation))]


def generation_of(connection: sqlite3.Connection, table: str, row_id: str) -> int:
    """Give the first pull, of all of its table, that gave a row last."""
    sql = "SELECT generation FROM rows WHERE table_name = ? AND id = ?"
    return int(connection.execute(sql, (table, row_id)).fetchone()[0])


def has_edits(connection: sqlite3.Connection, table: str, row_id: str) -> bool:
    """Tell whether edits of a row wait."""
    sql = f"SELECT 1 FROM outbox WHERE {_OF_ROW}"
    return connection.execute(sql, (table, row_id)).fetchone() is not None


def ids_and_versions(connection: sqlite3.Connection, table: str) -> list[tuple[str, int]]:
    """List what a table's digest is made of."""
    sql = "SELECT id, version FROM rows WHERE table_name = ? AND server IS NOT NULL AND is_tombstone = 0"
    return connection.execute(sql, (table,)).fetchall()
