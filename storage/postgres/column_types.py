"""Which type of PostgreSQL a column has.

Knows: peewee's names of types. Must not know: tables, statements, connections.
"""

from __future__ import annotations

from peewee import Field

_TYPES = {
    "AUTO": "bigint",
    "INT": "bigint",
    "BOOL": "smallint",
    "FLOAT": "double precision",
    "BLOB": "bytea",
    "TEXT": "text",
}
"""By peewee's name of a type that of PostgreSQL, for the same values as in SQLite: whole numbers have 64 bits."""


def type_of(field: Field) -> str:
    """Give the type of a field's column."""
    return _TYPES[field.field_type]
