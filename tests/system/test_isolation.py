"""No row, notification, log line or byte of one tenant ever reaches another.

Each test names the fault that was put into a copy of the repository, and how it failed there.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import gevent
import gevent.event
import pytest

import models
from models import EndUser, SyncedRow, connection
from protocol.codec import parse_cursor
from storage.system_tables import CommitOrder
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, WAIT_SECONDS, Device, Listener, Server, Tenant
from tests.data_folder import path_of
from tests.sources import modules, name_of

Listen = Callable[..., Listener]
NewTenant = Callable[[], str]


# --- in one process --------------------------------------------------------------------------------------------------


def rows_on_disk(tenants: Tenants, tenant_id: str, sql: str) -> list[Any]:
    """Ask a file with another SQLite and without any of our code."""
    with closing(sqlite3.connect(f"file:{path_of(tenants, tenant_id)}?mode=ro", uri=True)) as file:
        return [row[0] for row in file.execute(sql)]


@pytest.mark.slow
def test_interleaved_greenlets_keep_every_row_in_its_own_tenants_file(tenants: Tenants, new_tenant: NewTenant) -> None:
    """Queries of peewee and prepared statements, with a greenlet switch between any two of them.

    Fault: ``bound`` of models a module's global instead of a ContextVar: rows were found in other files. Fault:
    ``path_of`` the same for all: every file had the rows of all.
    """
    ids, numbers = [new_tenant() for _ in range(12)], itertools.count()

    def work(tenant_id: str, number: int) -> None:
        name, row_id = f"{tenant_id}/{number}", f"peewee-{next(numbers)}"
        place = connection().execute("SELECT sequence + 1 FROM _meta").fetchall()[0][0]
        gevent.sleep(0)
        row = {"id": row_id, "name": name, "version": 1, "createdAt": "-", "updatedAt": "-"}
        EndUser.insert(**row, sequence=place).execute()
        gevent.sleep(0)
        CommitOrder.update(sequence=place).execute()
        gevent.sleep(0)
        assert EndUser.get(EndUser.id == row_id).name == name
        gevent.sleep(0)
        connection().execute("UPDATE end_user SET note = ? WHERE id = ?", (name, row_id))

    def device(tenant_id: str) -> None:
        for number in range(6):
            tenants.write(tenant_id, lambda number=number: work(tenant_id, number))  # type: ignore[misc]
            changes = [{"id": f"push-{number}-{part}", "name": f"{tenant_id}/{part}"} for part in range(130)]
            inside.push(tenants, tenant_id, {"changes": {"end_user": changes[: random.choice((1, 70, 130))]}})
            found = tenants.read(tenant_id, lambda: [(row.name, row.note) for row in EndUser.select()])
            assert all(str(name).startswith(tenant_id) and note in (None, name) for name, note in found)
            assert all(row["name"].startswith(tenant_id) for row in inside.rows(tenants, tenant_id))

    devices = [gevent.spawn(device, tenant_id) for tenant_id in ids * 2]
    gevent.joinall(devices)
    for tenant_id in ids:
        names = rows_on_disk(
            tenants, tenant_id, "SELECT name FROM end_user UNION ALL SELECT row->>'name' FROM _changes"
        )
        assert len(names) > 20 and {name.split("/")[0] for name in names} == {tenant_id}
    for greenlet in devices:
        greenlet.get()


def test_no_module_binds_a_model_in_another_way() -> None:
    """Peewee's own ways to bind are for the whole process (ARCHITECTURE.md, trap 2)."""
    for path in modules():
        found = re.search(r"(?<!listener)(?<! paths)\.bind\(|bind_ctx|(?<!apsw)\.initialize\(", path.read_text())
        assert found is None or (name_of(path), found[0]) == ("storage.sqlite.binding", ".initialize("), path
    assert all(model._meta.database is models.database for model in SyncedRow.__subclasses__())


# --- over the real server: naming another tenant ---------------------------------------------------------------------

