"""Whose row a change means: its id, its ``Unique_id``, or neither (docs/api.md, rules of a push)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.errors import ValidationError
from tenants import Tenants
from tests.conftest import JSON
from tests.pushing import Tenant, op

FIRST: JSON = {"id": "local_1", "Unique_id": "first phone", "name": "Asha"}
SECOND: JSON = {"id": "local_1", "Unique_id": "second phone", "name": "Ravi"}
KNOWS_NONE: JSON = {"baseVersion": 0}
"""What a new client says of a row that it has not had from the server."""
UUID = "3f2b1c1e-0000-4000-8000-000000000000"


@pytest.fixture
def tenant(tenants: Tenants, new_tenant: Callable[[], str]) -> Tenant:
    return Tenant(tenants, new_tenant())


def names(tenant: Tenant, table: str = "end_user") -> list[str]:
    return sorted(row["name"] for row in tenant.all(table) if not row["is_deleted"])


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_id", ["a", "A-1_b.c:d", "0", "x" * 64, "3f2b1c1e-0000-4000-8000-000000000000"])
def test_good_id_is_kept(tenant: Tenant, row_id: str) -> None:
    assert tenant.do("create", id=row_id)["id"] == row_id


@pytest.mark.parametrize("absent", [{}, {"id": None}, {"id": ""}, {"id": 17}, {"id": 0}, {"id": -1.5}])
def test_absent_id_makes_a_new_row_each_time(tenant: Tenant, absent: JSON) -> None:
    ids = {tenant.do("create", **absent, name="A")["id"] for _ in range(2)}
    assert len(ids) == 2 and all(len(row_id) == 36 for row_id in ids)


@pytest.mark.parametrize("row_id", ["a b", "ä", "x" * 65, "a/b", "a\n", "' OR 1=1", True, [], {"a": 1}])
def test_ill_formed_id_is_refused(tenant: Tenant, row_id: Any) -> None:
    with pytest.raises(ValidationError):
        tenant.do("create", id=row_id)
    assert tenant.all() == []


@pytest.mark.parametrize("beside", [{}, {"id": None}, {"id": ""}, {"id": 17}, {"id": "no id!"}])
@pytest.mark.parametrize("unique_id", ["u", "ü😀", "u" * 255, "'; DROP TABLE end_user", "[1]", 17])
def test_unique_id_finds_the_row_that_a_first_try_made(tenant: Tenant, beside: JSON, unique_id: Any) -> None:
    first = tenant.do("create", **beside, Unique_id=unique_id, name="A")
    assert tenant.do("create", **beside, Unique_id=unique_id, name="A")["status"] == "unchanged"
    assert tenant.do("update", **beside, Unique_id=unique_id, name="B")["id"] == first["id"]
    (row,) = tenant.all()
    assert (row["name"], row["Unique_id"], row["version"]) == ("B", str(unique_id), 2)


@pytest.mark.parametrize("unique_id", ["", None])
def test_empty_unique_id_finds_no_row(tenant: Tenant, unique_id: Any) -> None:
    ids = {tenant.do("create", Unique_id=unique_id)["id"] for _ in range(2)}
    assert len(ids) == 2


def test_same_id_in_two_tables_is_two_rows(tenant: Tenant) -> None:
    tenant.do("create", id="a", Unique_id="u", name="A")
    assert tenant.do("create", "interactions", id="a", Unique_id="u", title="T")["status"] == "created"
    assert tenant.do("update", "interactions", Unique_id="u", title="T2")["id"] == "a"
    assert tenant.row("a")["version"] == 1


# --- one id, two rows ------------------------------------------------------------------------------------------------


def form_a(*rows: JSON) -> list[JSON]:
    return [op("create", **row) for row in rows]


def form_b(*rows: JSON) -> list[JSON]:
    return [{"changes": {"end_user": [row]}} for row in rows]


def form_b_at_once(*rows: JSON) -> list[JSON]:
    return [{"changes": {"end_user": list(rows)}}]


def form_c(*rows: JSON) -> list[JSON]:
    return [{"operations": [op("create", **row) for row in rows]}]


def as_updates(*rows: JSON) -> list[JSON]:
    """An app that edits a row before it was ever sent calls it an update."""
    return [op("update", **row) for row in rows]


@pytest.mark.parametrize("said", [form_a, form_b, form_b_at_once, form_c, as_updates])
@pytest.mark.parametrize("row_id", ["1", "local_1", "x" * 64])
@pytest.mark.parametrize("is_atomic", [True, False])
def test_id_that_two_phones_chose_makes_two_rows_in_every_form(
    tenant: Tenant, said: Callable[..., list[JSON]], row_id: str, is_atomic: bool
) -> None:
    """Fault: ``updated``: the second phone's customer took the place of the first's, without a conflict."""
    rows = [one | {"id": row_id} for one in (FIRST, SECOND)]
    for body in said(*rows):
        tenant.push({"atomic": is_atomic, **body})
    first, second = tenant.all()
    assert (first["id"], first["name"], first["version"]) == (row_id, "Asha", 1)
    assert (len(second["id"]), second["name"], second["Unique_id"]) == (36, "Ravi", "second phone")


@pytest.mark.parametrize("said", [form_a, form_b, form_b_at_once, form_c, as_updates])
def test_second_phone_finds_its_row_again_by_its_unique_id(tenant: Tenant, said: Callable[..., list[JSON]]) -> None:
    for body in said(FIRST, SECOND):
        tenant.push(body)
    again = [result for body in said(SECOND, FIRST) for result in tenant.results(body)]
    assert [result["status"] for result in again] == ["unchanged", "unchanged"]
    assert [result["id"] == "local_1" for result in again] == [False, True]
    for body in said(SECOND | {"name": "Ravi Kumar"}):
        tenant.push(body)
    assert names(tenant) == ["Asha", "Ravi Kumar"]
    assert tenant.do("delete", id="local_1", Unique_id="second phone")["status"] == "deleted"
    assert names(tenant) == ["Asha"]


def test_delete_under_an_unknown_id_deletes_nothing(tenant: Tenant) -> None:
    tenant.do("create", **FIRST)
    result = tenant.do("delete", id="local_1", Unique_id="never sent")
    assert (result["status"], result["id"] == "local_1", names(tenant)) == ("unchanged", False, ["Asha"])


def test_id_of_a_deleted_row_is_taken_as_well(tenant: Tenant) -> None:
    """Its tombstone still has to reach the first phone, whose row this never was."""
    tenant.do("create", **FIRST)
    tenant.do("delete", id="local_1")
    assert tenant.do("create", **SECOND)["id"] != "local_1"
    assert (tenant.row("local_1")["is_deleted"], names(tenant)) == (1, ["Ravi"])


def test_place_reached_since_proves_nothing_for_a_row_that_states_its_base(tenant: Tenant) -> None:
    """A replica creates offline, pulls, and pushes from there. Fault: the other's row under its id was overwritten."""
    cursor = tenant.push(op("create", **FIRST)).after.cursor
    tenant.push({"baseCursor": cursor, "operations": [op("create", about=KNOWS_NONE, **SECOND)]})
    assert names(tenant) == ["Asha", "Ravi"]


