"""An ``Idempotency-Key`` that several processes are asked under at once: its work is done once, and all get one answer."""

from __future__ import annotations

import json
from collections.abc import Callable

import gevent

from storage import idempotency
from storage.engine import Database, Engine
from tests.inside import together
from tests.storage.engine.installations import Installation, add, elsewhere, lines_of, words

KEYS = 40


def ask(database: Database, key: str, who: str) -> str:
    """Ask for a word of whoever is first, and give the answer, as ``push_handler`` does."""

    def work() -> int:
        write = lambda: add(who, lambda: gevent.sleep(0))  # noqa: E731
        return idempotency.write_once(key, "mark", 1_000, write, lambda number: f"{who} {number}".encode())

    try:
        return f"{who} {database.write(work)}"
    except idempotency.AlreadyAnswered as error:
        return error.answer.decode()


def test_key_asked_twice_at_once_in_one_process_has_one_answer(database: Database) -> None:
    found = together(*[lambda who=who: ask(database, "k", who) for who in "abc"])
    assert found == ["a 1"] * 3 and database.read(words) == ["a"]


ASK_MANY = """
from tests.storage.engine.test_answered_once import *
database = engine.tenant(sys.argv[1])
print("ready", flush=True)
print(json.dumps([ask(database, f"k{number}", "theirs") for number in range(KEYS)]), flush=True)
engine.close()
"""


def test_keys_asked_by_two_processes_at_once_have_one_answer_each(
    installation: Installation, engine: Engine, new_id: Callable[[], str]
) -> None:
    """Fault: ``kept_answer`` not asked in ``write_once``: an error of the engine, since the key was there."""
    tenant_id = new_id()
    database = engine.tenant(tenant_id)
    other = elsewhere(installation, ASK_MANY, tenant_id)
    assert lines_of(other).readline() == "ready\n"
    ours = [ask(database, f"k{number}", "ours") for number in range(KEYS)]
    assert json.loads(lines_of(other).readline()) == ours and other.wait(60) == 0
    assert len(database.read(words)) == len(set(ours)) == KEYS
