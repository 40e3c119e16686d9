"""Decisions on conflicts, and reverts, against what happened to the row since: nothing is overwritten untold."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import JSON, Device, Tenant


def call(tenant: Tenant, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return tenant.server.call(method, f"/api/client/sync/{path}", body, tenant.token, **headers)


def conflicts(tenant: Tenant) -> list[JSON]:
    found: list[JSON] = call(tenant, "GET", "conflicts").json()["data"]
    return found


def decide(tenant: Tenant, conflict: JSON, resolution: str, **row: Any) -> Any:
    body = {"resolution": resolution} | ({"row": row} if row else {})
    return call(tenant, "POST", f"conflicts/{conflict['conflictId']}/resolve", body)


@pytest.fixture
def conflict(tenant: Tenant, device: Device) -> JSON:
    """B stood, C came later and won."""
    device.create(id="a", name="A", note="n")
    device.update(id="a", name="B")
    stale = {"table": "end_user", "operation": "update", "baseVersion": 1, "data": {"id": "a", "name": "C"}}
    device.push({"operations": [stale]})
    (found,) = conflicts(tenant)
    return found


@pytest.mark.parametrize("way", ["other", "row"])
@pytest.mark.parametrize("is_informed", [True, False])
def test_decision_that_overwrites_a_later_edit_keeps_it_in_the_log(
    tenant: Tenant, device: Device, conflict: JSON, way: str, is_informed: bool
) -> None:
    """Fault: ``other`` stated no base, so that an edit made after the conflict was gone without an entry."""
    edit: JSON = {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "D", "phone": "1"}}
    device.push(edit | ({"baseVersion": conflict["version"]} if is_informed else {}))
    answer = decide(tenant, conflict, way, **({"name": "B"} if way == "row" else {})).json()
    assert answer["data"][0]["name"] == "B" and answer["data"][0]["phone"] == "1"
    (entry,) = conflicts(tenant)
    assert entry["conflictId"] != conflict["conflictId"] and answer["conflicts"] == [entry]
    assert entry["fields"] == {"name": {"base": "C", "client": "B", "server": "D", "winner": "client"}}
    assert decide(tenant, entry, "other").json()["data"][0]["name"] == "D", "and it can be had back"
    assert conflicts(tenant) == []


@pytest.mark.parametrize("way", ["other", "row"])
def test_decision_after_an_edit_of_other_fields_is_no_conflict(
    tenant: Tenant, device: Device, conflict: JSON, way: str
) -> None:
    device.update(id="a", note="later")
    answer = decide(tenant, conflict, way, **({"name": "B"} if way == "row" else {})).json()
    assert (answer["data"][0]["name"], answer["data"][0]["note"], answer["conflicts"]) == ("B", "later", [])
    assert conflicts(tenant) == []


def removed(tenant: Tenant, device: Device) -> None:
    """Delete the row, and remove it as the purge does once nobody needs its tombstone."""
    device.delete(id="a")
    with closing(sqlite3.connect(tenant.path)) as file, file:
        file.execute("DELETE FROM end_user WHERE id = 'a'")
        file.execute("DELETE FROM _changes WHERE row_id = 'a'")


@pytest.mark.parametrize("is_made_anew", [False, True])
@pytest.mark.parametrize("way", ["other", "row"])
def test_conflict_of_a_row_that_is_gone_is_closed_and_makes_no_row(
    tenant: Tenant, device: Device, conflict: JSON, way: str, is_made_anew: bool
) -> None:
    """Fault: a row appeared that had the one field of the conflict, and a new row took over what an old one had lost."""
    removed(tenant, device)
    for number in range(5 if is_made_anew else 0):  # Until its version is beyond that of the conflict.
        device.push({"changes": {"end_user": [{"id": "a", "name": f"new {number}"}]}})
    before = device.rows()
    refused = decide(tenant, conflict, way, **({"name": "B"} if way == "row" else {}))
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found") and "with keep" in refused.json()[
        "error"
    ]
    assert device.rows() == before and [one["conflictId"] for one in conflicts(tenant)] == [conflict["conflictId"]]
    kept = decide(tenant, conflict, "keep")
    assert kept.status_code == 200 and [one["status"] for one in kept.json()["results"]] == ["unchanged"]
    assert device.rows() == before and conflicts(tenant) == []


@pytest.mark.parametrize("way", ["keep", "other"])
def test_conflict_of_a_deleted_row_that_is_still_held_is_decided(
    tenant: Tenant, device: Device, conflict: JSON, way: str
) -> None:
    device.delete(id="a")
    answer = decide(tenant, conflict, way)
    assert answer.status_code == 200 and answer.json()["data"][0]["is_deleted"] == 1
    assert device.rows() == []
