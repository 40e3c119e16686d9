"""Tables of one's own in a real server: known everywhere at once, refused with places, migrated at a restart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forking, postgres
from tests.backing_up import operating
from tests.conftest import JSON, ROOT, Device, Server, Tenant

JOB = """
[job]
indexes = [["status", "due"]]
[job.columns]
title = { type = "text", required = true }
status = { type = "text", enum = ["open", "done"], default = "open", index = true }
due = "date"
at = "timestamp"
photos = "json"
"""
ORDER = "[order.columns]\nselect = 'text'\ncreate = { type = 'integer', index = true }\n"
Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with a declaration of tables, on the same folder each time, in place of the one before."""
    servers: list[Server] = []

    def begin(text: str) -> Server:
        if servers:
            assert servers[-1].stop() == 0
        (tmp_path / "own.toml").write_text(text)
        servers.append(Server(tmp_path / "data", {"TABLES_FILE": str(tmp_path / "own.toml")}).start())
        return servers[-1]

    yield begin
    if servers and servers[-1].process and servers[-1].process.poll() is None:
        servers[-1].kill()


def run(tmp_path: Path, *arguments: str, text: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run syncapp with a declaration, and give how it ended."""
    if text is not None:
        (tmp_path / "own.toml").write_text(text)
    environ = operating(tmp_path / "data") | {"TABLES_FILE": str(tmp_path / "own.toml")} | env
    return forking.run([*arguments], environ)


def states(tmp_path: Path) -> list[str]:
    return [one["state"] for one in json.loads(run(tmp_path, "migrate", "--status", "--json").stdout)]


def moved(tenant: Tenant, to: Server) -> Device:
    tenant.server = to
    return tenant.device()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with two tables of its own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "tables.toml").write_text(JOB + ORDER)
    server = Server(folder / "data", {"TABLES_FILE": str(folder / "tables.toml")}).start()
    yield server
    assert server.stop() == 0


# --- known everywhere ------------------------------------------------------------------------------------------------


def test_declared_table_is_pushed_pulled_told_and_looked_back_at(own: Server) -> None:
    tenant = own.register()
    device, listener = tenant.device(X_Device_Id="tablet-1"), tenant.device().listen()
    row = device.create("job", id="j1", title="Roof", due="2026-01-31", at="2026-01-31 10:00", photos=["a"], extra=1)
    assert {name: row[name] for name in ("title", "status", "due", "at", "photos", "extra", "version")} == {
        "title": "Roof", "status": "open", "due": "2026-01-31", "at": "2026-01-31 10:00", "photos": ["a"], "extra": 1,
        "version": 1,
    }  # fmt: skip
    note = listener.wait_note("data_available")
    assert (note["entityType"], note["data"]) == ("job", row)
    page = device.pull({"cursor": None, "digest": True})
    assert list(page["data"]) == ["end_user", "interactions", "job", "order"] and page["data"]["job"] == [row]
    assert page["digest"]["job"]["count"] == 1
    edit = {"table": "job", "operation": "update", "data": {"id": "j1", "status": "done"}}
    device.push(edit)
    late = edit | {"baseVersion": 1, "data": {"id": "j1", "status": "open"}}
    assert device.push({"operations": [late]})["conflicts"] == [], "the device's own"
    clash = tenant.device().push({"operations": [late | {"data": {"id": "j1", "status": "done", "title": "R"}}]})
    assert clash["results"][0]["status"] in ("merged", "conflict")
    history = own.call("GET", "/api/client/sync/history/job/j1", token=tenant.token).json()["data"]
    assert history[-1]["row"] == row
    reverted = own.post("/api/client/sync/history/job/j1/revert", {"version": 1}, tenant.token)
    assert reverted.json()["data"][0]["title"] == "Roof"
    assert listener.call("sync_push", {"changes": {"job": [{"id": "j1", "isDeleted": True}]}})["success"]
    page = device.pull({"cursor": None})
    assert page["data"]["job"] == []
    listener.close()


def test_table_and_columns_named_as_words_of_sql_work(own: Server) -> None:
    device = own.register().device()
    row = device.create("order", id="o1", select="x", create=5)
    assert (row["select"], row["create"]) == ("x", 5)
    assert device.update("order", id="o1", create=None)["create"] is None
    device.delete("order", id="o1")
    assert device.pull({"table": "order"})["data"]["order"] == []


def test_bad_value_is_refused_with_its_path_and_a_bad_row_stops_no_other(own: Server) -> None:
    device = own.register().device()
    bad: list[JSON] = [
        {}, {"title": None}, {"title": ["x"]}, {"title": "x", "status": "late"}, {"title": "x", "due": "31.1.2026"},
        {"title": "x", "due": "2026-02-30"}, {"title": "x", "at": "soon"}, {"title": "x", "at": 5},
    ]  # fmt: skip
    answer = device.push({"changes": {"job": [*bad, {"id": "good", "title": "x"}]}, "atomic": False})
    assert [result["status"] for result in answer["results"]] == ["rejected"] * len(bad) + ["created"]
    assert answer["results"][0]["error"] == "changes.job[0].title is required"
    assert answer["results"][3]["error"] == "changes.job[3].status must be open or done"
    refused = device.push_raw({"table": "job", "operation": "create", "data": {"id": "j"}})
    assert refused.status_code == 400
    assert refused.json()["details"] == [{"path": "data.title", "error": "is required"}]


def test_clients_can_ask_for_the_tables(own: Server, server: Server) -> None:
    told = own.call("GET", "/api/tables").json()["data"]
    assert list(told["tables"]) == ["end_user", "interactions", "job", "order"]
    job = told["tables"]["job"]
    assert job["columns"]["title"] == {"type": "text", "required": True, "default": None, "enum": None}
    assert job["columns"]["status"]["enum"] == ["open", "done"] and job["columns"]["photos"]["type"] == "json"
    assert list(job["columns"]) == ["title", "status", "due", "at", "photos"]
    assert sorted(job["indexes"]) == [["status"], ["status", "due"]]
    everywhere = set(told["everyRow"])
    row = own.register().device().create("job", title="x")
    assert set(row) == set(job["columns"]) | everywhere
    assert list(server.call("GET", "/api/tables").json()["data"]["tables"]) == ["end_user", "interactions"]


def test_descriptions_and_pages_know_the_tables(own: Server) -> None:
    calls, events = own.call("GET", "/openapi.json").json(), own.call("GET", "/asyncapi.json").json()
    for schemas in (calls["components"]["schemas"], events["components"]["schemas"]):
        assert schemas["job.Row"]["properties"]["status"]["anyOf"][0]["enum"] == ["open", "done"]
        assert "job" in schemas["PushChanges"]["properties"]["changes"]["properties"]
    assert calls["components"]["schemas"]["job.RowEdit"]["description"].endswith(
        "A new row has `title`, which `null` does not clear."
    )
    assert 'id="schema-job.Row"' in own.call("GET", "/docs").text
    assert '<option value="job">' in own.call("GET", "/websocket-test.html").text


def test_old_forms_of_the_calls_work_on_a_declared_table(own: Server) -> None:
    """As apps of the older API speak: numeric local ids, no zone, everything again after a failure."""
    device = own.register().device()
    row = {"id": 7, "Unique_id": "u-7", "title": "Roof", "last_updated": "2025-06-29T23:45:26", "colour": "red"}
    first = device.push({"table": "job", "operation": "create", "data": row, "timestamp": "2025-06-29T23:45:26"})
    again = device.push({"changes": {"job": [row]}})
    assert again["results"][0]["id"] == first["results"][0]["id"] and again["results"][0]["status"] == "unchanged"
    pulled = device.pull({"lastSyncTimestamp": "2025-06-29T00:00:00", "entityTypes": ["job"]})["data"]["job"]
    assert [one["colour"] for one in pulled] == ["red"]
    assert device.raw("sync/pull-pending", {"table": "job"}).json()["data"] == {"job": []}


# --- refused at the start --------------------------------------------------------------------------------------------


def test_mistakes_stop_the_start_in_plain_words_and_doctor_tells_the_same(tmp_path: Path) -> None:
    text = '[job.columns]\ntitle = "txt"\ndone = { type = "boolean", requird = true }\n'
    started = run(tmp_path, text=text)
    path = tmp_path / "own.toml"
    assert started.returncode == 1
    lines = started.stderr.splitlines()
    assert lines[-3:-2] == [
        "syncapp: The declaration of tables has 2 mistakes. docs/tables.md says what it may contain."
    ]
    assert lines[-2].startswith(f"{path}:2:9: job.columns.title must be a type: text, integer")
    assert lines[-1] == f'{path}:3:28: job.columns.done.requird is not known here: did you mean "required".'
    assert "Traceback" not in started.stderr and not (tmp_path / "data").exists()
    told = run(tmp_path, "doctor")
    assert told.returncode == 1 and set(lines[-2:]) <= set(told.stdout.splitlines())
    for command in (["register", "--first-name", "A", "--last-name", "B", "--email", "a@b.c"], ["migrate"]):
        ended = run(tmp_path, *command, "--password-stdin") if command[0] == "register" else run(tmp_path, *command)
        assert ended.returncode == 1 and "own.toml:2:9" in ended.stderr and "Traceback" not in ended.stderr


def test_named_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    started = run(tmp_path)
    assert started.returncode == 1 and "TABLES_FILE can't be read" in started.stderr
    assert len(started.stderr.strip().splitlines()) <= 2
    (tmp_path / "own.toml").mkdir()
    assert "TABLES_FILE can't be read" in run(tmp_path).stderr


@pytest.mark.slow
def test_declaration_that_rows_do_not_allow_stops_the_start_until_it_fits(start: Start, tmp_path: Path) -> None:
    server = start(JOB)
    tenant = server.register()
    tenant.device().create("job", id="j1", title="Roof", status="done")
    assert server.stop() == 0
    refused = run(tmp_path, text=JOB.replace('["open", "done"]', '["open"]'))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    told = 'syncapp: job.status: enum ["open", "done"] becomes ["open"]. That does not fit 1 row of 1 tenant: row j1 of'
    assert refused.stderr.splitlines()[-1].startswith(told)
    gone = run(tmp_path, text="")
    assert gone.returncode == 1 and "migrate --retire job" in gone.stderr
    server = start(JOB)
    assert moved(tenant, server).rows("job")[0]["status"] == "done"


# --- changed ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_added_column_comes_with_its_default_and_devices_with_an_older_app_go_on(start: Start) -> None:
    tenant = start(JOB).register()
    device = tenant.device()
    device.create("job", id="j1", title="Roof")
    device.create("job", id="j2", title="Gutter", priority="high")
    cursor = device.pull({"cursor": None})["cursor"]
    wider = JOB + 'priority = { type = "integer", required = true, default = 3 }\n[visit.columns]\njob = "text"\n'
    device = moved(tenant, start(wider))
    rows = {row["id"]: row for row in device.rows("job")}
    assert [rows[name]["priority"] for name in ("j1", "j2")] == [3, 3] and rows["j2"]["_unfit"] == {"priority": "high"}
    sent = device.pull({"cursor": cursor})["data"]
    assert sent == {"end_user": [], "interactions": [], "job": list(rows.values()), "visit": []}
    old = device.update("job", id="j1", title="Roof, again")
    assert (old["priority"], old["version"]) == (3, 3), "an older app does not know the column"
    assert device.create("job", id="j3", title="Door")["priority"] == 3
    assert device.update("job", id="j2", priority=1)["priority"] == 1
    assert (
        device.push_raw({"table": "job", "operation": "update", "data": {"id": "j2", "priority": None}}).status_code
        == 400
    )


@pytest.mark.slow
def test_migrate_makes_all_tenants_ready_and_check_only_tells(start: Start, tmp_path: Path) -> None:
    server = start("")
    tenants = [server.register() for _ in range(3)]
    checked = run(tmp_path, "migrate", "--check", text=JOB)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines() == ["job: new table", "3 tenants would be migrated."]
    if not postgres.IS_UNDER_TEST:  # There it may run beside servers, and makes all ready with its first look.
        busy = run(tmp_path, "migrate")
        assert busy.returncode == 1 and "Stop it first" in busy.stderr
    assert server.stop() == 0
    few = run(tmp_path, "migrate", "--canary", "1")
    if postgres.IS_UNDER_TEST:
        assert few.returncode == 1 and "no canary" in few.stderr
    else:
        assert few.returncode == 0 and few.stdout.startswith("1 tenant migrated.\nEach of them was compared")
        assert "2 tenants still to be migrated" in few.stdout and "--remove-copies" in few.stderr
        assert sorted(states(tmp_path)) == ["current", "waiting", "waiting"]
    done = run(tmp_path, "migrate")
    assert done.returncode == 0 and done.stdout == f"{3 if postgres.IS_UNDER_TEST else 2} tenants migrated.\n"
    assert run(tmp_path, "migrate").stdout == "0 tenants migrated: 3 tenants current already.\n"
    assert states(tmp_path) == ["current"] * 3
    assert run(tmp_path, "migrate", "--remove-copies").stdout.startswith("0" if postgres.IS_UNDER_TEST else "3 copies")
    server = start(JOB)
    moved(tenants[0], server).create("job", id="j1", title="Roof")
    assert server.stop() == 0
    checked = run(tmp_path, "migrate", "--check", text="")
    assert checked.returncode == 1 and checked.stdout.startswith("job: no longer declared")
    assert run(tmp_path, "migrate", "--check", "--retire", "job").returncode == 0
    assert run(tmp_path, "migrate", "--retire", "job").returncode == 0
    device = moved(tenants[0], start(""))
    assert device.pull_raw({"table": "job"}).status_code == 400
    assert [row["title"] for row in moved(tenants[0], start(JOB)).rows("job")] == ["Roof"]


@pytest.mark.slow
def test_customer_that_the_operator_makes_has_the_declared_tables(start: Start, tmp_path: Path) -> None:
    server = start(JOB)
    person = ["--first-name", "A", "--last-name", "B", "--email", "op@example.com", "--password-stdin"]
    environ = operating(tmp_path / "data") | {"TABLES_FILE": str(tmp_path / "own.toml")}
    made: Any = subprocess.run(
        [sys.executable, "syncapp.py", "register", *person], cwd=ROOT, env=environ, input="password123\n",
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    login = server.post("/api/customers/login", {"email": "op@example.com", "password": "password123"}).json()["data"]
    assert made.stdout.strip() == login["customer"]["id"]
    tenant = Tenant(server, made.stdout.strip(), "op@example.com", "password123", login["token"], "")
    assert tenant.device().create("job", title="Roof")["status"] == "open"
