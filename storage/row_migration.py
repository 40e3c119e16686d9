"""How the rows of a synced table become what it is declared to be now, and how devices hear of it.

Knows: the statements that look at every row of a table, bound to one tenant by the caller. Must not know: Flask, sockets,
engines, which tables and columns are others than before (``schema``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from peewee import Field

from models import JsonField, SyncedTable, column_of, connection
from protocol.codec import Row, decode_stored, encode, format_time
from protocol.messages import Column
from storage.positions import place

UNFIT = "_unfit"
"""Field of a row that holds, by column, what the row had under that name and the column can't take."""

_WIDER = {
    ("date", "text"),
    ("time", "text"),
    ("timestamp", "text"),
    ("boolean", "integer"),
    ("boolean", "number"),
}
"""Changes of a type, from and to, after which every value still fits. Not every whole number is a number."""


def takes_all(was: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """Tell of a column, as it was described and is now, whether it takes every value that it took."""
    is_type = was["type"] == said["type"] or (was["type"], said["type"]) in _WIDER
    is_enum = not said["enum"] or (bool(was["enum"]) and set(was["enum"]) <= set(said["enum"]))
    return is_type and is_enum and (was["required"] or not said["required"])


def take_over(table: SyncedTable, field: Field) -> set[int]:
    """Fill a column of a synced table from its rows, each of which has it from here on.

    Gives the places of the rows that are not what devices have of them: a value was changed, put aside, or set by default.
    """
    name, column, path = field.column_name, column_of(field), f'$."{field.column_name}"'
    default, current = encode(column.default).decode(), f'c.seq IN (SELECT e._seq FROM "{table.name}" AS e)'
    changed = _make_fit(table.name, name, column)
    if column.default is not None:
        is_cleared = f"OR c.row -> '{path}' = 'null'" if name in table.rules.required else ""
        lacking = f"{current} AND (c.row -> '{path}' IS NULL {is_cleared})"
        changed |= {row[0] for row in connection().execute(f"SELECT c.seq FROM _changes AS c WHERE {lacking}")}
        connection().execute(
            f"UPDATE _changes AS c SET row = json_set(c.row, ?, json(?)) WHERE {lacking}", (path, default)
        )
    else:
        connection().execute(f"UPDATE _changes AS c SET row = json_insert(c.row, ?, NULL) WHERE {current}", (path,))
    held = "nullif(c.row -> ?, 'null')" if isinstance(field, JsonField) else "c.row ->> ?"
    connection().execute(
        f'UPDATE "{table.name}" AS e SET "{name}" = (SELECT {held} FROM _changes AS c WHERE c.seq = e._seq),'
        " _extra = nullif(json_remove(e._extra, ?), '{}')",
        (path, path),
    )
    return changed


def _make_fit(table: str, name: str, column: Column) -> set[int]:
    """Write what rows hold under a column's name as the column would; what it can't take is put aside, never dropped."""
    holding = connection().execute(
        f'SELECT c.seq FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        " WHERE coalesce(c.row -> ?, 'null') != 'null'",
        (f'$."{name}"',),
    )
    changed = set()
    for sequence in [found[0] for found in holding]:
        row = decode_stored(next(iter(connection().execute("SELECT row FROM _changes WHERE seq = ?", (sequence,))))[0])
        value = row[name]
        try:
            row[name] = column.check(value)
        except ValueError:
            _put_aside(table, sequence, row, name)
        if row.get(name) is not value:
            connection().execute("UPDATE _changes SET row = ? WHERE seq = ?", (encode(row).decode(), sequence))
        if row.get(name) != value:  # Else it is only written otherwise, 5.0 for 5.
            changed.add(sequence)
    return changed


def _put_aside(table: str, sequence: int, row: Row, name: str) -> None:
    aside = row.get(UNFIT)
    row[UNFIT] = {**(aside if isinstance(aside, dict) else {}), name: row.pop(name)}
    extra = f"json_set(coalesce(e._extra, '{{}}'), '$.{UNFIT}', json(?))"
    put = f'UPDATE "{table}" AS e SET _extra = {extra} WHERE e._seq = ?'
    connection().execute(put, (encode(row[UNFIT]).decode(), sequence))


def resend(table: SyncedTable, at: int, sequences: Collection[int] | None) -> None:
    """Let rows of a table come to every device that has pulled them before: each gets a change of its own in the log.

    ``sequences``: the places of these rows, of which tombstones need not come; None for all, tombstones too. Nobody edited
    them: a change says no field, and an edit made meanwhile on the version before meets nothing of it.
    """
    name, first = table.name, place().sequence
    chosen = "1" if sequences is None else "e.is_deleted = 0 AND e._seq IN (SELECT value FROM json_each(?5))"
    connection().execute(
        "INSERT INTO _changes"
        " (seq, table_name, row_id, version, previous_seq, committed_at, edited_at, fields, row, is_named)"
        " SELECT ?1 + row_number() OVER (ORDER BY e._seq), ?4, c.row_id, c.version + 1, c.seq, ?2, c.edited_at,"
        " '[]', json_set(c.row, '$.version', c.version + 1, '$.updatedAt', ?3), 0"
        f' FROM "{name}" AS e JOIN _changes AS c ON c.seq = e._seq WHERE {chosen}',
        (first, at, format_time(at), name, *([] if sequences is None else [encode(sorted(sequences)).decode()])),
    )
    connection().execute(
        f'UPDATE "{name}" AS e SET _seq = c.seq, version = c.version, "updatedAt" = ?1'
        " FROM _changes AS c WHERE c.seq > ?2 AND c.previous_seq = e._seq",
        (format_time(at), first),
    )
    connection().execute(
        "UPDATE _meta SET sequence = (SELECT max(?1, coalesce(max(c.seq), 0)) FROM _changes AS c), clock = ?2",
        (first, at),
    )
