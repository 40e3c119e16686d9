"""Writers that go on while something is done to the database, and what they may rely on after it."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from protocol.errors import Busy, OutcomeUnknown
from storage.postgres.database import PostgresDatabase
from tests.conftest import wait_for
from tests.storage.engine.installations import add, words


def keep_what_was_answered(database: PostgresDatabase, disturb: Callable[[], object]) -> None:
    """Check that of writes before, amid and after ``disturb`` each that was answered is there, once, and no other is."""
    answered, unknown, is_over = set[str](), set[str](), False

    def write(name: str) -> None:
        number = 0
        while not is_over:
            number += 1
            word = f"{name}{number}"
            try:
                database.write(lambda word=word: add(word))  # type: ignore[misc]
                answered.add(word)
            except OutcomeUnknown:
                unknown.add(word)
            except Busy:
                gevent.sleep(0.01)

    writing = [gevent.spawn(write, name) for name in "abcd"]
    wait_for(lambda: len(answered) > 5, "writes before")
    disturb()
    before = len(answered)
    wait_for(lambda: len(answered) > before + 5, "writes after")
    is_over = True
    gevent.joinall(writing, raise_error=True)
    found = database.read(words)
    assert len(found) == len(set(found))
    assert answered <= set(found) <= answered | unknown
