"""What becomes of each change of a push: whose row it is, what it alters, and in which order (docs/api.md)."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from models import connection
from protocol.codec import format_time
from protocol.errors import ValidationError
from storage.dialect import dialect
from tenants import Tenants
from tests import inside
from tests.conftest import JSON
from tests.pushing import Tenant, op


@pytest.fixture
def tenant(tenants: Tenants, new_tenant: Callable[[], str]) -> Tenant:
    return Tenant(tenants, new_tenant())


@pytest.fixture
def other(tenants: Tenants, new_tenant: Callable[[], str]) -> Tenant:
    return Tenant(tenants, new_tenant())


# --- create, update, delete ------------------------------------------------------------------------------------------


def test_stored_row_has_what_the_server_sets(tenant: Tenant) -> None:
    row = tenant.do("create", id="a", name="A", sync_status="pending", version=9, server_synced=0, createdAt="x")["row"]
    at = format_time(tenant.now)
    assert (row["sync_status"], row["server_synced"], row["version"]) == ("synced", 1, 1)
    assert (row["createdAt"], row["updatedAt"], row["active"], row["is_deleted"]) == (at, at, 1, 0)
    later = tenant.do("update", id="a", name="B")["row"]
    assert (later["createdAt"], later["updatedAt"], later["version"]) == (at, format_time(tenant.now), 2)


def test_create_twice_makes_one_row(tenant: Tenant) -> None:
    assert [tenant.do("create", id="a", name="A")["status"] for _ in range(3)] == ["created", "unchanged", "unchanged"]
    assert len(tenant.all()) == 1


def test_unchanged_makes_no_version_no_sequence_and_nothing_to_tell(tenant: Tenant) -> None:
    """Fault: ``_different`` gives every field that was sent: ``updated``."""
    full: JSON = {"id": "a", "name": "A", "active": True, "phoneModel": {"b": [1, None, {"c": 2.5}]}, "color": "red"}
    tenant.do("create", **full)
    before, place = tenant.row("a"), tenant.sequence
    for operation in ("create", "update"):
        result = tenant.do(operation, **full)
        assert (result["status"], result["version"], result["row"]) == ("unchanged", 1, before)
    applied = tenant.push({"changes": {"end_user": [full]}})
    assert applied.touched == {} and applied.before == applied.after
    assert (tenant.row("a"), tenant.sequence) == (before, place)


def test_update_changes_the_fields_present_and_null_clears(tenant: Tenant) -> None:
    tenant.do("create", id="a", name="A", email="a@x", color="red", phoneModel={"x": 1})
    row = tenant.do("update", id="a", name="B", email=None, phoneModel=None)["row"]
    assert (row["name"], row["email"], row["color"], row["phoneModel"], row["version"]) == ("B", None, "red", None, 2)
    row = tenant.do("update", id="a", color=None, active=None)["row"]
    assert (row["name"], row["color"], row["active"]) == ("B", None, None)


def test_update_of_an_unknown_row_creates_it(tenant: Tenant) -> None:
    result = tenant.do("update", id="a", name="A")
    assert (result["status"], result["version"], result["row"]["active"]) == ("created", 1, 1)


@pytest.mark.parametrize("data", [{"id": "a"}, {"Unique_id": "u"}, {}, {"id": 17}, {"id": "a", "name": "A"}])
def test_delete_of_an_unknown_row_succeeds_and_stores_nothing(tenant: Tenant, data: JSON) -> None:
    result = tenant.do("delete", **data)
    assert (result["status"], result["version"], result["row"]["is_deleted"]) == ("unchanged", 0, 1)
    assert tenant.all() == [] and tenant.sequence == 0


def test_delete_leaves_a_tombstone_with_its_fields(tenant: Tenant) -> None:
    tenant.do("create", id="a", name="A")
    assert tenant.do("delete", id="a")["status"] == "deleted"
    row = tenant.row("a")
    assert (row["is_deleted"], row["name"], row["version"]) == (1, "A", 2)
    assert tenant.do("delete", id="a")["status"] == "unchanged"
    assert inside.rows(tenant.tenants, tenant.id) == []


def test_update_alone_revives_nothing(tenant: Tenant) -> None:
    tenant.do("create", id="a", name="A")
    tenant.do("delete", id="a")
    assert tenant.do("update", id="a", name="C")["row"]["is_deleted"] == 1
    assert tenant.do("update", id="a", is_deleted=0)["row"]["is_deleted"] == 0


# --- several changes in one push -------------------------------------------------------------------------------------


def test_order_within_a_push_is_kept(tenant: Tenant) -> None:
    body = [
        op("create", id="b"),
        op("create", "interactions", id="i"),
        op("create", id="a"),
        op("update", id="b", name="B"),
    ]
    assert tenant.statuses({"operations": body}) == ["created", "created", "created", "updated"]
    assert [row["id"] for row in tenant.all()] == ["a", "b"]
    sql = "SELECT row_id, version FROM _changes ORDER BY seq"
    log = tenant.tenants.read(tenant.id, lambda: connection().execute(sql).fetchall())
    assert log == [("b", 1), ("i", 1), ("a", 1), ("b", 2)]


def test_many_changes_of_one_row_in_one_push_end_as_the_last(tenant: Tenant) -> None:
    body = [op("create", id="a", n=0), *[op("update", id="a", n=n) for n in range(1, 200)], op("delete", id="a")]
    results = tenant.results({"operations": body})
    assert [result["version"] for result in results] == list(range(1, 202))
    assert [result["row"].get("n") for result in results[:200]] == list(range(200))
    (row,) = tenant.all()
    assert (row["n"], row["is_deleted"], row["version"]) == (199, 1, 201)
    assert list(tenant.told[-1].touched["end_user"]) == ["a"]


def test_three_forms_end_in_the_same_row(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    data: JSON = {"id": "a", "name": "A", "active": 0, "color": {"r": 1}, "last_updated": "2026-01-01T00:00:00.000Z"}
    forms: list[list[JSON]] = [
        [op("create", **data), op("update", id="a", name="B"), op("delete", id="a")],
        [{"changes": {"end_user": [row]}} for row in (data, {"id": "a", "name": "B"}, {"id": "a", "is_deleted": 1})],
    ]
    forms.append([{"operations": [body]} for body in forms[0]])
    ends = []
    for bodies in forms:
        tenant = Tenant(tenants, new_tenant())
        statuses = [tenant.statuses(body)[0] for body in bodies]
        assert statuses == ["created", "updated", "deleted"]
        ends += tenant.all()
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize("turn", range(6))
def test_one_push_of_many_changes_ends_like_many_pushes_of_one(
    tenant: Tenant, other: Tenant, chance: random.Random, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: ``self.ids`` of changes only ever grows: a Unique_id that had moved led to the wrong row."""
    chosen: list[JSON] = []
    for _ in range(150):
        data: JSON = {"name": chance.choice(["A", "B", None]), "n": chance.randrange(3)}
        who: JSON = chance.choice([{"id": chance.choice("abc")}, {"Unique_id": chance.choice("uvw")}])
        if "id" in who and chance.random() < 0.5:
            who["Unique_id"] = chance.choice(["u", "v", "w", "x", None])
        kind = chance.choice(["create", "update", "update", "delete"])
        data = dict(chance.sample(sorted(data.items()), chance.randrange(3))) if kind != "delete" else {}
        about: JSON = {"opId": f"op-{len(chosen)}"} if kind == "create" else {}  # Else a repeat, where it stands alone.
        chosen.append(op(kind, about=about, **who, **data))

    def ends(of: Tenant) -> list[JSON]:
        return [row | dict.fromkeys(("updatedAt", "createdAt", "last_updated")) for row in of.all()]

    for part in (chosen[:50], chosen[50:]):
        numbers, same_numbers = itertools.tee(itertools.count(len(part) * 1000))
        monkeypatch.setattr(
            "storage.push_batch.new_ids", lambda *_, numbers=numbers: (str(uuid.UUID(int=one)) for one in numbers)
        )
        at_once = tenant.results({"operations": part}, device_id="phone")
        monkeypatch.setattr(
            "storage.push_batch.new_ids", lambda *_, numbers=same_numbers: (str(uuid.UUID(int=one)) for one in numbers)
        )
        one_by_one = [other.results({"operations": [change]}, device_id="phone")[0] for change in part]
        for change, one, two in zip(part, at_once, one_by_one, strict=True):
            assert [one[name] for name in ("status", "id", "version")] == [two["status"], two["id"], two["version"]], (
                change
            )
        assert ends(tenant) == ends(other)
    assert tenant.sequence == other.sequence


