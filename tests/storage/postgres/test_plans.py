"""What a statement reads grows with what it gives and not with what the tenant has, whatever the statistics say."""

from __future__ import annotations

import re
import uuid
from functools import partial
from typing import Any

import pytest

from models import connection
from storage import devices, pull_reader, repeated_creates
from storage.postgres import dialect
from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from storage.postgres.values import array
from tests import postgres
from tests.storage.engine.installations import PostgresInstallation, create

ROWS = 4_000
_FILL = (
    'INSERT INTO end_user (_seq, id, sync_status, version, is_deleted, server_synced, "createdAt", "updatedAt")'
    " SELECT n, 'r' || n, 'synced', 1, 0, 1, '', '' FROM generate_series(1, ?::bigint) AS n"
)
_FILL_LOG = (
    "INSERT INTO _changes (seq, table_name, row_id, version, previous_seq, committed_at, edited_at, row, is_named)"
    " SELECT n, 'end_user', 'r' || n, 1, nullif(n - 1, 0), 0, 0, '{}', 0 FROM generate_series(1, ?::bigint) AS n"
)


def fill(count: int) -> None:
    connection().execute(_FILL, (count,))
    connection().execute(_FILL_LOG, (count,))
    connection().execute("UPDATE _meta SET sequence = ?", (count,))


@pytest.fixture
def database(engine: PostgresEngine, installation: PostgresInstallation) -> PostgresDatabase:
    """A tenant with many rows among many with one, of which the statistics know."""
    for _ in range(40):
        engine.tenant(create(engine, str(uuid.uuid4()))).write(lambda: fill(1))
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    postgres.server().ask("ANALYZE", installation.name)
    database.write(lambda: fill(ROWS))
    return database


def statements() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Statements that give few rows of many, with values for the end of the log."""
    history = repeated_creates._FIRST
    return {
        "a pull": (pull_reader._rows_sql(dialect, "end_user", False), (ROWS - 50, ROWS, 0, 50)),
        "a pull without own deletions": (
            pull_reader._rows_sql(dialect, "end_user", True),
            (ROWS - 50, ROWS, 0, "one", 50),
        ),
        "a look-up": (dialect.rows_where("end_user", "id"), (array([f"r{ROWS - n}" for n in range(20)]),)),
        "whether any is there": (dialect.any_where("end_user", "Unique_id"), (array(["u"]),)),
        "a page's end": (
            "SELECT e._seq FROM end_user AS e WHERE e._seq > ? ORDER BY e._seq LIMIT 2 OFFSET ?",
            (ROWS - 50, 9),
        ),
        "the first of a short history": (history, (2,)),
    }


def pages_read(sql: str, values: tuple[Any, ...]) -> int:
    """Run a statement by the plan that it has for all values, and count the pages that it looked at."""
    name = f"p{uuid.uuid4().hex}"
    connection().send(b"PREPARE %s AS %s" % (name.encode(), connection().rewrite(sql).text))
    given = ", ".join(f"'{value}'" for value in values)
    plan = connection().send(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE {name}({given})".encode()).fetchall()
    found = re.search(r"shared hit=(\d+)(?: read=(\d+))?", "\n".join(line for (line,) in plan))
    assert found, plan
    return int(found[1]) + int(found[2] or 0)


@pytest.mark.parametrize("what", statements())
def test_statement_reads_what_it_gives(database: PostgresDatabase, what: str) -> None:
    """Fault: the log joined as it is written: a pull of 50 rows read 4,700 pages."""
    assert database.read(lambda: pages_read(*statements()[what])) <= 300


def test_purge_of_a_part_looks_at_that_part(database: PostgresDatabase) -> None:
    """Fault: the same with rows that have no change any more: it read 68,526."""
    replaced = f"{devices.PURGE_REPLACED})"
    deleted = (
        "DELETE FROM _changes AS c WHERE c.seq IN"
        " (SELECT e._seq FROM end_user AS e WHERE e.is_deleted = 0 AND e._seq > ? AND e._seq <= ?)"
    )
    for sql in (replaced, deleted):
        assert database.write(partial(pages_read, sql, (ROWS - 100, ROWS))) <= 600


def test_no_statement_is_compiled(engine: PostgresEngine) -> None:
    """A table without an index, of which ``enable_seqscan`` makes the cost 10^10. Fault: compiled at each run (JIT)."""
    explain = b"EXPLAIN (ANALYZE) SELECT count(*) FROM information_schema.sql_features WHERE feature_id || 'x' > 'a'"
    plan = engine.directory.read(lambda: connection().send(explain).fetchall())
    assert "Seq Scan" in str(plan) and "JIT" not in str(plan)
