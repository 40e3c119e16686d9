"""How many rows are changed at once in PostgreSQL, in their JSON: ``storage.dialect.RowEdits``.

Knows: the columns that every synced table and the log of changes have. Must not know: why rows are changed, connections.

The JSON is edited here and not by PostgreSQL, whose ``jsonb`` keeps neither the order of fields nor how numbers are spelt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from models import connection
from protocol.codec import format_time

_AT_ONCE = 500

Fields = dict[str, msgspec.Raw]
"""A row's fields, each as it is written."""

_decode = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.encode


def _rows(table: str, more: str = "") -> Iterator[tuple[int, Fields, tuple[Any, ...]]]:
    """Give each row's sequence, its fields, and ``more`` columns of the table ``e`` or the log ``c``, in their order."""
    sql = (
        f'SELECT e._seq, c.row{more} FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        " WHERE e._seq > ? AND c.seq > ? ORDER BY e._seq LIMIT ?"
    )
    last = -1
    while found := connection().execute(sql, (last, last, _AT_ONCE)).fetchall():
        last = found[-1][0]
        for sequence, row, *others in found:
            yield sequence, _decode(row), tuple(others)


def _written(fields: Fields) -> str:
    return _encode(fields).decode()


def field_of_rows(table: str, name: str) -> Iterator[tuple[int, str, int, str | None]]:
    """Give of each row its sequence, its id, whether it is deleted, and the JSON of a field; None if it has none."""
    for sequence, fields, (row_id, is_deleted) in _rows(table, ", e.id, e.is_deleted"):
        held = fields.get(name)
        yield sequence, row_id, is_deleted, None if held is None else bytes(held).decode()


def fill_field(table: str, name: str, value: str, *, replaces_null: bool) -> set[int]:
    """Set a field to a JSON value where rows have none, or null if it ``replaces_null``; give their sequences."""
    filled = set()
    for sequence, fields, _ in _rows(table):
        held = fields.get(name)
        if held is None or (replaces_null and bytes(held) == b"null"):
            fields[name] = msgspec.Raw(value.encode())
            connection().execute("UPDATE _changes SET row = ? WHERE seq = ?", (_written(fields), sequence))
            filled.add(sequence)
    return filled


def fill_column(table: str, name: str, *, is_json: bool) -> None:
    """Set a column to what the rows have in the field of its name, which is no unknown field any more."""
    update = f'UPDATE "{table}" SET "{name}" = ?, _extra = ? WHERE _seq = ?'
    for sequence, fields, (extra,) in _rows(table, ", e._extra"):
        unknown = _decode(extra or "{}")
        unknown.pop(name, None)
        values = _stored(fields.get(name), is_json=is_json), _written(unknown) if unknown else None
        connection().execute(update, (*values, sequence))


def _stored(held: msgspec.Raw | None, *, is_json: bool) -> Any:
    """Give what a column holds for the JSON of a field."""
    if held is None or (text := bytes(held)) == b"null":
        return None
    value = msgspec.json.decode(text)
    if is_json or isinstance(value, list | dict):
        return text.decode()
    return int(value) if isinstance(value, bool) else value


def keep_as_unknown(table: str, name: str) -> None:
    """Note what rows have in a field that has no column any more among their unknown fields."""
    for sequence, fields, (extra,) in _rows(table, ", e._extra"):
        if name in fields:
            unknown = _decode(extra or "{}") | {name: fields[name]}
            connection().execute(f'UPDATE "{table}" SET _extra = ? WHERE _seq = ?', (_written(unknown), sequence))


_REPEAT = (
    "INSERT INTO _changes (seq, table_name, row_id, version, previous_seq, committed_at, edited_at, fields, row, is_named)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, '[]', ?, 0)"
)


def repeat_changes(table: str, after: int, at: int, sequences: Collection[int] | None) -> None:
    """Log for each row, in their order, a change of no field, with the next version."""
    chosen = None if sequences is None else frozenset(sequences)
    number, time = after, msgspec.Raw(_encode(format_time(at)))
    for sequence, fields, about in _rows(table, ", c.row_id, c.version, c.edited_at, e.is_deleted"):
        row_id, version, edited_at, is_deleted = about
        if chosen is None or (sequence in chosen and not is_deleted):
            number += 1
            fields |= {"version": msgspec.Raw(_encode(version + 1)), "updatedAt": time}
            values = number, table, row_id, version + 1, sequence, at, edited_at, _written(fields)
            connection().execute(_REPEAT, values)
