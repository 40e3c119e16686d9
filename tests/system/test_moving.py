"""An installation moves from files into PostgreSQL and back while devices push: none loses anything, or has to reload."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import forking, postgres
from tests.conftest import FAST, JSON, ROOT, WAIT_SECONDS, Server, Tenant, wait_for
from tests.operations.commands.test_operator import run

StartServer = Callable[..., Server]


@pytest.fixture
def address() -> Iterator[str]:
    """The URL of an empty database."""
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    name = postgres.server().new_database()
    yield postgres.server().address(name)
    postgres.server().drop(name)


class Pusher:
    """A device that pushes one new row after the other, each until it is answered, and notes which were."""

    def __init__(self, tenant: Tenant, name: str) -> None:
        self._tenant, self._name, self._is_over = tenant, name, False
        self.answered: list[str] = []
        self.met: set[tuple[int, str]] = set()
        """Each refusal that it met, by status and code."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._is_over:
            row_id = f"{self._name}-{number}"
            if self._is_taken({"id": row_id, "name": row_id}):
                self.answered.append(row_id)
                number += 1
            else:
                time.sleep(0.01)

    def _is_taken(self, row: JSON) -> bool:
        body = {"operations": [{"table": "end_user", "operation": "create", "data": row, "opId": row["id"]}]}
        url, headers = self._tenant.server.url, {"Authorization": f"Bearer {self._tenant.token}"}
        try:
            answer = requests.post(f"{url}/api/client/sync/push", json=body, headers=headers, timeout=WAIT_SECONDS)
        except requests.RequestException:  # The server is being started anew.
            return False
        if answer.status_code != 200:
            self.met.add((answer.status_code, answer.json()["code"]))
        return answer.status_code == 200

    def wait_for_more(self, count: int = 3) -> None:
        """Wait until some more pushes are answered."""
        least = len(self.answered) + count
        wait_for(lambda: len(self.answered) >= least, lambda: f"pushes ({self.met})")

    def end(self) -> None:
        self._is_over = True
        self._thread.join()


@pytest.fixture
def push_on() -> Iterator[Callable[..., Pusher]]:
    """Begin devices that push until the end of the test."""
    pushers: list[Pusher] = []

    def begin(tenant: Tenant, name: str) -> Pusher:
        pushers.append(Pusher(tenant, name))
        return pushers[-1]

    yield begin
    for pusher in pushers:
        pusher.end()


_APP = """
import json, sys
from syncclient import Hooks, SyncClient
replica, url, token, refresh, new = sys.argv[1:]
pulled = []
hooks = Hooks(on_progress=lambda progress: None, on_change=lambda table, ids: pulled.extend(ids))
with SyncClient(replica, url, hooks=hooks) as client:
    if client.status().cursor is None:
        client.adopt(token, refresh)
    client.put("end_user", {"id": new, "name": new})
    client.sync(verify=True)
    print(json.dumps({"cursor": client.status().cursor, "pulled": len(set(pulled)),
                      "ids": [row["id"] for row in client.rows("end_user")]}))
"""


