"""A copy and the increments after it are the tenant, row for row, whatever happened to it between them."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models import connection
from protocol.codec import format_time
from protocol.messages import PushResult
from storage import devices, history, increments, schema
from storage.copying import pages, table_of
from storage.increments import State, Step
from storage.positions import now_ms, position
from storage.sqlite.files import change_copy, look_into, put_file
from storage.sqlite.tenant_files import new_tenant_file
from tenants import Tenants
from tests import inside, postgres
from tests.customers import customer
from tests.storage.engine.installations import ENGINES

pytestmark = pytest.mark.server
ROUNDS, CHANGES, ROWS = 8, 12, 10
Whole = dict[str, list[Any]]
_ticks = itertools.count()


@pytest.fixture(params=["sqlite", "postgres"])
def tenants(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tenants]:
    if request.param == "postgres" and not postgres.is_there():
        pytest.skip(postgres.MISSING)
    installation = ENGINES[request.param](tmp_path / "installation")
    opened = Tenants(installation.open())
    yield opened
    opened.close()
    installation.end()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


def whole() -> Whole:
    """Read all rows of all tables of the bound tenant; truth values as they are compared."""
    tables = [table_of(model) for model in schema.tenant_models()]
    return {table.name: [*pages(connection(), table, table.columns)] for table in tables}


def live(tenants: Tenants, tenant_id: str) -> Whole:
    return tenants.engine.peek(tenant_id, whole)


def follow(tenants: Tenants, tenant_id: str, copy: Path, before: State) -> tuple[State, list[Step]]:
    """Bring what changed since into a copy; give its state then, and the steps."""
    read = lambda: (increments.can_follow(before), [*increments.steps_since(before)], increments.state())  # noqa: E731
    can_follow, steps, now = tenants.engine.peek(tenant_id, read)
    assert can_follow
    change_copy(copy, lambda: increments.bring(steps))
    return now, steps


def change(tenants: Tenants, tenant_id: str, chance: random.Random) -> None:
    """Do to a tenant what devices and the server do: writes, conflicts, deletions, receipts, removals."""
    row, name, at = f"r{chance.randrange(ROWS)}", f"{chance.random()}", now_ms() + 10 * next(_ticks)
    unique = chance.choice([{}, {"Unique_id": f"u{chance.randrange(3)}"}])
    table = chance.choice(["end_user", "interactions"])
    kind = chance.choice(["write", "write", "delete", "conflict", "operation", "purge", "forget", "visit", "answer"])
    push = partial(inside.push, tenants, tenant_id, now=at)
    if kind == "write":
        push({"changes": {table: [{"id": row, "note": name, "é\u2028": [1.5, None], **unique}]}})
    elif kind == "delete":
        inside.caught(lambda: push({"table": table, "operation": "delete", "data": {"id": row}}))
    elif kind == "conflict":
        push({"changes": {table: [{"id": row, "name": name, "title": name, "version": 1}]}})
    elif kind == "operation":
        one = {"table": table, "operation": "update", "data": {"id": row, "note": name}, "opId": uuid.uuid4().hex}
        push({"operations": [one]}, device_id=f"d{chance.randrange(3)}")
    elif kind == "purge":
        until = chance.randrange(tenants.read(tenant_id, position).sequence + 1)
        tenants.write(tenant_id, lambda: devices.purge(0, until, 1_000))
    elif kind == "forget":
        tenants.write(tenant_id, lambda: devices.forget_receipts(at - chance.choice([0, 500])))
    elif kind == "answer":
        sql = "INSERT INTO _answers (key, mark, answer, answered_at) VALUES (?, 'm', ?, ?)"
        tenants.write(tenant_id, lambda: connection().execute(sql, (uuid.uuid4().hex, b"\0\xff", at)))
    else:
        sql = "INSERT INTO _devices (id, places, first_seen_at, last_seen_at) VALUES (?, '{}', ?, ?)"
        tenants.write(tenant_id, lambda: connection().execute(sql, (uuid.uuid4().hex, at, at)))


def begun(tenants: Tenants, copy: Path) -> tuple[str, State]:
    one = customer()
    tenants.provision(one)
    inside.push(tenants, one.id, {"changes": {"end_user": [{"id": f"r{number}"} for number in range(4)]}})
    tenants.engine.copy_to(one.id, copy)
    return one.id, look_into(copy, increments.state)


def test_copy_with_its_increments_is_the_tenant_row_for_row(
    tenants: Tenants, copy: Path, chance: random.Random
) -> None:
    """Faults, each tried: the ids of changed rows not removed before they are inserted; what is left of the log not told;
    tombstones left behind; the clock of the copy taken without a margin."""
    tenant_id, before = begun(tenants, copy)
    for number in range(ROUNDS):
        for _ in range(CHANGES):
            change(tenants, tenant_id, chance)
        before, _ = follow(tenants, tenant_id, copy, before)
        expected = live(tenants, tenant_id)
        assert look_into(copy, whole) == expected, f"round {number}"
        assert look_into(copy, increments.state) == before
        counts = {table: len(rows) for table, rows in expected.items()}
        open_conflicts = sum("open" in row for row in expected["_conflicts"])
        assert look_into(copy, increments.counts) == {**counts, increments.OPEN_CONFLICTS: open_conflicts}


def test_increment_has_what_changed_and_nothing_else_of_the_rows(tenants: Tenants, copy: Path) -> None:
    tenant_id, before = begun(tenants, copy)
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "r1", "note": "new"}]}})
    _, steps = follow(tenants, tenant_id, copy, before)
    inserted = {step.table: len(step.rows) for step in steps if step.what == "insert"}
    assert (inserted["_changes"], inserted["end_user"]) == (1, 1) and "interactions" not in inserted
    assert "keep" not in {step.what for step in steps}, "nothing was removed, so what is left is not told"


def test_what_moves_no_sequence_and_comes_back_in_a_restore_is_seen(tenants: Tenants, copy: Path) -> None:
    """An edit that loses in all its fields, the decision that it stays so, the name of a device; not its visit."""
    tenant_id, before = begun(tenants, copy)
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "r1", "name": "now"}]}}, device_id="d")
    before, _ = follow(tenants, tenant_id, copy, before)
    ask_each = tenants.engine.ask_each
    is_at: Callable[[], bool] = lambda: before.is_at(ask_each([tenant_id], increments.LOOK)[tenant_id])  # noqa: E731
    late = {"table": "end_user", "operation": "update", "data": {"id": "r1", "name": "late"}, "baseVersion": 1}
    decide = lambda: history.resolve(1, "keep", now_ms(), lambda: PushResult(before_all, before_all))  # noqa: E731
    before_all = tenants.read(tenant_id, position)
    visit = lambda: devices._save_visit("phone", {}, devices.Visit({}, 1))  # noqa: E731
    for change, is_seen in (
        (lambda: inside.push(tenants, tenant_id, {"operations": [late | {"timestamp": format_time(1)}]}), True),
        (lambda: tenants.write(tenant_id, decide), True),
        (lambda: tenants.write(tenant_id, visit), False),
        (lambda: tenants.write(tenant_id, lambda: devices.rename("phone", "Asha's")), True),
    ):
        change()
        assert is_at() is not is_seen and tenants.read(tenant_id, position) == before_all
        before, _ = follow(tenants, tenant_id, copy, before)
        assert is_at() and look_into(copy, whole) == live(tenants, tenant_id)
    (conflict,) = live(tenants, tenant_id)["_conflicts"]
    assert "resolved" in conflict


def test_tenant_of_another_epoch_or_other_tables_is_not_followed(
    tenants: Tenants, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id, before = begun(tenants, copy)
    can_follow: Callable[[], bool] = lambda: tenants.engine.peek(tenant_id, lambda: increments.can_follow(before))  # noqa: E731
    assert can_follow()
    with monkeypatch.context() as other:
        other.setattr(schema, "tenant_fingerprint", lambda: 1)
        assert not can_follow()
    tenants.engine.begin_epoch(tenant_id)
    assert not can_follow()


_ATTACH = "ATTACH '{other}' AS other; DELETE FROM other.kept; --"


@pytest.mark.parametrize(
    "bad",
    [
        Step("insert", f'_devices" (id, first_seen_at, last_seen_at) VALUES (?, 1, 1); {_ATTACH}', ("id",), [["d"]]),
        Step("delete", "_devices", (f'id" = ?; {_ATTACH}',), [1]),
        Step("empty", f'_devices"; {_ATTACH}', (), []),
        Step("before", "_receipts", ("taken_at", f"0; {_ATTACH}"), [None]),
    ],
    ids=lambda step: step.what,
)
def test_increment_of_somebody_else_reaches_no_other_database(tmp_path: Path, bad: Step) -> None:
    """As the main database, of which the file of a tenant that is restored has nothing to know."""
    copy, other = tmp_path / "copy.db", sqlite3.connect(tmp_path / "other.db")
    other.executescript("CREATE TABLE kept (id); INSERT INTO kept VALUES (1)")
    put_file(copy, new_tenant_file(now_ms()))
    table, *columns = (name.replace("{other}", str(tmp_path / "other.db")) for name in (bad.table, *bad.columns))
    step = bad._replace(table=table, columns=columns)
    with contextlib.suppress(increments.BadStep):
        change_copy(copy, lambda: increments.bring([step]))
    assert other.execute("SELECT count(*) FROM kept").fetchone() == (1,)
    other.close()
