"""Tables that a tenant's file still has and PostgreSQL not: not declared any more, and made so that their rows stay.

Knows: how such a table is known and made. Must not know: what is copied into it, whose rows they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from models import connection
from storage.dialect import dialect
from storage.engine import NotRestored
from storage.postgres import table_ddl
from storage.sqlite import schema_changes as in_sqlite
from storage.system_tables import PreparedTable

_TYPES = {"INTEGER": "bigint", "REAL": "double precision", "BLOB": "bytea"}
_KEYS = {"_seq", "id"}
_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9_]*", re.ASCII)


def of_file() -> dict[str, Mapping[str, str]]:
    """Give, by name, the columns of the retired tables in the file that this is bound to."""
    names = [table.name for table in PreparedTable.select().where(PreparedTable.is_retired)]
    found = {name: in_sqlite.columns(name) for name in names}
    return {name: columns for name, columns in found.items() if columns.keys() >= _KEYS}


def make(table: str, columns: Mapping[str, str]) -> None:
    """Make the table, by the types that its columns have in the file, unless it is there.

    Raises: NotRestored for names that PostgreSQL can't have.
    """
    if dialect().schema.columns(table):
        return
    for name in (table, *columns):
        if not _NAME.fullmatch(name) or len(name) > table_ddl.LONGEST_NAME:
            raise NotRestored(f"{name!a} is no name that a table or a column can have in PostgreSQL.")
    kinds = {name: _TYPES.get(kind.upper(), "text") for name, kind in columns.items()}
    for statement in table_ddl.create_synced(table, kinds):
        connection().execute(statement)
