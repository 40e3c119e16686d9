"""Rows that are inserted by one statement are those that a statement each would have stored."""

from __future__ import annotations

from typing import Any

import pytest

from models import connection
from storage.postgres import connection as connections
from storage.postgres.database import PostgresDatabase
from storage.postgres.row_sets import in_one
from storage.push_batch import INSERT_LOGGED

TEXTS = [
    "",
    "a'b",
    'quo"ted',
    "back\\slash",
    "\\u0000",
    "ünï\u2028",
    "𝄞",
    "\t\n\r\x01",
    "null",
    "1e5",
    '{"a": [1.0, "\\u00e9"]}',
]


def logged(sequence: int, text: str, number: int, other: str | None) -> tuple[Any, ...]:
    return sequence, "end_user", text, 1, None, number, -number, other, other, text, 0, text


def store(database: PostgresDatabase, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    database.write(lambda: connection().executemany(INSERT_LOGGED, rows))
    names = INSERT_LOGGED[INSERT_LOGGED.index("(") + 1 : INSERT_LOGGED.index(")")]
    select = f"SELECT {names} FROM _changes ORDER BY seq"
    found: list[tuple[Any, ...]] = database.read(lambda: connection().execute(select).fetchall())
    database.write(lambda: connection().execute("DELETE FROM _changes"))
    return found


def test_rows_in_one_statement_are_stored_as_they_are_one_by_one(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are among them that a float can't hold."""
    about = zip(TEXTS, [0, 2**63 - 1, -(2**53) - 1, *range(len(TEXTS) - 3)], [None, "", *TEXTS[2:]], strict=True)
    rows = [logged(sequence, *one) for sequence, one in enumerate(about, start=1)]
    alone = [row for row in rows if row[2] != "\\u0000"]
    assert in_one(INSERT_LOGGED, alone, "_changes") and not in_one(INSERT_LOGGED, rows, "_changes")
    together, mixed = store(database, alone), store(database, rows)
    monkeypatch.setattr(connections, "in_one", lambda *_: None)
    assert together == store(database, alone) == alone and mixed == store(database, rows) == rows


def test_text_that_postgresql_can_not_hold_is_refused_as_it_is_alone(database: PostgresDatabase) -> None:
    with pytest.raises(ValueError, match="U\\+0000"):
        store(database, [logged(number, "a\0b" if number == 5 else "a", 0, None) for number in range(1, 9)])


def test_what_is_no_insert_of_a_known_table_is_sent_one_by_one() -> None:
    rows: list[tuple[Any, ...]] = [(1, 2, "end_user")] * 9
    assert in_one("UPDATE _digests SET count = ?, hash = ? WHERE table_name = ?", rows, "_digests") is None
    assert in_one(INSERT_LOGGED, [logged(1, "a", 1, None)] * 3, "_changes") is None
    assert in_one(INSERT_LOGGED, [(*logged(1, "a", 1, None)[:10], True, "s")] * 9, "_changes") is None
