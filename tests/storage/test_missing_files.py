"""A customer whose file is missing, moved or replaced is noticed by all who look, and nothing is answered that is lost.

Fault: nobody looked: a push into a file that was deleted under the server was answered, and gone at its end.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
import requests

from operations.file_monitor import FileMonitor
from protocol.errors import Busy, TenantNotFound
from tenants import Tenants
from tests import inside
from tests.conftest import WAIT_SECONDS, Device, Run, Server, Tenant, wait_for
from tests.data_folder import engine_of, folder_of, path_of

pytestmark = pytest.mark.slow


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


def names(device: Device) -> set[str]:
    return {row["name"] for row in device.rows()}


def status(server: Server) -> str:
    answer = requests.get(f"{server.url}/health", timeout=WAIT_SECONDS)
    assert answer.status_code == 200
    return str(answer.json()["status"])


def told(server: Server, what: str) -> bool:
    return any(what in str(line["message"]) for line in server.log)


# --- noticed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["missing", "empty", "broken"])
def test_file_that_is_gone_is_noticed_at_the_start_by_doctor_health_backup_and_verify(
    server: Server, operate: Run, tmp_path: Path, how: str
) -> None:
    lost, other = server.register(), server.register()
    other.device().create(id="a", name="kept")
    whole = Path(operate("backup", "--to", tmp_path / "backups").stdout.strip())
    whole.rename(whole.with_name("syncapp-20200101T000000Z"))
    assert status(server) == "ok" and server.stop() == 0
    lost.path.unlink() if how == "missing" else lost.path.write_bytes(b"" if how == "empty" else b"x" * 9000)
    assert lost.id in operate("doctor").stdout
    server.start()
    wait_for(lambda: status(server) == "degraded", "the health to turn")
    assert told(server, lost.id)
    made = operate("backup", "--to", tmp_path / "backups", "--keep", "1", code=3)
    assert f"{lost.id}: its file is missing" in made.stderr or how != "missing"
    assert lost.id in made.stderr and "no older backup was removed" in made.stderr
    new = Path(made.stdout.strip())
    assert list(json.loads((new / "manifest.json").read_text())["missing"]) == [lost.id]
    assert "bad: 1 of 2 tenants" in operate("backup", "verify", new, code=1).stderr
    operate("restore", new.with_name("syncapp-20200101T000000Z"), "--tenant", lost.id, "--yes")
    assert names(other.device()) == {"kept"} and lost.device().rows() == []


def test_closed_account_is_no_missing_file(server: Server, operate: Run) -> None:
    leaving = server.register()
    server.call("DELETE", "/api/customers/me", {"password": leaving.password}, leaving.token)
    assert status(server) == "ok" and leaving.id not in operate("doctor").stdout


def test_file_that_a_registration_or_a_restore_is_about_to_bring_is_not_missed(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    tenant_id = new_tenant()
    path_of(tenants, tenant_id).rename(folder_of(tenants).restored_path_of(tenant_id))
    monitor = FileMonitor(engine_of(tenants))
    monitor.look_over(lambda: None)
    assert monitor.faults == {}


def test_file_is_read_once_until_it_changes(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault in the making: with marks that are not sorted, each file was read each minute."""
    ids = sorted(new_tenant() for _ in range(25))  # More than one look at a time.
    engine, read = engine_of(tenants), list[str]()
    engine.files.close_all()
    peek = engine.peek

    def counted(tenant_id: str, query: Callable[[], object]) -> object:
        read.append(tenant_id)
        return peek(tenant_id, query)

    monkeypatch.setattr(engine, "peek", counted)
    monitor = FileMonitor(engine)
    for expected in (ids, [], [ids[7]], []):
        read.clear()
        monitor.look_over(lambda: None)
        assert read == expected and monitor.faults == {}
        if expected == []:
            os.utime(path_of(tenants, ids[7]))


