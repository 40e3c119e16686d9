"""A backup never costs what it is to save: nothing is pruned for a worse one, and none is whole that was changed.

Each of these was seen before: an empty ``./data`` backed up with exit code 0 while the real backups were pruned, a changed
row that verified, a manifest that a power cut had emptied.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import postgres
from tests.backing_up import operating
from tests.conftest import ROOT, Run, Server, Tenant, needs

pytestmark = pytest.mark.slow


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


def backup(operate: Run, folder: Path, *more: str, code: int = 0) -> Path:
    made = Path(operate("backup", "--to", folder, *more, code=code).stdout.strip().splitlines()[-1])
    old = made.with_name(f"syncapp-2020{len(list(folder.iterdir())):02}01T000000Z")
    made.rename(old)  # The next may be made within the same second.
    return old


# --- no data, fewer tenants ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "command"),
    [
        ("nothing", ("backup", "--to", "{to}", "--keep", "1")),
        ("an empty folder", ("backup", "--to", "{to}", "--keep", "1")),
        ("another folder", ("backup", "--to", "{to}", "--keep", "1")),
        ("nothing", ("restore", "{made}", "--yes")),
        ("another folder", ("migrate",)),
        ("nothing", ("migrate", "--check")),
    ],
)
def test_command_in_a_folder_without_data_makes_none_and_removes_nothing(
    tenant: Tenant, operate: Run, folder: Path, tmp_path: Path, where: str, command: tuple[str, ...]
) -> None:
    made = backup(operate, folder)
    data = tmp_path / "wrong"
    if where != "nothing":
        data.mkdir()
    if where == "another folder":
        (data / "notes.txt").touch()
    before = sorted(data.iterdir()) if data.exists() else None
    told = operate(*(word.format(to=folder, made=made) for word in command), code=1, data=data)
    assert "There is no data in" in told.stderr
    assert ("DATABASE_URL" if postgres.IS_UNDER_TEST else "DATA_DIR") in told.stderr
    assert (sorted(data.iterdir()) if data.exists() else None) == before
    assert [path.name for path in folder.iterdir()] == [made.name]


@pytest.mark.parametrize("how", ["emptied", "made anew"])
def test_main_database_that_knows_nobody_beside_tenants_files_is_lost_data(
    server: Server, tenant: Tenant, operate: Run, folder: Path, how: str
) -> None:
    """A full disk, a power cut or a stray command can leave it so; a backup of nobody was made with exit code 0."""
    postgres.must_be_about_files()
    tenant.device().create(id="a", name="x")
    assert server.stop() == 0
    main = server.data / "main.db"
    if how == "emptied":
        main.write_bytes(b"")
    else:
        with contextlib.closing(sqlite3.connect(main)) as file, file:
            file.execute("DELETE FROM customers")
    told = operate("backup", "--to", folder, "--keep", "1", code=1)
    assert "main.db" in told.stderr or "There is no data in" in told.stderr
    assert not list(folder.glob("*"))
    found = [line for line in operate("doctor").stdout.splitlines() if "main.db" in line and not line.startswith("ok")]
    assert len(found) == 1 and found[0].startswith("warning") and "restore" in found[0]


def test_backup_with_fewer_tenants_than_the_last_is_made_and_prunes_nothing(
    server: Server, operate: Run, folder: Path, tmp_path: Path
) -> None:
    """The disk was lost, and a new server runs in its place: day after day, the last real backup stays."""
    for _ in range(3):
        server.register()
    real = [backup(operate, folder) for _ in range(3)]
    new = Server(tmp_path / "new disk").start()
    new.register()

    def again(code: int) -> str:
        told = operate("backup", "--to", folder, "--keep", "1", code=code, data=new.data)
        made = Path(told.stdout.strip().splitlines()[-1])
        made.rename(made.with_name(f"syncapp-2021{len(list(folder.iterdir())):02}01T000000Z"))
        return told.stderr

    assert "holds 1 tenants" in again(3)
    assert all(path.exists() for path in real)
    for _ in range(3):
        again(0)
    assert [path.exists() for path in real] == [False, False, True]
    assert new.stop() == 0


def test_account_that_was_closed_holds_up_pruning_once(server: Server, operate: Run, folder: Path) -> None:
    staying, leaving = server.register(), server.register()
    first = backup(operate, folder)
    server.call("DELETE", "/api/customers/me", {"password": leaving.password}, leaving.token)
    backup(operate, folder, "--keep", "1", code=3)
    assert first.exists()
    last = backup(operate, folder, "--keep", "1")
    assert [path.name for path in folder.iterdir()] == [last.name]
    assert list(json.loads((last / "manifest.json").read_text())["tenants"]) == [staying.id]


def test_backup_of_one_tenant_never_stands_for_all(tenant: Tenant, operate: Run, folder: Path) -> None:
    made = backup(operate, folder)
    assert (
        "--keep counts backups of all"
        in operate("backup", "--to", folder, "--tenant", tenant.id, "--keep", "1", code=2).stderr
    )
    one = backup(operate, folder, "--tenant", tenant.email.upper())
    assert json.loads((one / "manifest.json").read_text())["only"] == tenant.id
    operate("backup", "verify", one)
    assert made.exists()


def test_backup_that_does_not_verify_prunes_nothing(server: Server, tenant: Tenant, operate: Run, folder: Path) -> None:
    """The rows that are there are no longer those of the digest: each copy of them is bad."""
    tenant.device().create(id="a", name="x")
    good = backup(operate, folder)
    assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(tenant.path)) as file, file:
        file.execute("UPDATE _digests SET hash = '00000000deadbeef' WHERE table_name = 'end_user'")
    told = operate("backup", "--to", folder, "--keep", "1", code=1)
    assert tenant.id in told.stderr and good.exists()


# --- contents --------------------------------------------------------------------------------------------------------


def test_backup_of_an_older_version_verifies_as_far_as_it_can_and_says_so(
    tenant: Tenant, operate: Run, folder: Path
) -> None:
    device = tenant.device()
    device.create(id="a", name="then")
    made = backup(operate, folder)
    new = json.loads((made / "manifest.json").read_text())
    states = {
        one: {name: state[name] for name in ("epoch", "sequence", "digests")} for one, state in new["tenants"].items()
    }
    (made / "manifest.json").write_text(json.dumps({"format": 1, "made": new["made"], "tenants": states}))
    assert "made by an older version" in operate("backup", "verify", made).stderr
    device.update(id="a", name="now")
    operate("restore", made, "--yes")
    assert [row["name"] for row in device.rows()] == ["then"]
    states[tenant.id]["digests"]["end_user"]["hash"] = "0" * 16
    (made / "manifest.json").write_text(json.dumps({"format": 1, "made": new["made"], "tenants": states}))
    operate("backup", "verify", made, code=1)


# --- disk ------------------------------------------------------------------------------------------------------------


@needs("strace")
def test_all_of_a_backup_is_on_the_disk_before_it_has_its_name_and_that_before_an_older_one_goes(
    server: Server, tenant: Tenant, operate: Run, folder: Path, tmp_path: Path
) -> None:
    """Fault: the manifest not synced: 0 bytes of it after a power cut, under the name of a complete backup."""
    tenant.device().create(id="a", name="x")
    old = backup(operate, folder)
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-y",
        "-o",
        str(trace),
        "-e",
        "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir",
    ]
    environ = operating(server.data)
    command += [sys.executable, "syncapp.py", "backup", "--to", str(folder), "--keep", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in trace.read_text().splitlines() if str(folder) in line]
    named = next(n for n, line in enumerate(lines) if "rename" in line and '/backup"' in line)
    synced = {found[1] for line in lines[:named] if (found := re.search(r"f(?:data)?sync\(\d+<(.*?)>\)\s+= 0", line))}
    made = {
        path.removeprefix(found[0]).lstrip("/") for path in synced if (found := re.match(r".*/backup(?=/|$)", path))
    }
    new = Path(done.stdout.strip().splitlines()[-1])
    assert {str(path.relative_to(new)) for path in new.rglob("*")} | {""} <= made
    after = lines[named + 1 :]
    synced_name = next(n for n, line in enumerate(after) if re.search(rf"fsync\(\d+<{re.escape(str(folder))}>\)", line))
    removed = next(n for n, line in enumerate(after) if old.name in line)
    assert synced_name < removed and not old.exists()


def test_nobody_else_may_read_a_backup(tenant: Tenant, folder: Path, server: Server) -> None:
    """Also under a umask that lets others read."""
    command = ["sh", "-c", f"umask 000; exec {sys.executable} syncapp.py backup --to {folder}/of/all"]
    environ = operating(server.data)
    subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=60)
    (made,) = (folder / "of" / "all").iterdir()
    modes = {path.relative_to(made).as_posix(): path.stat().st_mode & 0o777 for path in [made, *made.rglob("*")]}
    assert {modes.pop("."), modes.pop("tenants")} == {0o700}
    assert set(modes.values()) == {0o600} and len(modes) == 3
    assert made.parent.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_backup_left_is_removed_by_the_next(tenant: Tenant, operate: Run, folder: Path) -> None:
    left = folder / ".syncapp-killed" / "backup" / "tenants"
    left.mkdir(parents=True)
    made = backup(operate, folder)
    assert [path.name for path in folder.iterdir()] == [made.name]
