"""What customers do with their own sessions and data.

Seen to fail with: a session ended without asking whose it is; an archive without a password; an export that
counts as running when its client has gone.
"""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
from collections.abc import Callable

import pytest
import requests

from tests.conftest import JSON, WAIT_SECONDS, Listener, Server, Tenant, wait_for
from tests.signing_in import me, refresh, session

SESSIONS, EXPORT = "/api/customers/me/sessions", "/api/customers/me/export"


def listed(tenant: Tenant) -> list[JSON]:
    found: list[JSON] = tenant.server.call("GET", SESSIONS, token=tenant.token).json()["data"]
    return found


def end(tenant: Tenant, session_id: str = "") -> requests.Response:
    address = f"{SESSIONS}/{session_id}" if session_id else SESSIONS
    answer: requests.Response = tenant.server.call("DELETE", address, token=tenant.token)
    return answer


def test_session_of_a_lost_device_is_found_by_the_device_and_ended_with_its_socket(
    tenant: Tenant, listen: Callable[..., Listener]
) -> None:
    phone = session(tenant)
    listener = listen(phone, deviceId="phone")
    (device,) = tenant.server.call("GET", "/api/client/devices", token=tenant.token).json()["data"]
    assert [one["current"] for one in listed(tenant)].count(True) == 1
    assert device["sessionId"] in {one["sessionId"] for one in listed(tenant) if not one["current"]}
    assert end(tenant, device["sessionId"]).status_code == 200
    assert listener.is_gone.wait(WAIT_SECONDS)
    assert me(phone).status_code == refresh(phone, phone.refresh_token).status_code == 401
    assert me(tenant).status_code == 200 and len(listed(tenant)) == 1
    assert end(tenant, device["sessionId"]).status_code == 404, "it has ended already"


def test_session_of_somebody_else_is_none_of_mine(
    tenant: Tenant, other_tenant: Tenant, listen: Callable[..., Listener]
) -> None:
    (theirs,), listener = listed(other_tenant), listen(other_tenant)
    assert theirs["sessionId"] not in {one["sessionId"] for one in listed(tenant)}
    answer, unknown = end(tenant, theirs["sessionId"]), end(tenant, str(uuid.uuid4()))
    assert answer.status_code == 404 and answer.json()["error"] == unknown.json()["error"], "nor does it tell of it"
    named = tenant.server.call(
        "DELETE", f"{SESSIONS}/{theirs['sessionId']}", token=tenant.token, X_Tenant_Id=other_tenant.id
    )
    assert (named.status_code, named.json()["code"]) == (403, "tenant_mismatch")
    assert me(other_tenant).status_code == 200 and not listener.is_gone.is_set()


def test_all_other_sessions_end_and_the_one_that_asks_and_those_of_others_go_on(
    tenant: Tenant, other_tenant: Tenant
) -> None:
    others = [session(tenant), session(tenant)]
    assert end(tenant).json()["data"]["ended"] == 2
    assert [me(one).status_code for one in [tenant, other_tenant, *others]] == [200, 200, 401, 401]


def test_export_has_what_a_device_pulls_and_needs_the_password(tenant: Tenant, other_tenant: Tenant) -> None:
    other_tenant.device().create(id="foreign", name="n")
    device = tenant.device()
    device.create(id="u1", name="Größe 😀")
    refused = tenant.server.post(EXPORT, {"password": "not this one"}, tenant.token)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_credentials")
    answer = tenant.server.post(EXPORT, {"password": tenant.password}, tenant.token)
    assert "attachment" in answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        rows = [json.loads(line) for line in archive.read("rows/end_user.jsonl").splitlines()]
        assert rows == device.rows()
        assert b"foreign" not in b"".join(archive.read(name) for name in archive.namelist())


def test_export_that_its_client_leaves_ends_and_leaves_nothing(server: Server, tenant: Tenant) -> None:
    rows = [{"id": f"r{number}", "note": os.urandom(20_000).hex()} for number in range(200)]
    for start in range(0, 200, 50):
        tenant.device().push({"changes": {"end_user": rows[start : start + 50]}})
    asked = {"json": {"password": tenant.password}, "headers": {"Authorization": f"Bearer {tenant.token}"}}

    def begun() -> requests.Response:
        return requests.post(server.url + EXPORT, stream=True, timeout=WAIT_SECONDS, **asked)  # type: ignore[arg-type]

    with begun() as answer:
        assert next(answer.iter_content(1000))
    again = wait_for(lambda: (found := begun()).ok and found, "the first to have ended")
    assert zipfile.is_zipfile(io.BytesIO(again.content))
    wait_for(lambda: not list(server.data.glob(".export-*")), "the copy to be removed")


@pytest.mark.parametrize("limit", [1, 1000])
def test_first_pull_gives_deleted_rows_if_it_asks_for_them(tenant: Tenant, limit: int) -> None:
    device = tenant.device()
    for name in ("a", "b", "c"):
        device.create(id=name)
    device.delete(id="b")
    found: dict[str, int] = {}
    cursor = None
    while True:
        page = device.pull({"cursor": cursor, "entityTypes": ["end_user"], "limit": limit, "deleted": True})
        found |= {row["id"]: row["is_deleted"] for row in page["data"]["end_user"]}
        cursor = page["cursor"]
        if not page["hasMore"]:
            break
    assert found == {"a": 0, "b": 1, "c": 0}
    assert [row["id"] for row in device.catch_up()["end_user"]] == ["a", "c"], "others get none"
