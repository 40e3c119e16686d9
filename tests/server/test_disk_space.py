"""No room: a full disk is one line of the log and an answer that says so; a tenant has as much room as it may have."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from models import connection
from protocol.errors import QuotaExceeded
from protocol.messages import PushResult
from server import disk_space
from storage import disk_quota
from storage.positions import position
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, WAIT_SECONDS, Server, Tenant, wait_for
from tests.refusals import nothing_changes, refused

StartServer = Callable[..., Server]
BIG = {"changes": {"end_user": [{"note": "x" * 60_000} for _ in range(10)]}}


def can_mount() -> bool:
    return os.name == "posix" and os.geteuid() == 0 and shutil.which("mount") is not None


class SmallDisk:
    """A file system of 8 MiB at the data folder, that can be filled to the last byte or the last file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def fill_with_files(self) -> None:
        self.ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in range(1000):
                (self.ballast / str(number)).touch()

    def leave(self, free_bytes: int) -> None:
        """Fill it until no more than so many bytes are free, or empty it until so many are."""
        self.ballast.write_bytes(b"")
        found = os.statvfs(self.folder)
        self.ballast.write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - free_bytes)))

    def make_room(self) -> None:
        shutil.rmtree(self.ballast) if self.ballast.is_dir() else self.ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    options = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=60,mode=0700", "tmpfs", str(folder)]
    if not can_mount() or subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("needs root, for a small file system of its own")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", folder], check=False)


def health(server: Server) -> tuple[int, str]:
    answer = server.call("GET", "/health")
    return answer.status_code, answer.json()["status"]


@pytest.mark.files("a full disk of the folder")
@pytest.mark.parametrize("how", ["bytes", "files"])
def test_full_disk_is_507_also_for_a_tenant_that_is_not_open_and_is_logged_once(
    disk: SmallDisk, start_server: StartServer, how: str
) -> None:
    """Fault: the index beside a write-ahead log found no room, and the answer was 500 with a traceback a request."""
    server = start_server()
    tenants = [server.register() for _ in range(4)]
    for tenant in tenants:
        tenant.device().create(id="kept", name="A")
    server.stop()
    server.start()
    since = len(server.log)
    open_one, *closed = tenants
    assert open_one.device().rows()
    disk.fill() if how == "bytes" else disk.fill_with_files()
    for tenant in closed * 3:
        for answer in (tenant.device().push_raw(BIG), tenant.device().raw("sync/pull-pending", {"table": "end_user"})):
            refused(answer, 507, "storage_full")
        refused(tenant.device().pull_raw({"cursor": None}), 507, "storage_full")
        refused(server.call("GET", "/api/client/devices", token=tenant.token), 507, "storage_full")
    if how == "bytes":
        refused(open_one.device().push_raw(BIG), 507, "storage_full")
    assert [row["id"] for row in open_one.device().rows()] == ["kept"], "pulls of an open tenant go on"
    assert health(server) == (503, "storage_full")
    bad = [line for line in server.log[since:] if line["level"] == "error" and line.get("path") != "/health"]
    assert [line["message"].partition(":")[0] for line in bad] == ["the disk is full"]
    disk.make_room()
    wait_for(lambda: health(server) == (200, "ok"), "health after there was room")
    for tenant in tenants:
        assert tenant.device().push_raw(BIG | {"changes": {"end_user": [{"name": "B"}]}}).status_code == 200
        assert len(tenant.device().rows()) == 2
    again = [line for line in server.log[since:] if "room on the disk again" in line["message"]]
    assert len(again) == 1
    assert server.stop() == 0


ONE_DELETE = {
    "A": {"table": "end_user", "operation": "delete", "data": {"id": "a"}},
    "B": {"changes": {"end_user": [{"id": "b", "is_deleted": 1}]}},
    "C": {"operations": [{"table": "end_user", "operation": "delete", "data": {"id": "c"}}]},
}


