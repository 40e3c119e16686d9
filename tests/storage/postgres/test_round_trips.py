"""How often a push or a pull waits for PostgreSQL: over a network each time takes longer than all the rest.

And what is looked up for a whole group, before its pushes run, is what each would have found by itself.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from models import connection
from protocol.codec import decode_push
from protocol.errors import Problem
from protocol.messages import PushResult
from storage import digest, group_commit
from storage.positions import position
from storage.postgres.connection import Connection
from storage.postgres.engine import PostgresEngine
from storage.postgres.known_rows import KnownRows
from tenants import Tenants
from tests import inside
from tests.conftest import JSON
from tests.storage.engine.installations import create

NOW = 1_800_000_000_000
SEEDS = 12


@pytest.fixture
def tenants(engine: PostgresEngine) -> Tenants:
    return Tenants(engine)


@pytest.fixture
def tenant_id(engine: PostgresEngine) -> str:
    return create(engine, str(uuid.uuid4()))


def as_sent(body: JSON) -> JSON:
    """Give a body as the server reads it, whose rows take the fast path."""
    parsed: JSON = decode_push(json.dumps(body).encode())
    return parsed


def row(number: object, version: int = 0) -> JSON:
    return {"id": f"r{number}", "Unique_id": f"u{number}", "name": f"version {version}"}


def one(operation: str, data: JSON) -> JSON:
    return as_sent({"table": "end_user", "operation": operation, "data": data})


def many(rows: list[JSON]) -> JSON:
    return as_sent({"changes": {"end_user": rows}})


class Counted:
    """Counts how often this process waits for PostgreSQL, and the statements that it sends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trips = self.statements = 0
        take, send = Connection._take_answers, Connection.send

        def taking(connection: Connection) -> Any:
            self.trips += 1
            return take(connection)

        def sending(connection: Connection, *args: Any) -> Any:
            self.statements += 1
            return send(connection, *args)

        monkeypatch.setattr(Connection, "_take_answers", taking)
        monkeypatch.setattr(Connection, "send", sending)

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        self.trips = self.statements = 0
        work()
        return self.trips, self.statements


def test_push_waits_twice_be_it_alone_or_one_of_many(
    tenants: Tenants, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for what it looks up, once for its commit. Fault: nothing looked up ahead: 18 trips for 16 at once; each stored
    where the tenant stands: 108 statements."""
    counted, push = Counted(monkeypatch), partial(inside.push, tenants, tenant_id)
    monkeypatch.setattr(group_commit, "_GROUP_SECONDS", 60)  # Else a slow machine makes two groups of it.
    for name in ("first", "second"):
        push(one("create", row(name)))
    new, edits = ([one(kind, row(n, version)) for n in range(16)] for version, kind in enumerate(("create", "update")))
    trips = {
        "a new row": counted.of(lambda: push(one("create", row("a")))),
        "an edit": counted.of(lambda: push(one("update", row("a", 1)))),
        "16 new rows at once": counted.of(lambda: inside.together(*[lambda body=body: push(body) for body in new])),
        "16 edits at once": counted.of(lambda: inside.together(*[lambda body=body: push(body) for body in edits])),
        "1,000 new rows": counted.of(lambda: push(many([row(n) for n in range(100, 1_100)]))),
        "a pull": counted.of(lambda: tenants.read(tenant_id, position)),
    }
    assert trips == {
        "a new row": (2, 11),
        "an edit": (2, 10),
        "16 new rows at once": (2, 41),
        "16 edits at once": (2, 40),
        "1,000 new rows": (4, 57),
        "a pull": (1, 4),
    }


def pushes(chance: random.Random) -> list[JSON]:
    """Make pushes that mean the same few rows by one name or the other, some of them malformed."""

    def some_row() -> JSON:
        names: JSON = {"id": f"r{chance.randrange(3)}", "Unique_id": f"u{chance.randrange(3)}"}
        kept = chance.choice([["id"], ["Unique_id"], ["id", "Unique_id"]])
        return {name: names[name] for name in kept} | {"name": chance.choice("abc"), "note": str(chance.random())}

    def some_push() -> JSON:
        kind = chance.choice(["create", "update", "delete", "rows", "broken"])
        if kind == "rows":
            return many([some_row() for _ in range(chance.randrange(1, 30))])
        if kind == "broken":
            return many([some_row(), {"id": "r1", "active": "neither"}])
        return one(kind, some_row())

    by_either_name: list[JSON] = [{"id": "r0"}, {"Unique_id": "u0"}]
    edits = [one("update", names | {"note": str(chance.random())}) for names in by_either_name]
    return [one("create", row(0)), *(some_push() for _ in range(5)), *edits]


def fails_at_the_end(write: Callable[[], PushResult]) -> PushResult:
    write()
    raise ValueError("after all was written")


def works(tenants: Tenants, tenant_id: str, chance: random.Random) -> list[Callable[[], PushResult]]:
    """Make pushes ready to be run, of which some fail when they have written all."""
    push = partial(inside.push, tenants, tenant_id, now=NOW)
    return [
        partial(push, body, around=fails_at_the_end) if chance.random() < 0.2 else partial(push, body)
        for body in pushes(chance)
    ]


def said(applied: PushResult | Problem) -> object:
    """Tell what became of a push, without the ids that are made for it."""
    if isinstance(applied, Exception):
        return type(applied), str(applied)
    return [(result["status"], result["version"]) for result in applied.results], applied.after.sequence


def stored() -> object:
    rows = connection().execute('SELECT "Unique_id", name, note, version, is_deleted, _seq FROM end_user ORDER BY _seq')
    digests = [next(iter(connection().execute(digest.READ, (name,))))[0] for name in ("end_user", "interactions")]
    return rows.fetchall(), digests, position().sequence


def test_group_stores_what_its_pushes_would_one_after_the_other(
    engine: PostgresEngine, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: a row that an earlier push of the group wrote is still taken for what was looked up; where the tenant stood
    before a push that failed is forgotten, or is kept as that push left it."""
    monkeypatch.setattr(group_commit, "_GROUP_SECONDS", 60)
    look_up = KnownRows.look_up
    for seed in range(SEEDS):
        at_once, in_turn = create(engine, str(uuid.uuid4())), create(engine, str(uuid.uuid4()))
        for chance in (seed, 1_000 + seed):
            monkeypatch.setattr(KnownRows, "look_up", look_up)
            together = inside.together(*works(tenants, at_once, random.Random(chance)))
            monkeypatch.setattr(KnownRows, "look_up", lambda *_: None)
            one_by_one = [inside.caught(work) for work in works(tenants, in_turn, random.Random(chance))]
            assert list(map(said, together)) == list(map(said, one_by_one))
            assert tenants.read(at_once, stored) == tenants.read(in_turn, stored)
