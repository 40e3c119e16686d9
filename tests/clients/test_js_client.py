"""The real JavaScript client from npm, in Node, on both transports."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Server, Tenant, all_closed, needs, wait_for

pytestmark = [needs("node", "npm"), pytest.mark.slow]


class JsListener:
    """A Node process with ``socket.io-client``, and what it heard."""

    def __init__(self, url: str, transport: str, auth: Any, how: str = "handshake", module: Path | None = None) -> None:
        """``module`` is that of another version of the client."""
        command = ["node", str(ROOT / "tests" / "listener.mjs"), url, transport, json.dumps(auth), how]
        env = os.environ | ({"SOCKET_IO_CLIENT": str(module)} if module else {})
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )
        self.heard: list[tuple[str, Any]] = []
        self.reading = threading.Thread(target=self._read)
        self.reading.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.heard.append(tuple(json.loads(line)))

    def wait(self, event: str, count: int = 1) -> Any:
        def found() -> list[Any]:
            return [(payload,) for name, payload in self.heard if name == event][count - 1 : count]

        return wait_for(found, lambda: f"{count} {event} ({self.heard})")[0][0]

    def emit(self, event: str, payload: Any) -> Any:
        assert self.process.stdin
        before = sum(name == "ack" for name, _ in self.heard)
        self.process.stdin.write(json.dumps([event, payload]) + "\n")
        self.process.stdin.flush()
        return self.wait("ack", before + 1)

    def tell(self, event: str, payload: Any = None, how: str | int = "untold") -> None:
        """Emit without asking for an acknowledgement, as older apps do; or so many times at once, each with one."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps([event, payload, how]) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(timeout=10)
        self.reading.join()
        self.process.stdout.close()


Connect = Callable[..., JsListener]


@pytest.fixture
def connect() -> Iterator[Connect]:
    yield from all_closed(JsListener, JsListener.close)


@pytest.mark.parametrize("how", ["handshake", "event"])
@pytest.mark.parametrize("transport", ["websocket", "polling", "polling,websocket"])
def test_js_client_hears_pushes_and_pushes_itself(
    server: Server, tenant: Tenant, connect: Connect, transport: str, how: str
) -> None:
    listener = connect(server.url, transport, {"token": tenant.token, "tenantId": tenant.id}, how)
    assert listener.wait("authenticated")["tenantId"] == tenant.id
    row = tenant.device().create(name="Asha", note="ünïcode 🚀")
    assert listener.wait("sync_notification")["data"] == row
    pushed = listener.emit("sync_push", {"table": "end_user", "operation": "create", "data": {"id": "js", "name": "J"}})
    assert pushed["results"] == [{"table": "end_user", "id": "js", "status": "created", "version": 1}]
    pulled = listener.emit("sync_pull", {"cursor": None})
    assert [one["id"] for one in pulled["data"]["end_user"]] == [row["id"], "js"]
    listener.emit("ping", None)
    assert listener.wait("pong")["timestamp"]
    listener.close()
    assert listener.wait("transport") == transport.rpartition(",")[2]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize(("auth", "code"), [({"token": "x"}, "unauthorized"), ({"tenantId": "x"}, "invalid_tenant_id")])
def test_js_client_is_told_why_it_is_refused(
    server: Server, tenant: Tenant, connect: Connect, transport: str, auth: dict[str, str], code: str
) -> None:
    listener = connect(server.url, transport, {"token": tenant.token, **auth})
    assert listener.wait("authentication_error")["code"] == code
    assert listener.wait("disconnect") == "io server disconnect"


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module of version 3, which speaks the same protocol."""
    folder = tmp_path_factory.mktemp("version-3")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "socket.io-client@3.1.3"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / "node_modules" / "socket.io-client" / "wrapper.mjs"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_js_client_comes_back_after_a_restart_and_learns_what_it_missed(
    start_server: Callable[..., Server], connect: Connect, transport: str
) -> None:
    comes_back(start_server(), connect, transport)


@pytest.mark.skipif(os.environ.get("TOOLCHAINS") != "all", reason="TOOLCHAINS=all installs it")
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_js_client_3_comes_back_too(
    start_server: Callable[..., Server], connect: Connect, third: Path, transport: str
) -> None:
    comes_back(start_server(), connect, transport, module=third)


def comes_back(server: Server, connect: Connect, transport: str, **how: Any) -> None:
    tenant = server.register()
    cursor = tenant.device().push({"changes": {"end_user": [{"id": "a"}]}})["cursor"]
    listener = connect(server.url, transport, {"token": tenant.token, "cursor": cursor}, **how)
    assert listener.wait("authenticated")["missed"] == 0
    tenant.device().create(id="b")
    assert server.stop() == 0
    assert listener.wait("disconnect") in ("transport close", "transport error")
    server.start()
    assert listener.wait("authenticated", 2)["missed"] == 1


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_foreign_origin_is_an_error_at_once(server: Server, connect: Connect, transport: str) -> None:
    """Fault: the handshake answered before the origin was looked at: "timeout", after 20 s."""
    listener = connect(server.url, transport, None, "https://evil.example")
    assert listener.wait("connect_error") in ("websocket error", "xhr poll error")


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_burst_of_the_js_client_is_acknowledged_to_the_last(
    server: Server, tenant: Tenant, connect: Connect, transport: str
) -> None:
    """Fault, the library's: more than sixteen packets in one POST were dropped, and answered by 200 OK."""
    listener = connect(server.url, transport, {"token": tenant.token})
    listener.wait("authenticated")
    for number, count in enumerate((40, 2_000)):
        listener.tell("ping", None, count)
        assert listener.wait("burst", number + 1) == count
    assert "disconnect" not in [event for event, _ in listener.heard]
