"""How a database becomes what this version needs, be it empty or of an older version.

Knows: tables, columns and how to add what is missing. Must not know: Flask, sockets, engines, whose database it is.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from functools import cache

from peewee import Field

import digest
from models import (
    Bound,
    JsonField,
    SyncedTable,
    column_of,
    connection,
    database,
    synced_tables,
)
from protocol import Column
from records import Conflict, Device, KeptAnswer, Ledger, Logged, Receipt, SeenRows, TableDigest
from wire import Row, decode_stored, encode


def fingerprint(models: Sequence[type[Bound]]) -> int:
    """Give a number that changes with any table or column of ``models``, for a quick look at opening."""
    text = ";".join(f"{m._meta.table_name}({_ddl(m)}){getattr(m._meta, 'indexed', ())}" for m in models)
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def _ddl(model: type[Bound]) -> str:
    return ",".join(f"{f.column_name} {f.field_type} {f.null} {f.default}" for f in model._meta.sorted_fields)


@cache
def tenant_fingerprint() -> int:
    """Give the fingerprint of a tenant's schema in this version."""
    return fingerprint(tenant_models())


def is_current() -> bool:
    """Tell whether the tenant this code is bound to needs nothing."""
    return bool(connection().pragma("user_version") == tenant_fingerprint())


def tenant_models() -> list[type[Bound]]:
    """List every table of a tenant's database."""
    return [
        Ledger,
        Logged,
        Conflict,
        Receipt,
        KeptAnswer,
        Device,
        SeenRows,
        TableDigest,
        *(table.model for table in synced_tables().values()),
    ]


def prepare_tenant() -> None:
    """Make a tenant's database of an older version what this version needs.

    No row loses anything, so that an older version can still read what a newer one wrote: tables stay, and a column that
    this version does not know stays in the rows as an unknown field. Else rows written by this version would lack it.
    Raises: LookupError for a file that was never begun: its devices would take it for the end of all rows.
    """
    if not database.table_exists(Ledger._meta.table_name) or not Ledger.select().exists():
        raise LookupError("this is no tenant's database")
    lay_out_tenant()


def lay_out_tenant() -> None:
    """Make a tenant's tables what this version needs, in an empty database all of them."""
    for table in synced_tables().values():
        _clear_way(table)
    add_missing(tenant_models())
    for table in synced_tables().values():
        _add_indexes(table)
    digest.add_missing(synced_tables().values())


def begin_tenant(now: int) -> None:
    """Begin a tenant's order of commits, in tables that are laid out."""
    Ledger.create(id=1, epoch=secrets.token_hex(6), sequence=0, clock=now)


def add_missing(models: Sequence[type[Bound]]) -> None:
    """Create the tables that are missing, and in the others the columns that are."""
    for model in models:
        name = model._meta.table_name
        present = columns_of(name)
        if not present:
            model.create_table()
            continue
        for field in model._meta.sorted_fields:
            if field.column_name not in present:
                _add_column(name, field)


def columns_of(table: str) -> dict[str, str]:
    """Give the types of a table's columns by their names; none of a table that is not there.

    SQLite's PRAGMA alone tells of its virtual tables too, such as ``dbstat``, until there is a table of that name.
    """
    if not any(connection().execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,))):
        return {}
    return {name: kind for _, name, kind, *_ in connection().execute(f'PRAGMA table_info("{table}")')}


def _add_column(table: str, field: Field) -> None:
    """Add a column; in a synced table it takes over what rows already hold under its name, else its default."""
    name = field.column_name
    connection().execute(f'ALTER TABLE "{table}" ADD COLUMN "{name}" {_kind_of(field)}')
    if table in synced_tables():
        _take_over(synced_tables()[table], field)
    elif field.default is not None:
        connection().execute(f'UPDATE "{table}" SET "{name}" = ?', (field.default,))


def _kind_of(field: Field) -> str:
    return str(database._field_types.get(field.field_type, field.field_type))


# --- synced tables ---------------------------------------------------------------------------------------------------

UNFIT = "_unfit"
"""Field of a row that holds, by column, what the row had under that name and the column can't take."""


def _clear_way(table: SyncedTable) -> None:
    """Take away what a synced table has no more: columns, which stay in the rows as fields that it does not know, and
    indexes. A column whose type is another now goes too, to come back with what the rows hold."""
    present = columns_of(table.name)
    if not present:
        return None
    wanted = {index_name(table.name, columns) for columns in table.indexed}
    kinds = {field.column_name: _kind_of(field) for field in table.model._meta.sorted_fields}
    going = [name for name, kind in present.items() if kinds.get(name, "").split(" ")[0] != kind.split(" ")[0]]
    for index, columns in _indexes_of(table.name).items():
        if (index.startswith(_INDEX) and index not in wanted) or not set(going).isdisjoint(columns):
            connection().execute(f'DROP INDEX "{_quoted(index)}"')
    coming = kinds.keys() - present.keys()
    if not _ROWID_NAMES.isdisjoint(map(str.casefold, [*going, *coming])):
        return _rebuild(table, [name for name in present if name not in going], going)
    for name in going:
        connection().execute(f'ALTER TABLE "{table.name}" DROP COLUMN "{_quoted(name)}"')
        if name not in kinds:
            _keep_as_unknown(table.name, name)
    return None


_ROWID_NAMES = {"rowid", "oid"}
"""Names that SQLite has for a row's number. It takes a column with such a name when the table is made, and refuses to add
or drop one later ("cannot drop rowid alias")."""


