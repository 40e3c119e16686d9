"""Restores are asked for, named, logged and kept undone for a while; a closed account stays closed unless it is wanted."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from storage import main_database
from storage.sqlite.errors import reason_of
from tests import postgres
from tests.backing_up import backup, edited_since, file_name, names, operating
from tests.conftest import ROOT, Run, Server, Tenant, wait_for
from tests.data_folder import opened

pytestmark = pytest.mark.slow


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


def close(tenant: Tenant) -> None:
    answer = tenant.server.call("DELETE", "/api/customers/me", {"password": tenant.password}, tenant.token)
    assert answer.status_code == 200


def aside(tenant: Tenant) -> list[Path]:
    return sorted((tenant.server.data / "replaced").glob(f"{Path(file_name(tenant)).stem}-*.db"))


# --- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--tenant", "{id}"), ("--file", "{file}", "--tenant", "{id}")])
def test_restore_that_nobody_agreed_to_replaces_nothing(
    tenant: Tenant, operate: Run, folder: Path, more: tuple[str, ...]
) -> None:
    device, made = edited_since(tenant, operate, folder)
    words = [word.format(id=tenant.id, file=made / "tenants" / file_name(tenant)) for word in more]
    told = operate("restore", *([] if "--file" in more else [made]), *words, code=2)
    assert "--yes" in told.stderr and names(device) == {"now"} and aside(tenant) == []


@pytest.mark.parametrize(("typed", "expected"), [("n\n", "now"), ("\n", "now"), ("y\n", "then")])
def test_restore_on_a_terminal_tells_what_it_replaces_and_asks(
    server: Server, tenant: Tenant, operate: Run, folder: Path, typed: str, expected: str
) -> None:
    device, made = edited_since(tenant, operate, folder)
    mine, theirs = pty.openpty()
    environ = operating(server.data)
    command = [sys.executable, "syncapp.py", "restore", str(made)]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=theirs, stdout=-1, stderr=-1, text=True)
    os.write(mine, typed.encode())
    out, err = process.communicate(timeout=60)
    os.close(mine)
    os.close(theirs)
    place = "the database t" if postgres.IS_UNDER_TEST else str(server.data)
    assert tenant.email in err and place in err and "Go on?" in err, out + err
    assert process.returncode == (1 if expected == "now" else 0) and names(device) == {expected}


def test_ctrl_c_in_the_moment_of_the_question_ends_a_restore(tenant: Tenant, operate: Run, folder: Path) -> None:
    """Fault: one that came between the question and the reading of the answer waited for a line."""
    made = backup(operate, folder)
    environ = operating(tenant.server.data)
    for _ in range(4):
        pid, terminal = pty.fork()
        if not pid:
            os.execve(sys.executable, [sys.executable, str(ROOT / "syncapp.py"), "restore", str(made)], environ)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        code = wait_for(partial(code_of, pid), "the restore to end")
        said += os.read(terminal, 4096)
        os.close(terminal)
        assert code == 1 and said.endswith(b"Aborted!\r\n"), said


def code_of(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def test_restore_says_how_many_hold_anything_now(server: Server, operate: Run, folder: Path) -> None:
    """Also none. Fault: "replaces what 0 of them hold now"."""
    tenants = [server.register() for _ in range(2)]
    made = backup(operate, folder)
    server.stop()
    said = [
        operate("restore", made, "--yes", "--tenant", tenants[0].id).stderr,
        operate("restore", made, "--yes").stderr,
    ]
    tenants[0].path.unlink()
    said.append(operate("restore", made, "--yes").stderr)
    said.append(operate("restore", made, "--yes", "--new", data=folder / "new").stderr)
    parts = ["what it holds now", "what they hold now", "what 1 of them hold now", "and replaces nothing: "]
    assert [part for part, told in zip(parts, said, strict=True) if part not in told] == [], said


def test_what_can_not_be_read_is_said_in_words(tenant: Tenant, operate: Run, folder: Path) -> None:
    """Fault: an error of the system's was shown as Python writes it, with its number."""
    made = backup(operate, folder)
    (made / "main.db").unlink()
    (made / "main.db").mkdir()
    told = operate("restore", made, "--yes", code=1).stderr
    assert "Is a directory" in told and str(made) in told and "Errno" not in told
    assert reason_of(OSError(28, "No space left on device", "/a")) == "No space left on device: /a"
    assert reason_of(ValueError("why")) == "why"


