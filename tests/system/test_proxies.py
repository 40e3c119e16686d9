"""Reverse proxies with the configurations of docs/proxies.md, run as they stand there: what clients need gets through each.

``make test`` runs some of them, ``PROXIES=all`` every one that Debian has. What ``doctor --url`` says is tried with these
configurations, with which it must find nothing, and with what a first try gives, of which it must find all that is broken.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from operations.checks import probe_proxies
from operations.checks.doctor import Finding
from operations.checks.probe_client import request
from operations.checks.probe_target import find_deployment, parse_address
from operations.commands.probe import run_checks
from tests.conftest import JSON, Server, Tenant, needs, wait_for
from tests.proxy_defaults import DEFAULTS
from tests.proxy_processes import PROXIES, Behind, certified, chosen, here, running, section
from tests.socketio_client import new_client

MIB = 1_048_576
ROWS = 10_000
SILENT_SECONDS = "3"
"""How long an unauthenticated socket may be silent here; the probe watches so long whether a proxy ends it."""

BROKEN_BY_DEFAULT = {
    "nginx": {"host", "address", "body", "upgrade"},
    "Caddy": set[str](),
    "HAProxy": {"address"},
    "Apache": {"upgrade"},
    "lighttpd": {"stream", "upgrade"},
    "h2o": {"host", "upgrade"},
    "Varnish": {"upgrade"},
    "nghttpx": {"address"},
    "Squid": {"authorization", "upgrade"},
}

WAIT_FOR_THE_SERVER = {"Caddy", "HAProxy"}
"""They hold back what is asked for while the server is away."""

READ_BEFORE_ALL_IS_SENT = {"Caddy", "lighttpd", "nghttpx"}
"""Over TLS they end a connection so that only a client that reads while it sends has the answer (docs/proxies.md)."""

pytestmark = [pytest.mark.slow, needs("openssl")]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a certificate that every client here trusts."""
    with certified() as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE", "SSL_CERT_FILE"):
            patch.setenv(name, str(folder / "certificates" / "certificate.pem"))
        yield folder


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[Server]:
    """The server behind all of them."""
    server = Server(folder / "data", {"TRUSTED_PROXIES": "1", "SOCKET_AUTH_SECONDS": SILENT_SECONDS}).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def fronts(folder: Path, origin: Server) -> Iterator[dict[str, Behind]]:
    """The server as it is met through each of the chosen proxies, which all run at once."""
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(running(name, origin, folder)) for name in here()}
        yield {name: Behind(origin.data, port=origin.port, proxy_url=url) for name, url in urls.items()}


@pytest.fixture(params=chosen())
def front(request: pytest.FixtureRequest, fronts: dict[str, Behind]) -> Behind:
    return fronts[request.param]


@pytest.fixture(scope="module")
def filled(origin: Server) -> Tenant:
    """A tenant with many rows."""
    tenant = origin.register()
    rows = [{"id": f"row-{number}", "name": f"Customer {number}", "note": "x" * 100} for number in range(ROWS)]
    tenant.device().push({"changes": {"end_user": rows}})
    return tenant


def through(front: Behind, tenant: Tenant) -> Tenant:
    """The same tenant, met through a proxy."""
    return Tenant(front, tenant.id, tenant.email, tenant.password, tenant.token, tenant.refresh_token)


# --- what gets through -----------------------------------------------------------------------------------------------


def test_customer_registers_and_logs_in(front: Behind) -> None:
    tenant = front.register()
    answer = front.post("/api/customers/login", {"email": tenant.email, "password": tenant.password})
    assert answer.json()["data"]["customer"]["id"] == tenant.id


