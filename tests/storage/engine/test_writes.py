"""Writes: alone with their tenant, in one order, in shared commits, each undone by itself.

The faults named below were put into a copy of ``storage/group_commit.py``; the tests named with them failed there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from protocol.errors import Busy
from storage import group_commit
from storage.engine import Database, Engine
from tests.inside import together
from tests.storage.engine.installations import (
    Installation,
    add,
    create,
    elsewhere,
    lines_of,
    sequence,
    words,
)

NewId = Callable[[], str]


class Commits:
    """The commits of a database, as ``mark`` tells them to ``after``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._marks: list[object] = []  # Kept, so that no other object is at the same address.

    def note(self, _: object = None) -> None:
        if not any(mark is self._database.mark for mark in self._marks):
            self._marks.append(self._database.mark)

    def __len__(self) -> int:
        return len(self._marks)


@pytest.fixture
def commits(database: Database) -> Commits:
    return Commits(database)


# --- group commit ----------------------------------------------------------------------------------------------------


def test_writes_that_wait_together_share_commits(database: Database, commits: Commits) -> None:
    """Fault: groups of one write (``_GROUP_SECONDS = 0``): 200 commits."""
    works = [lambda n=n: database.write(lambda: add(f"w{n}"), commits.note) for n in range(200)]
    assert sorted(together(*works)) == list(range(1, 201)) and len(database.read(words)) == 200
    assert 1 <= len(commits) <= 100


def test_mark_is_another_after_a_commit_and_only_then(database: Database) -> None:
    before = database.mark
    assert database.read(words) == [] and database.write(lambda: 5) == 5
    assert database.mark is before
    database.write(lambda: add("a"))
    assert database.mark is not before


def test_write_that_fails_undoes_itself_and_harms_no_other(database: Database, commits: Commits) -> None:
    """Fault: ``ROLLBACK TO SAVEPOINT`` left out: the words of the failed writes were stored."""

    def fail() -> None:
        add("must not stay")
        raise ValueError("mine alone")

    works: list[Callable[[], Any]] = [fail if n % 3 == 0 else lambda n=n: add(f"w{n}") for n in range(30)]  # type: ignore[misc]
    found = together(*[lambda work=work: database.write(work, commits.note) for work in works])
    assert [type(result) for result in found] == [ValueError if n % 3 == 0 else int for n in range(30)]
    assert database.read(words) == [f"w{n}" for n in range(30) if n % 3]
    assert len(commits) <= 10


def test_write_that_is_alone_and_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        add("must not stay")
        raise ValueError

    for is_alone in (True, False):
        with pytest.raises(ValueError):
            database.write(fail, is_alone=is_alone)
        assert database.read(words) == [] and database.read(sequence) == 0
    assert database.write(lambda: add("a"), is_alone=True) == 1


