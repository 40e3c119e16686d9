"""How much a tenant has stored is counted by its log, what is new alone, and anew when it seems too much."""

from __future__ import annotations

import pytest

from models import connection
from storage.postgres import sizes
from storage.postgres.database import PostgresDatabase
from tests.storage.engine.installations import add

_LOG = (
    "INSERT INTO _changes (seq, table_name, row_id, version, committed_at, edited_at, row, is_named)"
    " VALUES (?, 'end_user', 'a', 1, 0, 0, ?, 0)"
)


def log(*rows: str) -> None:
    for row in rows:
        connection().execute(_LOG, (add("a"), row))


def spare(database: PostgresDatabase, most_bytes: int = 10_000) -> int:
    return database.read(lambda: sizes.spare_bytes(most_bytes))


def test_what_is_spare_falls_with_the_log_and_rises_with_a_purge(database: PostgresDatabase) -> None:
    """Fault: never counted anew: what was purged counted for ever."""
    assert spare(database) == 10_000
    database.write(lambda: log("x" * 1_000))
    assert spare(database) == 7_000
    database.write(lambda: log("é" * 1_000, "x"))  # In bytes, not in characters.
    assert spare(database) == 10_000 - 3 * 3_001
    database.write(lambda: log("x" * 1_000))
    assert spare(database) == 10_000 - 3 * 4_001 < 0
    database.write(lambda: connection().execute("DELETE FROM _changes WHERE seq <= 2"))
    assert spare(database) == 10_000 - 3 * 1_001


def test_only_what_is_new_is_read(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    database.write(lambda: log("x" * 100))
    spare(database)
    since: list[int] = []
    count = sizes._bytes_after

    def counted(sequence: int) -> int:
        since.append(sequence)
        return count(sequence)

    monkeypatch.setattr(sizes, "_bytes_after", counted)
    database.write(lambda: log("x" * 100))
    assert spare(database) == 10_000 - 600 and since == [1]
