"""The tables of an installation in PostgreSQL: made, and brought to this version for all tenants at once.

Knows: which schema the directory has and which the tenants', in which transaction they are changed. Must not know: rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models import bound, synced_tables
from storage import main_database, schema
from storage.engine import CanNotOpen, NothingBegun
from storage.positions import now_ms
from storage.postgres import renewals, shared
from storage.postgres.binding import Binding
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost, StatementFailed, problem_of
from storage.postgres.outcomes import history_of
from storage.postgres.pool import Pool
from storage.postgres.table_ddl import CREATE_NEXT_NUMBER, LONGEST_NAME
from storage.postgres.transactions import DIRECTORY, SCHEMA_LOCK, TENANTS, end_alone, start_alone, turn_to

log = logging.getLogger("syncapp.storage")

_OLDEST_SERVER = 13
_NOBODY = "00000000-0000-0000-0000-000000000000"
_SYSTEM_COLUMNS = {"ctid", "tableoid", "xmin", "cmin", "xmax", "cmax"}
"""Source: postgresql.org/docs, "System Columns"."""


class Installation:
    """What is laid out in one database, as far as this process knows."""

    def __init__(self, pool: Pool, *, changes: bool = True) -> None:
        """``changes``: whether tables of another version are made those of this one, as a server does."""
        self._pool, self._changes = pool, changes
        self._prepared_for = 0

    def prepare_directory(self, *, creates: bool) -> None:
        """Make the schema and the tables of the directory, if it ``creates`` them, or make them current."""
        with self._alone() as connection:
            if not (creates or connection.execute(_IS_THERE).fetchone()):
                raise NothingBegun("There is no data in the database of DATABASE_URL: a start of the server begins it.")
            for statement in _FIRST:
                connection.execute(statement)
            _prepare(connection, "directory", main_database.FINGERPRINT, main_database.prepare)

    def prepare_tenants(self) -> None:
        """Make the tables of tenants what this version needs, and the rows of all of them, unless they are.

        Raises: CanNotOpen for those of another version, if this process is not to change them.
        """
        if self._prepared_for == schema.tenant_fingerprint():
            return
        _must_have_names_that_fit()
        fingerprint = schema.tenant_fingerprint()
        with self._alone() as connection:
            _prepare(connection, "tenants", fingerprint, lambda: _prepare_tenants(connection), changes=self._changes)
        self._prepared_for = fingerprint

    def look_again(self) -> None:
        """Have the next use make the tables what this process needs: one with another declaration has changed them."""
        if self._prepared_for:
            log.warning("the tables in PostgreSQL are those of another TABLES_FILE by now, and are changed again")
        self._prepared_for = 0

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """Give a transaction in the directory that no other process changes the schema beside."""
        try:
            connection = self._pool.take()
            try:
                start_alone(connection, SCHEMA_LOCK)
                yield connection
                end_alone(connection)
            finally:
                connection.undo()
                self._pool.give_back(connection)
        except (ConnectionLost, StatementFailed) as error:
            if problem_of(error) is error:
                raise
            raise problem_of(error) from error


_IS_THERE = f"SELECT 1 FROM pg_namespace WHERE nspname = '{DIRECTORY}'"
_FIRST = (
    f"CREATE SCHEMA IF NOT EXISTS {DIRECTORY}",
    "CREATE TABLE IF NOT EXISTS prepared (name text PRIMARY KEY, fingerprint bigint NOT NULL)",
    *renewals.TABLES,
    "CREATE TABLE IF NOT EXISTS secrets (name text PRIMARY KEY, secret text NOT NULL)",
    *shared.TABLES,
    CREATE_NEXT_NUMBER,
)


_OF_ANOTHER_VERSION = (
    "The tables in PostgreSQL are of another version, or of another TABLES_FILE, than this command's. Start the server with"
    " this one first, or run: python syncapp.py migrate"
)


def _prepare(
    connection: Connection, name: str, fingerprint: int, prepare: Callable[[], object], *, changes: bool = True
) -> None:
    """Prepare tables, unless they are for this fingerprint, which is noted."""
    found = connection.execute("SELECT fingerprint FROM prepared WHERE name = ?", (name,)).fetchone()
    if found and found[0] == fingerprint:
        return
    if found and not changes:
        raise CanNotOpen(_OF_ANOTHER_VERSION)
    token = bound.set(Binding(connection))
    try:
        prepare()
    finally:
        bound.reset(token)
    turn_to(connection, None)
    noted = "INSERT INTO prepared (name, fingerprint) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET fingerprint = ?"
    connection.execute(noted, (name, fingerprint, fingerprint))


def _prepare_tenants(connection: Connection) -> None:
    """Change the tables, and then the rows of each tenant; all were prepared for the same before."""
    tenant_ids = [row[0] for row in connection.execute("SELECT id FROM tenants ORDER BY id")]
    turn_to(connection, tenant_ids[0] if tenant_ids else _NOBODY)
    for before, name in _renamed(connection):
        connection.execute(f'ALTER TABLE "{before}" RENAME TO "{name}"')
    layout = schema.lay_out(schema.prepared_tables() if tenant_ids else {})
    now = now_ms()
    for tenant_id in tenant_ids:
        turn_to(connection, tenant_id)
        schema.prepare_rows(layout, schema.prepared_tables(), now)


def _renamed(connection: Connection) -> list[tuple[str, str]]:
    """Give the tables that are declared in another case now: elsewhere a table has its name in any."""
    now = {name.lower(): name for name in synced_tables()}
    there = connection.execute(
        f"SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = '{TENANTS}'::regnamespace"
    )
    return [(name, now[name.lower()]) for (name,) in there if now.get(name.lower(), name) != name]


def _must_have_names_that_fit() -> None:
    """Refuse names of tables and columns that PostgreSQL would cut, or that it has for itself.

    Raises: CanNotOpen.
    """
    for table in synced_tables().values():
        for name in (table.name, *table.columns):
            if len(name) > LONGEST_NAME:
                raise CanNotOpen(f"PostgreSQL cuts names after {LONGEST_NAME} characters; give {name} a shorter one.")
        if taken := _SYSTEM_COLUMNS.intersection(table.columns):
            raise CanNotOpen(
                f"PostgreSQL has columns of its own called {', '.join(sorted(taken))}; {table.name} can't."
            )


def must_be_fit(connection: Connection) -> None:
    """Refuse a server that is too old, an encoding that can't hold every text, and a user whom no policy binds.

    And learn what the connection can know of its server by that.
    Raises: CanNotOpen.
    """
    sql = (
        "SELECT current_setting('server_version_num')::integer / 10000, current_setting('server_encoding'),"
        " rolsuper OR rolbypassrls, rolname::text, pg_backend_pid() FROM pg_roles WHERE rolname = current_user"
    )
    version, encoding, is_bound_by_none, user, process = connection.execute(sql).fetchone() or (0, "", True, "", 0)
    connection.recognize(process)
    connection.history = history_of(connection)
    if version < _OLDEST_SERVER:
        raise CanNotOpen(f"PostgreSQL {version} is too old; {_OLDEST_SERVER} is the oldest that has what is needed.")
    if encoding != "UTF8":
        raise CanNotOpen(f"The database has the encoding {encoding}; make one with ENCODING 'UTF8'.")
    if is_bound_by_none:
        raise CanNotOpen(
            f"The user {user} of DATABASE_URL is a superuser or has BYPASSRLS: it would see each tenant's rows in every"
            " other. Make one that is neither: CREATE ROLE syncapp LOGIN PASSWORD '…'; and a database of its own:"
            " CREATE DATABASE syncapp OWNER syncapp;"
        )