@pytest.mark.files("a full disk of the folder")
def test_disk_that_is_nearly_full_takes_deletes_alone_until_there_is_a_quarter_more(
    disk: SmallDisk, start_server: StartServer
) -> None:
    server = start_server(MIN_FREE_BYTES="4M")
    tenant, closed = server.register(), server.register()
    device = tenant.device()
    device.push({"changes": {"end_user": [{"id": row_id} for row_id in "abcd"]}})
    disk.leave(3 * 2**20)
    wait_for(lambda: not device.push_raw({"changes": {"end_user": [{"id": "d", "name": "new"}]}}).ok, "the guard")
    body = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
    with nothing_changes(tenant):
        for push in (BIG, {"changes": {"end_user": [{"id": "a", "is_deleted": 1}, {"id": "d", "name": "x"}]}}):
            assert "nearly full" in refused(device.push_raw(push), 507, "storage_full")["error"]
        refused(server.post("/api/customers/register", body), 507, "storage_full")
    for form, delete in ONE_DELETE.items():
        assert device.push(delete)["results"][0]["status"] == "deleted", form
    assert [row["id"] for row in device.rows()] == ["d"] and closed.device().rows() == []
    assert server.post("/api/customers/login", {"email": tenant.email, "password": "password123"}).ok
    assert health(server) == (200, "degraded") and server.call("GET", "/health").json()["isDiskLow"] is True
    disk.leave(4 * 2**20 + 2**19)
    looked = server.log[-1]["time"]
    wait_for(lambda: server.call("GET", "/health").json()["timestamp"][:19] > looked[:19], "the next look")
    refused(device.push_raw(BIG), 507, "storage_full")
    disk.make_room()
    wait_for(lambda: device.push_raw(BIG).ok, "the room")
    assert health(server) == (200, "ok") and "isDiskLow" not in server.call("GET", "/health").json()
    said = [line["message"].partition(":")[0] for line in server.log if line["logger"] == "syncapp.room"]
    assert said == ["the disk is nearly full", "the disk has room again"]


@pytest.mark.files("a full disk of the folder")
def test_idle_server_finds_out_that_the_disk_is_full(disk: SmallDisk, start_server: StartServer) -> None:
    server = start_server()
    assert health(server) == (200, "ok")
    disk.fill()
    wait_for(lambda: health(server) == (503, "storage_full"), "health")
    disk.make_room()
    wait_for(lambda: health(server) == (200, "ok"), "health after there was room")
    assert server.stop() == 0


@pytest.mark.files("a full disk of the folder")
def test_registration_on_a_full_disk_is_told_and_leaves_nothing(disk: SmallDisk, start_server: StartServer) -> None:
    server = start_server()
    disk.fill()
    body = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
    refused(server.post("/api/customers/register", body), 507, "storage_full")
    disk.make_room()
    assert server.post("/api/customers/register", body).status_code == 201
    assert server.stop() == 0


@pytest.mark.files("a full disk of the folder")
def test_first_start_on_a_full_disk_is_refused_in_a_sentence_and_the_next_one_serves(disk: SmallDisk) -> None:
    disk.fill()
    server = Server(disk.folder)
    with pytest.raises(AssertionError, match=r"syncapp: The server's disk is full|No space left on device") as caught:
        server.start()
    assert "Traceback" not in str(caught.value)
    disk.make_room()
    server.start()
    tenant = server.register()
    assert tenant.device().create(id="a")["id"] == "a"
    assert len((disk.folder / "jwt_secret_key").read_text()) >= 43
    assert server.stop() == 0


def test_room_is_said_once_and_looked_for_until_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = disk_space.Room()
    monkeypatch.setattr(disk_space, "_LOOK_SECONDS", 0.0)
    caplog.set_level("INFO")
    assert looked.look(tmp_path) is True and caplog.records == []
    for _ in range(3):
        looked.note_full()
    monkeypatch.setattr(disk_space, "_LEAST_BYTES", 2**62)
    assert looked.look(tmp_path) is False
    monkeypatch.setattr(disk_space, "_LEAST_BYTES", 4096)
    assert looked.look(tmp_path) is True and looked.look(tmp_path) is True
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert list(tmp_path.iterdir()) == []


# --- the room of a tenant --------------------------------------------------------------------------------------------

