"""What clients receive is the same, byte for byte, whether our parts or those of the libraries serve it (bench/stock.py).

Seen to fail with: a space in a notification; an acknowledgement that leaves before the notifications of its push; a header
that only ours has.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.by_hand import Poller, Raw
from tests.conftest import ROOT, Server, Tenant

TOGETHER = "pywsgi,frames,engineio,emit,socketio,flask_socketio,logging"
APART = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}", "ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"(?i)^date: .*\s*", ""),
    (r";r=\d+;t=\d+", ";r=LEFT;t=SECONDS"),
    (r"\b[0-9a-f]{12}-(\d+)", r"EPOCH-\1"),
    (r"(?i)^connection: .*\s*", ""),
    (r'"sid":"[^"]+"', '"sid":"SID"'),
]
"""What differs between two runs; and what pywsgi writes in another place, or not with a handshake."""


@pytest.fixture(scope="module", params=[TOGETHER, "idle_reader"])
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is served by the libraries, as far as there are two ways."""
    if request.param == TOGETHER:
        postgres.must_be_about_files()  # What the libraries send can't go to other processes.
    command = [sys.executable, "bench/stock.py", request.param]
    server = Server(tmp_path_factory.mktemp("stock") / "data", command=command).start()
    yield server
    assert server.stop() == 0
    assert [line for line in server.log if line["level"] in ("error", "raw")] == []


def alike(said: str) -> str:
    for pattern, name in APART:
        said = re.sub(pattern, name, said, flags=re.MULTILINE)
    return said.rstrip()


def row(number: int, size: int = 10) -> str:
    return json.dumps({"table": "end_user", "operation": "create", "data": {"id": f"r{number}", "note": "ä" * size}})


def spoken_over_http(tenant: Tenant) -> str:
    """Push, pull, and ask for what there is not, all at once on one connection, and give all that comes."""
    said = b""
    for path, body in (("push", row(1)), ("push", "[]"), ("pull", '{"table": "end_user"}'), ("pul", "{}")):
        data = body.encode()
        lines = [f"POST /api/client/sync/{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {tenant.token}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}", "", ""]
        said += "\r\n".join(lines).encode() + data
    with socket.create_connection(("127.0.0.1", tenant.server.port), timeout=20) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()


EVENTS = (
    '421["ping",{}]',
    f'422["sync_push",{row(2)}]',
    f'423["sync_push",{row(3, 20_000)}]',
    '424["sync_pull",{"table":"end_user"}]',
)


def spoken_by_websocket(tenant: Tenant) -> list[str]:
    """Give every frame until the last event is acknowledged; another socket of the tenant hears it too."""
    with Raw(tenant.server) as speaker, Raw(tenant.server) as listener:
        said = [speaker.answer]
        for one in (listener, speaker):
            one.join(tenant)
        for event in EVENTS:
            speaker.say(event)
            while not said[-1].startswith(f"43{event[2]}"):
                said.append(speaker.packet())
        return [*said, *(listener.packet() for _ in range(4))]


def spoken_by_polling(tenant: Tenant) -> list[str]:
    poller = Poller(tenant.server).join(tenant)
    said = []
    for event in EVENTS:
        assert poller.post(event).text == "ok"
        said += poller.packets()
    while not said[-1].startswith("434"):
        said += poller.packets()
    return [poller.opened["upgrades"][0], *said]


def test_http_is_served_with_the_same_bytes(server: Server, stock: Server) -> None:
    ours, theirs = (alike(spoken_over_http(one.register())) for one in (server, stock))
    assert ours == theirs and ours.count("HTTP/1.1") == 4


def test_websockets_are_served_with_the_same_frames(server: Server, stock: Server) -> None:
    ours, theirs = ([alike(said) for said in spoken_by_websocket(one.register())] for one in (server, stock))
    assert ours == theirs and len(ours) > 10


def test_polling_is_served_with_the_same_packets(server: Server, stock: Server) -> None:
    ours, theirs = ([alike(said) for said in spoken_by_polling(one.register())] for one in (server, stock))
    assert ours == theirs and len(ours) > 8


def test_part_that_there_is_not_is_refused() -> None:
    for arguments in ([], ["pywsgi,gone"]):
        command = [sys.executable, "bench/stock.py", *arguments]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 1 and "The parts are pywsgi, frames," in ended.stderr


def test_nothing_that_serves_users_can_reach_it() -> None:
    served = [*ROOT.glob("*.py"), *(ROOT / "Procfile",), *(path for path in ROOT.glob("*/**/*.py") if _serves(path))]
    assert len(served) > 60 and not [path for path in served if re.search(r"\bstock\b", path.read_text())]


def _serves(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] in ("protocol", "server", "storage", "accounts", "api", "operations")