@pytest.mark.parametrize("transport", ["polling", "websocket", "polling+websocket"])
def test_listener_hears_of_a_push(front: Behind, transport: str) -> None:
    device = front.register().device()
    listener = device.listen(transport)
    wait_for(lambda: listener.client.transport() == transport.rpartition("+")[2], "the upgrade")
    row = device.create(name="Asha")
    assert listener.wait_note("sync_complete")["entityId"] == row["id"]
    listener.close()


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_many_rows_come_whole(front: Behind, filled: Tenant, coding: str) -> None:
    headers = {"Authorization": f"Bearer {filled.token}", "Accept-Encoding": coding}
    body = {"entityTypes": ["end_user"], "lastSyncTimestamp": "1970-01-01T00:00:00Z"}
    with requests.post(
        f"{front.url}/api/client/sync/pull", json=body, headers=headers, stream=True, timeout=60
    ) as answer:
        sent = answer.raw.read(decode_content=False)
    assert answer.headers.get("Content-Encoding", "identity") == coding
    rows = json.loads(gzip.decompress(sent) if coding == "gzip" else sent)["data"]["end_user"]
    assert len({row["id"] for row in rows}) == len(rows) == ROWS


def test_large_push_is_stored(front: Behind) -> None:
    device = front.register().device()
    rows = [{"id": f"row-{number}", "note": "x" * 52_500} for number in range(100)]
    assert len(device.push({"changes": {"end_user": rows}})["data"]) == 100
    assert len(device.rows()) == 100


def test_body_beyond_the_limit_is_413(front: Behind, filled: Tenant) -> None:
    headers = {"Authorization": f"Bearer {filled.token}", "Content-Type": "application/json"}
    answer = request(parse_address(front.url), "POST", "/api/client/sync/push", b"x" * 20 * MIB, headers, seconds=60)
    assert answer.status == 413
    assert front.call("GET", "/api/customers/me", token=filled.token).status_code == 200


def test_session_that_sent_all_of_a_body_beyond_the_limit_reads_413_and_goes_on(
    front: Behind, fronts: dict[str, Behind], filled: Tenant
) -> None:
    """``requests`` sends the whole body before it reads (RFC 9112 §9.6).

    Squid says that it keeps the connection, and may close it all the same: a client then repeats a GET (RFC 9112 §9.3.1).
    """
    if any(fronts.get(name) is front for name in READ_BEFORE_ALL_IS_SENT):
        pytest.skip("it cuts such a client off: docs/proxies.md says so")
    headers = {"Authorization": f"Bearer {filled.token}", "Content-Type": "application/json"}
    with requests.Session() as session:
        push = f"{front.url}/api/client/sync/push"
        assert session.post(push, data=b"x" * 20 * MIB, headers=headers, timeout=60).status_code == 413
        session.mount(front.url, HTTPAdapter(max_retries=Retry(total=1, status=0, allowed_methods=["GET"])))
        assert session.get(f"{front.url}/api/customers/me", headers=headers, timeout=60).status_code == 200


def test_connections_that_end_after_a_request_leave_the_others_alone(front: Behind) -> None:
    headers = {"Connection": "close"}
    statuses = {requests.get(f"{front.url}/health", headers=headers, timeout=30).status_code for _ in range(60)}
    assert statuses == {200}


@pytest.mark.parametrize("what", ["a pull", "a push"])
def test_client_that_leaves_holds_nothing(front: Behind, origin: Server, filled: Tenant, what: str) -> None:
    body = json.dumps({"entityTypes": ["end_user"], "lastSyncTimestamp": "1970-01-01T00:00:00Z"}).encode()
    address = "pull" if what == "a pull" else "push"
    length = len(body) if what == "a pull" else 5 * MIB
    host = parse_address(front.url).netloc
    head = f"POST /api/client/sync/{address} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {filled.token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    with connection(front) as network:
        network.sendall(head.encode() + (body if what == "a pull" else b" " * 300_000))
        if what == "a pull":
            assert network.recv(1_000).startswith(b"HTTP/1.1 200")
    wait_for(lambda: in_flight(origin) == 0, "the end of the request")
    assert front.call("GET", "/api/customers/me", token=filled.token).status_code == 200


def connection(front: Behind) -> Any:
    address = parse_address(front.url)
    network = socket.create_connection((address.host, address.port), 30)
    return (
        address.context().wrap_socket(network, server_hostname=address.host) if address.scheme == "https" else network
    )


def in_flight(server: Server) -> int:
    """Have the server say how many requests it serves."""
    assert server.process
    before = len(held(server))
    server.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: len(held(server)) > before, "what the server holds")
    return int(held(server)[-1]["in_flight"])


