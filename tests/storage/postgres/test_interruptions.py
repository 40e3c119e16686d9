"""A greenlet that is killed, or runs out of time, at each point where it waits: nobody else is harmed by it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import greenlet
import pytest

from models import connection
from protocol.errors import Busy, OutcomeUnknown
from storage import group_commit
from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from tests import postgres
from tests.conftest import wait_for
from tests.storage.engine.installations import PostgresInstallation, add, create, words

CONNECTIONS = 1


@pytest.fixture
def engine(installation: PostgresInstallation) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(installation.address, connections=CONNECTIONS)
    yield engine
    engine.close()


class Interrupted:
    """Runs work, and interrupts it where it waits for the ``number``-th time."""

    def __init__(self, work: Callable[[], Any], number: int, how: type[BaseException]) -> None:
        self._number, self._how, self.waits = number, how, 0
        self.greenlet = gevent.Greenlet(work)

    def run(self, meanwhile: Callable[[], Any] = lambda: None) -> bool:
        """Run it beside ``meanwhile``; tell whether it came to that point."""
        before = greenlet.settrace(self._count)
        try:
            self.greenlet.start()
            gevent.idle()
            meanwhile()
            self.greenlet.join(30)
        finally:
            greenlet.settrace(before)
        assert self.greenlet.dead, "it still waits"
        return self.waits >= self._number

    def _count(self, event: str, greenlets: tuple[Any, Any]) -> None:
        if greenlets[0] is self.greenlet and greenlets[1] is gevent.get_hub():
            self.waits += 1
            if self.waits == self._number:
                self.greenlet.kill(self._how(), block=False)


def is_sound(engine: PostgresEngine, installation: PostgresInstallation) -> None:
    """Nothing is left of it: each connection can be lent, and none is amid a transaction."""
    assert engine._pool._free.counter == CONNECTIONS, "a connection was not given back"
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{installation.name}' AND state <> 'idle'"
    wait_for(lambda: postgres.server().ask(sql) == [(0,)], "the end of each transaction", 10)


def look() -> list[Any]:
    return [list(connection().execute("SELECT 1")) for _ in range(2)]


KINDS: dict[str, Callable[[PostgresDatabase, str], Any]] = {
    "write alone": lambda database, word: database.write(lambda: (look(), add(word)), is_alone=True),
    "write": lambda database, word: database.write(lambda: (look(), add(word))),
    "read": lambda database, word: database.read(look),
    "replace": lambda database, word: database.replace(lambda: (look(), add(word))),
}


class Writers:
    """Others that write to the same tenant meanwhile; in the end each has been answered by what it may be."""

    def __init__(self, database: PostgresDatabase, names: list[str]) -> None:
        self._database, self._names = database, names
        self._found: dict[str, Any] = {}
        self._greenlets = [gevent.Greenlet(self._write, name) for name in names]

    def start(self) -> None:
        for one in self._greenlets:
            one.start()

    def _write(self, name: str) -> None:
        try:
            self._found[name] = self._database.write(lambda: add(name))
        except BaseException as error:
            self._found[name] = error

    def check(self) -> None:
        gevent.joinall(self._greenlets, timeout=30)
        assert self._found.keys() == {*self._names}, "who waited was not answered"
        stored = self._database.read(words)
        for name, answer in self._found.items():
            assert isinstance(answer, int | Busy | OutcomeUnknown), f"{name} was answered by {answer!r}"
            assert isinstance(answer, OutcomeUnknown) or (name in stored) == isinstance(answer, int)


@pytest.mark.parametrize("how", [gevent.GreenletExit, gevent.Timeout])
@pytest.mark.parametrize("kind", KINDS)
def test_interruption_where_work_waits_harms_nobody_else(
    installation: PostgresInstallation,
    engine: PostgresEngine,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    how: type[BaseException],
) -> None:
    """Fault: what interrupted the greenlet that commits was raised in all whose writes it had taken with its own: their
    requests ended without an answer."""
    monkeypatch.setattr(group_commit, "_GROUP_SECONDS", 60)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    for number in itertools.count(1):
        while engine._pool._idle:
            engine._pool._idle.pop().close()
        writers = Writers(database, [f"{number}{letter}" for letter in "ab"])
        interrupted = Interrupted(partial(KINDS[kind], database, f"w{number}"), number, how)
        is_reached = interrupted.run(writers.start)
        writers.check()
        is_sound(engine, installation)
        if not is_reached:
            break
    assert number > 3 or kind == "write"
