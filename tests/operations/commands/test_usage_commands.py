"""What a tenant used over HTTP and sockets is counted to the byte, and shown by tenant and by day."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import requests
import websocket

from tests import forking, postgres
from tests.conftest import JSON, WAIT_SECONDS, Server, Tenant
from tests.operations.commands.test_log_commands import environ_of
from tests.raw_sockets import address

PUSH, PULL = "/api/client/sync/push", "/api/client/sync/pull"


def run(server: Server, *arguments: str, code: int = 0) -> str:
    ended = forking.run(["usage", *arguments], environ_of(server))
    assert ended.returncode == code and "Traceback" not in ended.stderr, ended.stderr
    return str(ended.stdout if code == 0 else ended.stderr)


def used(server: Server, *arguments: str) -> JSON:
    """Add up the lines, of which there are two if midnight came between."""
    lines = json.loads(run(server, *arguments, "--json"))
    counts = {name: sum(line[name] for line in lines) for name in lines[0] if isinstance(lines[0][name], int)}
    return counts | {"mostSockets": max(line["mostSockets"] for line in lines)}


def row(number: int) -> JSON:
    return {"table": "end_user", "operation": "create", "data": {"id": f"r{number}", "name": "ä" * 40}}


def rows(*numbers: int) -> bytes:
    return json.dumps({"operations": [row(number) for number in numbers]}).encode()


@dataclass
class Story:
    """What a tenant does, and how many bytes of it went either way."""

    tenant: Tenant
    bytes_in: int = 0
    bytes_out: int = 0
    sockets: list[Any] = field(default_factory=list)

    def post(self, path: str, body: bytes, **headers: str) -> int:
        named = {"Authorization": f"Bearer {self.tenant.token}", "Content-Type": "application/json"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.tenant.server.url + path
        answer = requests.post(url, body, headers=named, timeout=WAIT_SECONDS, stream=True)
        self.bytes_in += len(body)
        self.bytes_out += len(answer.raw.read(decode_content=False))
        return answer.status_code

    def open_socket(self) -> None:
        socket: Any = websocket.create_connection(address(self.tenant.server), timeout=WAIT_SECONDS)
        socket.recv()
        socket.send("40" + json.dumps({"token": self.tenant.token}))
        assert socket.recv().startswith("40")
        self.bytes_out += len(socket.recv().encode())  # authenticated
        self.sockets.append(socket)

    def emit(self, socket: Any, event: str, body: object = None) -> None:
        """Emit an event, and read up to its acknowledgement, with the notifications before it."""
        packet = "427" + json.dumps([event, body], ensure_ascii=False)
        socket.send(packet)
        self.bytes_in += len(packet.encode())
        said = ""
        while not said.startswith("437"):
            said = socket.recv()
            self.bytes_out += len(said.encode()) if said != "2" else 0

    def close(self) -> None:
        for socket in self.sockets:
            socket.sock.close()


@pytest.mark.parametrize("engine", ["files", "postgres"])
def test_known_story_is_counted_exactly(start_server: Callable[..., Server], tmp_path: Any, engine: str) -> None:
    env = {}
    if engine == "postgres":
        if not postgres.is_there():
            pytest.skip(postgres.MISSING)
        env = {"DATABASE_URL": postgres.address_of(tmp_path / "data")}
    server = start_server(**env)
    tenant = server.register()
    story = Story(tenant)
    assert story.post(PUSH, rows(1, 2)) == 200
    assert story.post(PUSH, gzip.compress(json.dumps(row(3)).encode()), Content_Encoding="gzip") == 200
    assert story.post(PUSH, b'{"table":') == 400
    assert story.post(PUSH, rows(*range(10, 60)), Accept_Encoding="gzip") == 200
    assert story.post(PULL, b"{}", Accept_Encoding="gzip") == 200
    for _ in range(3):
        story.open_socket()
    story.emit(story.sockets[0], "sync_push", row(4))
    story.emit(story.sockets[0], "sync_pull", {})
    for socket in story.sockets:
        story.emit(socket, "ping")
    story.close()
    nobody = server.register()
    assert server.stop() == 0
    assert used(server, tenant.email) == {
        "requests": 5 + 2 + 3,
        "pushes": 4,
        "rowsPushed": 2 + 1 + 50 + 1,
        "rowsPulled": 53 + 54,
        "bytesIn": story.bytes_in,
        "bytesOut": story.bytes_out,
        "mostSockets": 3,
    }
    assert nobody.id not in run(server, "--from", "yesterday")
    postgres.drop_those_in(tmp_path)


def test_processes_on_postgresql_add_up(start_server: Callable[..., Server], tmp_path: Any) -> None:
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    env = {"DATABASE_URL": postgres.address_of(tmp_path / "data")}
    one, two = (start_server(name, PROCESS_NAME=name, **env) for name in ("one", "two"))
    tenant = one.register()
    for server in (one, two):
        story = Story(replace(tenant, server=server))
        story.post(PUSH, json.dumps(row(server.port)).encode())
        story.open_socket()
        story.close()
    assert one.stop() == two.stop() == 0
    found = used(one, tenant.id)
    assert (found["requests"], found["rowsPushed"], found["mostSockets"]) == (2, 2, 2)
    postgres.drop_those_in(tmp_path)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, list[Tenant]]:
    """A server that has ended, on which two tenants pushed one and three rows."""
    server = Server(tmp_path_factory.mktemp("past") / "data").start()
    tenants = [server.register(), server.register()]
    for tenant, count in zip(tenants, (1, 3), strict=True):
        device = tenant.device()
        for number in range(count):
            device.create(id=f"r{number}", name="n")
    tenants[0].device().rows()
    tenants[0].device().rows()
    tenants[0].device().rows()
    server.stop()
    return server, tenants


def test_list_is_sorted_and_limited(past: tuple[Server, list[Tenant]]) -> None:
    server, (reader, writer) = past
    for order, first in (("requests", reader), ("pushes", writer), ("rows", reader)):
        found = json.loads(run(server, "--from", "yesterday", "--sort", order, "--json"))
        assert found[0]["email"] == first.email and len(found) == 2
    table = run(server, "--from", "yesterday", "--limit", "1").splitlines()
    assert len(table) == 2 and table[0].split()[:3] == ["TENANT", "ADDRESS", "REQUESTS"] and reader.id in table[1]
    head, *rows = csv.reader(run(server, "--from", "yesterday", "--csv").splitlines())
    assert head[:3] == ["tenant", "email", "requests"] and {one[0]: one[3] for one in rows}[writer.id] == "3"


def test_day_without_use_has_no_lines(past: tuple[Server, list[Tenant]]) -> None:
    server, (tenant, _) = past
    assert json.loads(run(server, tenant.id, "--day", "2020-01-01", "--json")) == []
    assert run(server, "--from", "2020-01-01", "--to", "2020-02-01") == ""


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        (("--day", "soon"), "2026-11-29", 2),
        (("--day", "today", "--to", "today"), "--day", 2),
        (("--from", "today", "--to", "yesterday"), "--from", 2),
        (("--from", "0001-01-01"), "36,500", 2),
        (("nobody@example.com",), "no customer", 1),
    ],
)
def test_what_is_wrong_is_told(
    past: tuple[Server, list[Tenant]], arguments: tuple[str, ...], word: str, code: int
) -> None:
    assert word in run(past[0], *arguments, code=code)
