"""What apps of the older API show to people is where they look for it: ``entityId`` and ``data``, ``error``, members of
``/health``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Device, Server, Tenant


def test_complete_push_of_one_row_names_it_and_has_it(tenant: Tenant, device: Device) -> None:
    listener = tenant.device().listen()
    row = device.create(name="Asha")
    note = listener.wait_note("sync_complete")
    assert (note["entityType"], note["entityId"], note["data"]) == ("end_user", row["id"], row)
    device.push({"changes": {"end_user": [{"id": "a"}, {"id": "b"}]}})
    assert listener.wait_note("sync_complete", 2).keys().isdisjoint({"entityId", "data"})
    device.push({"changes": {"end_user": [{"id": "a", "note": "x"}], "interactions": [{"id": "i"}]}})
    assert listener.wait_note("sync_complete", 3)["data"] == {"count": 2, "entityTypes": ["end_user", "interactions"]}
    device.create(id="large", note="x" * 9_000)
    note = listener.wait_note("sync_complete", 4)
    assert note["entityId"] == "large" and "data" not in note
    listener.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"table": "end_user", "operation": "create", "data": {"active": 5}},
            "data.active must be 0, 1, true or false. Nothing was stored.",
        ),
        (
            {"changes": {"end_user": [{"active": 5}]}},
            "changes.end_user[0].active must be 0, 1, true or false. Nothing was stored.",
        ),
        (
            {"operations": [{"table": "nope", "operation": "create", "data": {}}]},
            "operations[0].table is not a synced table. Nothing was stored.",
        ),
        (
            {"changes": {"end_user": [{"active": 5}, {"active": 1}]}},
            "1 of 2 rows can't be stored, so none was.",
        ),
    ],
)
def test_push_of_one_row_says_its_reason_in_the_error_itself(device: Device, body: Any, said: str) -> None:
    answer = device.push_raw(body)
    assert answer.status_code == 400
    assert answer.json()["error"] == answer.json()["message"] == said


def test_many_faults_of_one_row_are_counted(device: Device) -> None:
    row = {"active": "x", "is_deleted": "x", "phoneModel": 1, "x" * 65: 1, "y" * 65: 1}
    said = device.push_raw({"changes": {"end_user": [row]}}).json()["error"]
    assert said.count(";") == 3 and said.endswith("; and 1 more faults. Nothing was stored.")


def test_health_has_the_older_fields(server: Server) -> None:
    body = server.call("GET", "/health").json()
    assert body["timestamp"].endswith("Z") and isinstance(body["connectedClients"], int)
