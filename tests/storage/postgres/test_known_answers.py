"""What a transaction is told at its beginning is what it would be told if it asked again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models import connection
from storage import digest
from storage.positions import incarnation, move, position
from storage.postgres.database import PostgresDatabase
from tests.inside import together


def asked() -> tuple[Any, ...]:
    """Ask PostgreSQL itself, in other words than those that are known."""
    columns = "epoch, sequence, clock, purged_until, purged_at, restored_at"
    (place,) = connection().execute(f"SELECT {columns} FROM _meta WHERE id > 0")
    digests = connection().execute("SELECT table_name, count, hash FROM _digests ORDER BY table_name")
    return tuple(place), {table: (count, text) for table, count, text in digests}


def known() -> tuple[Any, ...]:
    names = ("end_user", "interactions")
    return tuple(position()), {name: next(iter(connection().execute(digest.READ, (name,)))) for name in names}


CHANGES: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "a move": lambda: move(7, 1_000),
    "another move": lambda: move(8, 2_000),
    "the sequence alone": lambda: connection().execute("UPDATE _meta SET sequence = ?", (9,)),
    "a purge": lambda: connection().execute("UPDATE _meta SET purged_until = ?, purged_at = ?", (3, 4)),
    "a digest": lambda: connection().execute(digest.CHANGE, (5, "00", "end_user")),
    "a digest made anew": lambda: (
        connection().execute("DELETE FROM _digests WHERE table_name = ?", ("interactions",)),
        connection().execute("INSERT INTO _digests (table_name, count, hash) VALUES (?, 4, '11')", ("interactions",)),
    ),
    "many digests": lambda: connection().executemany(digest.CHANGE, [(6, "22", "end_user"), (7, "33", "interactions")]),
    "any table": lambda: connection().execute(
        "WITH moved AS (UPDATE _meta SET clock = 5 RETURNING id) SELECT id FROM moved"
    ),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("asks_first", [True, False])
def test_what_is_known_is_what_is_stored_after(database: PostgresDatabase, what: str, asks_first: bool) -> None:
    """Fault: a statement on ``_meta`` in other words than those of ``move`` not noted: the sequence was the old one."""

    def work() -> None:
        if asks_first:
            assert known() == asked()
        CHANGES[what]()
        assert known() == asked()

    database.write(work)
    assert database.read(known) == database.read(asked)


def test_nothing_is_known_of_a_write_that_was_undone(database: PostgresDatabase) -> None:
    """Fault: ``forget`` left out: the write after it began at the sequence of the one that failed."""

    def fail() -> None:
        CHANGES["a move"]()
        CHANGES["a digest"]()
        raise ValueError

    def look() -> bool:
        return known() == asked()

    found = together(*[lambda work=work: database.write(work) for work in (look, fail, look, fail, look)])
    assert [one is True or type(one) for one in found] == [True, ValueError, True, ValueError, True]


def test_position_is_not_asked_for_again(database: PostgresDatabase) -> None:
    def is_asked() -> bool:
        position()
        connection().settle()
        before = connection().execute("SELECT 1")
        position()
        return bool(before.is_answered)

    assert not database.write(is_asked) and database.read(lambda: incarnation()[1] == position().sequence)