def test_restore_names_its_tenant_by_address_too(server: Server, operate: Run, folder: Path) -> None:
    tenants = [server.register() for _ in range(2)]
    for tenant in tenants:
        tenant.device().create(id="a", name="then")
    made = backup(operate, folder)
    for tenant in tenants:
        tenant.device().update(id="a", name="now")
    operate("restore", made, "--yes", "--tenant", tenants[0].email.upper())
    assert [names(tenant.device()) for tenant in tenants] == [{"then"}, {"now"}]
    assert "is no customer's address" in operate("restore", made, "--yes", "--tenant", "no@example.com", code=1).stderr


def test_address_that_is_another_customers_by_now_is_no_name(server: Server, operate: Run, folder: Path) -> None:
    before = server.register()
    made = backup(operate, folder)
    close(before)
    now = server.register(email=before.email)
    told = operate("restore", made, "--yes", "--closed", "--tenant", before.email, code=1).stderr
    assert before.id in told and now.id in told


# --- what was there, and the log -------------------------------------------------------------------------------------


def test_what_a_restore_replaced_is_kept_until_the_next_backup_and_can_be_put_back(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    device, made = edited_since(tenant, operate, folder)
    operate("restore", made, "--yes")
    operate("restore", made, "--yes")
    assert names(device) == {"then"} and len(aside(tenant)) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in [aside(tenant)[0], aside(tenant)[0].parent])
    operate("restore", "--yes", "--file", aside(tenant)[0], "--tenant", tenant.id)
    assert names(device) == {"now"}
    least = 1 if postgres.IS_UNDER_TEST else 3  # There the server looks twice a second, and tells of what it finds.
    lines = wait_for(lambda: len(found := restores(server, tenant)) >= least and found, "lines in the log")
    assert len(lines) <= 3 and {line["level"].lower() for line in lines} == {"warning"}
    backup(operate, folder / "other", "--tenant", tenant.id)
    assert aside(tenant) == []


def restores(server: Server, tenant: Tenant) -> list[dict[str, object]]:
    return [line for line in server.log if "was restored" in str(line["message"]) and tenant.id in str(line)]