def _rebuild(table: SyncedTable, kept: Sequence[str], going: Sequence[str]) -> None:
    """Make a synced table anew with the columns of now, and the rows and indexes that it has."""
    name, before = table.name, "_before"
    indexes = list(connection().execute(_INDEXES_MADE, (name,)))
    connection().pragma(
        "legacy_alter_table", True
    )  # Else what an operator made on the table would follow its old name.
    connection().execute(f'ALTER TABLE "{name}" RENAME TO "{before}"')
    connection().pragma("legacy_alter_table", False)
    for index, _ in indexes:
        connection().execute(f'DROP INDEX "{_quoted(index)}"')
    table.model.create_table()
    listed = ", ".join(f'"{column}"' for column in kept)
    connection().execute(f'INSERT INTO "{name}" ({listed}) SELECT {listed} FROM "{before}"')
    connection().execute(f'DROP TABLE "{before}"')
    for index, sql in indexes:
        if index not in _indexes_of(name):
            connection().execute(sql)
    fields = {field.column_name: field for field in table.model._meta.sorted_fields}
    for column in going:
        if column not in fields:
            _keep_as_unknown(name, column)
    for column in fields.keys() - set(kept):
        _take_over(table, fields[column])


_INDEXES_MADE = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"


def _keep_as_unknown(table: str, name: str) -> None:
    path = f'$."{name}"'
    connection().execute(
        f"UPDATE \"{table}\" AS e SET _extra = json_set(coalesce(e._extra, '{{}}'), ?1, json(c.row -> ?1))"
        " FROM _changes AS c WHERE c.seq = e._seq AND c.row -> ?1 IS NOT NULL",
        (path,),
    )


_INDEX = "_ix_"


def index_name(table: str, columns: Sequence[str]) -> str:
    """Name an index that a table is declared to have, so that no other can have this name."""
    return f"{_INDEX}{table}({','.join(columns)})"


def _indexes_of(table: str) -> dict[str, set[str]]:
    """Give the columns of each index that was made apart from its table."""
    indexes = [name for _, name, _, origin, _ in connection().execute(f'PRAGMA index_list("{table}")') if origin == "c"]
    return {name: {row[2] for row in connection().execute(f'PRAGMA index_info("{_quoted(name)}")')} for name in indexes}


def _quoted(name: str) -> str:
    return name.replace('"', '""')  # An operator's own may have any name.


def _add_indexes(table: SyncedTable) -> None:
    connection().execute(
        f'CREATE INDEX IF NOT EXISTS "{table.name}_Unique_id" ON "{table.name}" ("Unique_id")'
        ' WHERE "Unique_id" IS NOT NULL'
    )
    for columns in table.indexed:
        listed = ", ".join(f'"{column}"' for column in columns)
        name = index_name(table.name, columns)
        connection().execute(f'CREATE INDEX IF NOT EXISTS "{name}" ON "{table.name}" ({listed})')


def _take_over(table: SyncedTable, field: Field) -> None:
    """Fill a new column of a synced table from its rows, each of which has it from here on."""
    name, column, path = field.column_name, column_of(field), f'$."{field.column_name}"'
    default, current = encode(column.default).decode(), f'seq IN (SELECT e._seq FROM "{table.name}" AS e)'
    _make_fit(table.name, name, column)
    connection().execute(f"UPDATE _changes SET row = json_insert(row, ?, json(?)) WHERE {current}", (path, default))
    if name in table.rules.required:
        cleared = f"{current} AND row -> ?1 = 'null'"
        connection().execute(f"UPDATE _changes SET row = json_set(row, ?1, json(?2)) WHERE {cleared}", (path, default))
    held = "nullif(c.row -> ?, 'null')" if isinstance(field, JsonField) else "c.row ->> ?"
    connection().execute(
        f'UPDATE "{table.name}" AS e SET "{name}" = (SELECT {held} FROM _changes AS c WHERE c.seq = e._seq),'
        " _extra = nullif(json_remove(e._extra, ?), '{}')",
        (path, path),
    )


def _make_fit(table: str, name: str, column: Column) -> None:
    """Write what rows hold under a column's name as the column would; what it can't take is put aside, never dropped."""
    holding = connection().execute(
        f'SELECT c.seq FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        " WHERE coalesce(c.row -> ?, 'null') != 'null'",
        (f'$."{name}"',),
    )
    for sequence in [found[0] for found in holding]:
        row = decode_stored(next(iter(connection().execute("SELECT row FROM _changes WHERE seq = ?", (sequence,))))[0])
        value = row[name]
        try:
            row[name] = column.check(value)
        except ValueError:
            _put_aside(table, sequence, row, name)
        if row.get(name) is not value:
            connection().execute("UPDATE _changes SET row = ? WHERE seq = ?", (encode(row).decode(), sequence))


def _put_aside(table: str, sequence: int, row: Row, name: str) -> None:
    aside = row.get(UNFIT)
    row[UNFIT] = {**(aside if isinstance(aside, dict) else {}), name: row.pop(name)}
    extra = f"json_set(coalesce(e._extra, '{{}}'), '$.{UNFIT}', json(?))"
    put = f'UPDATE "{table}" AS e SET _extra = {extra} WHERE e._seq = ?'
    connection().execute(put, (encode(row[UNFIT]).decode(), sequence))
