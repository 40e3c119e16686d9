"""Backups that are made while serving, proved to be whole, and put back without a lie to any device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backing_up import backup, edited_since, file_name, names, operating
from tests.conftest import ROOT, Run, Server, Tenant

pytestmark = pytest.mark.slow


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


def test_backup_made_under_load_is_whole_and_of_one_moment(tenant: Tenant, operate: Run, folder: Path) -> None:
    device, stop = tenant.device(), threading.Event()

    def push() -> None:
        number = 0
        while not stop.is_set():
            device.push({"changes": {table: [{"id": str(number)}] for table in ("end_user", "interactions")}})
            number += 1

    pushing = threading.Thread(target=push)
    pushing.start()
    try:
        made = backup(operate, folder)
        assert "1 tenant good." in operate("backup", "verify", made).stdout
    finally:
        stop.set()
        pushing.join()
    assert {path.name for path in made.iterdir()} == {"main.db", "tenants", "manifest.json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in made.rglob("*.db"))


def test_backup_runs_at_low_priority(server: Server, tenant: Tenant, folder: Path) -> None:
    """So that it takes what a busy server leaves of the processor."""
    code = "import atexit, os, syncapp; atexit.register(lambda: print(os.nice(0))); syncapp.main()"
    command = [sys.executable, "-c", code, "backup", "--to", str(folder)]
    environ = operating(server.data)
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-1] == "19"


def test_restore_of_one_tenant_while_serving_tells_its_devices_and_leaves_the_others(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    other = server.register()
    device = tenant.device()
    device.create(id="a", name="then")
    made = backup(operate, folder)
    listener, foreign = device.listen(), other.device().listen()
    cursor: str = device.push({"changes": {"end_user": [{"id": "a", "name": "now"}]}})["cursor"]
    other.device().create(id="b", name="kept")
    operate("restore", "--yes", made, "--tenant", tenant.id)
    assert names(device) == {"then"} and names(other.device()) == {"kept"}
    refused = device.pull_raw({"cursor": cursor})
    assert (refused.status_code, refused.json()["code"]) == (410, "resync_required")
    note = listener.wait_note("data_available", 2)
    assert (
        "restored from a backup" in note["message"] and note["cursor"].split("-")[0] != cursor.split("-", maxsplit=1)[0]
    )
    assert len(foreign.notes("data_available")) == 1
    device.create(id="c", name="goes on")
    assert names(device) == {"then", "goes on"}
    listener.close()
    foreign.close()


def test_devices_that_hold_newer_rows_push_them_back_and_all_converge(
    tenant: Tenant, operate: Run, folder: Path
) -> None:
    first, second = tenant.device(), tenant.device()
    first.push({"changes": {"end_user": [{"id": name, "name": name} for name in "abc"]}})
    made = backup(operate, folder)
    first.update(id="a", name="a, later")
    first.update(id="a", name="a, last")
    second.create(id="d", name="d")
    second.delete(id="b")
    held = {row["id"]: row for row in second.catch_up()["end_user"] + [{"id": "b", "is_deleted": 1, "version": 2}]}
    operate("restore", "--yes", made)
    assert names(first) == {"a", "b", "c"}
    second.push({"changes": {"end_user": list(held.values())}})
    for device in (first, second):
        device.cursor = None
        rows = device.catch_up()["end_user"]
        assert {row["id"]: row["name"] for row in rows} == {"a": "a, last", "c": "c", "d": "d"}


def test_all_is_restored_on_a_new_machine(server: Server, operate: Run, folder: Path, tmp_path: Path) -> None:
    tenants = [server.register() for _ in range(3)]
    for tenant in tenants:
        tenant.device().create(name=tenant.email)
    made = backup(operate, folder)
    assert server.stop() == 0
    put_back = operate("restore", "--yes", "--new", made, data=tmp_path / "new machine").stdout
    assert put_back == "3 tenants restored.\n", "nothing was there, so nothing was kept"
    new = Server(tmp_path / "new machine").start()
    for tenant in tenants:
        login = new.post("/api/customers/login", {"email": tenant.email, "password": tenant.password})
        rows = new.post("/api/client/sync/pull", {"cursor": None}, login.json()["data"]["token"]).json()["data"]
        assert [row["name"] for row in rows["end_user"]] == [tenant.email]
    assert new.stop() == 0


@pytest.mark.parametrize("damage", ["bytes", "missing", "cut", "other"])
def test_damaged_backup_is_found_out_and_never_put_back(
    server: Server, tenant: Tenant, operate: Run, folder: Path, damage: str
) -> None:
    device = tenant.device()
    device.push({"changes": {"end_user": [{"id": f"r{number}", "name": "x" * 500} for number in range(200)]}})
    made = backup(operate, folder)
    file = made / "tenants" / file_name(tenant)
    content = bytearray(file.read_bytes())
    if damage == "bytes":
        middle = len(content) // 2
        content[middle : middle + 8192] = os.urandom(8192)
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        file.unlink()
    else:
        other = server.register()
        shutil.copyfile(backup(operate, folder / "x") / "tenants" / file_name(other), file)
    before = device.rows()
    assert "bad: 1 of 1 tenant." in operate("backup", "verify", made, code=1).stderr
    operate("restore", "--yes", made, code=1)
    assert device.rows() == before


def test_only_the_newest_backups_are_kept(tenant: Tenant, operate: Run, folder: Path) -> None:
    (folder / "something else").mkdir(parents=True)
    for name in ("syncapp-20200101T000000Z", "syncapp-20200102T000000Z", "syncapp-20200103T000000Z"):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text("{}")
    made = backup(operate, folder, "--keep", "2")
    assert {path.name for path in folder.iterdir()} == {"something else", "syncapp-20200103T000000Z", made.name}


def test_restored_file_that_lies_ready_is_taken_at_the_next_start(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    device, made = edited_since(tenant, operate, folder)
    server.kill()
    ready = tenant.path.parent.parent / "restored" / f"{tenant.path.stem}.restored"
    shutil.copyfile(made / "tenants" / file_name(tenant), ready)
    server.start()
    assert names(device) == {"then"}


def test_stray_file_among_restored_ones_keeps_no_server_from_starting(server: Server, tenant: Tenant) -> None:
    stray = tenant.path.parent.parent / "restored" / "tenant_x.restored"
    assert server.stop() == 0
    stray.touch()
    server.start()
    assert tenant.device().rows() == [] and stray.exists()


@pytest.mark.parametrize(
    "arguments",
    [("backup",), ("backup", "verify", "nowhere"), ("restore", "nowhere"), ("restore", ".", "--yes"), ("nonsense",)],
)
def test_wrong_call_ends_with_a_code_that_cron_understands(operate: Run, arguments: tuple[str, ...]) -> None:
    code = 1 if arguments == ("restore", ".", "--yes") else 2
    assert operate(*arguments, code=code).stderr.startswith(("Usage:", "Error:"))


def test_tenant_that_is_not_there_is_said(tenant: Tenant, operate: Run, folder: Path) -> None:
    made = backup(operate, folder)
    unknown = "1030070f-9824-49b3-b53b-8013e2eb363e"
    assert unknown in operate("backup", "--to", folder, "--tenant", unknown, code=1).stderr
    assert unknown in operate("restore", "--yes", made, "--tenant", unknown, code=1).stderr
    assert "Invalid tenant ID" in operate("restore", "--yes", made, "--tenant", "../x", code=1).stderr


@pytest.mark.parametrize("command", [("backup", "verify"), ("restore", "--yes")])
def test_folder_of_backups_is_told_from_a_backup(
    tenant: Tenant, operate: Run, folder: Path, command: tuple[str, ...]
) -> None:
    made = backup(operate, folder)
    told = operate(*command, folder, code=1).stderr
    assert told == f"Error: {folder} is no backup: it has no manifest.json. Backups are in it, the newest is {made}.\n"


def test_path_that_cannot_be_made_is_said_without_an_error_number(tenant: Tenant, operate: Run, folder: Path) -> None:
    folder.write_text("a file where a folder is meant")
    told = operate("backup", "--to", folder / "deep", code=1).stderr
    assert str(folder) in told and "Errno" not in told


def test_register_asks_for_a_password_only_where_somebody_can_answer(tenant: Tenant, operate: Run) -> None:
    called = ("register", "--first-name", "Op", "--last-name", "Er", "--email", "op@example.com")
    told = operate(*called, code=2).stderr
    assert "--password-stdin" in told and "Warning" not in told
