"""One tenant does all that it can to have the server for itself; another goes on as if it were alone.

On both ways to serve. What shows that turns are taken is ``server/test_quotas.py``; here nothing of the other tenant
fails, and the one that floods is told when to come back, and may. Seen to fail with an ``enter`` that spends no
request.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
import socketio
import websocket

from tests.conftest import Listener, Server, Tenant, wait_for
from tests.raw_sockets import raw_socket
from tests.refusals import complaints, refused
from tests.server.http.test_lifecycle import procfile_command

pytestmark = pytest.mark.server

WINDOW_SECONDS = 4
PUSHES = 20
FLOODING_SOCKETS = 8
BUDGETS = {
    "TENANT_REQUESTS": f"120 per {WINDOW_SECONDS} seconds",
    "TENANT_ROWS": f"8000 per {WINDOW_SECONDS} seconds",
    "SOCKET_EVENTS": f"60 per {WINDOW_SECONDS} seconds",
    "MAX_PUSH_ROWS": "4000",
    "MAX_TENANT_REQUESTS": "40",
    "MAX_TENANT_SOCKETS": "10",
}
"""What one tenant can use up within a test, and the other one's modest work can't."""


@pytest.fixture(params=["python syncapp.py", "Procfile"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    command = procfile_command() if request.param == "Procfile" else [sys.executable, "syncapp.py"]
    server = Server(tmp_path / "data", BUDGETS, command).start()
    yield server
    assert server.stop() == 0


class Flood:
    """Many threads of one tenant that do the same without a pause until they are told to stop."""

    def __init__(self, tenant: Tenant, act: Callable[[Flood, int], None], count: int) -> None:
        self.tenant, self.met, self.answers = tenant, Counter[int](), list[Any]()
        self.is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(act, number)) for number in range(count)]

    def _run(self, act: Callable[[Flood, int], None], number: int) -> None:
        while not self.is_over.is_set():
            with contextlib.suppress(OSError, socketio.exceptions.ConnectionError):  # The server ended it: come again.
                act(self, number)

    def ask(self, path: str, body: bytes) -> None:
        headers = {"Authorization": f"Bearer {self.tenant.token}", "Content-Type": "application/json"}
        answer = requests.post(f"{self.tenant.server.url}/api/client/{path}", body, headers=headers, timeout=30)
        self.met[answer.status_code] += 1
        if answer.status_code == 429:
            self.answers = [answer]

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self._threads:
            thread.join()


def of_requests(flood: Flood, number: int) -> None:
    flood.ask("sync/push", b'{"table": "end_user", "operation": "update", "data": {"id": "a", "name": "%d"}}' % number)


def of_pulls(flood: Flood, number: int) -> None:
    flood.ask("sync/pull", b'{"table": "end_user"}')


def of_huge_pushes(flood: Flood, number: int) -> None:
    flood.ask("sync/push", HUGE)


HUGE = json.dumps({"changes": {"end_user": [{"id": f"h{n}", "note": "x" * 300} for n in range(2_000)]}}).encode()


def of_events(flood: Flood, number: int) -> None:
    """Send without a pause, on sockets that the server ends again and again."""
    if number < FLOODING_SOCKETS:
        with contextlib.suppress(websocket.WebSocketException), raw_socket(flood.tenant) as connection:
            connection.settimeout(5)
            while not flood.is_over.is_set():
                for event in range(100):
                    connection.send(f'42{event}["sync_status_update",{{"status":"busy"}}]')
                for _ in range(100):
                    said = connection.recv()
                    flood.met["rate_limited" in said] += said[:2] == "43"
    time.sleep(0.1)


def of_sockets(flood: Flood, number: int) -> None:
    listener = Listener(flood.tenant.server.url, auth={"token": flood.tenant.token})
    listener.is_gone.wait(0.5)
    flood.met[bool(listener.of("authentication_error"))] += 1
    listener.close()


@pytest.mark.parametrize("act", [of_requests, of_pulls, of_huge_pushes, of_events, of_sockets])
def test_one_tenant_floods_and_the_other_goes_on(server: Server, act: Callable[[Flood, int], None]) -> None:
    busy, calm = server.register(), server.register()
    busy.device().push({"changes": {"end_user": [{"id": f"p{n}", "note": "x" * 500} for n in range(1_000)]}})
    device = calm.device()
    with closing(device.listen()) as listener, Flood(busy, act, 20) as flood:
        for number in range(PUSHES):
            device.create(id=f"r{number}")
            assert [row["id"] for row in device.rows()][-1] == f"r{number}"
            listener.wait_note("sync_complete", number + 1)
        wait_for(
            lambda: flood.met[429] + flood.met[True] and flood.met[200] + flood.met[False],
            lambda: f"refusals {flood.met}",
        )
        assert not listener.is_gone.is_set()
    assert len(device.rows()) == PUSHES
    if flood.answers:
        check_told_and_may_come_back(flood)
    assert [line for line in complaints(server) if not line["message"].endswith(" 503")] == []


def check_told_and_may_come_back(flood: Flood) -> None:
    (answer,) = flood.answers
    refused(answer, 429, "rate_limited")
    wait = int(answer.headers["Retry-After"])
    assert 1 <= wait <= WINDOW_SECONDS
    time.sleep(wait)
    flood.tenant.device().create(id="after")
