"""What every engine is told becomes what PostgreSQL takes."""

from __future__ import annotations

import pytest

from storage.postgres.statements import in_directory, in_tenant


def test_parameters_are_numbered_by_their_order() -> None:
    assert in_directory("SELECT ? FROM t WHERE a = ? AND b = ?").text == b"SELECT $1 FROM t WHERE a = $2 AND b = $3"


def test_conflict_of_a_tenants_key_has_the_tenant_first_and_that_of_the_directory_has_none() -> None:
    sql = 'INSERT INTO t (a) VALUES (?) ON CONFLICT ("a") DO UPDATE SET a = excluded.a'
    assert b'ON CONFLICT (_tenant_id, "a") DO UPDATE' in in_tenant(sql).text
    assert b'ON CONFLICT ("a") DO UPDATE' in in_directory(sql).text
    assert in_tenant("INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING").text.endswith(b"ON CONFLICT DO NOTHING")


def test_table_that_is_written_is_known_if_it_is_one() -> None:
    assert in_tenant('INSERT INTO "end_user" (a) VALUES (1)').table == "end_user"
    assert in_tenant("UPDATE _meta SET a = 1").table == in_tenant("DELETE FROM _meta").table == "_meta"
    assert in_tenant("WITH gone AS (DELETE FROM t RETURNING a) SELECT a FROM gone").table is None


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("SELECT 1", False),
        ("WITH RECURSIVE past(seq) AS (SELECT 1) SELECT seq FROM past", False),
        ("INSERT INTO t (a) VALUES (1)", True),
        (" UPDATE t SET a = 1", True),
        ("DELETE FROM t", True),
        ("ALTER TABLE t ADD COLUMN b text", True),
        ("WITH gone AS (DELETE FROM t RETURNING a) SELECT a FROM gone", True),
        ("FETCH 5 FROM copied", False),
    ],
)
def test_statement_that_may_write_is_known(sql: str, writes: bool) -> None:
    """A transaction without one is not committed."""
    assert in_tenant(sql).writes == writes
