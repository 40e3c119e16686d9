"""A server that backs itself up into a bucket, from which it returns after the loss of its disk; what tells of a fault."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from operations.backups import schedule, status
from operations.backups.objects import new_key
from operations.backups.schedule import BackupSchedule
from settings import Settings
from storage import backup_runs, outbox
from tenants import Tenants
from tests import forking, postgres
from tests.conftest import FAST, JSON, Server, wait_for
from tests.ports import free_port
from tests.s3_server import bucket, needs_s3

pytestmark = [needs_s3, pytest.mark.slow]
TOKEN = "a-token-of-the-operator"


@pytest.fixture(scope="module")
def told() -> Iterator[list[JSON]]:
    """What was posted to the address of alerts, which is in ``told[0]``."""
    heard: list[JSON] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    heard.append({"url": f"http://127.0.0.1:{hook.server_port}/a/secret"})
    serving = threading.Thread(target=hook.serve_forever)
    serving.start()
    yield heard
    hook.shutdown()
    serving.join()
    hook.server_close()


@pytest.fixture(scope="module")
def settings(told: list[JSON]) -> Iterator[dict[str, str]]:
    with bucket() as of_bucket:
        more = {"BACKUP_EVERY": "24h", "BACKUP_KEY": new_key(), "BACKUP_ALERT_URL": told[0]["url"]}
        yield {**of_bucket, **more, "METRICS_TOKEN": TOKEN}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("backed up") / "data", settings).start()
    yield server
    server.kill()


def operate(server: Server, *arguments: str, code: int = 0, data: Path | None = None, **more: str) -> Any:
    environ = {**os.environ, **FAST, **postgres.environ_of(data or server.data), **server.env, **more}
    ended = forking.run([*arguments], environ | {"DATA_DIR": str(data or server.data)}, "")
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def backups_of(server: Server) -> JSON:
    found: JSON = server.call("GET", "/health").json()["backups"]
    return found


def test_server_backs_itself_up_and_returns_from_the_bucket_after_the_loss_of_its_disk(
    server: Server, settings: dict[str, str], tmp_path: Path
) -> None:
    wait_for(lambda: backups_of(server)["state"] == "ok", "the first backup, of no tenant")
    wait_for(
        lambda: any(line["message"].startswith("backed up 0 tenants") for line in server.log), "its line in the log"
    )
    tenants = [server.register() for _ in range(2)]
    for tenant in tenants:
        tenant.device().create(id="a", name=tenant.email)
    assert operate(server, "backup", "run").stdout.split(":")[1].startswith(" 2 tenants, 2 changed")
    tenants[0].device().create(id="b", name="later")
    for what in ("read-only", "resume"):
        operate(server, "tenant", what, tenants[0].email)
    operate(server, "backup", "run", "--quiet")
    listed = json.loads(operate(server, "backup", "list", "--json").stdout)
    assert (listed[0]["tenants"], listed[0]["changed"], listed[0]["missing"]) == (2, 1, 0)
    assert "2 tenants good." in operate(server, "backup", "verify", "--from", "latest").stdout
    tenants[0].device().delete(id="a")
    operate(server, "restore", "--yes", "--from", "latest", "--tenant", tenants[0].email)
    assert {row["id"] for row in tenants[0].device().rows()} == {"a", "b"}
    done = json.loads(operate(server, "actions", "--json").stdout)
    assert (done[0]["action"], done[0]["about"]) == ("restore", f"from {listed[0]['name']}")
    server.kill()
    if server.data.exists():
        shutil.rmtree(server.data)
    new = tmp_path / "new machine"
    assert operate(server, "restore", "--new", "--yes", "--from", "latest", data=new).stdout == "2 tenants restored.\n"
    recorded = json.loads(operate(server, "actions", "--json", data=new).stdout)
    assert [one["action"] for one in recorded] == ["restore", "restore", "active", "read-only"]
    began = Server(new, settings).start()
    for tenant, ids in zip(tenants, ({"a", "b"}, {"a"}), strict=True):
        login = began.post("/api/customers/login", {"email": tenant.email, "password": tenant.password})
        rows = began.post("/api/client/sync/pull", {"cursor": None}, login.json()["data"]["token"]).json()["data"]
        assert {row["id"] for row in rows["end_user"]} == ids
    assert began.stop() == 0
    operate(server, "restore", "--new", "--yes", "--from", "latest")  # Else it has no customer, and makes no backup.
    server.start()


def test_bucket_that_is_gone_is_told_once_and_shown(server: Server, told: list[JSON]) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    wait_for(lambda: backups_of(server)["state"] in ("ok", "none"), "the state")
    for _ in range(2):
        said = operate(server, "backup", "run", code=1, S3_ENDPOINT=endpoint).stderr
        assert "s3://" in said and "can't be used" in said and "its-secret" not in said
    assert [one["event"] for one in told[1:]] == ["backup_failed"] and "can't be used" in told[1]["text"]
    assert backups_of(server)["state"] == "failed"
    shown = requests.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60).text
    assert "syncapp_backup_failed 1.0" in shown and "syncapp_backup_interval_seconds 86400.0" in shown
    operate(server, "backup", "run", "--quiet")
    assert backups_of(server)["state"] == "ok"


@pytest.mark.parametrize(
    ("state", "began", "now", "shown", "due"),
    [
        ("good", 100, 200, "ok", 3_700),
        ("good", 100, 7_400, "overdue", 3_700),
        ("failed", 100, 200, "failed", 1_010),
        ("incomplete", 100, 200, "incomplete", 3_700),
        (None, 0, 7_000, "none", 7_000),
        (None, 0, 7_201, "overdue", 7_201),
    ],
)
def test_state_of_backups_and_when_the_next_is_due(
    tenants: Tenants, state: Any, began: int, now: int, shown: str, due: int
) -> None:
    def note() -> None:
        if state is not None:
            backup_runs.finish(backup_runs.begin("/backups", began), state, began + 10)

    tenants.directory.write(note)
    place = "/backups"
    found = tenants.directory.read(lambda: status.read(place, 3_600, 0, now))
    assert (found.state, found.due_at) == (shown, due)
    elsewhere = tenants.directory.read(lambda: status.read("/others", 3_600, 0, 7_000))
    assert (elsewhere.state, elsewhere.due_at) == ("none", 7_000), "what is kept elsewhere does not count"


def test_run_that_was_killed_is_noted_and_one_that_is_overdue_is_told_once(
    tenants: Tenants, tmp_path: Path, told: list[JSON]
) -> None:
    given: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "backup_to": str(tmp_path / "backups"),
        "backup_alert_url": told[0]["url"],
        "backup_alert_mail": "operator@example.com",
    }
    backups, before = BackupSchedule(Settings(**given, backup_every=3_600), tenants.engine), len(told)
    tenants.directory.write(lambda: backup_runs.begin(given["backup_to"], int(time.time())))
    backups.look(lambda _: pytest.fail("a run was begun"))
    assert backups.status().state == "failed"
    assert [run.state for run in tenants.directory.read(lambda: backup_runs.runs(9))] == ["interrupted"]
    backups._since -= 7_300
    for _ in range(2):
        backups.look(lambda _: pytest.fail("a run was begun"))
    assert [one["event"] for one in told[before:]] == ["backup_overdue"]
    (mail,) = tenants.directory.read(lambda: outbox.listed(9))
    assert (mail.recipient, mail.subject) == ("operator@example.com", "A backup is overdue")


def test_run_that_dies_is_told(
    tenants: Tenants, tmp_path: Path, told: list[JSON], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the system kills for its memory, before it could say anything."""
    program = tmp_path / "dies.py"
    program.write_text("import sys; print('no memory', file=sys.stderr); sys.exit(9)")
    monkeypatch.setattr(schedule, "_PROGRAM", program)
    given: dict[str, Any] = {"data_dir": tmp_path / "data", "backup_to": str(tmp_path / "backups")}
    backups, before, slept = (
        BackupSchedule(Settings(**given, backup_every=60, backup_alert_url=told[0]["url"]), tenants.engine),
        len(told),
        list[float](),
    )

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(min(seconds, 0.02))

    backups.look(sleep)
    assert [(one["event"], one["message"]) for one in told[before:]] == [
        ("backup_failed", "A backup could not be begun: no memory")
    ]
    assert slept[-1] == 60, "it is not tried again at once"
