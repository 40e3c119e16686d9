"""How tables in PostgreSQL are looked at and changed: ``storage.dialect.SchemaChanges``.

Knows: PostgreSQL's catalog. Must not know: which columns a table should have, whose tables are changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from peewee import Field, Model

from models import SyncedTable, connection
from storage.dialect import default_of
from storage.postgres import column_types, table_ddl
from storage.postgres.statements import TENANT, in_tenant
from storage.postgres.transactions import DIRECTORY

_SHORT = {"id", "Unique_id"}
"""Texts of so few characters that an index has all of them."""

type_of = column_types.type_of
_COLUMNS = (
    "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_attribute AS a"
    " WHERE a.attrelid = to_regclass(quote_ident(?)) AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ?"
    " ORDER BY a.attnum"
)
_INDEXES = (
    "SELECT i.relname::text, a.attname::text FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid"
    " JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid"
    " AND d.refclassid = 'pg_class'::regclass AND d.refobjid = x.indrelid"
    " JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = d.refobjsubid"
    " WHERE x.indrelid = to_regclass(quote_ident(?)) AND a.attname <> ?"
    " AND NOT EXISTS (SELECT 1 FROM pg_constraint AS c WHERE c.conindid = x.indexrelid)"
)


def prepared_for() -> int:
    """Give the fingerprint of the schema for which the tables of tenants were prepared last."""
    found = connection().execute(f"SELECT fingerprint FROM {DIRECTORY}.prepared WHERE name = 'tenants'").fetchone()
    return int(found[0]) if found else 0


def columns(table: str) -> dict[str, str]:
    """Give the types of a table's columns by their names; none of a table that is not there."""
    return dict(connection().execute(_COLUMNS, (table, TENANT)))


_kinds = columns  # Where a parameter has that name.


def indexes(table: str) -> dict[str, set[str]]:
    """Give by name the columns of each index that was made apart from its table."""
    found: dict[str, set[str]] = {}
    for name, column in connection().execute(_INDEXES, (table, TENANT)):
        found.setdefault(name, set()).add(column)
    return found


def create_table(model: type[Model]) -> None:
    """Make the table of a model, in the directory or for all tenants."""
    sql = connection()
    is_of_tenants = sql.rewrite is in_tenant
    create = table_ddl.create_of_tenants if is_of_tenants else table_ddl.create_of_directory
    for statement in create(model):
        sql.execute(statement)


def add_index(table: str, name: str, columns: Sequence[str], where: str = "") -> None:
    """Make an index, unless there is one of this name."""
    kinds = _kinds(table)
    texts = [column for column in columns if kinds[column] == "text" and column not in _SHORT]
    parts = [table_ddl.beginning(one, len(texts)) if one in texts else f'"{one}"' for one in columns]
    connection().execute(table_ddl.create_index(table, name, parts, where))


def drop_index(name: str) -> None:
    """Drop an index, whatever its name."""
    connection().execute(f"DROP INDEX {_quoted(name)}")


def add_column(table: str, field: Field) -> None:
    """Add the column of a field, empty, or with its default in all rows."""
    default = default_of(field)
    kind = table_ddl.collated(type_of(field)) + (" NOT NULL" if default else "") + default
    connection().execute(f'ALTER TABLE "{table}" ADD COLUMN "{field.column_name}" {kind}')


def drop_columns(table: SyncedTable, going: Collection[str], coming: Collection[str]) -> Collection[str]:  # noqa: ARG001
    """Drop columns of a synced table, whatever their names; none comes by that."""
    for name in going:
        connection().execute(f'ALTER TABLE "{table.name}" DROP COLUMN {_quoted(name)}')
    return ()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
