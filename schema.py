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
from models import Bound, JsonField, SyncedRow, column_of, connection, database, synced_tables
from records import Conflict, Device, KeptAnswer, Ledger, Logged, Receipt, TableDigest
from wire import encode


def fingerprint(models: Sequence[type[Bound]]) -> int:
    """Give a number that changes with any table or column of ``models``, for a quick look at opening."""
    text = ";".join(f"{m._meta.table_name}({_ddl(m)})" for m in models)
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def _ddl(model: type[Bound]) -> str:
    return ",".join(f"{f.column_name} {f.field_type} {f.null} {f.default}" for f in model._meta.sorted_fields)


@cache
def tenant_fingerprint() -> int:
    """Give the fingerprint of a tenant's schema in this version."""
    return fingerprint(tenant_models())


def tenant_models() -> list[type[Bound]]:
    """List every table of a tenant's database."""
    return [
        Ledger,
        Logged,
        Conflict,
        Receipt,
        KeptAnswer,
        Device,
        TableDigest,
        *(table.model for table in synced_tables().values()),
    ]


def prepare_tenant() -> None:
    """Make a tenant's database of an older version what this version needs.

    Adds tables and columns and never takes any away, so that an older version can still read what a newer one wrote.
    Raises: LookupError for a file that was never begun: its devices would take it for the end of all rows.
    """
    if not database.table_exists(Ledger._meta.table_name) or not Ledger.select().exists():
        raise LookupError("this is no tenant's database")
    lay_out_tenant()


def lay_out_tenant() -> None:
    """Add what is missing of a tenant's tables, in an empty database all of them."""
    add_missing(tenant_models())
    for table in synced_tables().values():
        connection().execute(
            f'CREATE INDEX IF NOT EXISTS "{table.name}_Unique_id" ON "{table.name}" ("Unique_id")'
            ' WHERE "Unique_id" IS NOT NULL'
        )
    digest.add_missing(synced_tables().values())


def begin_tenant(now: int) -> None:
    """Begin a tenant's order of commits, in tables that are laid out."""
    Ledger.create(id=1, epoch=secrets.token_hex(6), sequence=0, clock=now)


def add_missing(models: Sequence[type[Bound]]) -> None:
    """Create the tables that are missing, and in the others the columns that are."""
    for model in models:
        name = model._meta.table_name
        present = {column.name for column in database.get_columns(name)} if database.table_exists(name) else set()
        if not present:
            model.create_table()
            continue
        for field in model._meta.sorted_fields:
            if field.column_name not in present:
                _add_column(name, field, issubclass(model, SyncedRow))


def _add_column(table: str, field: Field, is_synced: bool) -> None:
    """Add a column; in a synced table it takes over what rows already hold under its name, else its default."""
    name, kind = field.column_name, database._field_types.get(field.field_type, field.field_type)
    connection().execute(f'ALTER TABLE "{table}" ADD COLUMN "{name}" {kind}')
    if not is_synced:
        if field.default is not None:
            connection().execute(f'UPDATE "{table}" SET "{name}" = ?', (field.default,))
        return
    default, path = encode(column_of(field).default).decode(), f'$."{name}"'
    current = f'seq IN (SELECT _seq FROM "{table}")'
    connection().execute(f"UPDATE _changes SET row = json_insert(row, ?, json(?)) WHERE {current}", (path, default))
    held = "nullif(row -> ?, 'null')" if isinstance(field, JsonField) else "row ->> ?"
    connection().execute(
        f'UPDATE "{table}" SET "{name}" = (SELECT {held} FROM _changes WHERE seq = _seq),'
        " _extra = nullif(json_remove(_extra, ?), '{}')",
        (path, path),
    )
