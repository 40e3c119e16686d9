"""A tenant's rows out of PostgreSQL into a file of SQLite's, and back: the file that backups, exports and moves have.

Knows: which tables a tenant and the directory have in both. Must not know: whose rows they are, when they are copied. Bound
to the tenant or the directory by the caller, within one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models import connection
from server.disk_threads import disk
from server.durable_files import sync_file, sync_folder
from storage import main_database
from storage.dialect import dialect
from storage.engine import Database, NotRestored
from storage.positions import now_ms
from storage.postgres import retired_tables
from storage.postgres.connection import Connection
from storage.postgres.statements import TENANT
from storage.schema import tenant_fingerprint
from storage.sqlite import schema_changes as in_sqlite
from storage.sqlite.data_folder import file_name
from storage.sqlite.database import SQLiteDatabase
from storage.sqlite.file_replacement import forget_replaced, name_aside
from storage.sqlite.files import copy_file, put_file, take_log_in
from storage.sqlite.tenant_files import new_tenant_file, open_main_file, open_tenant_file, remove_file
from storage.system_tables import CommitOrder

_AT_ONCE = 500
_META = CommitOrder._meta.table_name
_TABLES = (
    "SELECT c.relname::text FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = ?"
    " ORDER BY c.relname"
)
_KEYS = (
    "SELECT a.attname::text, k.contype = 'p' FROM pg_constraint AS k"
    " JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)"
    " WHERE k.conrelid = to_regclass(quote_ident(?)) AND k.contype IN ('p', 'u') AND a.attname <> ?"
)
_TYPES = {"bigint": "INTEGER", "smallint": "INTEGER", "double precision": "REAL", "bytea": "BLOB", "text": "TEXT"}

Kinds = Mapping[str, Mapping[str, str]]
"""By table the types of its columns."""


def tables_of_tenants() -> list[str]:
    """List the tables that have rows of tenants, also those that are not synced any more."""
    return [row[0] for row in connection().execute(_TABLES, (TENANT,))]


def _kinds(tables: Collection[str]) -> Kinds:
    return {table: dialect().schema.columns(table) for table in tables}


def empty(*, ends: bool) -> None:
    """Delete every row of the tenant, that of ``_meta`` too if it ``ends``: who waits for its lock would miss another."""
    for table in tables_of_tenants():
        if ends or table != _META:
            connection().execute(f'DELETE FROM "{table}"')


# --- out -------------------------------------------------------------------------------------------------------------


def write(file: Path) -> None:
    """Copy the tenant into a new file, with the tables as they are here: they may be those of another version."""
    kinds, version = _kinds(tables_of_tenants()), dialect().schema.prepared_for()
    put_file(file, new_tenant_file(now_ms()))
    prepare = None if version == tenant_fingerprint() else partial(_lay_out_as_here, connection(), kinds, version)
    _copy_into(file, open_tenant_file(file), kinds, prepare)


def write_directory(file: Path) -> None:
    """Copy the directory into a new file; the secret that signs tokens is not in it."""
    file.touch(0o600, exist_ok=False)
    _copy_into(file, open_main_file(file), _kinds(main_database.TABLES), None)


def _copy_into(file: Path, target: SQLiteDatabase, kinds: Kinds, prepare: Callable[[], object] | None) -> None:
    """Fill an open file, and bring it to the disk as one file.

    Raises: StorageFull.
    """
    source = connection()
    try:
        if prepare is not None:
            target.run_now(prepare)
        target.run_now(partial(_copy_out, source, kinds))
    finally:
        target.close()
    take_log_in(file)  # Closing does it too, and says nothing if there is no room for it.
    sync_file(file)


def _lay_out_as_here(source: Connection, kinds: Kinds, version: int) -> None:
    """Make the tables of a file those of another version, so that whoever opens it brings it to his."""
    for table in in_sqlite.tables():
        if dict(in_sqlite.columns(table)) != {name: _TYPES[kind] for name, kind in kinds.get(table, {}).items()}:
            connection().execute(f'DROP TABLE "{table}"')
            if table in kinds:
                _create(source, table, kinds[table])
    connection().pragma("user_version", version)


def _create(source: Connection, table: str, kinds: Mapping[str, str]) -> None:
    keys: dict[str, bool] = dict(source.execute(_KEYS, (table, TENANT)))
    columns = [f'"{name}" {_TYPES[kind]}{" PRIMARY KEY" if keys.get(name) else ""}' for name, kind in kinds.items()]
    connection().execute(f'CREATE TABLE "{table}" ({", ".join(columns)})')
    for name in [name for name, is_primary in keys.items() if not is_primary]:
        connection().execute(f'CREATE UNIQUE INDEX "{table}_{name}" ON "{table}" ("{name}")')


def _copy_out(source: Connection, kinds: Kinds) -> None:
    for table, columns in kinds.items():
        if in_sqlite.columns(table):
            connection().execute(f'DELETE FROM "{table}"')
        else:
            _create(source, table, columns)
        _copy_table_out(source, table, list(columns))


def _copy_table_out(source: Connection, table: str, columns: Collection[str]) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    insert = f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})'
    source.execute(f'DECLARE copied NO SCROLL CURSOR FOR SELECT {names} FROM "{table}"')
    while rows := source.execute(f"FETCH {_AT_ONCE} FROM copied").fetchall():
        connection().executemany(insert, rows)
    source.execute("CLOSE copied")


def keep(folder: Path, tenant_id: str) -> None:
    """Copy the tenant into a folder, under its name and the time."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = name_aside(Path(file_name(tenant_id)), folder)
    making = kept.with_suffix(".making")
    try:
        write(making)
    except BaseException:
        remove_file(making)
        raise
    making.rename(kept)
    sync_folder(folder)


