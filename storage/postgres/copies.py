"""A tenant's rows out of PostgreSQL into a file of SQLite's, and back: the file that backups, exports and moves have.

Knows: which tables a tenant has in both. Must not know: whose rows they are, when they are copied. Bound to the tenant by
the caller, within one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from models import connection
from server.disk_threads import disk
from server.durable_files import sync_file
from storage import positions
from storage.dialect import dialect
from storage.positions import now_ms
from storage.postgres.connection import Connection
from storage.postgres.statements import TENANT
from storage.sqlite import schema_changes as in_sqlite
from storage.sqlite.database import SQLiteDatabase
from storage.sqlite.files import copy_file, put_file
from storage.sqlite.tenant_files import new_tenant_file, open_tenant_file
from storage.system_tables import CommitOrder

_AT_ONCE = 500
_META = CommitOrder._meta.table_name
_TABLES = (
    "SELECT c.relname::text FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = ?"
    " ORDER BY c.relname"
)
_TYPES = {"bigint": "INTEGER", "smallint": "INTEGER", "double precision": "REAL", "bytea": "BLOB", "text": "TEXT"}


def tables_of_tenants() -> list[str]:
    """List the tables that have rows of tenants, also those that are not synced any more."""
    return [row[0] for row in connection().execute(_TABLES, (TENANT,))]


def empty(*, ends: bool) -> None:
    """Delete every row of the tenant, that of ``_meta`` too if it ``ends``: who waits for its lock would miss another."""
    for table in tables_of_tenants():
        if ends or table != _META:
            connection().execute(f'DELETE FROM "{table}"')


# --- out -------------------------------------------------------------------------------------------------------------


def write(file: Path) -> None:
    """Copy the tenant into a new file."""
    source = connection()
    columns = {table: dialect().schema.columns(table) for table in tables_of_tenants()}
    put_file(file, new_tenant_file(now_ms()))
    target = open_tenant_file(file)
    try:
        target.run_now(partial(_copy_out, source, columns))
    finally:
        target.close()
    sync_file(file)


def _copy_out(source: Connection, columns: Mapping[str, Mapping[str, str]]) -> None:
    for table, kinds in columns.items():
        _copy_table_out(source, table, kinds)


def _copy_table_out(source: Connection, table: str, kinds: Mapping[str, str]) -> None:
    names = ", ".join(f'"{name}"' for name in kinds)
    if in_sqlite.columns(table):
        connection().execute(f'DELETE FROM "{table}"')
    else:
        columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in kinds.items())
        connection().execute(f'CREATE TABLE "{table}" ({columns}, PRIMARY KEY ("_seq"))')
    insert = f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(kinds))})'
    source.execute(f'DECLARE copied NO SCROLL CURSOR FOR SELECT {names} FROM "{table}"')
    while rows := source.execute(f"FETCH {_AT_ONCE} FROM copied").fetchall():
        connection().executemany(insert, rows)
    source.execute("CLOSE copied")


# --- back in ---------------------------------------------------------------------------------------------------------


def read(file: Path) -> None:
    """Put what is in a file in the place of no rows, under a new epoch. The file stays as it is, also an older one."""
    target = connection()
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "tenant.db"
        disk.in_thread(partial(copy_file, file, copy))
        source = open_tenant_file(copy)
        try:
            _copy_in(source, target)
        finally:
            source.close()
    positions.begin_epoch(now_ms())


def _copy_in(source: SQLiteDatabase, target: Connection) -> None:
    here = {table: list(dialect().schema.columns(table)) for table in tables_of_tenants()}
    for table, names in here.items():
        source.read(partial(_copy_table_in, target, table, names))


def _copy_table_in(target: Connection, table: str, names: Collection[str]) -> None:
    held = [name for name in names if name in in_sqlite.columns(table)]
    if not held:
        return
    listed = ", ".join(f'"{name}"' for name in held)
    insert = f'INSERT INTO "{table}" ({listed}) VALUES ({", ".join("?" * len(held))})'
    if table == _META:
        insert += f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in held)}"
    rows = connection().execute(f'SELECT {listed} FROM "{table}"')
    while some := [row for _, row in zip(range(_AT_ONCE), rows, strict=False)]:
        target.executemany(insert, some)
        target.settle()
