"""The positions of many tenants are read at once, each as its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from storage.engine import Engine
from storage.positions import POSITION, position
from storage.postgres.connection import Connection
from storage.postgres.engine import PostgresEngine
from tenants import Tenants
from tests.storage.engine.installations import add


def test_each_has_its_own_and_who_is_not_there_has_none(engine: Engine, new_id: Callable[[], str]) -> None:
    """Fault: the tenant named once: all have the position of that one."""
    tenant_ids = [new_id() for _ in range(3)]
    for count, tenant_id in enumerate(tenant_ids):
        for _ in range(count):
            engine.tenant(tenant_id).write(lambda: add("a"))
    found = Tenants(engine).positions([*tenant_ids, str(uuid.uuid4())])
    assert found == {tenant_id: engine.tenant(tenant_id).read(position) for tenant_id in tenant_ids}
    assert [found[tenant_id].sequence for tenant_id in tenant_ids] == [0, 1, 2]
    assert engine.ask_each([], [POSITION]) == {}


def test_many_take_as_many_trips_as_one(
    engine: Engine, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(engine, PostgresEngine):
        pytest.skip("there is no way to a file")
    trips = [0]
    take = Connection._take_answers

    def counting(connection: Connection) -> object:
        trips[0] += 1
        return take(connection)

    monkeypatch.setattr(Connection, "_take_answers", counting)
    counts = []
    for many in (1, 20):
        tenant_ids = [new_id() for _ in range(many)]
        engine.ask_each(tenant_ids, [POSITION, "SELECT id FROM _devices"])  # So that all is prepared.
        before = trips[0]
        assert len(engine.ask_each(tenant_ids, [POSITION, "SELECT id FROM _devices"])) == many
        counts.append(trips[0] - before)
    assert counts[0] == counts[1]
