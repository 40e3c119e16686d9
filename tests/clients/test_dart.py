"""The client of docs/dart.md: its requests, events and SQL as they stand in the page, played against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import socketio

from tests import dart_port
from tests.conftest import ROOT, Server
from tests.dart_port import DART, STATEMENTS
from tests.kit.truth import Account, register
from tests.socketio_client import new_client

SCENARIOS = (
    "conflict,delete_against_edit,offline_for_long,answer_lost,overtaken,restore_from_older_backup,edits_around_a_restore,"
    "token_expired,refresh_lost,purged_past_a_device,purged_mid_first_sync,account_change,new_table,refused_create,id_taken,"
    "clock_off,client_killed,random_interleavings"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.environ.get("CLIENTS") != "all", reason="CLIENTS=all plays it")
def test_page_s_client_passes_the_scenarios_and_runs_every_statement(server: Server, tmp_path: Path) -> None:
    """A path or a column that the page has wrong fails here, since the port has none of its own."""
    log = tmp_path / "statements"
    command = [sys.executable, "-m", "tests.kit", "--driver", f"{sys.executable} {ROOT / 'tests' / 'dart_port.py'}"]
    environ = {"STORIES": "1", **os.environ, "PYTHONPATH": str(ROOT), "DART_STATEMENTS": str(log)}
    done = subprocess.run(
        [*command, "--only", SCENARIOS], env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and f"{SCENARIOS.count(',') + 1} passed" in done.stdout, done.stdout + done.stderr
    run = {sql for line in log.read_text().splitlines() for sql in json.loads(line)}
    assert run == STATEMENTS - {"ROLLBACK"}


def test_port_has_every_request_of_the_page() -> None:
    paths = set(re.findall(r"'(/api/[^']+)'", DART))
    port = Path(dart_port.__file__).read_text()
    assert paths and paths == set(re.findall(r'"(/api/[^"]+)"', port))


@pytest.fixture
def account(server: Server) -> Account:
    return register(server.url)


def test_copy_of_the_page_s_file_is_another_device(account: Account, tmp_path: Path) -> None:
    """As a phone that is restored from its backup. Seen to fail: its edit was the first one's own, and no conflict."""
    account.put("end_user", {"id": "a", "name": "before"})
    first, copy = (tmp_path / name for name in ("first.db", "copy.db"))

    def synced(path: Path, typed: str, times: int = 1) -> str:
        client = dart_port.Client(str(path), account.url, ["end_user", "interactions"])
        if path == first:
            client.login(account.email, account.password)
        client.put("end_user", {"id": "a", "name": typed})
        for _ in range(times):
            client.sync()
        return str(client.get("device"))

    named = synced(first, "before")
    shutil.copy(first, copy)
    assert synced(first, "typed in the first", 2) == named != synced(copy, "typed in the copy")
    answer = account.ask("GET", "/api/client/sync/conflicts?state=all")
    assert [one["fields"]["name"]["client"] for one in answer["data"]] == ["typed in the copy"]


def connected(account: Account, token: str, heard: Queue[tuple[str, Any]]) -> socketio.Client:
    """Connect with what the page says, and hear the events that it listens to."""
    auth = dart_port.body_at(DART.index("give({") + 5, {"_get": token, "deviceId": "dart-1"})
    assert "setPath('${server.path}/socket.io/')" in DART
    client = new_client(reconnection=False)
    for event in re.findall(r"socket\.on\('(\w+)'", DART):
        client.on(event, lambda *told, event=event: heard.put((event, told)))
    client.connect(account.url, auth=auth, transports=["websocket"])
    return client


def test_events_that_the_page_listens_to_are_those_of_the_server(account: Account) -> None:
    heard: Queue[tuple[str, Any]] = Queue()
    client = connected(account, account.token, heard)
    assert heard.get(timeout=20)[0] == "authenticated"
    account.put("end_user", {"id": "a", "name": "x"})
    assert heard.get(timeout=20)[0] == "sync_notification"
    client.disconnect()
    heard = Queue()
    client = connected(account, account.token[:-8] + "spoiled0", heard)
    assert heard.get(timeout=20)[0] == "authentication_error"
    client.disconnect()
