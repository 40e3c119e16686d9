"""Creates that the server answers with another id: another phone has it, or another till made the row first."""

from __future__ import annotations

from conftest import MakeClient
from test_exchange import equals_server
from tests.kit.truth import Account

from syncclient import Hooks, SyncClient


def _names(client: SyncClient) -> dict[str, tuple[str | None, str | None]]:
    return {row["name"]: (row.get("note"), row.get("phone")) for row in client.rows("end_user")}


def test_edits_that_wait_follow_their_row_to_the_id_that_the_server_gave_it(
    make_client: MakeClient, account: Account
) -> None:
    told: list[tuple[str, str, str]] = []
    hooks = Hooks(on_renamed=lambda *names: told.append(names))
    first, second = make_client(), make_client(hooks=hooks)
    first.sync()
    second.sync()
    for client, name, till, field in ((first, "Asha", "till-1", "note"), (second, "Ravi", "till-2", "phone")):
        client.put("end_user", {"id": "local_1", "Unique_id": name, "name": name})
        client.put("end_user", {"id": "local_1", "note": f"of {name}"})
        client.put("end_user", {"id": till, "Unique_id": "tea", "name": "Tea"})
        client.put("end_user", {"id": till, field: till})
    for client in (first, second, first):
        client.sync()
    expected = {"Asha": ("of Asha", None), "Ravi": ("of Ravi", None), "Tea": ("till-1", "till-2")}
    for client in (first, second):
        equals_server(client, account)
        assert _names(client) == expected
    ids = {row["name"]: row["id"] for row in second.rows("end_user")}
    assert ids["Asha"] == "local_1"
    assert told == [("end_user", "local_1", ids["Ravi"]), ("end_user", "till-2", "till-1")]


def test_delete_that_waits_follows_too_and_the_other_phone_s_row_stays(
    make_client: MakeClient, account: Account
) -> None:
    first, second = make_client(), make_client()
    first.put("end_user", {"id": "local_1", "Unique_id": "first", "name": "Asha"})
    first.sync()
    second.put("end_user", {"id": "local_1", "Unique_id": "second", "name": "Ravi"})
    second.delete("end_user", "local_1")
    second.sync()
    first.sync()
    for client in (first, second):
        equals_server(client, account)
        assert _names(client) == {"Asha": (None, None)}