def sync_app(tenant: Tenant, replica: Path, new: str) -> JSON:
    """Have the Python client write a row and sync; in a process of its own, as on a device."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python" / "src")}
    arguments = [str(replica), tenant.server.url, tenant.token, tenant.refresh_token, new]
    command = [sys.executable, "-c", _APP, *arguments]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    found: JSON = json.loads(ended.stdout)
    return found


def move_and_die(tmp_path: Path, to: str, until: Callable[[str], Any], **env: str) -> None:
    """Begin a move, and kill it as soon as something is so; ``until`` is given what it said so far."""
    out = tmp_path / f"move-{time.time_ns()}"
    environ = {**os.environ, **FAST, "DATA_DIR": str(tmp_path / "data"), "PORT": "0", **env}
    moving = forking.begin(["move", "--to", to, "--yes"], environ, out)
    wait_for(lambda: until(out.read_text()) or moving.poll() is not None, lambda: f"the move ({out.read_text()})")
    moving.send_signal(signal.SIGKILL)
    moving.wait(timeout=WAIT_SECONDS)


def must_move(tmp_path: Path, to: str, **env: str) -> str:
    """Move to the end, and give what it said."""
    ended = run(tmp_path, "move", "--to", to, "--yes", **env)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    return str(ended.stdout)


def move_twice_killed(tmp_path: Path, to: str, here: dict[str, str], pushers: list[Pusher]) -> None:
    """Move what is pushed to, at the third attempt: one is killed amid copies, one when pushes are refused already."""
    for pusher in pushers:
        pusher.met.clear()
        pusher.wait_for_more()
    move_and_die(tmp_path, to, lambda said: "as of change" in said, **here)
    move_and_die(tmp_path, to, lambda _: any(pusher.met for pusher in pushers), **here)
    said = must_move(tmp_path, to, **here)
    assert "Moved: 3 tenants" in said and "DATABASE_URL" in said
    wait_for(lambda: all(pusher.met for pusher in pushers), "a refusal for each")
    assert set().union(*(pusher.met for pusher in pushers)) == {(503, "moved")}


@pytest.mark.timeout(300)
def test_devices_go_on_over_a_move_into_postgresql_and_back(
    start_server: StartServer, address: str, tmp_path: Path, push_on: Callable[..., Pusher]
) -> None:
    """Faults: no second copy: pushes that were answered during the first were missing; the source not closed to writes:
    those that were answered after its last copy were."""
    postgres.must_be_about_files()
    server = start_server()
    tenants = [server.register() for _ in range(3)]
    device = tenants[0].device(X_Device_Id="one", Idempotency_Key="first")
    first = {"changes": {"end_user": [{"id": f"r{number}", "name": "A"} for number in range(300)]}}
    answer = device.push(first)
    device.catch_up()
    before = sync_app(tenants[0], tmp_path / "replica.db", "app-0")
    pushers = [push_on(tenant, f"p{number}") for number, tenant in enumerate([*tenants, tenants[0]])]
    in_postgres = {"DATABASE_URL": address}
    for to, here, there, folder in (
        (address, {}, in_postgres, tmp_path / "data"),
        (str(tmp_path / "back"), in_postgres, dict[str, str](), tmp_path / "back"),
    ):
        move_twice_killed(tmp_path, to, here, pushers)
        credentials = {"email": tenants[1].email, "password": tenants[1].password}
        assert server.post("/api/customers/login", credentials).json()["code"] == "moved"
        assert len(device.rows()) > 300
        assert server.stop() == 0
        wrong = [line for line in server.log if line["level"] in ("error", "raw")]
        assert [line for line in wrong if line.get("code") != "moved"] == []
        server.env, server.data = there, folder
        server.start()
        for pusher in pushers:
            pusher.wait_for_more()
        assert server.post("/api/customers/login", credentials).status_code == 200
    for pusher in pushers:
        pusher.end()
    for number, tenant in enumerate(tenants):
        ids = {row["id"] for row in tenant.device().rows()}
        answered = {one for pusher in pushers for one in pusher.answered if pusher._tenant is tenant}
        assert answered and answered <= ids, (number, sorted(answered - ids))
    assert device.push_raw(first).json() == answer  # The first answer under its Idempotency-Key.
    ids = {row["id"] for row in device.catch_up()["end_user"]}
    assert "r1" not in ids and {"app-0", *pushers[0].answered} <= ids
    after = sync_app(tenants[0], tmp_path / "replica.db", "app-1")
    assert after["cursor"].partition("-")[0] == before["cursor"].partition("-")[0]
    assert after["pulled"] == len(ids) and len(after["ids"]) == 302 + len(pushers[0].answered + pushers[3].answered)
    refreshed = server.post("/api/customers/refresh", {"refreshToken": tenants[2].refresh_token})
    assert refreshed.status_code == 200
