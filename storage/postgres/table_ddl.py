"""The statements that make a table: of the directory, or of all tenants with what keeps them apart.

Knows: types, keys, row-level security. Must not know: which tables there are, connections.

Each row of a tenant says whose it is, which is first in every key. A policy shows a transaction the rows of the tenant that
it named, and none if it named none. It is *forced*: the user that owns the tables is the one that the server has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from peewee import AutoField, Field, Model

from storage.dialect import default_of
from storage.postgres.column_types import type_of
from storage.postgres.statements import TENANT
from storage.postgres.transactions import DIRECTORY

_HERE = "nullif(current_setting('app.tenant', true), '')::uuid"

NEXT_NUMBER = f"{DIRECTORY}.next_number"
"""A function that numbers rows a tenant: a sequence would be of all, and tell each how much the others do."""

LONGEST_NAME = 63


def _column(field: Field) -> str:
    is_numbered = isinstance(field, AutoField)
    default = f" DEFAULT {NEXT_NUMBER}('{field.model._meta.table_name}')" if is_numbered else default_of(field)
    return f'"{field.column_name}" {collated(type_of(field))}{"" if field.null else " NOT NULL"}{default}'


def collated(kind: str) -> str:
    """Write a column's type, and for text the order of its characters' numbers."""
    return 'text COLLATE "C"' if kind == "text" else kind  # Else it is the database's, and sorts by a language.


def create_of_tenants(model: type[Model]) -> Iterator[str]:
    """Write the statements for a table that has the rows of all tenants."""
    name, indexed = model._meta.table_name, _indexed(model)
    unique = [field.column_name for field in indexed if field.unique]
    yield from _create_shared(name, [*map(_column, model._meta.sorted_fields)], _key(model), unique)
    for field in indexed:
        if not field.unique:
            yield create_index(name, f"{name}_{field.column_name}", [f'"{field.column_name}"'])


def create_synced(name: str, kinds: Mapping[str, str]) -> Iterator[str]:
    """Write the statements for a synced table that is not declared, by the types of its columns."""
    yield from _create_shared(name, [f'"{column}" {collated(kind)}' for column, kind in kinds.items()], "_seq", ["id"])


def _create_shared(name: str, columns: Sequence[str], key: str, unique: Sequence[str]) -> Iterator[str]:
    keys = "".join(f', UNIQUE ({TENANT}, "{column}")' for column in unique)
    yield (
        f'CREATE TABLE "{name}" ({", ".join(columns)}, {TENANT} uuid NOT NULL DEFAULT {_HERE},'
        f' PRIMARY KEY ({TENANT}, "{key}"){keys})'
    )
    yield f'ALTER TABLE "{name}" ENABLE ROW LEVEL SECURITY'
    yield f'ALTER TABLE "{name}" FORCE ROW LEVEL SECURITY'
    # Else a statement is planned for the average tenant, who has few rows, and a large one waits for it.
    yield f'ALTER TABLE "{name}" ALTER COLUMN {TENANT} SET (n_distinct = 1)'
    yield f'CREATE POLICY tenant ON "{name}" USING ({TENANT} = {_HERE}) WITH CHECK ({TENANT} = {_HERE})'


def create_of_directory(model: type[Model]) -> Iterator[str]:
    """Write the statements for a table of the directory."""
    name = model._meta.table_name
    columns = ", ".join(map(_column, model._meta.sorted_fields))
    yield f'CREATE TABLE "{name}" ({columns}, PRIMARY KEY ("{_key(model)}"))'
    for field in _indexed(model):
        unique = "UNIQUE " if field.unique else ""
        yield f'CREATE {unique}INDEX "{name}_{field.column_name}" ON "{name}" ("{field.column_name}")'


def _key(model: type[Model]) -> str:
    return next(str(field.column_name) for field in model._meta.sorted_fields if field.primary_key)


def _indexed(model: type[Model]) -> list[Field]:
    return [one for one in model._meta.sorted_fields if (one.index or one.unique) and not one.primary_key]


def create_index(table: str, name: str, parts: Sequence[str], where: str = "") -> str:
    """Write the statement for an index on a table of tenants; ``parts`` are columns, quoted, or expressions."""
    return (
        f'CREATE INDEX IF NOT EXISTS "{name}" ON "{table}" ({TENANT}, {", ".join(parts)}){where and f" WHERE {where}"}'
    )


def beginning(column: str, of: int) -> str:
    """Write the beginning of a text as a part of an index, one of some: an entry has 2,704 bytes at the most."""
    return f'left("{column}", {_INDEXED_CHARACTERS // of})'


_INDEXED_CHARACTERS = 600  # Of 4 bytes.


CREATE_NEXT_NUMBER = f"""
CREATE OR REPLACE FUNCTION {NEXT_NUMBER}(name text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
  EXECUTE format('SELECT coalesce(max(id), 0) + 1 FROM %I', name) INTO found;
  RETURN found;
END $$
"""