QUOTA = 1_048_576


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which a tenant may store 1 MiB."""
    server = Server(tmp_path_factory.mktemp("quota") / "data", {"TENANT_STORED_BYTES": "1MiB"}).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def full(small: Server) -> Tenant:
    """A tenant that has stored as much as it may, in rows of about 50 KB named 0, 1, 2, …"""
    tenant = small.register()
    for number in range(100):
        answer = tenant.device().push_raw(rows(str(number)))
        if answer.status_code != 200:
            return tenant
    raise AssertionError("5 MB fit into 1 MiB")


def rows(*ids: str) -> JSON:
    return {"changes": {"end_user": [{"id": row_id, "note": "n" * 50_000} for row_id in ids]}}


def size(tenant: Tenant) -> int:
    return sum(path.stat().st_size for path in tenant.path.parent.glob(f"{tenant.path.name}"))


FORMS: dict[str, JSON] = {
    "A": {"table": "end_user", "operation": "create", "data": {"id": "new", "note": "n" * 50_000}},
    "B": rows("new"),
    "C": {"operations": [{"table": "end_user", "operation": "create", "data": {"id": "new", "note": "n" * 50_000}}]},
    "several": rows("new", "newer", "newest"),
    "updates": {"changes": {"end_user": [{"id": row_id, "note": "m" * 50_000} for row_id in "0123"]}},
    "not atomic": rows("new") | {"atomic": False},
    "with a delete": {"changes": {"end_user": [{"id": "0", "is_deleted": 1}, *rows("new")["changes"]["end_user"]]}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", ["HTTP", "event", "under a key"])
def test_push_beyond_the_quota_is_refused_whole_with_a_code_of_its_own(full: Tenant, form: str, way: str) -> None:
    body = FORMS[form]
    with nothing_changes(full):
        if way == "event":
            listener = full.device().listen()
            answer = listener.call("sync_push", body)
            assert (answer["success"], answer["code"]) == (False, "quota_exceeded")
            listener.close()
        else:
            headers = {"Idempotency_Key": "k" * 20} if way == "under a key" else {}
            refused(full.device(**headers).push_raw(body), 507, "quota_exceeded")
    assert {"new", "newer"}.isdisjoint(row["id"] for row in full.device().rows())


def test_pulls_and_deletes_go_on_and_others_too(full: Tenant, small: Server) -> None:
    device = full.device()
    ids = [row["id"] for row in device.rows()]
    assert device.catch_up()["end_user"] and len(ids) > 5
    result = device.push({"table": "end_user", "operation": "delete", "data": {"id": ids[0]}})["results"][0]
    assert result["status"] == "deleted"
    gone = {"changes": {"end_user": [{"id": row_id, "is_deleted": 1} for row_id in ids[1:3]]}}
    assert [result["status"] for result in device.push(gone)["results"]] == ["deleted"] * 2
    assert ids[0] not in {row["id"] for row in device.rows()}
    other = small.register().device()
    assert other.create(id="a", note="n" * 50_000)["id"] == "a"


def test_answer_is_logged_as_no_failure_of_the_servers_and_health_is_well(full: Tenant, small: Server) -> None:
    since = len(small.log)
    refused(full.device().push_raw(rows("new")), 507, "quota_exceeded")
    assert [line for line in small.log[since:] if line["level"] == "error"] == []
    assert requests.get(f"{small.url}/health", timeout=WAIT_SECONDS).json()["status"] == "ok"


def test_quota_is_announced_and_generous_by_default(small: Server, server: Server) -> None:
    def announced(of: Server) -> Any:
        return of.call("GET", "/api/limits").json()["data"]["tenantStoredBytes"]

    assert announced(small) == QUOTA and announced(server) == 10 * 1024**3


def test_pages_that_are_free_again_count_as_room(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """After a purge a file keeps its size; what it lacks then is filled again, so that it is no reason to refuse."""
    tenant_id = new_tenant()
    now = tenants.read(tenant_id, position)
    before = PushResult(now, now, results=[{"status": "created"}])
    inside.push(tenants, tenant_id, rows(*map(str, range(20))))
    with pytest.raises(QuotaExceeded):
        tenants.read(tenant_id, lambda: disk_quota.check(before, QUOTA, 1024))
    tenants.write(tenant_id, remove_all)
    tenants.read(tenant_id, lambda: disk_quota.check(before, QUOTA, 1024))


def remove_all() -> None:
    for name in ("_changes", "end_user"):
        connection().execute(f"DELETE FROM {name}")