def test_edits_after_a_create_in_the_same_push_mean_its_row(tenant: Tenant) -> None:
    """A new client's outbox: only the create says the ``Unique_id``, the edits have the id alone."""
    tenant.do("create", **FIRST)
    edits = [op("update", about=KNOWS_NONE, id="local_1", note="n"), op("delete", about=KNOWS_NONE, id="local_1")]
    for number, edit in enumerate(edits):
        row = SECOND | {"Unique_id": f"second phone {number}"}
        results = tenant.results({"operations": [op("create", about=KNOWS_NONE, **row), edit]})
        assert results[0]["id"] == results[1]["id"] != "local_1"
    assert (tenant.row("local_1")["version"], tenant.row("local_1")["note"]) == (1, None)


@pytest.mark.parametrize("row", [{"id": "a"}, {"id": "a", "Unique_id": None}, {"id": "a", "Unique_id": ""}])
def test_who_says_no_unique_id_says_no_other(tenant: Tenant, row: JSON) -> None:
    tenant.do("create", id="a", Unique_id="u", name="A")
    assert [tenant.do(kind, **row, name="B")["id"] for kind in ("create", "update")] == ["a", "a"]
    tenant.do("create", **(row | {"id": "b"}), name="A")
    assert tenant.do("create", id="b", Unique_id="new", name="B")["id"] == "b"
    assert len(tenant.all()) == 2


@pytest.mark.parametrize(
    ("row_id", "about"),
    [("a", {"baseVersion": 1}), ("a", "baseCursor"), (UUID, {}), (UUID.upper(), {})],
    ids=["base", "cursor", "uuid", "upper"],
)
@pytest.mark.parametrize("kind", ["update", "delete"])
def test_who_knew_the_row_changes_its_unique_id(tenant: Tenant, row_id: str, about: Any, kind: str) -> None:
    """A base proves that its device knew the row; and no two devices count up to the same UUID."""
    cursor = tenant.push(op("create", id=row_id, Unique_id="old", name="A")).after.cursor
    beside = {"baseCursor": cursor} if about == "baseCursor" else {}
    said = op(kind, about={} if about == "baseCursor" else about, id=row_id, Unique_id="new")
    assert tenant.results({"operations": [said], **beside})[0]["id"] == row_id
    (row,) = tenant.all()
    assert (row["Unique_id"], row["is_deleted"]) == ("new", kind == "delete")