def test_commit_that_fails_is_the_error_of_each_of_its_writes_and_keeps_none(
    installation: Installation, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each but one that had failed by itself. Fault: the error given to the last of the group alone: two were answered
    with sequences of rows that were nowhere. Fault: no rollback after it: no later write was possible."""
    monkeypatch.setattr(group_commit, "_GROUP_SECONDS", 60)  # Else a slow machine makes two groups of it.
    reported: list[object] = []
    before = database.mark

    def fail() -> None:
        raise ValueError

    def breaking() -> int:
        installation.break_commit()
        return add("b")

    works: list[Callable[[], Any]] = [lambda: add("a"), breaking, fail, lambda: add("c")]
    found = together(*[lambda work=work: database.write(work, reported.append) for work in works])
    assert all(isinstance(error, Exception) for error in found)
    assert [isinstance(error, ValueError) for error in found] == [False, False, True, False]
    assert reported == [] and database.mark is before and database.read(words) == []
    assert database.write(lambda: add("d")) == 1 and database.read(words) == ["d"]


# --- alone, and in order ---------------------------------------------------------------------------------------------


def test_write_that_lets_others_run_has_its_tenant_to_itself(database: Database) -> None:
    """Fault: ``work`` run in a greenlet of its own as soon as it comes: sequences were given twice."""
    found = together(*[lambda n=n: database.write(lambda: add(f"w{n}", lambda: gevent.sleep(0))) for n in range(30)])
    assert sorted(found) == list(range(1, 31)) and len(database.read(words)) == 30


ADD_MANY = """
database = engine.tenant(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    database.write(lambda: add(f"theirs {number}", lambda: gevent.sleep(0)))
engine.close()
"""


def test_writes_of_two_processes_never_have_the_same_sequence(
    installation: Installation, engine: Engine, new_id: NewId
) -> None:
    """Fault: BEGIN in place of BEGIN IMMEDIATE: a write was refused, since what it had read was no longer so."""
    tenant_id = new_id()
    database = engine.tenant(tenant_id)
    other = elsewhere(installation, ADD_MANY, tenant_id, "50")
    assert lines_of(other).readline() == "ready\n"
    for number in range(50):
        database.write(lambda: add(f"ours {number}", lambda: gevent.sleep(0)))
    assert other.wait(60) == 0
    found = database.read(words)
    assert len(found) == len(set(found)) == 100 == database.read(sequence)
    for whose in ("ours", "theirs"):
        assert [word for word in found if word.startswith(whose)] == [f"{whose} {number}" for number in range(50)]


def test_after_is_called_in_the_order_of_commits_once_they_are_made_and_never_for_a_failure(database: Database) -> None:
    """Fault: ``after`` called in ``_run``, before the commit: the word was not there yet."""
    reported: list[int] = []
    seen: list[bool] = []

    def work(n: int) -> int:
        number = add(f"w{n}", lambda: gevent.sleep(0))
        if n % 5 == 0:
            raise ValueError
        return number

    def after(number: int) -> None:
        reported.append(number)
        seen.append(database.read(sequence) >= number)

    together(*[lambda n=n: database.write(lambda: work(n), after) for n in range(100)])
    assert reported == list(range(1, 81)) and len(database.read(words)) == 80
    assert all(seen)


def test_after_is_called_before_any_write_of_its_group_returns(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: each write answered right after its own ``after``: 1 was back before 2 was reported."""
    monkeypatch.setattr(group_commit, "_GROUP_SECONDS", 60)  # Else a slow machine makes two groups of it.
    events: list[str] = []

    def report(_: int) -> None:
        gevent.sleep(0)  # Else nobody who was answered could go on meanwhile.
        events.append("reported")

    def write(n: int) -> None:
        database.write(lambda: add(f"w{n}"), report)
        events.append("back")

    gate = Event()
    holding = gevent.spawn(database.write, gate.wait)
    gevent.sleep(0)
    waiting = [gevent.spawn(write, n) for n in range(3)]
    gevent.sleep(0)
    gate.set()
    gevent.joinall([holding, *waiting], raise_error=True)
    assert events == ["reported"] * 3 + ["back"] * 3


def test_after_that_fails_is_logged_and_harms_nobody(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    reported: list[int] = []

    def fail(_: int) -> None:
        raise RuntimeError("listener")

    with caplog.at_level(logging.ERROR):
        found = together(
            lambda: database.write(lambda: add("a"), fail), lambda: database.write(lambda: add("b"), reported.append)
        )
    assert found == [1, 2] and reported == [2]
    assert "reporting a commit failed" in caplog.text


# --- too many, and the death of the process ----------------------------------------------------------------------------


def test_write_is_refused_as_busy_when_too_many_wait(installation: Installation, tenant_id: str) -> None:
    engine, gate = installation.open(most_waiting=3), Event()
    database = engine.tenant(create(engine, tenant_id))
    running = gevent.spawn(database.write, lambda: gate.wait() and add("running"))
    gevent.sleep(0)
    waiting = [gevent.spawn(database.write, lambda n=n: add(f"w{n}")) for n in range(3)]
    gevent.sleep(0)
    with pytest.raises(Busy):
        database.write(lambda: add("one too many"))
    gate.set()
    gevent.joinall([running, *waiting], raise_error=True)
    assert database.read(words) == ["running", "w0", "w1", "w2"]
    engine.close()


ANSWER = """
import itertools
database = engine.tenant(sys.argv[1])

def write(name):
    for number in itertools.count():
        word = f"{name}.{number}"
        database.write(lambda: [add(f"{word}.{part}", lambda: gevent.sleep(0)) for part in range(2)])
        print(word, flush=True)

gevent.joinall([gevent.spawn(write, name) for name in "abcdef"])
"""


def test_every_answered_write_outlives_kill_9_and_none_is_there_in_part(
    installation: Installation, engine: Engine, new_id: NewId
) -> None:
    """Fault: answered before the commit: some of the words that had been answered were missing."""
    tenant_id, answered = new_id(), list[str]()
    for turn in range(2):
        process = elsewhere(installation, ANSWER.replace('"abcdef"', f'[f"{turn}{{c}}" for c in "abcdef"]'), tenant_id)
        answered += [lines_of(process).readline().strip() for _ in range(40)]
        process.kill()
        answered += [line.strip() for line in lines_of(process) if line.endswith("\n")]
        process.wait()
    found = engine.tenant(tenant_id).read(words)
    assert len(answered) >= 80
    assert {f"{word}.{part}" for word in answered for part in range(2)} <= set(found)
    assert all(f"{word.rpartition('.')[0]}.{1 - int(word[-1])}" in found for word in found)
    assert engine.tenant(tenant_id).read(sequence) == len(found)