def forget(folder: Path, tenant_id: str, before: float) -> None:
    """Remove what was kept of a tenant until ``before``, in seconds since 1970."""
    forget_replaced(folder, Path(file_name(tenant_id)).stem, before)


# --- back in ---------------------------------------------------------------------------------------------------------


def copying(file: Path) -> Callable[[Path], object]:
    """Give what writes a copy of a file, also of one that is being written."""
    return partial(copy_file, file)


@contextmanager
def opened(put: Callable[[Path], object]) -> Iterator[Database]:
    """Open a file of its own, which ``put`` writes, and which is brought to this version."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tenant.db"
        disk.in_thread(partial(put, file))
        database = open_tenant_file(file)
        try:
            yield database
        finally:
            database.close()


def read(source: Database) -> None:
    """Put what is in a file that is ``opened`` in the place of no rows; its position too.

    Raises: NotRestored for what PostgreSQL can't hold.
    """
    target = connection()
    for table, columns in source.read(retired_tables.of_file).items():
        retired_tables.make(table, columns)
    for table, kinds in _kinds(tables_of_tenants()).items():
        source.read(partial(_copy_table_in, target, table, list(kinds)))


def _copy_table_in(target: Connection, table: str, names: Collection[str]) -> None:
    held = [name for name in names if name in in_sqlite.columns(table)]
    if not held:
        return
    listed = ", ".join(f'"{name}"' for name in held)
    insert = f'INSERT INTO "{table}" ({listed}) VALUES ({", ".join("?" * len(held))})'
    if table == _META:
        insert += f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in held)}"
    rows = connection().execute(f'SELECT {listed} FROM "{table}"')
    while some := [_without_null(table, held, row) for _, row in zip(range(_AT_ONCE), rows, strict=False)]:
        target.executemany(insert, some)
        target.settle()


def _without_null(table: str, names: Sequence[str], row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Take U+0000, which older versions took, out of the columns that are a copy of a row's JSON for SQL: the JSON has it
    as an escape, and so devices get it as it was."""
    nulls = [name for name, value in zip(names, row, strict=True) if type(value) is str and "\0" in value]
    if not nulls:
        return row
    if "_seq" not in names or "id" in nulls:
        raise NotRestored(f"{table} has U+0000 in {', '.join(nulls)}, which PostgreSQL can't hold.")
    return tuple(value.replace("\0", "\N{REPLACEMENT CHARACTER}") if type(value) is str else value for value in row)