# --- one Unique_id, two ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [form_a, form_b, form_b_at_once, form_c, as_updates])
@pytest.mark.parametrize("second_id", ["till-2", UUID])
def test_unique_id_that_two_tills_create_under_different_ids_finds_the_first(
    tenant: Tenant, said: Callable[..., list[JSON]], second_id: str
) -> None:
    """docs/tables.md. Fault: two rows of one ``Unique_id``. What the second till sends later means the same row."""
    rows: list[JSON] = [{"id": row_id, "Unique_id": "8901234", "name": "Tea"} for row_id in ("till-1", second_id)]
    for body in said(rows[0], rows[1] | {"name": "Tea 250 g"}):
        tenant.push(body)
    (row,) = tenant.all()
    assert (row["id"], row["name"], row["version"]) == ("till-1", "Tea 250 g", 2)
    assert tenant.do("delete", id=second_id, Unique_id="8901234")["id"] == "till-1"


def test_edits_of_the_second_till_in_the_push_of_its_create_mean_the_first_row(tenant: Tenant) -> None:
    tenant.do("create", id="till-1", Unique_id="u")
    said = [op("create", id="till-2", Unique_id="u"), op("update", about=KNOWS_NONE, id="till-2", note="n")]
    assert [result["id"] for result in tenant.results({"operations": said})] == ["till-1", "till-1"]


def test_row_that_its_device_knew_and_the_server_lost_is_made_under_its_own_id(tenant: Tenant) -> None:
    """After a restore: its base says that it was a row of its own."""
    tenant.do("create", id="a", Unique_id="u")
    assert tenant.do("create", id="b", Unique_id="u", about={"baseVersion": 3})["id"] == "b"


# --- a live row before a deleted one ---------------------------------------------------------------------------------


@pytest.fixture
def both(tenant: Tenant) -> Tenant:
    """A deleted row with the least id, and a live one, of the same ``Unique_id``."""
    for row_id in ("a", "b"):
        tenant.do("create", id=row_id, Unique_id=f"own {row_id}", name=row_id)
    tenant.do("delete", id="a")
    for row_id in ("a", "b"):
        tenant.do("update", id=row_id, Unique_id="u", about={"baseVersion": 1})
    return tenant


@pytest.mark.parametrize("beside", [{}, {"id": 17}, {"id": "no id!"}, {"id": "unknown"}])
@pytest.mark.parametrize("is_one_push", [True, False])
def test_unique_id_of_a_deleted_row_and_a_live_one_means_the_live_one(
    both: Tenant, beside: JSON, is_one_push: bool
) -> None:
    """Fault: the least id: an edit went into the tombstone, and a delete was ``unchanged``."""
    kinds: list[tuple[str, JSON]] = [("create", {"note": "1"}), ("update", {"note": "2"}), ("delete", {})]
    said = [op(kind, Unique_id="u", **beside, **fields) for kind, fields in kinds]
    bodies = [{"operations": said}] if is_one_push else [{"operations": [one]} for one in said]
    results = [result for body in bodies for result in both.results(body)]
    assert [(result["id"], result["status"]) for result in results] == [
        ("b", "updated"),
        ("b", "updated"),
        ("b", "deleted"),
    ]


def test_upsert_by_a_unique_id_means_the_live_row_on_either_way(both: Tenant) -> None:
    rows: list[JSON] = [{"Unique_id": "u", "note": "1"}, *({"id": f"r{number}"} for number in range(20))]
    assert both.results({"changes": {"end_user": rows}})[0]["id"] == "b"
    assert both.row("a")["note"] is None


def test_live_row_that_is_deleted_in_a_push_is_a_deleted_one_for_the_rest_of_it(both: Tenant) -> None:
    said = [op("delete", id="b"), op("update", id="a", is_deleted=0), op("update", Unique_id="u", note="n")]
    assert [result["id"] for result in both.results({"operations": said})] == ["b", "a", "a"]


def test_of_several_live_rows_it_means_the_same_one_each_time(tenant: Tenant) -> None:
    for row_id in ("b", "a", "c"):
        tenant.do("create", id=row_id)
        tenant.do("update", id=row_id, Unique_id="u", about={"baseVersion": 1})
    assert {tenant.do("update", Unique_id="u", name=name)["id"] for name in "XYZ"} == {"a"}