def test_file_that_a_request_missed_is_known_at_once_until_its_account_is_closed(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    tenant_id, monitor = new_tenant(), FileMonitor(engine_of(tenants))
    for found in ({}, {tenant_id: "its file is missing"}):
        assert monitor.faults == found
        path_of(tenants, tenant_id).unlink(missing_ok=True)
        with pytest.raises(TenantNotFound):
            tenants.read(tenant_id, lambda: None)
    closed, monitor = str(uuid.uuid4()), FileMonitor(engine_of(tenants))
    with pytest.raises(TenantNotFound):
        tenants.read(closed, lambda: None)
    assert monitor.faults == {}


# --- refused, and kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "replaced", "renamed", "log deleted"])
def test_push_into_a_file_that_is_not_at_its_place_is_refused_and_what_it_held_is_kept(
    server: Server, tenant: Tenant, operate: Run, tmp_path: Path, how: str
) -> None:
    device = tenant.device()
    copy = tmp_path / "then.db"
    device.create(id="a", name="then")
    assert server.stop() == 0
    shutil.copy(tenant.path, copy)
    server.start()
    device.create(id="b", name="answered")
    if how == "deleted":
        tenant.path.unlink()
    elif how == "renamed":
        tenant.path.rename(tenant.path.with_name("away.db"))
    elif how == "replaced":
        os.replace(copy, tenant.path)
    else:
        Path(f"{tenant.path}-wal").unlink()
    refused = device.push_raw({"changes": {"end_user": [{"id": "c", "name": "typed meanwhile"}]}})
    assert refused.status_code in (404, 503) and not refused.json()["success"], refused.text
    after = device.push_raw({"changes": {"end_user": [{"id": "c", "name": "typed meanwhile"}]}})
    if how in ("deleted", "renamed"):
        assert after.status_code == 404 and not tenant.path.exists()
        assert status(server) == "degraded", "the refusal knew it"
    elif how == "replaced":
        assert after.status_code == 200 and names(device) == {"then", "typed meanwhile"}
    else:
        assert after.status_code == 200 and names(device) == {"then", "answered", "typed meanwhile"}
        assert server.stop() == 0
        server.start()
        assert names(device) == {"then", "answered", "typed meanwhile"}
        return
    assert told(server, "was removed or replaced under the server")
    (kept,) = (server.data / "replaced").iterdir()
    operate("restore", "--yes", "--file", kept, "--tenant", tenant.id)
    assert names(device) >= {"then", "answered"}


def test_each_of_a_group_of_pushes_is_refused(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """Also those that change nothing: what they repeat is lost."""
    tenant_id = new_tenant()
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", "name": "x"}]}})
    path_of(tenants, tenant_id).unlink()
    bodies = [{"changes": {"end_user": [{"id": one, "name": "x"}]}} for one in "abcde"]
    pushing = [gevent.spawn(inside.push, tenants, tenant_id, body) for body in bodies]
    gevent.joinall(pushing)
    assert all(isinstance(push.exception, Busy | TenantNotFound) for push in pushing)
    with pytest.raises(TenantNotFound):
        inside.push(tenants, tenant_id, bodies[0])


def test_server_notices_without_a_push_and_reads_the_new_file(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id, other = new_tenant(), new_tenant()
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", "name": "old"}]}})
    inside.push(tenants, other, {"changes": {"end_user": [{"id": "b", "name": "new"}]}})
    copy = path_of(tenants, tenant_id).with_name("copy")
    engine_of(tenants).files._open[other].keep_as(copy)
    os.replace(copy, path_of(tenants, tenant_id))
    engine_of(tenants).maintain()
    assert [row["name"] for row in inside.rows(tenants, tenant_id)] == ["new"]


@pytest.mark.files("main.db")
def test_directory_that_is_not_at_its_place_answers_no_success(server: Server) -> None:
    tenant = server.register()
    (server.data / "main.db").rename(server.data / "away.db")
    body = {"firstName": "A", "lastName": "B", "email": "lost@example.com", "password": "password123"}
    assert server.post("/api/customers/register", body).status_code == 503
    assert status(server) == "degraded"
    (server.data / "away.db").rename(server.data / "main.db")
    assert status(server) == "ok"
    assert tenant.device().rows() == []