def test_atomic_push_with_one_bad_row_stores_nothing_and_names_every_bad_row(tenant: Tenant) -> None:
    rows = [{"id": "a"}, {"id": "b", "active": 7}, {"id": "c"}, {"id": "d", "name": []}]
    with pytest.raises(ValidationError) as refused:
        tenant.push({"changes": {"end_user": rows}})
    assert [fault["path"] for fault in refused.value.details] == [
        "changes.end_user[1].active",
        "changes.end_user[3].name",
    ]
    assert tenant.all() == [] and tenant.sequence == 0 and tenant.told == []


def test_push_that_is_not_atomic_stores_the_rest_with_results_aligned(tenant: Tenant) -> None:
    rows = [{"id": "a"}, {"id": "b", "active": 7}, {"id": "a"}, "no row", {"id": "c", "name": "C"}]
    results = tenant.results({"atomic": False, "changes": {"end_user": rows, "nope": [{"id": "x"}]}})
    statuses = ["created", "rejected", "unchanged", "rejected", "created", "rejected"]
    assert [result["status"] for result in results] == statuses
    assert [result["row"] and result["row"]["id"] for result in results] == ["a", None, "a", None, "c", None]
    assert [bool(result.get("error")) for result in results] == [status == "rejected" for status in statuses]
    assert [row["id"] for row in tenant.all()] == ["a", "c"]


