"""What ``doctor`` says of the processes on one PostgreSQL: who serves, what they take together, whether they are heard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from operations.bus_choice import chosen_bus
from operations.checks import process_checks, trial_start
from operations.checks.doctor import Machine
from server.bus import roll_call
from server.bus.messages import Process
from server.bus.relay import Outlets, Relay
from settings import Settings
from storage.postgres.connecting import connect
from storage.postgres.engine import PostgresEngine
from storage.postgres.notify_bus import NotifyBus
from tests import postgres
from tests.conftest import wait_for
from tests.storage.engine.installations import PostgresInstallation

pytestmark = [pytest.mark.server, pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[PostgresInstallation]:
    installation = PostgresInstallation(tmp_path)
    installation.open().close()
    yield installation
    process_checks._look.cache_clear()
    installation.end()


@pytest.fixture
def machine(installation: PostgresInstallation) -> Machine:
    return Machine(Settings(database_url=installation.address), {}, "")


@pytest.fixture
def serving(installation: PostgresInstallation, machine: Machine) -> Iterator[list[Relay]]:
    """Two processes that tell each other, of two versions."""
    engine = PostgresEngine(installation.address)
    outlets = Outlets(lambda _: False, lambda *_: None, lambda *_: b"", lambda _: {}, lambda _: None, lambda: None)
    found = []
    for name, version in (("one", "0.9"), ("two", "1.0")):
        found.append(Relay(chosen_bus(machine.settings, engine), outlets, Process(name, version)))
        found[-1].start()
    wait_for(lambda: all(len(one.processes) == 2 for one in found), "both")
    yield found
    for one in found:
        one.close()
    engine.close()


@postgres.not_pooled
def test_processes_that_serve_are_named_with_their_versions(machine: Machine, serving: list[Relay]) -> None:
    said = process_checks.described(machine.settings)
    assert said.startswith("in PostgreSQL 1") and said.endswith("by NOTIFY of PostgreSQL: one (0.9), two (1.0)")
    assert "versions 0.9, 1.0 serve" in str(process_checks.versions(machine))
    assert process_checks.bus(machine) is None
    assert [len(one.processes) for one in serving] == [2, 2], "who asks is none of them"


@postgres.not_pooled
def test_connections_of_all_processes_are_compared_with_what_the_database_takes(
    installation: PostgresInstallation, machine: Machine
) -> None:
    """Five and the one that listens, of each process. Fault: of this process alone."""
    postgres.server().ask(f"ALTER DATABASE {installation.name} CONNECTION LIMIT 12")
    for workers, settings, is_enough in (
        ("2", machine.settings, True),
        ("3", machine.settings, False),
        ("2", replace(machine.settings, database_pool=6), False),
        ("", replace(machine.settings, database_pool=11), True),
    ):
        found = process_checks.connections(Machine(settings, {"WEB_CONCURRENCY": workers}, ""))
        assert (found is None) == is_enough, (workers, found)
    found = process_checks.connections(Machine(machine.settings, {"WEB_CONCURRENCY": "3"}, ""))
    assert str(found) == (
        "PostgreSQL takes 12 connections from this user; processes: 3, each with up to 6."
        " Lower DATABASE_POOL to 3, or have it take more."
    )


def test_notify_that_is_not_heard_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pooler; here who listens is in another database."""
    elsewhere = partial(connect, postgres.server().address("postgres"))
    deaf = lambda _, engine: NotifyBus(engine._pool, elsewhere, "test")  # noqa: E731
    monkeypatch.setattr(process_checks, "chosen_bus", deaf)
    monkeypatch.setattr(roll_call, "_HEARD_SECONDS", 0.3)
    assert "set REDIS_URL" in str(process_checks.bus(machine))


def test_database_that_is_not_there_is_for_another_check_to_say() -> None:
    nowhere = Machine(Settings(database_url="postgresql://app@/none?host=/nowhere"), {}, "")
    for check in (process_checks.bus, process_checks.versions, process_checks.connections):
        assert check(nowhere) is None
    assert process_checks.described(nowhere.settings) == "in PostgreSQL"


def test_empty_database_is_no_finding_and_stays_empty(tmp_path: Path) -> None:
    """Fault: doctor made the tables of the directory, in whichever database DATABASE_URL named."""
    installation = PostgresInstallation(tmp_path)
    machine = Machine(Settings(database_url=installation.address), {}, "")
    assert trial_start.database(machine) is trial_start.customers_rows(machine) is process_checks.bus(machine) is None
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'syncapp'"
    assert postgres.server().ask(schemas, installation.name) == [(0,)]
    process_checks._look.cache_clear()
    installation.end()
