"""A tenant taken back to an earlier moment is exactly what it was, and that is a change like any other.

Seen to fail on faults: rows left that were made after the moment, an earlier change of a row in this time taken for the one
of the moment, a field that the row had not; a purge that removes what an old row was until yesterday.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import synced_tables
from protocol.codec import format_time
from protocol.messages import PushResult
from storage import devices, history, rewind, time_machine
from storage.devices import DAY_MS
from storage.moments import Moment, NoMoment
from storage.positions import position, position_and_digests
from storage.sqlite.tenant_files import open_tenant_file
from storage.time_machine import Rewound, TimeMachine
from tenants import Tenants
from tests import fuzzing
from tests.conftest import JSON
from tests.inside import pull, push, rows
from tests.storage.test_devices import digest_of

T0 = 1_800_000_000_000
TABLES = list(synced_tables())
NOT_COMPARED = {"version", "updatedAt", "last_updated", "device_id"}
"""What the server counts, and what describes the edit itself."""

Key = tuple[str, str]
State = dict[Key, JSON]


class Past:
    """One tenant, and what its rows were at each of its changes, deleted ones too."""

    def __init__(self, tenants: Tenants, tenant_id: str) -> None:
        self.tenants, self.id, self.now = tenants, tenant_id, T0
        self.machine = TimeMachine(tenants.engine, tenant_id)
        self.states: dict[int, State] = {0: {}}
        self.times: dict[int, int] = {}

    @property
    def here(self) -> int:
        return int(self.tenants.read(self.id, position).sequence)

    def push(self, *operations: JSON, **about: Any) -> PushResult:
        """Push operations on rows that are not the same, and note what the tenant is after each."""
        self.now += 1000
        before, number = self.held(), self.here
        applied = push(self.tenants, self.id, {"operations": [*operations]}, self.now, **about)
        after = self.held()
        for result in applied.results:
            key = result["table"], result["id"]
            if before.get(key, {}).get("version") != after.get(key, {}).get("version"):
                number, before = number + 1, before | {key: after[key]}
                self.states[number] = before
        assert number == applied.after.sequence
        self.times[number] = applied.after.clock
        return applied

    def held(self) -> State:
        """What a device that has it all has, by pulls."""
        start = f"{self.tenants.read(self.id, position).epoch}-0"
        found = pull(self.tenants, self.id, {"cursor": start, "limit": 10_000}, self.now)["data"]
        return {(table, row["id"]): row for table, own in found.items() for row in own}

    def live(self) -> State:
        return {(table, row["id"]): row for table in TABLES for row in rows(self.tenants, self.id, table)}

    def rewind(self, to: object, *scope: Any, **how: Any) -> Rewound:
        done = self.machine.apply(self.machine.preview(self.machine.moment(str(to), self.now * 2), *scope), **how)
        _, digests = self.tenants.read(self.id, position_and_digests)
        assert digests == {table: digest_of(rows(self.tenants, self.id, table)) for table in TABLES}
        return done

    def purge(self, days: int = 10) -> int:
        until = int(self.tenants.read(self.id, lambda: devices.purge_limit(self.now, days * DAY_MS)))
        after: int | None = 0
        while after is not None:
            start = after
            after = self.tenants.write(self.id, lambda: devices.purge(start, until, 5))
        return until


def shown(state: State) -> State:
    """The rows that are not deleted, as far as they are the same after a rewind."""
    return {
        key: {name: value for name, value in row.items() if name not in NOT_COMPARED}
        for key, row in state.items()
        if not row["is_deleted"]
    }


@pytest.fixture
def past(tenants: Tenants, new_tenant: Callable[[], str]) -> Past:
    return Past(tenants, new_tenant())


def op(operation: str, row_id: str, table: str = "end_user", base: int | None = None, **fields: Any) -> JSON:
    about = {} if base is None else {"baseVersion": base}
    return {"table": table, "operation": operation, "data": {"id": row_id, **fields}, **about}


# --- any history -----------------------------------------------------------------------------------------------------


def random_operation(rng: random.Random, key: Key, number: int) -> JSON:
    """An edit, perhaps of an old base, so that there are conflicts; a creation, a deletion, or its end."""
    kind = rng.choice(["create", "update", "update", "update", "delete", "undelete"])
    field = rng.choice(["note" if key[0] == "end_user" else "title", "Unique_id", "of the app"])
    fields: JSON = {} if kind == "delete" else {field: rng.choice([None, f"v{number}"])}
    fields |= {"nested": {"in": [number, None]}} if kind != "delete" and rng.random() < 0.2 else {}
    fields |= {"is_deleted": 0} if kind == "undelete" else {}
    base = rng.choice([None, rng.randrange(1, 6)]) if kind == "update" else None
    return op("update" if kind == "undelete" else kind, key[1], key[0], base, **fields)


def some_operations(rng: random.Random) -> list[JSON]:
    keys = [(table, row_id) for table in TABLES[:2] for row_id in "abc"]
    return [random_operation(rng, key, rng.randrange(100)) for key in rng.sample(keys, rng.randrange(1, 4))]


@fuzzing.times_as_many(0.15)
@given(seed=st.integers(0, 2**32))
def test_every_moment_of_any_history_comes_back_as_it_was(
    tenants: Tenants, new_tenant: Callable[[], str], seed: int
) -> None:
    """Also those that lie before an earlier rewind, and those that it made."""
    print("seed", seed)
    rng, past = random.Random(seed), Past(tenants, new_tenant())
    for _ in range(rng.randrange(2, 7)):
        past.push(*some_operations(rng))
    for _ in range(3):
        moments = list(past.states)
        for moment in rng.sample(moments, min(len(moments), 6)):
            check(past, moment, rng)
        past.push(*some_operations(rng))


def check(past: Past, moment: int, rng: random.Random) -> None:
    to = format_time(past.times[moment]) if moment in past.times and rng.random() < 0.5 else moment
    before, was_here = past.live(), past.here
    conflicts = past.tenants.read(past.id, lambda: history.conflicts("all", 0, 999))
    done = past.rewind(to)
    here, live = past.here, past.live()
    assert shown(live) == shown(past.states[moment])
    changed = [key for key in before.keys() | live.keys() if before.get(key) != live.get(key)]
    assert done == (len(changed), 0, was_here + 1 if changed else 0, here if changed else 0)
    assert past.rewind(to).rows == 0, "twice is once"
    assert past.tenants.read(past.id, lambda: history.conflicts("all", 0, 999)) == conflicts
    past.states[here] = past.held()
    past.times[here] = past.tenants.read(past.id, position).clock


@fuzzing.times_as_many(0.1)
@given(seed=st.integers(0, 2**32))
def test_moments_within_the_retention_come_back_after_a_purge_and_others_are_refused(
    tenants: Tenants, new_tenant: Callable[[], str], seed: int
) -> None:
    print("seed", seed)
    rng, past = random.Random(seed), Past(tenants, new_tenant())
    for _ in range(rng.randrange(2, 9)):
        past.push(*some_operations(rng))
        past.now += rng.randrange(8) * DAY_MS
    until = past.purge()
    states = dict(past.states)
    since = past.machine.known_since()
    assert since.sequence <= until
    for moment in [*states]:
        if moment >= until:
            past.rewind(moment)
            assert shown(past.live()) == shown(states[moment])
        elif moment < since.sequence:
            with pytest.raises(NoMoment, match=f"change {since.sequence:,}, "):
                past.rewind(moment)


# --- one case each ---------------------------------------------------------------------------------------------------


def test_unknown_fields_json_and_names_come_back_and_what_came_later_goes(past: Past) -> None:
    past.push(op("create", "a", Unique_id="u", phoneModel={"of": [1, 1.5, None]}, color="red", note="n"))
    past.push(op("update", "a", Unique_id="other", phoneModel=None, color=None, size=3))
    past.rewind(1)
    assert shown(past.live()) == shown(past.states[1]) and "size" not in past.live()["end_user", "a"]
    applied = push(past.tenants, past.id, {"changes": {"end_user": [{"Unique_id": "u", "note": "found"}]}})
    assert applied.results[0]["id"] == "a"


def test_only_a_table_or_rows_are_taken_back(past: Past) -> None:
    past.push(op("create", "a", note="1"), op("create", "b", note="1"), op("create", "a", "interactions", title="1"))
    past.push(op("update", "a", note="2"), op("update", "b", note="2"), op("delete", "a", "interactions"))
    assert past.rewind(3, ["end_user"], ["a", "never"]).rows == 1
    assert [row["note"] for row in past.live().values()] == ["2", "1"]
    assert past.rewind(3, ["interactions"]).rows == 1 and past.rewind(3).rows == 1
    assert shown(past.live()) == shown(past.states[3])


def test_preview_says_of_each_row_what_is_and_what_was(past: Past) -> None:
    past.push(op("create", "a", note="1"), op("create", "b", note="b"))
    past.push(op("update", "a", note="2"), op("delete", "b"), op("create", "c", note="c"))
    preview = past.machine.preview(past.machine.moment("2", T0))
    assert preview.counts == {"end_user": {"added": 1, "changed": 1, "gone": 1}}
    first, second, third = past.machine.rows(preview, 0, 9)
    about = {"table": "end_user", "id": "a", "kind": "changed"}
    assert first == {**about, "fields": {"note": {"now": "2", "then": "1"}}}
    assert (second["id"], second["kind"]) == ("b", "added") and second["fields"]["note"] == {"then": "b"}
    assert (third["id"], third["kind"]) == ("c", "gone") and third["fields"]["note"] == {"now": "c"}
    assert past.machine.rows(preview, 1, 1) == [second]


def test_row_that_was_changed_after_the_preview_is_left_unless_all_is_taken(past: Past) -> None:
    past.push(op("create", "a", note="1"), op("create", "b", note="1"))
    past.push(op("update", "a", note="2"), op("update", "b", note="2"))
    preview = past.machine.preview(past.machine.moment("2", T0))
    past.push(op("update", "b", note="3"), op("create", "c"))
    again = past.machine.preview(past.machine.moment("2", T0))
    past.push(op("update", "b", note="4"), op("create", "d"))
    assert past.machine.apply(preview)[:2] == (1, 1)
    assert {key[1]: row["note"] for key, row in past.live().items()} == {"a": "1", "b": "4", "c": None, "d": None}
    assert past.machine.apply(again, takes_all=True)[:2] == (3, 0)
    assert shown(past.live()) == shown(past.states[2])


def test_two_rewinds_at_once_are_one_and_leave_only_what_a_device_changed(past: Past) -> None:
    """Fault: what the other one had made was counted as changed meanwhile, so that both said that rows were left."""
    past.push(op("create", "a", note="1"), op("create", "b", note="1"))
    past.push(op("update", "a", note="2"), op("delete", "b"), op("create", "c"))
    one, other = (past.machine.preview(past.machine.moment("2", T0)) for _ in range(2))
    assert past.machine.apply(one)[:2] == (3, 0)
    assert past.machine.apply(other) == (0, 0, 0, 0)
    past.push(op("update", "a", note="3"))
    assert past.machine.apply(other)[:2] == (0, 1)


def test_more_rows_than_one_transaction_takes_come_in_several(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_machine, "ROWS_AT_ONCE", 4)
    past.push(*(op("create", f"r{number}", note="1") for number in range(10)))
    past.push(*(op("delete", f"r{number}") for number in range(10)))
    told = list[PushResult]()
    assert past.rewind(10, announce=told.append) == (10, 0, 21, 30)
    assert [(one.before.sequence, one.after.sequence) for one in told] == [(20, 24), (24, 28), (28, 30)]
    assert {status["status"] for one in told for status in one.results} == {"updated"}
    assert shown(past.live()) == shown(past.states[10])


def test_copy_from_before_tells_what_was_purged_and_brings_rows_back_whose_tombstones_are_gone(
    past: Past, tmp_path: Path
) -> None:
    past.push(op("create", "a", note="1"), op("create", "b", note="1", size=[2]), op("create", "kept"))
    past.push(op("update", "a", note="2"))
    past.tenants.engine.copy_to(past.id, copy := tmp_path / "before.db")
    past.push(op("update", "a", note="3"), op("delete", "b"), op("create", "c"))
    past.now += 20 * DAY_MS
    past.push(op("update", "c", note="c"))
    past.purge()
    with pytest.raises(NoMoment, match="not all held any more") as caught:
        past.rewind(3)
    assert caught.value.is_removed
    database = open_tenant_file(copy)
    machine = TimeMachine(past.tenants.engine, past.id, past=(database, "before.db"))
    moment = machine.moment("3", T0)
    one = machine.preview(moment, ["end_user"], ["b", "never"])
    assert [(row.id, row.kind, row.now) for row in one.rows] == [("b", "added", None)]
    assert machine.apply(machine.preview(moment), takes_all=True)[:2] == (3, 0)
    assert shown(past.live()) == shown(past.states[3]) and machine.preview(moment).rows == []
    database.close()


def test_value_that_a_column_does_not_take_now_is_put_aside_as_by_a_migration() -> None:
    table = synced_tables()["interactions"]
    row = {"id": "a", "type": "fax", "title": 5, "_unfit": {"date": 1}, "status": None, "is_deleted": 0}
    made = rewind.fitted(row, table)
    assert made["_unfit"] == {"date": 1, "type": "fax"} and made["type"] is None and made["title"] == "5"
    assert made["metadata"] is None and made["status"] is None and row["type"] == "fax"


def test_edit_from_before_an_accident_is_merged_after_its_rewind(past: Past) -> None:
    """A device that was offline keeps its edit of another field, and one of the same field loses against the operator."""
    past.push(op("create", "a", note="1", name="n"))
    past.push(op("update", "a", note="accident"))
    past.rewind(1)
    late = op("update", "a", base=1, name="offline", note="mine") | {"timestamp": format_time(T0)}
    applied = past.push(late, device_id="phone")
    row = past.live()["end_user", "a"]
    assert (row["name"], row["note"]) == ("offline", "1")
    (conflict,) = applied.conflicts
    assert conflict["fields"].keys() == {"note"} and conflict["server"]["deviceId"] == "operator"


def test_history_of_a_row_keeps_what_was_undone(past: Past) -> None:
    past.push(op("create", "a", note="1"))
    past.push(op("delete", "a"))
    past.rewind(1)
    entries, _ = past.tenants.read(past.id, lambda: history.history("end_user", "a", None, 9))
    assert [(one["version"], one["operation"], one["deviceId"]) for one in entries] == [
        (3, "update", "operator"),
        (2, "delete", None),
        (1, "create", None),
    ]
    assert "is_deleted" in entries[0]["fields"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("9", "no change 9 yet"),
        ("yesterday", "ISO 8601"),
        ("-1", "ISO 8601"),
        ("9" * 5000, "ISO 8601"),
        ("2100-01-01T00:00", "still to come. Without a zone a time is UTC"),
    ],
)
def test_moment_that_is_none_is_refused(past: Past, text: str, sentence: str) -> None:
    with pytest.raises(NoMoment, match=sentence):
        past.machine.moment(text, T0)


def test_time_means_the_last_commit_at_or_before_it_and_utc_without_a_zone(past: Past) -> None:
    past.push(op("create", "a"), op("create", "b"))
    past.push(op("create", "c"))
    first = past.times[2]
    moments = [past.machine.moment(format_time(at), T0 * 2) for at in (first - 1, first, first + 999, first + 1000)]
    assert [moment.sequence for moment in moments] == [0, 2, 2, 3] and moments[1].at == first
    assert past.machine.moment("0001-01-01", T0) == Moment(0, 0, is_utc_taken=True), "nothing was removed"
    without = past.machine.moment(format_time(first).removesuffix("Z"), T0 * 2)
    assert without == moments[1]._replace(is_utc_taken=True)


def test_table_that_is_none_and_rows_without_a_table_are_refused(past: Past) -> None:
    moment = past.machine.moment("0", T0)
    with pytest.raises(NoMoment, match="no synced table"):
        past.machine.preview(moment, ["_meta"])
    with pytest.raises(NoMoment, match="of one table"):
        past.machine.preview(moment, [], ["a"])
