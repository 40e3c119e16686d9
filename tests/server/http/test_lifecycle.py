"""Both ways to serve, on a real socket, and a clean end of either."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from server.http import listening
from tests import postgres
from tests.conftest import FAST, ROOT, WAIT_SECONDS, Listener, Server, wait_for
from tests.raw_http import connect, read_answer
from tests.socketio_client import new_client


def procfile_command() -> list[str]:
    """The Procfile's own command, with this virtual environment's gunicorn."""
    kind, _, command = (ROOT / "Procfile").read_text().strip().partition(": ")
    assert kind == "web"
    program, *arguments = shlex.split(command)
    return [str(Path(sys.executable).with_name(program)), *arguments]


@pytest.fixture(params=["python syncapp.py", "Procfile"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    command = procfile_command() if request.param == "Procfile" else [sys.executable, "syncapp.py"]
    server = Server(tmp_path / "data", {} if postgres.IS_UNDER_TEST else {"WEB_CONCURRENCY": "3"}, command).start()
    yield server
    if server.process and server.process.poll() is None:
        server.kill()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_push_is_heard_on_both_transports(either: Server, transport: str) -> None:
    tenant = either.register()
    listener = tenant.device().listen(transport)
    tenant.device().create(name="Asha")
    assert listener.wait_note("data_available")["data"]["name"] == "Asha"
    assert listener.client.transport() == transport
    listener.close()


def test_sigterm_finishes_requests_tells_sockets_and_exits_with_0(either: Server) -> None:
    tenant = either.register()
    device = tenant.device()
    listeners = [device.listen("websocket"), device.listen("polling")]
    idle = requests.Session()
    assert idle.get(f"{either.url}/health", timeout=WAIT_SECONDS).ok
    answers: list[int] = []
    rows = [{"id": f"r{number}", "name": "x" * 200} for number in range(5000)]
    pushing = threading.Thread(
        target=lambda: answers.append(device.push_raw({"changes": {"end_user": rows}}).status_code)
    )
    pushing.start()
    time.sleep(0.15)
    assert either.stop() == 0
    pushing.join()
    idle.close()
    assert answers == [200]
    assert all(listener.is_gone.wait(WAIT_SECONDS) for listener in listeners)
    assert not list((either.data / "tenants").glob("*-wal")), "a database was not closed"
    assert [line["message"] for line in either.log if line["level"] in ("error", "raw")] == []
    either.start()
    assert len(device.rows()) == 5000


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_clients_come_back_by_themselves_after_a_stop(either: Server, transport: str) -> None:
    """Fault: a close packet at the end: python-socketio took it as wanted, and stayed away for ever."""
    tenant = either.register()
    client = new_client(reconnection_delay=0.1, reconnection_delay_max=0.2)
    greeted: list[Any] = []
    client.on("authenticated", greeted.append)
    client.connect(either.url, auth={"token": tenant.token}, transports=[transport])
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "listener.py"), either.url, transport, tenant.token],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asyncio_client:
        assert asyncio_client.stdin and asyncio_client.stdout
        assert asyncio_client.stdout.readline() == "authenticated\n"
        wait_for(lambda: len(greeted) == 1, "the first greeting")
        assert either.stop() == 0
        either.start()
        wait_for(lambda: len(greeted) == 2, "the client to come back")
        assert asyncio_client.stdout.readline() == "authenticated\n"
        asyncio_client.stdin.close()
    client.disconnect()
    del client
    gc.collect()  # So that its warning comes here and not in another test.


def test_sigterm_waits_for_a_socket_that_does_not_answer_and_closes_all(either: Server) -> None:
    """Fault: under gunicorn the worker, which does not know of an open socket, ended the process within a second."""
    with socket.create_connection(("127.0.0.1", either.port), timeout=10) as silent:
        silent.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert silent.recv(100).startswith(b"HTTP/1.1 101 ")
        assert either.process
        either.process.send_signal(signal.SIGTERM)
        time.sleep(3)
        assert either.process.poll() is None
    assert either.process.wait(timeout=20) == 0
    assert [line["level"] for line in either.log if line["message"] == "stopped"] == ["info"]


def test_answer_within_a_stop_says_that_it_is_the_last(either: Server) -> None:
    """Fault, before: a client that keeps connections sent its next request into the end of this one."""
    tenant, body = either.register(), b'{"changes": {"end_user": [{"id": "late"}]}}'
    head = f"POST /api/client/sync/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.token}\r\n"
    head += f"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(either, head.encode()) as connection, connection.makefile("rb") as file:
        invited = read_answer(file)
        assert invited and invited.status == 100 and either.process
        either.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not is_listening(either), "the listener's end")
        connection.sendall(body)
        answer = read_answer(file)
        assert answer and answer.status == 200 and answer.says_close and file.read() == b""
    assert either.process.wait(timeout=20) == 0


def is_listening(server: Server) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=5):
        return True
    return False


def test_sigint_ends_as_well(tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    assert server.stop(signal.SIGINT) == 0


def test_keep_alive_answers_come_without_nagles_delay() -> None:
    """Header and body leave in one go or at once; 40 ms each was trap 16. The option itself is asserted, not a time."""
    listener = listening.listen("127.0.0.1", 0)
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for each in (client, accepted, listener):
        each.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "2"], "start gunicorn with --workers 1"),
        (["--worker-class", "gevent"], "only one worker class speaks WebSocket here"),
        (["--worker-class", "sync"], "only one worker class speaks WebSocket here"),
    ],
)
def test_gunicorn_run_in_a_way_that_loses_notifications_is_refused(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    postgres.must_be_about_files()
    command = [*procfile_command()[:3], *arguments, "syncapp:create_app()"]
    with pytest.raises(AssertionError, match=sentence):
        Server(tmp_path / "data", command=command).start()


@pytest.mark.files("a folder has one server")
def test_second_server_in_one_data_folder_is_refused(start_server: Callable[..., Server]) -> None:
    first = start_server()
    with pytest.raises(AssertionError, match="Another server is running in"):
        Server(first.data, {"SHUTDOWN_SECONDS": "1"}).start()
    assert first.is_up()


def test_port_in_use_is_said_in_one_sentence(start_server: Callable[..., Server], tmp_path: Path) -> None:
    first = start_server()
    environ = {**os.environ, **FAST, "PORT": str(first.port), "DATA_DIR": str(tmp_path / "other")}
    command = [sys.executable, "syncapp.py"]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"Can't listen on 127.0.0.1:{first.port}: Address already in use." in ended.stderr


def test_log_is_json_lines_with_request_tenant_and_duration(server: Server) -> None:
    tenant = server.register()
    tenant.device().create(name="a row's content")
    server.post("/api/client/sync/push", {}, tenant.token, X_Request_ID="find-me")
    line = wait_for(lambda: next((x for x in server.log if x.get("request_id") == "find-me"), None), "the log line")
    assert (line["tenant"], line["status"], line["path"]) == (tenant.id, 400, "/api/client/sync/push")
    assert line["duration_ms"] >= 0
    text = server.log_path.read_text()
    assert tenant.token not in text and "a row's content" not in text and tenant.password not in text


def test_health_tells_an_orchestrator_and_nothing_about_tenants(start_server: Callable[..., Server]) -> None:
    server = start_server()
    body: dict[str, Any] = requests.get(f"{server.url}/health", timeout=WAIT_SECONDS).json()
    of_processes = {"processes"} if postgres.IS_UNDER_TEST else set[str]()
    assert body.keys() - of_processes == {
        "status",
        "version",
        "uptimeSeconds",
        "timestamp",
        "connectedClients",
        "forwardedFor",
    }
    assert body["status"] == "ok"


def test_health_counts_who_listens(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.register()
    listeners = [tenant.device().listen(), server.register().device().listen("polling")]
    unauthenticated = Listener(server.url)
    assert server.call("GET", "/health").json()["connectedClients"] == 2
    for listener in [*listeners, unauthenticated]:
        listener.close()
    wait_for(lambda: server.call("GET", "/health").json()["connectedClients"] == 0, "both to have left")


def opened(server: Server, token: str | None = None) -> socket.socket:
    """Open a WebSocket whose client never sends a close frame; with a token it authenticates."""
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    raw.sendall(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    while b"maxPayload" not in raw.recv(4096):
        pass
    said = f'40{{"token":"{token}"}}'.encode() if token else b"40"
    length = b"\xfe" + len(said).to_bytes(2) if len(said) > 125 else bytes([0x80 | len(said)])
    raw.sendall(b"\x81" + length + bytes(4) + said)
    return raw


def ends(raw: socket.socket) -> bool:
    """Read to the end of a connection, however it ends."""
    with contextlib.suppress(ConnectionResetError):
        while raw.recv(65_536):
            pass
    return True


def test_connection_of_a_closed_websocket_ends_though_its_client_is_silent(tmp_path: Path) -> None:
    """Fault, before: it was open for as long as the client liked, and counted against all newcomers."""
    server = Server(tmp_path / "data", {"SOCKET_AUTH_SECONDS": "1"}).start()
    with opened(server) as raw:
        assert ends(raw)
    assert server.stop() == 0


def test_silent_client_does_not_hold_up_a_stop(either: Server) -> None:
    """Fault, before: the server waited its SHUTDOWN_SECONDS, 20, for a client that had got the close frame."""
    tenant = either.register()
    with opened(either, tenant.token) as raw:
        began = time.monotonic()
        assert either.process
        either.process.send_signal(signal.SIGTERM)
        assert either.process.wait(timeout=15) == 0
        assert time.monotonic() - began < 15 and ends(raw)
    assert not any("did not finish" in line["message"] for line in either.log)


@pytest.mark.slow
def test_listener_that_reads_nothing_is_reset_and_keeps_no_memory(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"SOCKET_QUEUE_BYTES": "65536"}).start()
    tenant = server.register()
    with opened(server, tenant.token) as raw:
        rows = [{"id": f"r{number}", "note": "x" * 7_000} for number in range(2_000)]
        for row in rows:
            if any("fell behind" in line["message"] for line in server.log):
                break
            tenant.device().push({"changes": {"end_user": [row]}})
        wait_for(lambda: any("fell behind" in line["message"] for line in server.log), "the listener to fall behind")
        wait_for(lambda: unsent(raw) is None, "the server's side to be gone")
    assert server.stop() == 0


def unsent(raw: socket.socket) -> int | None:
    """Give what the other end of a connection on this machine has not got rid of, None if it is gone. Source: proc(5)."""
    port = f":{raw.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next((int(line[4].partition(":")[0], 16) for line in lines if line[2].endswith(port)), None)
