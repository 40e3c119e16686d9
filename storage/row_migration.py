"""Brings the rows of a synced table to its current declaration, and has devices pull those that changed.

Knows: the statements that look at every row of a table, bound to one tenant by the caller. Must not know: Flask, sockets,
engines, which tables and columns are others than before (``schema``).

A value that a new column can't hold goes to the row's ``_unfit``. Refusing it would let one tenant's data keep a column
from all, and leaving it would give clients a value of another type than declared. A row that is altered so gets an entry
in the log, of no field and by nobody, which reaches devices whose cursor has passed the row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from peewee import Field

from models import JsonField, SyncedTable, column_of, connection
from protocol.codec import Row, decode_stored, encode, format_time
from protocol.messages import Column
from storage.dialect import dialect
from storage.positions import position

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


def takes_all(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell of a column, as it was described and is now, whether it takes every value that it took."""
    is_type = was["type"] == now["type"] or (was["type"], now["type"]) in _WIDER
    is_enum = not now["enum"] or (bool(was["enum"]) and set(was["enum"]) <= set(now["enum"]))
    return is_type and is_enum and (was["required"] or not now["required"])


def take_over(table: SyncedTable, field: Field) -> set[int]:
    """Fill a column of a synced table from its rows, each of which has it from here on.

    Gives the sequences of the rows that devices have otherwise: a value was changed, put aside, or set by default.
    """
    name, column, edits = field.column_name, column_of(field), dialect().rows
    changed = _make_fit(table.name, name, column)
    has_default = column.default is not None
    replaces_null = has_default and name in table.rules.required
    filled = edits.fill_field(table.name, name, encode(column.default).decode(), replaces_null=replaces_null)
    edits.fill_column(table.name, name, is_json=isinstance(field, JsonField))
    return changed | filled if has_default else changed


def _make_fit(table: str, name: str, column: Column) -> set[int]:
    """Write what rows hold under a column's name as the column would; what it can't take is put aside, never dropped."""
    fields = dialect().rows.field_of_rows(table, name)
    holding = [sequence for sequence, _, _, value in fields if value not in (None, "null")]
    changed = set()
    for sequence in holding:
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
    (extra,) = connection().execute(f'SELECT e._extra FROM "{table}" AS e WHERE e._seq = ?', (sequence,)).fetchone()
    unknown = encode({**decode_stored(extra or "{}"), UNFIT: row[UNFIT]}).decode()
    connection().execute(f'UPDATE "{table}" AS e SET _extra = ? WHERE e._seq = ?', (unknown, sequence))


def resend(table: SyncedTable, at: int, sequences: Collection[int] | None) -> None:
    """Let rows of a table come to every device that has pulled them before: each gets a change of its own in the log.

    ``sequences``: those of these rows, of which tombstones need not come; None for all, tombstones too. Nobody edited
    them: a change names no field, so that an edit made meanwhile on the version before has no conflict with it.
    """
    sql, first = connection(), position().sequence
    dialect().rows.repeat_changes(table.name, first, at, sequences)
    sql.execute(
        f'UPDATE "{table.name}" AS e SET _seq = c.seq, version = c.version, "updatedAt" = ?'
        " FROM _changes AS c WHERE c.seq > ? AND c.previous_seq = e._seq",
        (format_time(at), first),
    )
    (latest,) = sql.execute("SELECT max(seq) FROM _changes").fetchone()
    sql.execute("UPDATE _meta SET sequence = ?, clock = ?", (max(first, latest or 0), at))
