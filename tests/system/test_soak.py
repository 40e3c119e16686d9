"""Hours in small: what a server holds after many devices came and went is what it held before.

CI does a few rounds; ``SOAK_SECONDS=3600 pytest tests/system/test_soak.py -s`` goes on for an hour and prints the same
figures.

A round is 24 tenants, three times as many as may be open: each pushes, pulls, listens over WebSocket or polling, and
leaves, half of them without a word, and all once amid a request. The first rounds warm up: caches, threads and the
allocator's arenas get their size. From there on descriptors, threads and sockets must be what they were, but for what
is allowed below with its reason. Memory may grow by MORE_KIB.

What is held at the most must not depend on the machine: a leg of some rounds begins with nobody there and ends when the
server knows that everybody is gone, and it soon ends connections that a polling client left idle (they piled up, 10 more
a round). SQLite caches up to 2 MB of each tenant that is open: a push adds little to its file in a short run, and in a
long one so much that warming up fills the caches. What grows besides are the heads of requests that the server keeps, to
1,024 of them. Seen: +1.7 MiB at the most; +13.1 MiB with 8 KiB kept of each request.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from server import idle_reader
from tests import postgres
from tests.conftest import WAIT_SECONDS, Listener, Server, Tenant, wait_for

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
ROUNDS, LEGS = 5, 2
ROWS = 20 if SECONDS else 2
OPEN_TENANTS = 8
TENANTS = 3 * OPEN_TENANTS
LISTENERS_AT_ONCE = 8
MORE_KIB = 5 * 1024
DATABASE_CONNECTIONS = 6 if postgres.IS_UNDER_TEST else 0
"""The pool's five, and one that listens."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180 + SECONDS * 3)]


@dataclass(frozen=True)
class Held:
    """What a server's process holds; ``said`` is what it counts itself: greenlets, rooms and the like."""

    resident_kib: int
    descriptors: int
    sockets: int
    threads: int
    said: dict[str, int]


def held(server: Server) -> Held:
    assert server.process is not None
    process = Path(f"/proc/{server.process.pid}")
    status = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", (process / "status").read_text(), re.MULTILINE))
    targets = [target(path) for path in (process / "fd").iterdir()]
    sockets = sum(name.startswith("socket:") for name in targets)
    return Held(int(status["VmRSS"]), len(targets), sockets, int(status["Threads"]), counts(server))


def counts(server: Server) -> dict[str, int]:
    """Ask a server what it holds."""
    assert server.process is not None
    before = server.log_path.read_text().count('"held"')
    server.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: server.log_path.read_text().count('"held"') > before, "the server to count")
    line = [line for line in server.log if line["message"] == "held"][-1]
    return {name: line[name] for name in ("greenlets", "in_flight", "sockets", "clients", "rooms", "open_tenants")}


def target(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # Closed meanwhile.
        return ""


def some_legs(server: Server, tenants: list[Tenant], legs: int, seconds: float) -> Held:
    """Do so many legs, and more until the time is over; give what is held in the end."""
    end = time.monotonic() + seconds
    for leg in itertools.count(1):
        left = one_leg(server, tenants)
        if leg >= legs and time.monotonic() > end:
            return left
    raise AssertionError


def one_leg(server: Server, tenants: list[Tenant]) -> Held:
    """Do rounds, from nobody there to everybody gone; give what is held then."""
    rng = random.Random(7)
    for number in range(ROUNDS):
        one_round(tenants, rng)
        print(number, held(server))
    return settled(server)


def one_round(tenants: list[Tenant], rng: random.Random) -> None:
    for start in range(0, len(tenants), LISTENERS_AT_ONCE):
        some = tenants[start : start + LISTENERS_AT_ONCE]
        visits = [threading.Thread(target=visit, args=(tenant, rng.randrange(4))) for tenant in some]
        for thread in visits:
            thread.start()
        for thread in visits:
            thread.join()
    for tenant in tenants:
        leave_amid_a_request(tenant)


def visit(tenant: Tenant, way: int) -> None:
    """Listen, push, pull, and leave politely or not."""
    device = tenant.device(X_Device_Id="tablet")
    listener = device.listen("polling" if way % 2 else "websocket", deviceId="tablet")
    heard = len(listener.notes())
    device.push({"changes": {"end_user": [{"id": f"r{n}", "name": os.urandom(8).hex()} for n in range(ROWS)]}})
    listener.wait_note("data_available", heard + 1)
    assert len(device.catch_up()["end_user"]) == ROWS
    (leave_politely if way < 2 else leave_rudely)(listener)


def leave_politely(listener: Listener) -> None:
    listener.close()


def leave_rudely(listener: Listener) -> None:
    """Cut the connection without a goodbye; what polls just never asks again."""
    listener.client.eio.state = "disconnected"
    with contextlib.suppress(Exception):
        listener.client.eio.ws.sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(Exception):
        listener.client.eio.http.close()


def leave_amid_a_request(tenant: Tenant) -> None:
    """Announce a body, send half of it, and go with a reset."""
    with socket.create_connection(("127.0.0.1", tenant.server.port), timeout=10) as connection:
        head = f"POST /api/client/sync/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.token}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 999\r\n\r\n{{".encode())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def settled(server: Server) -> Held:
    """Wait until everybody is gone, those that left rudely too, and see what is held then."""

    def is_alone() -> bool:
        now = held(server)
        return now.sockets <= 1 + DATABASE_CONNECTIONS and now.said["sockets"] == 0  # One listens.

    try:
        wait_for(is_alone, "everybody to be gone")
    except AssertionError as error:
        raise AssertionError(f"{error}: {held(server)}") from None
    return held(server)


def test_devices_that_come_and_go_leave_nothing_behind(start_server: Callable[..., Server]) -> None:
    """Faults: stores kept instead of closed; 8 KiB kept of each request; a thread left by each socket."""
    soon = {"PING_INTERVAL_SECONDS": "1", "PING_TIMEOUT_SECONDS": "1", "KEEP_ALIVE_SECONDS": "1"}
    server = start_server(OPEN_TENANTS=str(OPEN_TENANTS), **soon)
    tenants = [server.register() for _ in range(TENANTS)]
    warm = some_legs(server, tenants, 1, SECONDS / 4)
    last = some_legs(server, tenants, LEGS, SECONDS * 3 / 4)
    print("after warming up", warm, "at the end", last)
    files = 0 if postgres.IS_UNDER_TEST else OPEN_TENANTS
    gone = {"in_flight": 0, "sockets": 0, "clients": 0, "rooms": 0, "open_tenants": files}
    assert last.said == warm.said | gone | {"greenlets": last.said["greenlets"]}
    extra = last.said["greenlets"] - warm.said["greenlets"]
    own = 2 * (last.threads - warm.threads)
    assert extra <= own + idle_reader._POOL_SIZE, "a thread of gevent's pool has two of its own; some wait to be lent"
    assert last.threads <= warm.threads + 8, "threads that commit are made when needed, up to 8"
    assert last.descriptors <= warm.descriptors + 2 * 5, "two files more may be open at that moment"
    assert last.resident_kib <= warm.resident_kib + MORE_KIB
    assert requests.get(f"{server.url}/health", timeout=WAIT_SECONDS).ok
    assert [line for line in server.log if line["level"] in ("error", "raw")] == []
    assert server.stop() == 0