def test_empty_push_is_answered_with_nothing(tenant: Tenant) -> None:
    bodies: list[JSON] = [{"changes": {}}, {"changes": {"end_user": []}}, {"operations": []}]
    for body in bodies:
        assert tenant.results(body) == []
    assert tenant.sequence == 0


def test_row_may_have_the_limits_bytes_and_no_more(tenant: Tenant) -> None:
    """Fault: ``>=`` for ``>`` at the limit: the row of exactly that size was refused."""
    size = len(json.dumps(tenant.do("create", id="a", note="")["row"], separators=(",", ":")))
    fits = "x" * (inside.LIMITS.row_bytes - size)
    assert tenant.do("create", id="b", note=fits)["status"] == "created"
    body = {"operations": [op("create", id="c", note=fits + "x")]}
    with pytest.raises(ValidationError) as refused:
        tenant.push(body)
    assert refused.value.details[0]["path"] == "operations[0]" and "65,537" in refused.value.details[0]["error"]
    assert tenant.statuses({**body, "atomic": False}) == ["rejected"]
    assert sorted(row["id"] for row in tenant.all()) == ["a", "b"]


def test_row_can_not_grow_beyond_the_limit_by_unknown_fields(tenant: Tenant) -> None:
    for number in range(6):
        field: JSON = {f"field{number}": "x" * 10_000}
        tenant.do("update", id="a", **field)
    with pytest.raises(ValidationError):
        tenant.do("update", id="a", field6="x" * 10_000)
    assert "field6" not in tenant.row("a")


# --- ids -------------------------------------------------------------------------------------------------------------


def test_ids_that_the_server_makes_are_uuids_in_the_order_of_their_commits(tenant: Tenant) -> None:
    """Source: RFC 9562 section 5.7."""
    made = [tenant.push({"changes": {"end_user": [{"name": "A"}]}}).results[0]["id"] for _ in range(20)]
    assert made == sorted(made) and len(set(made)) == 20
    assert {(one.version, one.variant) for one in map(uuid.UUID, made)} == {(7, uuid.RFC_4122)}


# --- chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(10))
def test_push_in_chunks_of_any_size_comes_to_the_same(
    tenant: Tenant, other: Tenant, chance: random.Random, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: ``known`` overwritten by what a slice before had written: a device's own change became a conflict."""
    for number in range(8):
        body = {"operations": [any_operation(chance) for _ in range(30)], "atomic": chance.random() < 0.2}
        options: JSON = {"device_id": chance.choice([None, "phone", "tablet"])}
        if number and chance.random() < 0.3:
            body["baseCursor"] = chance.randrange(tenant.sequence + 1)
        found = []
        for one, chunk_rows in ((tenant, chance.randrange(1, 8)), (other, 1000)):
            monkeypatch.setattr("storage.push_writer._CHUNK_ROWS", chunk_rows)
            made = map("made-{}".format, itertools.count(number * 1000))
            monkeypatch.setattr("storage.push_batch.new_ids", lambda *_, made=made: made)
            found.append(outcome(one, body, options))
        assert found[0] == found[1]


def any_operation(chance: random.Random) -> JSON:
    """Make an operation on one of few rows, by id or by ``Unique_id``, perhaps under a name that was used before."""
    row: JSON = {chance.choice(["name", "email", "note"]): chance.choice("abc")}
    row |= {"id": chance.choice("uvwxyz")} if chance.random() < 0.7 else {"Unique_id": chance.choice("123")}
    about: JSON = {"baseVersion": chance.randrange(6)} if chance.random() < 0.4 else {}
    if chance.random() < 0.2:
        about["opId"] = f"op-{chance.randrange(12)}"
    if chance.random() < 0.05:
        row["is_deleted"] = "no flag"
    return op(chance.choice(["create", "update", "update", "delete"]), about=about, **row)


def outcome(tenant: Tenant, body: JSON, options: JSON) -> Any:
    """Push, and give all that it came to."""
    base = body.get("baseCursor")
    epoch = tenant.tenants.read(tenant.id, lambda: connection().execute("SELECT epoch FROM _meta").fetchall()[0][0])
    own = body if base is None else body | {"baseCursor": f"{epoch}-{base}"}
    try:
        applied = tenant.push(own, **options)
        said: Any = (applied.results, applied.rows, applied.conflicts, applied.touched)
    except ValidationError as problem:
        said = problem.details
    return said, tenant.all(), tenant.tenants.read(tenant.id, logged)


def logged() -> list[Any]:
    columns = ", ".join(dialect().schema.columns("_changes"))
    changes = connection().execute(f"SELECT {columns} FROM _changes ORDER BY seq").fetchall()
    digests = connection().execute("SELECT table_name, hash, count FROM _digests ORDER BY table_name").fetchall()
    return [*changes, *digests]