def test_restore_without_a_server_is_in_the_log_of_the_next_start(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    tenant.device().create(id="a", name="then")
    made = backup(operate, folder)
    tenant.device().update(id="a", name="now")
    assert server.stop() == 0
    operate("restore", made, "--yes")
    server.start()
    assert names(tenant.device()) == {"then"} and len(aside(tenant)) == 1
    assert postgres.IS_UNDER_TEST or restores(server, tenant)


# --- closed accounts -------------------------------------------------------------------------------------------------


def test_closed_accounts_are_named_and_left_out_unless_asked_for(server: Server, operate: Run, folder: Path) -> None:
    staying, leaving = server.register(), server.register()
    leaving.device().create(id="a", name="left")
    made = backup(operate, folder)
    close(leaving)
    told = operate("restore", made, "--yes")
    assert leaving.email in told.stderr and "--closed" in told.stderr and "1 tenant restored" in told.stdout
    assert not leaving.path.exists() and names(staying.device()) == set()
    assert "--closed" in operate("restore", made, "--yes", "--tenant", leaving.id, code=1).stderr
    assert server.stop() == 0
    server.start()
    assert not leaving.path.exists()
    operate("restore", made, "--yes", "--closed")
    answer = server.post("/api/customers/login", {"email": leaving.email, "password": leaving.password})
    leaving.token = answer.json()["data"]["token"]
    assert names(leaving.device()) == {"left"}


def test_account_whose_address_is_another_s_by_now_comes_back_under_one_that_is_told(
    server: Server, operate: Run, folder: Path
) -> None:
    leaving = server.register()
    leaving.device().create(id="a", name="left")
    made = backup(operate, folder)
    close(leaving)
    newer = server.register(email=leaving.email)
    newer.device().create(id="b", name="newer")
    told = operate("restore", made, "--yes", "--closed").stderr
    address = f"{leaving.id}+{leaving.email}"
    assert f"{leaving.email} is another account's by now: this one comes back as {address}" in told
    assert names(newer.device()) == {"newer"}
    answer = server.post("/api/customers/login", {"email": address, "password": leaving.password})
    leaving.token = answer.json()["data"]["token"]
    assert names(leaving.device()) == {"left"}


def test_restore_that_leaves_everybody_out_says_so_by_its_exit_code(server: Server, operate: Run, folder: Path) -> None:
    leaving = server.register()
    made = backup(operate, folder)
    close(leaving)
    told = operate("restore", made, "--yes", code=1).stderr
    assert leaving.email in told and "--closed" in told and "Nothing was put back" in told


def test_restored_account_whose_closing_was_under_way_stays(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    """Fault: the closing was finished at the next start, and with it went what was restored."""
    tenant.device().create(id="a", name="then")
    made = backup(operate, folder)
    server.kill()
    tenants = opened(server.data, is_server=False)
    tenants.directory.write(lambda: main_database.remove_customer(tenant.id))  # And then the power went.
    tenants.close()
    operate("restore", made, "--yes", "--closed")
    for _ in range(2):
        server.start()
        tenant.token = server.post("/api/customers/login", {"email": tenant.email, "password": tenant.password}).json()[
            "data"
        ]["token"]
        assert names(tenant.device()) == {"then"}
        assert server.stop() == 0


def test_closed_account_leaves_nothing_that_a_restore_or_litestream_put_beside_it(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    tenant.device().create(id="a", name="then")
    operate("restore", backup(operate, folder), "--yes")
    pages = tenant.path.with_name(f".{file_name(tenant)}-litestream")
    (pages / "ltx" / "0").mkdir(parents=True)
    (pages / "ltx" / "0" / "x.ltx").touch()
    assert aside(tenant)
    close(tenant)
    left = [path for path in server.data.rglob("*") if tenant.path.stem in path.name]
    assert left == []


# --- devices ---------------------------------------------------------------------------------------------------------


def test_visit_of_before_a_restore_is_no_position_in_what_was_restored(
    server: Server, tenant: Tenant, operate: Run, folder: Path
) -> None:
    """Fault: what was told before the restore was written after it: ``behind: -10``, and a purge that waits for no one."""
    device = tenant.device(X_Device_Id="tablet")
    device.create(id="a", name="then")
    made = backup(operate, folder)
    for number in range(10):
        device.create(id=str(number))
    device.catch_up()
    device.pull({"cursor": device.cursor})  # Noted, and written within seconds.
    operate("restore", made, "--yes")
    shown = server.call("GET", "/api/client/devices", token=tenant.token).json()["data"]
    assert all(one["behind"] >= 0 for one in shown)


@pytest.mark.parametrize("form", ["baseCursor", "cursor", "event"])
def test_place_of_before_a_restore_is_refused_with_what_to_do(
    tenant: Tenant, operate: Run, folder: Path, form: str
) -> None:
    device, made = edited_since(tenant, operate, folder)
    device.catch_up()
    old = device.cursor
    operate("restore", made, "--yes")
    for _ in range(5):  # So that the old place would be one of the new order, if the epoch were not looked at.
        device.create()
    push = {"baseCursor": old, "changes": {"end_user": [{"id": "a", "name": "typed before"}]}}
    if form == "event":
        listener = device.listen()
        body = listener.call("sync_push", push)
        listener.close()
    else:
        answer = device.push_raw(push) if form == "baseCursor" else device.pull_raw({"cursor": old})
        assert answer.status_code == 410
        body = answer.json()
    assert body["code"] == "resync_required" and "Pull again from the start" in body["error"]
    assert "then" in names(device)
    fresh = device.pull({"cursor": None})["cursor"]
    again = device.push(push | {"baseCursor": fresh})
    assert again["results"][0]["status"] == "updated"


# --- files that nothing of ours made ---------------------------------------------------------------------------------


def test_raw_file_is_taken_in_under_a_new_epoch(server: Server, tenant: Tenant, operate: Run, tmp_path: Path) -> None:
    device = tenant.device()
    for number in range(5):
        device.create(id=str(number), name="then")
    raw = tmp_path / "raw.db"
    with contextlib.closing(sqlite3.connect(tenant.path)) as live:
        live.execute("VACUUM INTO ?", (str(raw),))
    for number in range(3):
        device.create(id=f"later-{number}", name="now")
    device.catch_up()
    operate("restore", "--yes", "--file", raw, "--tenant", tenant.email)
    for number in range(8):
        device.create(id=f"new-{number}", name="new")
    assert device.pull_raw({"cursor": device.cursor}).status_code == 410
    assert names(device) == {"then", "new"}


@pytest.mark.parametrize("what", ["another's", "another's by its epoch", "text", "empty", "other", "broken", "unknown"])
def test_raw_file_that_is_not_this_customers_database_is_refused(
    server: Server, tenant: Tenant, operate: Run, folder: Path, tmp_path: Path, what: str
) -> None:
    """A mistaken ID would give one business the rows of another."""
    other = server.register()
    for one in (tenant, other):
        one.device().push({"changes": {"end_user": [{"id": f"r{n}", "name": one.email * 9} for n in range(200)]}})
    assert server.stop() == 0
    server.start()
    made, raw = backup(operate, folder), tmp_path / (file_name(other) if what == "another's" else "raw.db")
    shutil.copyfile(made / "tenants" / file_name(tenant if what == "broken" else other), raw)
    if what == "text":
        raw.write_text("no database")
    elif what == "empty":
        raw.write_bytes(b"")
    elif what == "other":
        shutil.copyfile(made / "main.db", raw)
    elif what == "broken":
        content = bytearray(raw.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 8192] = os.urandom(8192)
        raw.write_bytes(content)
    to = "1030070f-9824-49b3-b53b-8013e2eb363e" if what == "unknown" else tenant.id
    before = names(tenant.device())
    assert "\nError: " in operate("restore", "--yes", "--file", raw, "--tenant", to, code=1).stderr
    assert names(tenant.device()) == before and aside(tenant) == []


def test_file_that_went_back_by_itself_begins_anew_and_doctor_and_start_say_so(
    server: Server, tenant: Tenant, operate: Run, tmp_path: Path
) -> None:
    """Fault: nobody looked: a device that was ahead got 200 and 3 of 8 new rows."""
    device = tenant.device()
    for number in range(5):
        device.create(id=f"then-{number}")
    assert server.stop() == 0
    kept = shutil.copy(tenant.path, tmp_path / "kept.db")
    server.start()
    for number in range(5):
        device.create(id=f"lost-{number}")
    device.catch_up()
    assert server.stop() == 0
    shutil.copy(kept, tenant.path)
    told = operate("doctor")
    assert f"Tenant {tenant.id}: its file went back by itself, from change 10 to 5" in told.stdout
    server.start()
    wait_for(lambda: any("went back" in str(line["message"]) for line in server.log), "a line in the log")
    for number in range(8):
        device.create(id=f"new-{number}")
    assert device.pull_raw({"cursor": device.cursor}).status_code == 410
    assert len(device.rows()) == 13
    assert "went back" not in operate("doctor").stdout


def test_place_is_noted_while_the_server_runs_so_that_a_crash_hides_no_file_that_went_back(
    server: Server, tenant: Tenant
) -> None:
    postgres.must_be_about_files()
    tenant.device().create(id="a")
    began = time.monotonic()
    wait_for(lambda: noted(server) == [(tenant.id, 1)], f"a note, since {began}")
    server.kill()


def noted(server: Server) -> list[tuple[str, int]]:
    with contextlib.closing(sqlite3.connect(f"file:{server.data / 'main.db'}?mode=ro", uri=True)) as main:
        return list(main.execute("SELECT tenant_id, sequence FROM last_places"))


def test_manifest_names_what_is_in_the_backup(tenant: Tenant, operate: Run, folder: Path) -> None:
    made = backup(operate, folder)
    told = json.loads((made / "manifest.json").read_text())
    assert set(told["files"]) == {"main.db", f"tenants/{file_name(tenant)}"} and told["missing"] == {}