ROW: JSON = {"table": "end_user", "operation": "create", "data": {"id": "shared-id", "name": "intruder"}}
CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/api/client/sync/push", ROW),
    ("POST", "/api/client/sync/pull", {"cursor": None}),
    ("POST", "/api/client/sync/pull", {"table": "end_user", "lastSync": "1970-01-01T00:00:00Z"}),
    ("POST", "/api/client/sync/pull-pending", {"table": "end_user"}),
    ("POST", "/api/client/notifications/test", {}),
    ("GET", "/api/client/sync/conflicts", None),
    ("GET", "/api/client/sync/history/end_user/shared-id", None),
    ("POST", "/api/client/sync/history/end_user/shared-id/revert", {"version": 1}),
    ("POST", "/api/client/sync/conflicts/1/resolve", {"resolution": "keep"}),
    ("GET", "/api/client/devices", None),
    ("GET", "/api/customers/me", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_header_that_names_another_tenant_is_refused_everywhere(
    tenant: Tenant, other_tenant: Tenant, listen: Listen, method: str, path: str, body: Any
) -> None:
    """Fault: ``check_tenant`` skipped: 200, with a row stored, and a notification."""
    victim = listen(other_tenant)
    answer = tenant.server.call(method, path, body, tenant.token, X_Tenant_Id=other_tenant.id)
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant_mismatch")
    malformed = tenant.server.call(method, path, body, tenant.token, X_Tenant_Id="../" + other_tenant.id)
    assert (malformed.status_code, malformed.json()["code"]) == (400, "invalid_tenant_id")
    own = tenant.server.call(method, path, body, tenant.token, X_Tenant_Id=tenant.id.upper())
    assert own.status_code in (200, 404)
    assert other_tenant.device().rows() == [] and victim.notes() == []


@pytest.mark.parametrize(("method", "path", "body"), CALLS[:4])
def test_body_that_names_another_tenant_is_refused(
    tenant: Tenant, other_tenant: Tenant, method: str, path: str, body: Any
) -> None:
    """Fault: ``check_tenant`` skipped: 200."""
    answer = tenant.server.call(method, path, {**body, "tenantId": other_tenant.id}, tenant.token)
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant_mismatch")
    others: list[Any] = ["x", 5, [], str(other_tenant.path)]
    for malformed in others:
        answer = tenant.server.call(method, path, {**body, "tenantId": malformed}, tenant.token)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_tenant_id")
    assert tenant.device().rows() == other_tenant.device().rows() == []
    assert tenant.server.call(method, path, {**body, "tenantId": tenant.id}, tenant.token).status_code == 200


@pytest.mark.parametrize("event", ["sync_push", "sync_pull"])
def test_socket_event_that_names_another_tenant_is_refused(
    listen: Listen, tenant: Tenant, other_tenant: Tenant, event: str
) -> None:
    """Fault: ``check_tenant`` skipped: success."""
    body = ROW if event == "sync_push" else {"cursor": None}
    answer = listen().call(event, {**body, "tenantId": other_tenant.id})
    assert (answer["success"], answer["code"]) == (False, "tenant_mismatch")
    assert tenant.device().rows() == other_tenant.device().rows() == []


@pytest.mark.parametrize("how", ["handshake", "event", "second event"])
def test_socket_that_names_another_tenant_hears_nothing_of_it(
    server: Server, tenant: Tenant, other_tenant: Tenant, how: str
) -> None:
    """Fault: ``check_tenant`` skipped: ``authenticated``."""
    said = {"token": tenant.token, "tenantId": other_tenant.id}
    own = {"token": tenant.token} if how == "second event" else None
    listener = Listener(server.url, auth=said if how == "handshake" else own)
    if how != "handshake":
        listener.client.emit("authenticate", said)
    assert listener.wait("authentication_error")["code"] == "tenant_mismatch"
    assert listener.is_gone.wait(WAIT_SECONDS)
    other_tenant.device().create(name="secret")
    assert listener.notes() == []


def test_socket_that_authenticates_for_another_tenant_leaves_the_first(
    server: Server, tenant: Tenant, other_tenant: Tenant, listen: Listen
) -> None:
    """It hears and sends for the new one alone. Fault: ``leave_room`` dropped: it heard the row of the first."""
    mover, stays, new = listen(), listen(), listen(other_tenant)
    mover.client.emit("authenticate", {"token": other_tenant.token})
    assert mover.wait("authenticated", 2)["tenantId"] == other_tenant.id
    tenant.device().create(id="a", name="of the first")
    stays.wait_note("sync_complete")
    assert mover.call("sync_push", {**ROW, "data": {"id": "b", "name": "of the second"}})["success"]
    assert mover.call("sync_status_update", {"status": "moved"})["success"]
    assert new.wait("sync_status_update") == {"status": "moved"}
    new.wait_note("sync_complete")
    mover.wait_note("sync_complete")
    assert [note["data"]["name"] for note in mover.notes("data_available")] == ["of the second"]
    assert [row["id"] for row in mover.call("sync_pull", {"cursor": None})["data"]["end_user"]] == ["b"]
    assert stays.of("sync_status_update") == []
    assert [row["id"] for row in tenant.device().rows()] == ["a"]


def test_same_ids_in_two_tenants_are_two_rows(device: Device, other_tenant: Tenant) -> None:
    """Create, update, delete by id and by Unique_id. Fault: one file for all: the other tenant's row changed."""
    other = other_tenant.device()
    theirs = [other.create(id="shared-id", name="theirs"), other.create(Unique_id="shared-unique", name="theirs")]
    mine = device.update(id="shared-id", name="mine")
    assert (mine["version"], mine["createdAt"] == theirs[0]["createdAt"]) == (1, False)
    by_unique = device.update(Unique_id="shared-unique", name="mine")
    assert by_unique["id"] != theirs[1]["id"]
    gone = device.push({"table": "end_user", "operation": "delete", "data": {"id": theirs[1]["id"]}})
    assert gone["results"][0]["status"] == "unchanged"
    device.delete(id="shared-id")
    device.delete(Unique_id="shared-unique")
    assert device.rows() == []
    assert other.rows() == theirs


def test_cursor_and_base_of_another_tenant_are_refused(device: Device, other_tenant: Tenant) -> None:
    """Fault: the epochs of all files the same: 200, with nothing of what was missed."""
    cursor = other_tenant.device().push({"changes": {"end_user": [{"id": "a"}]}})["cursor"]
    device.create(id="a")
    device.create(id="b")
    refused = [
        device.pull_raw({"cursor": cursor}),
        device.push_raw({"changes": {"end_user": [{"id": "a"}]}, "baseCursor": cursor}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(410, "resync_required")] * 2
    greeting = device.listen(cursor=cursor)
    assert greeting.wait("authenticated")["resyncRequired"] is True
    greeting.close()


def test_lists_hold_what_is_the_tenants_own(tenant: Tenant, other_tenant: Tenant) -> None:
    """Conflicts, history, devices, pending rows. Fault: one file for all: the other's were listed."""
    phone = tenant.device(X_Device_Id="phone-of-the-first")
    phone.create(id="a", name="A")
    phone.update(id="a", name="B")
    stale = {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "C"}, "baseVersion": 1}
    assert tenant.device().push({"operations": [stale]})["conflicts"]

    def lists(of: Tenant) -> list[Any]:
        paths = ["sync/conflicts?state=all", "sync/history/end_user/a", "devices"]
        found = [of.server.call("GET", f"/api/client/{path}", token=of.token).json().get("data") for path in paths]
        return [*found, of.device().raw("sync/pull-pending", {"table": "end_user"}).json()["data"]["end_user"]]

    assert [len(found) for found in lists(tenant)] == [1, 3, 1, 0]
    assert lists(other_tenant) == [[], None, [], []]


def test_retries_of_one_tenant_are_not_answered_with_anothers(tenant: Tenant, other_tenant: Tenant) -> None:
    """Idempotency keys and opIds. Fault: one file for all: the other's answer was replayed."""
    body = {"operations": [{"table": "end_user", "operation": "create", "data": {"name": "x"}, "opId": "op-1"}]}
    mine = tenant.device(Idempotency_Key="key-1").push(body)
    theirs = other_tenant.device(Idempotency_Key="key-1").push(body)
    assert mine["data"][0]["id"] != theirs["data"][0]["id"] and "replayed" not in theirs["results"][0]


# --- over the real server: all at once -------------------------------------------------------------------------------

_MARK = re.compile(r"mark-([0-9a-f]{32})-\d+")


def marks(text: str) -> set[str]:
    """Whose marks stand in a text."""
    return set(_MARK.findall(text))


@pytest.mark.slow
def test_busy_tenants_never_meet(start_server: Callable[..., Server]) -> None:
    """Eight tenants with two devices and two sockets each push and pull marked rows at once, more than are held open.

    Faults: ``bound`` a module's global; notifications to all (``to=None``); ``path_of`` the same for all; rows kept of
    the last pull in a global: a foreign mark in an answer, in a notification, in a file. Logging of bodies: in the log.
    """
    server = start_server(OPEN_TENANTS="3")
    businesses = [server.register() for _ in range(8)]
    listeners = {tenant.id: [tenant.device().listen() for _ in range(2)] for tenant in businesses}
    foreign: list[str] = []
    number = itertools.count()

    def device_of(tenant: Tenant, transport: Listener | None) -> None:
        own, device = uuid.UUID(tenant.id).hex, tenant.device(X_Device_Id=f"phone-{uuid.uuid4().hex[:6]}")
        for turn in range(8):
            rows = [{"id": f"row-{turn}-{part}", "name": f"mark-{own}-{next(number)}"} for part in range(turn * 7 + 1)]
            body = {"changes": {"end_user": rows, "interactions": [{"id": f"i{turn}", "title": f"mark-{own}-0"}]}}
            pushed = transport.call("sync_push", body) if transport else device.push(body)
            pulled = transport.call("sync_pull", {"cursor": None}) if transport else device.pull({"cursor": None})
            by_time = device.pull({"table": "end_user", "lastSync": pushed["syncTimestamp"]})
            pages = device.catch_up(limit=50)
            text = json.dumps([pushed, pulled, by_time, pages])
            foreign.extend(f"answer: {mark}" for mark in marks(text) - {own})
            assert own in marks(text)

    with ThreadPoolExecutor(16) as pool:
        runs = [
            pool.submit(device_of, tenant, transport)
            for tenant in businesses
            for transport in (None, listeners[tenant.id][0])
        ]
    for run in runs:
        run.result()
    for tenant in businesses:
        foreign += [f"notification: {mark}" for one in listeners[tenant.id] for mark in foreign_in_heard(tenant, one)]
    assert marks(server.log_path.read_text(errors="replace")) == set()
    foreign += foreign_in_files(server, businesses)
    assert server.stop() == 0
    assert foreign + foreign_in_files(server, businesses) == []
    for tenant in businesses:
        assert uuid.UUID(tenant.id).hex in marks(tenant.path.read_bytes().decode("latin-1"))


def foreign_in_heard(tenant: Tenant, listener: Listener) -> set[str]:
    """Give the marks of others in what a listener heard, when it has heard all."""
    listener.wait_note("sync_complete", 16)
    found, own = marks(json.dumps(listener.heard)), uuid.UUID(tenant.id).hex
    epochs = {parse_cursor(note["cursor"]).epoch for note in listener.notes()}
    assert own in found and epochs == {parse_cursor(listener.wait("authenticated")["cursor"]).epoch}
    listener.close()
    return found - {own}


def foreign_in_files(server: Server, businesses: list[Tenant]) -> list[str]:
    """Give the marks of others in the files of each tenant, and all that are in main.db."""
    owned = [
        (uuid.UUID(tenant.id).hex, path)
        for tenant in businesses
        for path in tenant.path.parent.glob(f"{tenant.path.name}*")
    ]
    owned.append(("", server.data / "main.db"))
    return [
        f"{path.name}: {mark}" for own, path in owned for mark in marks(path.read_bytes().decode("latin-1")) - {own}
    ]


def test_status_and_test_notifications_of_busy_tenants_reach_their_own_sockets(server: Server, listen: Listen) -> None:
    """Fault: notifications to all (``to=None``): every socket heard every tenant."""
    businesses = [server.register() for _ in range(4)]
    sockets = {tenant.id: (listen(tenant), listen(tenant)) for tenant in businesses}

    def say(tenant: Tenant) -> None:
        for turn in range(10):
            tenant.device().raw("notifications/test", {"message": f"{tenant.id} {turn}"})
            sockets[tenant.id][0].call("sync_status_update", {"status": f"{tenant.id} {turn}"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(say, businesses))
    for tenant in businesses:
        for listener in sockets[tenant.id]:
            listener.wait_note("data_available", 10)
            assert {note["message"].split()[0] for note in listener.notes()} == {tenant.id}
        sockets[tenant.id][1].wait("sync_status_update", 10)
        assert {said["status"].split()[0] for said in sockets[tenant.id][1].of("sync_status_update")} == {tenant.id}
        assert sockets[tenant.id][0].of("sync_status_update") == []
