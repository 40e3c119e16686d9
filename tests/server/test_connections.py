"""Clients that make the server wait: slow heads and bodies, idle connections, readers that do not read, and too many.

On both ways to serve. Without ``server/connections.py`` nothing of it ended, and under gunicorn a thousand slow
connections were all that it took. Seen to fail with: a sweep that finds nobody late; nobody ended to make room; a
WebSocket that stays in the part ``body``; a ``rest`` or a ``head`` without a bound of bytes; a body that gains no time
by what comes.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import requests

from server import connections
from server.connections import Connections, fitted_to_open_files
from settings import Settings
from tests.conftest import JSON, WAIT_SECONDS, Server, wait_for
from tests.refusals import complaints, say, shaped
from tests.server.http.test_lifecycle import procfile_command

pytestmark = pytest.mark.server

MOST = 40
PATIENT = {"HEAD_SECONDS": "1", "STALL_SECONDS": "2", "KEEP_ALIVE_SECONDS": "1"}
IMPATIENT = {"HEAD_SECONDS": "600", "STALL_SECONDS": "600", "KEEP_ALIVE_SECONDS": "600"}
PUSH = "POST /api/client/sync/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module", params=["python syncapp.py", "Procfile"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Give a server of either kind by its settings; the same settings, the same server."""
    command = procfile_command() if request.param == "Procfile" else [sys.executable, "syncapp.py"]
    servers: dict[str, Server] = {}

    def serve(env: dict[str, str]) -> Server:
        key = json.dumps(env)
        if key not in servers:
            servers[key] = Server(tmp_path_factory.mktemp("slow") / "data", env, command).start()
        return servers[key]

    yield serve
    assert {server.stop() for server in servers.values()} <= {0}
    assert [line for server in servers.values() for line in complaints(server)] == []


@pytest.fixture
def server(both: Callable[..., Server]) -> Server:
    return both(PATIENT)


@pytest.fixture
def small(both: Callable[..., Server]) -> Server:
    """A server with room for few connections, which waits for each of them for ten minutes."""
    return both({"MAX_CONNECTIONS": str(MOST), "MAX_BODY_BYTES": "65536", **IMPATIENT})


