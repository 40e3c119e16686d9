"""Which of many sessions count is asked in one statement: a process asks for all that have sockets."""

from __future__ import annotations

import uuid

import pytest

from models import connection
from storage import main_database, sessions
from storage.engine import Engine
from tests.customers import customer

MANY = 10_000


def test_sessions_that_count_are_told_from_those_that_ended_in_one_statement(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, revoked = (str(uuid.uuid4()) for _ in range(2))

    def begin() -> None:
        customer(tenant_id="c").save(force_insert=True)
        for session_id, revoked_at in ((live, None), (revoked, 1)):
            main_database.Session.create(
                id=session_id, customer_id="c", refresh_id="r", created_at=0, expires_at=9, revoked_at=revoked_at
            )

    engine.directory.write(begin)
    gone = [str(uuid.uuid4()) for _ in range(MANY)]
    statements: list[str] = []

    def ask() -> dict[str, main_database.State]:
        bound = connection()
        monkeypatch.setattr(sessions, "connection", lambda: Counted(bound, statements))
        return sessions.live_among([live, revoked, *gone])

    assert engine.directory.read(ask) == {live: "active"}
    assert len(statements) == 1


class Counted:
    """A connection that notes what is executed."""

    def __init__(self, bound: object, statements: list[str]) -> None:
        self._bound, self._statements = bound, statements

    def execute(self, sql: str, values: tuple[object, ...]) -> object:
        self._statements.append(sql)
        return self._bound.execute(sql, values)  # type: ignore[attr-defined]
