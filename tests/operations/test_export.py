"""The export of a tenant: it has everything, of nobody else, in forms that other programs read."""

from __future__ import annotations

import json
import sqlite3
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from operations import export as exporting
from tests.conftest import Server, Tenant
from tests.operating import done, refused


@pytest.fixture(scope="module")
def used(server: Server) -> Tenant:
    """A tenant with two rows, one of them deleted, an edit that lost, and a device that named itself."""
    tenant = server.register(firstName="Zoë")
    device = tenant.device(X_Device_Id="till-1")
    device.create(id="kept", name="Größe 😀", extra={"of": ["an", "app"]})
    device.create(id="gone", name="n")
    device.delete(id="gone")
    device.update(id="kept", name="first")
    tenant.device(X_Device_Id="till-2").push(
        {"table": "end_user", "operation": "update", "baseVersion": 1, "data": {"id": "kept", "name": "second"}}
    )
    return tenant


@pytest.fixture(scope="module")
def archive(server: Server, used: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    server.register().device().create(id="foreign", name="n")
    file = tmp_path_factory.mktemp("export") / "tenant.zip"
    assert str(file) in done(server, "export", used.email, "--to", str(file))
    return file


def lines(archive: Path, name: str) -> list[Any]:
    with zipfile.ZipFile(archive) as opened:
        return [json.loads(line) for line in opened.read(name).decode().splitlines()]


def test_rows_are_those_that_a_device_pulls(used: Tenant, archive: Path) -> None:
    exported = {row["id"]: row for row in lines(archive, "rows/end_user.jsonl")}
    pulled = {row["id"]: row for row in used.device().catch_up()["end_user"]}
    assert exported["kept"] == pulled["kept"] and exported["kept"]["extra"] == {"of": ["an", "app"]}
    assert exported.keys() == {"kept", "gone"} and exported["gone"]["is_deleted"] == 1
    assert lines(archive, "rows/interactions.jsonl") == []


def test_history_has_each_change_with_the_row_after_it(archive: Path) -> None:
    changes = lines(archive, "history.jsonl")
    assert [change["sequence"] for change in changes] == list(range(1, len(changes) + 1))
    names = [change["row"]["name"] for change in changes if change["id"] == "kept"]
    assert names[:2] == ["Größe 😀", "first"]
    assert changes[0]["deviceId"] == "till-1" and changes[0]["committedAt"].endswith("Z")


def test_conflicts_devices_and_account_are_there_and_no_secret(used: Tenant, archive: Path) -> None:
    (conflict,) = lines(archive, "conflicts.jsonl")
    assert conflict["id"] == "kept" and "name" in conflict["fields"]
    (account,) = lines(archive, "account.json")
    assert account["email"] == used.email and account["firstName"] == "Zoë"
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        everything = b"".join(opened.read(name) for name in opened.namelist())
    assert b"$2b$" not in everything and b"foreign" not in everything
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_database_in_it_is_one_that_sqlite_reads(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extract("tenant.db", tmp_path)
    with sqlite3.connect(tmp_path / "tenant.db") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("SELECT id FROM end_user WHERE is_deleted = 0").fetchall() == [("kept",)]


def test_file_that_is_there_is_not_replaced(server: Server, used: Tenant, tmp_path: Path) -> None:
    there = tmp_path / "mine.zip"
    there.write_text("mine")
    assert "mine.zip" in refused(server, "export", used.id, "--to", str(there))
    assert there.read_text() == "mine" and list(tmp_path.iterdir()) == [there]


def test_folder_that_is_not_there_is_named(server: Server, used: Tenant, tmp_path: Path) -> None:
    said = refused(server, "export", used.id, "--to", str(tmp_path / "nowhere" / "a.zip"))
    assert said == f"Error: {tmp_path / 'nowhere'}: There is no such folder."


def test_archive_of_another_who_exported_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Fault: of two at once into one file the second replaced the first's, which had ended without an error."""
    made, there = tmp_path / "made", tmp_path / "there"
    made.write_text("second")
    there.write_text("first")
    with pytest.raises(FileExistsError, match="already"):
        exporting._put(made, there)
    assert there.read_text() == "first"
    exporting._put(made, tmp_path / "other")
    assert (tmp_path / "other").read_text() == "second"
