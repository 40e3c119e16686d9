"""Row-level security as it lies in the catalog, and what it does to a statement that is wrong.

The faults named below were put into a copy; the tests named with them failed there, and those of the contract for a policy
that shows all, and a connection lent again amid a transaction. A tenant set for the session shows in ``test_pooler``.
"""

from __future__ import annotations

import uuid

import psycopg
import pytest

from models import connection
from storage.engine import CanNotOpen
from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from storage.postgres.errors import StatementFailed
from tests import postgres
from tests.storage.engine.installations import PostgresInstallation, add, create, words

_TABLES = """
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
  (SELECT count(*) FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polcmd = '*' AND p.polwithcheck IS NOT NULL),
  (SELECT bool_and(a.attname = '_tenant_id') FROM pg_index AS i
   JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid)
FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""


def test_policy_is_forced_on_every_table_and_every_key_begins_with_the_tenant(
    installation: PostgresInstallation, database: PostgresDatabase
) -> None:
    """Fault: FORCE left out: the owner, who the server is, saw the rows of all."""
    database.write(lambda: add("a"))
    tables = postgres.server().ask(_TABLES, installation.name)
    assert {"end_user", "interactions", "_meta", "_changes", "_conflicts"} <= {row[0] for row in tables}
    assert {row[1:] for row in tables} == {(True, True, 1, True)}


def test_who_names_no_tenant_sees_no_row_and_stores_none(
    installation: PostgresInstallation, database: PostgresDatabase
) -> None:
    """Fault: a policy that takes an empty setting for any tenant: the word was seen."""
    database.write(lambda: add("a"))
    with psycopg.connect(installation.address, autocommit=True) as other:
        for first in ("SELECT 1", "SET app.tenant = ''"):
            other.execute(first)
            assert other.execute("SELECT count(*) FROM end_user").fetchone() == (0,)
            assert other.execute("UPDATE end_user SET name = 'b'").rowcount == 0
            with pytest.raises(psycopg.errors.Error):
                other.execute("INSERT INTO _digests (table_name, count, hash) VALUES ('x', 0, '')")
    assert database.read(words) == ["a"]


def test_statement_that_names_another_tenant_reaches_nothing(engine: PostgresEngine) -> None:
    one, other = (create(engine, str(uuid.uuid4())) for _ in range(2))
    engine.tenant(other).write(lambda: add("theirs"))

    def look() -> list[object]:
        return list(connection().execute("SELECT name FROM end_user WHERE _tenant_id = ?::uuid", (other,)))

    def give() -> None:
        connection().execute("UPDATE _meta SET _tenant_id = ?::uuid", (other,)).fetchall()

    assert engine.tenant(one).read(look) == []
    with pytest.raises(StatementFailed, match="row-level security"):
        engine.tenant(one).write(give)
    assert engine.tenant(other).read(words) == ["theirs"]


def test_user_whom_no_policy_binds_is_refused(installation: PostgresInstallation) -> None:
    with pytest.raises(CanNotOpen, match="superuser"):
        PostgresEngine(postgres.server().address(installation.name, "postgres"))


def test_database_that_can_not_hold_every_text_is_refused(installation: PostgresInstallation) -> None:
    name = f"{installation.name}_ascii"
    postgres.server().ask(f"CREATE DATABASE {name} OWNER app TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C'")
    try:
        with pytest.raises(CanNotOpen, match="SQL_ASCII"):
            PostgresEngine(postgres.server().address(name))
    finally:
        postgres.server().drop(name)
