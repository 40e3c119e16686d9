"""Tenants in the console: found among many, changed as by the commands, and never shown from within unasked."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, Tenant, wait_for
from tests.operating import Operator, done, signed_in


@pytest.fixture(scope="module")
def operator(server: Server) -> Operator:
    return signed_in(server)


@pytest.fixture
def used(server: Server) -> Tenant:
    """A tenant with two rows, from a device that names itself."""
    tenant = server.register(firstName="Zoë", companyName=f"Kulkarni & Søn {uuid.uuid4()}")
    for number in range(2):
        tenant.device(X_Device_Id="till-1").create(id=f"r{number}", name="<b>n</b>")
    return tenant


def found(operator: Operator, **query: object) -> Any:
    answer = operator.get("/api/tenants?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert answer.status_code == 200, answer.text
    return answer.json()


def recorded(operator: Operator, tenant: Tenant) -> list[tuple[str, str | None]]:
    """What the record has of a tenant, the newest first; all of it by this session."""
    entries = operator.get(f"/api/record?tenant={tenant.id}").json()["entries"]
    assert len({one["by"] for one in entries}) <= 1 and all(one["by"].startswith("console ") for one in entries)
    assert [one["by"] for one in entries] == [
        one["by"] for one in json.loads(done(operator.server, "actions", "--tenant", tenant.id, "--json"))
    ]
    return [(one["action"], one["about"]) for one in entries]


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def test_tenant_is_found_with_its_numbers(operator: Operator, used: Tenant) -> None:
    (one,) = found(operator, search=used.id.upper())["tenants"]
    assert one["email"] == used.email and one["rows"] == 2 and one["bytes"] > 0 and one["state"] == "active"
    assert found(operator, search="no such words")["found"] == 0


def test_pages_and_orders_have_each_tenant_once(operator: Operator, server: Server) -> None:
    company = f"paged {uuid.uuid4()}"
    ids = {server.register(companyName=company).id for _ in range(27)}
    for order in ("email", "size", "seen"):
        first, second = (found(operator, search=company, sort=order, page=page) for page in (1, 2))
        assert first["pages"] == 2 and len(first["tenants"]) == 25
        assert {one["id"] for one in first["tenants"] + second["tenants"]} == ids
    addresses = [one["email"] for one in found(operator, search=company)["tenants"]]
    assert addresses == sorted(addresses)


@pytest.mark.parametrize("query", ["sort=x", "page=0", "page=x", "page=99999999", "page=1e3"])
def test_list_that_is_asked_for_wrongly_says_so(operator: Operator, query: str) -> None:
    assert code_of(operator.get(f"/api/tenants?{query}")) == (400, "validation_error")


def test_page_of_a_tenant_has_devices_sessions_and_quotas_and_no_row(operator: Operator, used: Tenant) -> None:
    answer = operator.get(f"/api/tenants/{used.id}")
    one = answer.json()
    assert one["tables"]["end_user"] == 2 and one["deviceList"][0]["deviceId"] == "till-1" and len(one["sessions"]) == 1
    assert {quota["name"] for quota in one["remaining"]} == {"requests", "bytes", "rows"}
    assert "<b>n</b>" not in answer.text and "password" not in answer.text.lower()


@pytest.mark.parametrize("text", ["nobody", str(uuid.UUID(int=7)), "..%2f..%2fmain.db", "%00"])
@pytest.mark.parametrize("call", ["", "/state", "/delete", "/rows", "/export"])
def test_tenant_that_is_none_is_told(operator: Operator, text: str, call: str) -> None:
    answer = operator.post(f"/api/tenants/{text}{call}", {}) if call else operator.get(f"/api/tenants/{text}")
    assert answer.status_code == 404


def is_answered(tenant: Tenant, status: int) -> bool:
    push = {"table": "end_user", "operation": "create", "data": {"id": "late"}}
    return bool(tenant.device().push_raw(push).status_code == status)


def test_states_are_set_and_recorded(operator: Operator, used: Tenant) -> None:
    for state, answered in (("suspended", 401), ("read-only", 503), ("active", 200)):
        assert operator.post(f"/api/tenants/{used.id}/state", {"state": state}).status_code == 200
        wait_for(partial(is_answered, used, answered), state)
    assert code_of(operator.post(f"/api/tenants/{used.id}/state", {"state": "gone"})) == (400, "validation_error")
    assert [action for action, _ in recorded(operator, used)] == ["active", "read-only", "suspended"]


def test_address_password_and_sessions_are_changed_and_recorded(operator: Operator, used: Tenant) -> None:
    path, new, password = f"/api/tenants/{used.id}", f"{uuid.uuid4()}@example.com", "another-password-1"
    assert code_of(operator.post(f"{path}/email", {"email": "none"}))[0] == 400
    assert operator.post(f"{path}/email", {"email": new}).status_code == 200
    assert code_of(operator.post(f"{path}/password", {"password": "short"}))[0] == 400
    assert operator.post(f"{path}/password", {"password": password}).status_code == 200
    log_in = used.server.post("/api/customers/login", {"email": new, "password": password})
    assert log_in.status_code == 200
    link = operator.post(f"{path}/reset-link").json()["link"]
    assert link.startswith(f"{used.server.url}/reset-password#")
    assert operator.post(f"{path}/end-sessions").json()["message"] == "Sessions ended: 1."
    found = recorded(operator, used)
    assert [action for action, _ in found] == ["end-sessions", "reset-link", "set-password", "rename-email"]
    assert password not in json.dumps(found)


def test_delete_needs_the_address_and_takes_no_other(operator: Operator, used: Tenant, other_tenant: Tenant) -> None:
    path = f"/api/tenants/{used.id}/delete"
    assert code_of(operator.post(path, {"email": other_tenant.email})) == (400, "validation_error")
    assert operator.post(path, {"email": used.email}).status_code == 200
    assert operator.get(f"/api/tenants/{used.id}").status_code == 404
    assert operator.get(f"/api/tenants/{other_tenant.id}").status_code == 200
    assert recorded(operator, used) == [("delete", None)]


def test_rows_are_shown_to_who_asks_and_that_is_recorded(operator: Operator, used: Tenant) -> None:
    answer = operator.post(f"/api/tenants/{used.id}/rows", {"table": "end_user"}).json()
    assert [one["row"]["id"] for one in answer["rows"]] == ["r1", "r0"] and not answer["hasMore"]
    rest = operator.post(f"/api/tenants/{used.id}/rows", {"table": "end_user", "before": answer["rows"][0]["sequence"]})
    assert [one["row"]["id"] for one in rest.json()["rows"]] == ["r0"]
    assert operator.post(f"/api/tenants/{used.id}/rows", {"table": "_devices"}).status_code == 400
    assert operator.post(f"/api/tenants/{used.id}/rows", {"table": "end_user", "before": 2**63}).status_code == 400
    assert recorded(operator, used) == [("show-rows", "end_user")] * 2


def test_export_is_written_beside_the_server_and_recorded(operator: Operator, used: Tenant) -> None:
    job = operator.post(f"/api/tenants/{used.id}/export").json()["job"]
    state = wait_for(
        lambda: (one := operator.get(f"/api/jobs/{job}").json())["exitCode"] is not None and one, "the export"
    )
    assert state["exitCode"] == 0, state["errors"]
    answer = operator.get(f"/api/jobs/{job}/result")
    assert answer.headers["Cache-Control"] == "no-store", "no browser keeps a customer's data"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.read("rows/end_user.jsonl").count(b"<b>n</b>") == 2
    assert recorded(operator, used) == [("export", None)]


@pytest.mark.parametrize("job", ["x", "0" * 32, "..", "%2e%2e"])
def test_job_that_is_none_is_told(operator: Operator, job: str) -> None:
    assert operator.get(f"/api/jobs/{job}").status_code == 404
    assert [operator.get(f"/api/jobs/{job}/{of}").status_code for of in ("output", "result")] == [404, 404]


def test_tenant_goes_back_to_a_moment_by_what_was_shown_alone(operator: Operator, used: Tenant) -> None:
    path, device = f"/api/tenants/{used.id}", used.device()
    assert operator.get(f"{path}/moments").json()["since"]["change"] == 0
    device.delete(id="r0")
    device.create(id="late", name="<i>late</i>")
    found = operator.post(f"{path}/rewind/preview", {"to": "2"})
    asked = {"to": "2", "seen": found.json()["seen"]}
    assert found.json()["tables"] == {"end_user": {"added": 1, "changed": 0, "gone": 1}} and "late" not in found.text
    assert {row["id"] for row in operator.post(f"{path}/rewind/rows", asked).json()["rows"]} == {"r0", "late"}
    device.create(id="later")
    assert code_of(operator.post(f"{path}/rewind", asked)) == (400, "validation_error")
    seen = operator.post(f"{path}/rewind/preview", {"to": "2"}).json()["seen"]
    listener = device.listen()
    assert operator.post(f"{path}/rewind", asked | {"seen": seen}).status_code == 200
    listener.wait_note("sync_complete")
    listener.close()
    assert {row["id"] for row in device.rows() if not row["is_deleted"]} == {"r0", "r1"}
    assert [action for action, _ in recorded(operator, used)] == ["rewound", "rewind", "show-rows"]


def test_tenant_that_was_restored_since_somebody_looked_is_left(
    operator: Operator, used: Tenant, tmp_path: Path
) -> None:
    path, device = f"/api/tenants/{used.id}", used.device()
    made = done(operator.server, "backup", "--to", str(tmp_path), "--tenant", used.id).split()[-1]
    device.update(id="r0", name="seen")
    asked = {"to": "2", "seen": operator.post(f"{path}/rewind/preview", {"to": "2"}).json()["seen"]}
    done(operator.server, "restore", made, "--tenant", used.id, "--yes")
    wait_for(lambda: device.rows()[0]["name"] != "seen", "the restore")
    device.update(id="r0", name="never seen")
    assert code_of(operator.post(f"{path}/rewind", asked)) == (400, "validation_error")
    assert "never seen" in {row["name"] for row in device.rows()}


@pytest.mark.parametrize("to", ["", "99", "yesterday", "2999-01-01T00:00:00Z", 7])
def test_moment_that_is_none_is_told(operator: Operator, used: Tenant, to: object) -> None:
    assert code_of(operator.post(f"/api/tenants/{used.id}/rewind/preview", {"to": to})) == (400, "validation_error")
