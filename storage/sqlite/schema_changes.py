"""How tables of a SQLite file are looked at and changed: ``storage.dialect.SchemaChanges``.

Knows: SQLite's catalog, what it can't do to a table. Must not know: which columns a table should have, files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from peewee import SQL, Field, Model

from models import SyncedTable, connection, database
from storage.dialect import default_of

_ROWID_NAMES = {"rowid", "oid"}
"""Names that SQLite has for a row's number. It takes a column with such a name when the table is made, and refuses to add
or drop one later ("cannot drop rowid alias")."""

_BEFORE = "_before"
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_INDEXES_MADE = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"


def prepared_for() -> int:
    """Give the fingerprint of the schema for which the file was prepared last."""
    return int(connection().pragma("user_version"))


def tables() -> list[str]:
    """List the tables of the file."""
    return [name for (name,) in connection().execute(_TABLES)]


def columns(table: str) -> dict[str, str]:
    """Give the types of a table's columns by their names; none of a table that is not there.

    The PRAGMA alone tells of virtual tables too, such as ``dbstat``, until there is a table of that name.
    """
    known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE"
    if not any(connection().execute(known, (table,))):
        return {}
    return {name: kind for _, name, kind, *_ in connection().execute(f'PRAGMA table_info("{table}")')}


def indexes(table: str) -> dict[str, set[str]]:
    """Give by name the columns of each index that was made apart from its table."""
    names = [name for _, name, _, origin, _ in connection().execute(f'PRAGMA index_list("{table}")') if origin == "c"]
    return {name: {row[2] for row in connection().execute(f'PRAGMA index_info("{_quoted(name)}")')} for name in names}


def create_table(model: type[Model]) -> None:
    """Make the table of a model, with its keys and defaults."""
    for field in model._meta.sorted_fields:
        if default := default_of(field):
            field.constraints = [SQL(default.strip())]
    model.create_table()


def add_index(table: str, name: str, columns: Sequence[str], where: str = "") -> None:
    """Make an index, unless there is one of this name."""
    listed = ", ".join(f'"{column}"' for column in columns)
    condition = f" WHERE {where}" if where else ""
    connection().execute(f'CREATE INDEX IF NOT EXISTS "{name}" ON "{table}" ({listed}){condition}')


def drop_index(name: str) -> None:
    """Drop an index, whatever its name."""
    connection().execute(f'DROP INDEX "{_quoted(name)}"')


def _quoted(name: str) -> str:
    return name.replace('"', '""')  # An operator's own may have any name.


def type_of(field: Field) -> str:
    """Give the type of a field's column."""
    return str(database.get_context_options()["field_types"].get(field.field_type, field.field_type))


def add_column(table: str, field: Field) -> None:
    """Add the column of a field, empty, or with its default in all rows."""
    default = default_of(field)
    kind = type_of(field) + (" NOT NULL" if default else "") + default
    connection().execute(f'ALTER TABLE "{table}" ADD COLUMN "{field.column_name}" {kind}')


def drop_columns(table: SyncedTable, going: Collection[str], coming: Collection[str]) -> Collection[str]:
    """Drop columns of a synced table; if it is rebuilt for that, with those that come, give these."""
    if not _ROWID_NAMES.isdisjoint(map(str.casefold, [*going, *coming])):
        kept = [name for name in columns(table.name) if name not in going]
        _rebuild(table, kept)
        return set(table.columns) - set(kept)
    for name in going:
        connection().execute(f'ALTER TABLE "{table.name}" DROP COLUMN "{_quoted(name)}"')
    return ()


def _rebuild(table: SyncedTable, kept: Collection[str]) -> None:
    """Rebuild a synced table with the columns of now, and the rows and indexes that it has."""
    sql, name = connection(), table.name
    made = list(sql.execute(_INDEXES_MADE, (name,)))
    sql.pragma("legacy_alter_table", True)  # Else what an operator made on the table would follow its old name.
    sql.execute(f'ALTER TABLE "{name}" RENAME TO "{_BEFORE}"')
    sql.pragma("legacy_alter_table", False)
    for index, _ in made:
        drop_index(index)
    table.model.create_table()
    names = ", ".join(f'"{column}"' for column in kept)
    sql.execute(f'INSERT INTO "{name}" ({names}) SELECT {names} FROM "{_BEFORE}"')
    sql.execute(f'DROP TABLE "{_BEFORE}"')
    for index, statement in made:
        if index not in indexes(name):
            sql.execute(statement)
