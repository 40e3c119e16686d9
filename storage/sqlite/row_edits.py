"""How many rows are changed at once in a SQLite file, in their JSON: ``storage.dialect.RowEdits``.

Knows: SQLite's functions on JSON, the columns that every synced table and the log of changes have. Must not know: why rows
are changed, files. SQLite edits JSON in place: a row's other fields keep their order and the spelling of their numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from models import connection
from protocol.codec import encode, format_time


def _path(name: str) -> str:
    return f'$."{name}"'


def field_of_rows(table: str, name: str) -> Iterator[tuple[int, str, int, str | None]]:
    """Give of each row its sequence, its id, whether it is deleted, and the JSON of a field; None if it has none."""
    yield from connection().execute(
        "SELECT e._seq, e.id, e.is_deleted, c.row -> ?"
        f' FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq ORDER BY e._seq',
        (_path(name),),
    )


def fill_field(table: str, name: str, value: str, *, replaces_null: bool) -> set[int]:
    """Set a field to a JSON value where rows have none, or null if it ``replaces_null``; give their sequences."""
    held = "coalesce(c.row -> ?1, 'null') = 'null'" if replaces_null else "c.row -> ?1 IS NULL"
    lacking = f'c.seq IN (SELECT e._seq FROM "{table}" AS e) AND {held}'
    found = {row[0] for row in connection().execute(f"SELECT c.seq FROM _changes AS c WHERE {lacking}", (_path(name),))}
    if found:
        filled = f"UPDATE _changes AS c SET row = json_set(c.row, ?1, json(?2)) WHERE {lacking}"
        connection().execute(filled, (_path(name), value))
    return found


def fill_column(table: str, name: str, *, is_json: bool) -> None:
    """Set a column to what the rows have in the field of its name, which is no unknown field any more."""
    held = "nullif(c.row -> ?1, 'null')" if is_json else "c.row ->> ?1"
    connection().execute(
        f'UPDATE "{table}" AS e SET "{name}" = (SELECT {held} FROM _changes AS c WHERE c.seq = e._seq),'
        " _extra = nullif(json_remove(e._extra, ?1), '{}')",
        (_path(name),),
    )


def keep_as_unknown(table: str, name: str) -> None:
    """Note what rows have in a field that has no column any more among their unknown fields."""
    connection().execute(
        f"UPDATE \"{table}\" AS e SET _extra = json_set(coalesce(e._extra, '{{}}'), ?1, json(c.row -> ?1))"
        " FROM _changes AS c WHERE c.seq = e._seq AND c.row -> ?1 IS NOT NULL",
        (_path(name),),
    )


def repeat_changes(table: str, after: int, at: int, sequences: Collection[int] | None) -> None:
    """Log for each row, in their order, a change of no field, with the next version."""
    chosen = "1" if sequences is None else "e.is_deleted = 0 AND e._seq IN (SELECT value FROM json_each(?5))"
    connection().execute(
        "INSERT INTO _changes"
        " (seq, table_name, row_id, version, previous_seq, committed_at, edited_at, fields, row, is_named)"
        " SELECT ?1 + row_number() OVER (ORDER BY e._seq), ?4, c.row_id, c.version + 1, c.seq, ?2, c.edited_at,"
        " '[]', json_set(c.row, '$.version', c.version + 1, '$.updatedAt', ?3), 0"
        f' FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq WHERE {chosen}',
        (after, at, format_time(at), table, *([] if sequences is None else [encode(sorted(sequences)).decode()])),
    )