def connect(server: Server, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(data)
    return connection


def drip(connection: socket.socket) -> bytes:
    """Send a byte now and then until the server answers or closes, and give what it says."""
    connection.settimeout(0.1)
    said = b""
    while True:
        with contextlib.suppress(OSError):
            connection.sendall(b"x")
        try:
            part = connection.recv(65_536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            return said
        said += part
        if not part:
            return said


def refusal(said: bytes) -> tuple[int, JSON]:
    """Read an answer that refuses, check that it is in the one shape, and give its status and body."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower() and b"content-type: application/json" in head.lower()
    request_id = re.findall(rb"(?i)x-request-id: (.*)\r?", head)[0].decode().strip()
    found = shaped(json.loads(body))
    assert found["requestId"] == request_id
    return int(head.split()[1]), found


# --- too slow --------------------------------------------------------------------------------------------------------


def test_head_that_drips_is_ended_with_408(server: Server) -> None:
    with connect(server, b"GET /health HTTP/1.1\r\nHost: x\r\nX-Drip: ") as connection:
        status, body = refusal(drip(connection))
    assert (status, body["code"]) == (408, "request_timeout")


def test_request_line_that_drips_is_ended_with_408(server: Server) -> None:
    with connect(server, b"GET /") as connection:
        assert refusal(drip(connection))[0] == 408


def test_body_that_drips_is_ended_with_408(server: Server) -> None:
    tenant = server.register()
    head = f"{PUSH}Authorization: Bearer {tenant.token}\r\nContent-Length: 100000\r\n\r\n"
    with connect(server, head.encode()) as connection:
        status, body = refusal(drip(connection))
    assert (status, body["code"]) == (408, "request_timeout")


def test_body_in_chunks_that_drips_is_ended_with_408(server: Server) -> None:
    tenant = server.register()
    head = f"{PUSH}Authorization: Bearer {tenant.token}\r\nTransfer-Encoding: chunked\r\n\r\nfff0\r\n"
    with connect(server, head.encode()) as connection:
        assert refusal(drip(connection))[0] == 408


def test_body_that_nobody_reads_is_not_waited_for_either(server: Server) -> None:
    with connect(server, f"{PUSH}Content-Length: 100000\r\n\r\n".encode()) as connection:
        assert drip(connection).startswith(b"HTTP/1.1 401")


def test_body_without_end_that_nobody_reads_is_cut_off(small: Server) -> None:
    """It is read for a while, so that a client that sends all before it reads hears the answer; and no further."""
    piece, sent = b"x" * 65_536, 0
    with connect(small, f"{PUSH}Content-Length: {10**15}\r\n\r\n".encode()) as connection, contextlib.suppress(OSError):
        while sent < 100_000_000:
            sent += connection.send(piece)
    assert sent < 50_000_000


def test_slow_body_that_moves_on_is_taken(server: Server) -> None:
    """It takes longer than ``STALL_SECONDS`` in all, but comes faster than 1 KiB a second."""
    tenant = server.register()
    body = json.dumps({"changes": {"end_user": [{"id": f"r{n}", "note": "x" * 400} for n in range(40)]}}).encode()
    head = f"{PUSH}Authorization: Bearer {tenant.token}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(server, head.encode()) as connection:
        for start in range(0, len(body), 2_000):
            connection.sendall(body[start : start + 2_000])
            time.sleep(0.45)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert len(tenant.device().rows()) == 40


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["silent", "idle after one"])
def test_connection_that_says_nothing_is_closed_without_a_word(server: Server, first: bytes) -> None:
    with connect(server, first) as connection:
        said = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert said.count(b"HTTP/1.1") == bool(first) and (not first or said.startswith(b"HTTP/1.1 200"))


def test_reader_that_does_not_read_is_ended_and_the_rest_goes_on(server: Server) -> None:
    tenant = server.register()
    for part in range(4):
        many = [{"id": f"r{part}-{number}", "note": "x" * 6_000} for number in range(700)]
        tenant.device().push({"changes": {"end_user": many}})
    before = ended(server)
    body = b'{"table": "end_user"}'
    head = f"{PUSH.replace('push', 'pull')}Authorization: Bearer {tenant.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head.encode() + body)
        wait_for(lambda: ended(server) > before, "the reader's end")
        with pytest.raises(ConnectionResetError):
            while connection.recv(65_536):
                pass
    assert len(tenant.device().rows()) == 2_800


def ended(server: Server) -> int:
    return sum(line["message"].endswith("idle or slow, and were closed") for line in server.log)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_listener_that_says_nothing_stays(server: Server, transport: str) -> None:
    tenant = server.register()
    with closing(tenant.device().listen(transport)) as listener:
        time.sleep(4.5)  # Longer than any part of a request may take.
        assert not listener.is_gone.is_set()
        tenant.device().create(name="Asha")
        assert listener.wait_note("data_available")["data"]["name"] == "Asha"
        assert listener.call("ping", None)["success"]


# --- too many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", id="in the head"),
        pytest.param(f"{PUSH}Content-Length: 60000\r\n\r\n".encode(), id="in a body that nobody reads"),
        pytest.param(f"{PUSH}Content-Length: 60000000\r\n\r\n".encode(), id="in a body that was refused"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", id="idle"),
        pytest.param(
            f"{PUSH.replace('client/sync/push', 'customers/login')}Content-Length: 60000\r\n\r\n".encode(),
            id="in the body of a log-in",
        ),
    ],
)
def test_more_slow_connections_than_there_is_room_for_keep_nobody_out(small: Server, data: bytes) -> None:
    """Four times as many as there may be; those whose request began first make room for the others."""
    tenant = small.register()
    with ExitStack() as stack:
        listener = stack.enter_context(closing(tenant.device().listen()))
        slow = [stack.enter_context(connect(small, data)) for _ in range(4 * MOST)]
        for number in range(5):
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(b"x" if data else b"")
            tenant.device().create(id=f"r{number}")
        listener.wait_note("sync_complete", 5)
        assert not listener.is_gone.is_set()
        wait_for(lambda: sum(is_over(one) for one in slow) >= 3 * MOST, "the first to be ended")


def is_over(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_server_full_of_listeners_says_so(both: Callable[..., Server]) -> None:
    """Nothing that could be ended is left: a newcomer is told, and one that leaves makes room."""
    server = both({"MAX_CONNECTIONS": "10", "MAX_TENANT_SOCKETS": "100", "KEEP_ALIVE_SECONDS": "1"})
    tenants = [server.register() for _ in range(2)]
    with ExitStack() as stack:
        for tenant in tenants:
            for _ in range(5):
                stack.enter_context(closing(tenant.device().listen()))
        status, body = refusal(say(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", is_end=False))
        assert (status, body["code"]) == (503, "busy")
        large = f"{PUSH}Content-Length: 8000000\r\n\r\n".encode() + b" " * 8_000_000
        assert refusal(say(server, large, is_end=False))[0] == 503
    wait_for(lambda: is_healthy(server), "room")


def is_healthy(server: Server) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{server.url}/health", timeout=WAIT_SECONDS).ok
    return False


def test_one_tenant_has_no_more_than_half_of_the_connections_for_sockets(small: Server) -> None:
    assert small.call("GET", "/api/limits").json()["data"]["maxTenantSockets"] == MOST // 2


def test_connections_fit_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4_096, 4_096))
    found = fitted_to_open_files(Settings())
    assert found.max_connections == 4_096 - 5 * 256 - 300
    assert found.max_tenant_sockets == found.max_connections // 2
    assert "leave room for 2516 connections" in caplog.text
    of_postgres = fitted_to_open_files(Settings(database_url="postgresql://db", open_tenants=100_000))
    assert of_postgres.max_connections == 4_096 - 300, "it opens no files of tenants"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100_000, 100_000))
    assert fitted_to_open_files(Settings()) == Settings()


# --- one after the other ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [b"Connection: upgrade", b"Upgrade: websocket", b"Connection: Upgrade\r\nUpgrade: h2c"]
)
def test_body_ends_where_its_head_says_though_an_upgrade_is_asked_for(server: Server, header: bytes) -> None:
    """As behind a proxy that asks for an upgrade with every request.

    Fault: pywsgi's ``_connection_upgrade_requested``: the second request was read as part of the first one's body.
    """
    body = b'{"email": "nobody@example.com", "password": "password123"}'
    head = b"POST /api/customers/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + header
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    said = say(server, head + length + body + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"401", b"200"]


@pytest.mark.parametrize("line", [b"Sec-WebSocket-Key: !!!=", b"Sec-WebSocket-Version: 99"])
def test_handshake_that_is_none_is_refused_without_a_traceback(server: Server, line: bytes) -> None:
    """``both`` looks at the log in the end. Fault: the library's texts sent as they are: a TypeError in many lines."""
    head = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    version = b"" if line.startswith(b"Sec-WebSocket-V") else b"Sec-WebSocket-Version: 13\r\n"
    assert say(server, head + version + line + b"\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_requests_in_one_packet_are_answered_one_by_one(server: Server) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    assert say(server, one * 300).count(b"HTTP/1.1 200") == 300


def test_connection_that_was_ended_leaves_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: each WebSocket that was reset because it fell behind took one from ``MAX_CONNECTIONS`` for ever."""
    monkeypatch.setattr(connections, "_ROOM_TRY_SECONDS", 0.0)
    crowd = Connections(Settings(max_connections=2))
    for _ in range(5):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            streams = [crowd.stream(ours) for _ in range(2)]
            assert all(crowd.admit(stream) for stream in streams)
            for stream in streams:
                stream.end()
                crowd.remove(stream)