def held(server: Server) -> list[JSON]:
    return [line for line in server.log if line["message"] == "held"]


def test_restart_costs_nothing_but_the_moment(fronts: dict[str, Behind], origin: Server, filled: Tenant) -> None:
    with contextlib.ExitStack() as stack:
        listeners = {
            f"{name}, {transport}": stack.enter_context(coming_back(front, filled, transport))
            for name, front in fronts.items()
            for transport in ("polling", "websocket")
        }
        every(listeners, lambda heard: "authenticated" in heard, "begin")
        assert origin.stop() == 0
        asked = {name: gevent.spawn(front.call, "GET", "/health") for name, front in fronts.items()}
        refused = {
            name for name, answer in asked.items() if name not in WAIT_FOR_THE_SERVER and answer.get() is not None
        }
        origin.start()
        for name, answer in asked.items():
            assert answer.get().status_code in ((502, 503) if name in refused else (200,)), name
            wait_for(partial(is_well, fronts[name]), f"{name} to try the server again")  # lighttpd waits 2 s.
        every(listeners, lambda heard: heard.count("authenticated") > 1, "come back")
        filled.device().create(name="after the restart")
        every(listeners, lambda heard: "sync_notification" in heard, "hear")


def is_well(front: Behind) -> bool:
    return bool(front.call("GET", "/health").status_code == 200)


def every(listeners: dict[str, list[str]], condition: Callable[[list[str]], bool], what: str) -> None:
    """Wait until what every listener heard meets a condition."""
    for name, heard in listeners.items():
        wait_for(partial(condition, heard), lambda: f"{name} to {what}; it heard {heard}")


@contextlib.contextmanager
def coming_back(front: Behind, tenant: Tenant, transport: str) -> Iterator[list[str]]:
    """Listen as an app does that comes back by itself; give the names of the events so far."""
    heard: list[str] = []
    client = new_client(reconnection_delay=0.2, reconnection_delay_max=1)
    client.on("*", lambda event, *_: heard.append(event))
    client.connect(front.url, auth={"token": tenant.token}, transports=[transport], wait_timeout=20)
    try:
        yield heard
    finally:
        client.disconnect()


# --- doctor --url ----------------------------------------------------------------------------------------------------


def found(url: str) -> list[Finding]:
    return [finding for _, finding in run_checks(find_deployment(parse_address(url))) if finding]


def test_doctor_finds_nothing_with_the_documented_configurations(fronts: dict[str, Behind]) -> None:
    looks = {name: gevent.spawn(found, front.url) for name, front in fronts.items()}
    for name, look in looks.items():
        expected = [] if "https" in fronts[name].url else ["Tokens and passwords are sent unencrypted."]
        assert [finding.sentence for finding in look.get()] == expected, name


def test_doctor_says_what_each_proxy_breaks_by_default(folder: Path, origin: Server, fronts: dict[str, Behind]) -> None:
    with contextlib.ExitStack() as stack:
        (folder / "defaults").mkdir()
        (folder / "defaults" / "certificates").symlink_to(folder / "certificates")
        started = {
            name: stack.enter_context(running(name, origin, folder / "defaults", DEFAULTS[name])) for name in fronts
        }
        looks = {name: gevent.spawn(found, url) for name, url in started.items()}
        for name, look in looks.items():
            seen = [
                one
                for one in look.get()
                if "sent unencrypted" not in one.sentence and "can't be checked" not in one.sentence
            ]
            known = None if name == "HAProxy" else name  # It does not say its name.
            expected = [probe_proxies.remedy(known, fault) for fault in BROKEN_BY_DEFAULT[name]]
            assert sorted(one.remedy for one in seen) == sorted(expected), (name, seen)


@pytest.mark.parametrize("name", PROXIES)
def test_lines_that_mend_are_in_the_docs(name: str) -> None:
    shown = "".join(section(name).split())
    for line in probe_proxies.lines(name).values():
        assert "".join(line.split()) in shown or all(part in shown for part in parts_of(line)), line


def parts_of(line: str) -> list[str]:
    """Give the statements of several lines, without space."""
    return ["".join(part.split()) for part in re.split(r"(?<=;) |(?<=}) ", line)]
