"""What tests are written with: a real server process, tenants, devices and listeners."""

from __future__ import annotations

import syncapp  # noqa: F401 -- first: it patches the standard library for gevent, as the server does

# isort: split
import functools
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import requests

from tenants import Tenants
from tests import contract, forking, postgres
from tests.customers import customer
from tests.data_folder import opened
from tests.engine_under_test import databases_end_with_their_test  # noqa: F401 -- a fixture of all
from tests.needs import where
from tests.ports import free_port
from tests.socketio_client import end, new_client

if TYPE_CHECKING:
    from selenium import webdriver

    from tests.browsing import Page

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell takes it from what runs in the background.

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 60.0
FAST = {
    "BCRYPT_ROUNDS": "8",
    "RATE_LIMIT_LOGIN": "100000 per minute",
    "RATE_LIMIT_REGISTER": "100000 per minute",
    "RATE_LIMIT_MAIL": "100000 per minute",
    "LOG_FORMAT": "json",
    "HOST": "127.0.0.1",
    "MIN_FREE_BYTES": "0",
}
"""Settings of a server under test: no waiting for hashes or limits, on whatever disk."""

pytest_plugins = ["tests.collection", "tests.fuzzing"]

JSON = dict[str, Any]
_numbers = itertools.count(1)
_Made = TypeVar("_Made")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is missing, with how to get it; under CI it must be there."""
    absent = [program for program in programs if where(program) is None]
    if absent and os.environ.get("CI") == "true":
        raise RuntimeError(f"CI must have {', '.join(absent)}: see tests/needs.py")
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: run tests/needs.py for how to get it")


needs_js_client = [
    needs("node"),
    pytest.mark.skipif(
        not (ROOT / "clients" / "js" / "node_modules").is_dir() and os.environ.get("CI") != "true",
        reason="needs clients/js/node_modules: make clients/js/node_modules",
    ),
]
"""Marks of tests that run the JavaScript client with its libraries."""


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = WAIT_SECONDS) -> Any:
    """Wait until ``condition`` gives something true, and give it; ``what`` may be told by what happened meanwhile."""
    began = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(min(max(waited / 8, 0.005), 0.1))  # A look at a page or a server costs milliseconds.
    return found


def all_closed(make: Callable[..., _Made], close: Callable[[_Made], object]) -> Iterator[Callable[..., _Made]]:
    """Be a fixture that makes as many as a test asks for, and closes each after it."""
    made: list[_Made] = []

    def make_one(*arguments: Any, **named: Any) -> _Made:
        made.append(make(*arguments, **named))
        return made[-1]

    yield make_one
    for one in made:
        close(one)


@dataclass
class Server:
    """A real server process on a real port, with its data folder and its log."""

    data: Path
    env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=lambda: forking.PLAIN)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | forking.Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    def start(self) -> Server:
        environ = {**os.environ, **FAST, **postgres.environ_of(self.data), **self.env}
        environ |= {"DATA_DIR": str(self.data), "PORT": str(self.port)}
        arguments = forking.arguments_of(self.command)
        if arguments is not None:
            self.process = forking.begin(arguments, environ, self.log_path)
        else:
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(self.command, cwd=ROOT, env=environ, stdout=log, stderr=log)
        wait_for(self.is_up, lambda: f"the server; its log:\n{self.log_path.read_text()}")
        contract.began(self.url)
        return self

    def is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log_path.read_text()}")
        try:
            return requests.get(f"{self.url}/health", timeout=WAIT_SECONDS).ok
        except (requests.ConnectionError, requests.Timeout):  # gunicorn listens before it serves.
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=WAIT_SECONDS)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    @property
    def log(self) -> list[JSON]:
        """Every whole line of the log so far; one that is no JSON shows as {"message": …, "level": "raw"}."""
        lines = self.log_path.read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) if line.startswith("{") else {"message": line, "level": "raw"} for line in lines]

    def call(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Any:
        """Send a request as a client would; ``headers`` with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        return self.checked(requests.request(method, self.url + path, json=body, headers=named, timeout=WAIT_SECONDS))

    def checked(self, answer: requests.Response) -> requests.Response:
        """Check that an answer is as this server's /openapi.json says."""
        described = contract.contract_of(self.url)
        if described:
            described.check_answer(answer)
        return answer

    def post(self, path: str, body: Any = None, token: str | None = None, **headers: str) -> Any:
        return self.call("POST", path, body, token, **headers)

    def register(self, **fields: Any) -> Tenant:
        """Register a business of its own."""
        number = next(_numbers)
        body = {"firstName": "Test", "lastName": f"User {number}", "email": f"test-{uuid.uuid4()}@example.com"}
        body |= {"password": "password123"} | fields
        answer = self.post("/api/customers/register", body)
        assert answer.status_code == 201, answer.text
        data = answer.json()["data"]
        return Tenant(
            self, data["customer"]["id"], body["email"], body["password"], data["token"], data["refreshToken"]
        )


@dataclass
class Tenant:
    """A registered business."""

    server: Server
    id: str
    email: str
    password: str
    token: str
    refresh_token: str

    def device(self, **headers: str) -> Device:
        return Device(self, headers)

    @property
    def path(self) -> Path:
        postgres.must_be_about_files()
        return self.server.data / "tenants" / f"tenant_{uuid.UUID(self.id).hex}.db"


@dataclass
class Device:
    """A device of a tenant: pushes, pulls, listens. What is called without ``_raw`` must succeed."""

    tenant: Tenant
    headers: dict[str, str] = field(default_factory=dict)
    cursor: str | None = None

    def raw(self, path: str, body: Any) -> Any:
        return self.tenant.server.post(f"/api/client/{path}", body, self.tenant.token, **self.headers)

    def push_raw(self, body: Any) -> Any:
        return self.raw("sync/push", body)

    def pull_raw(self, body: Any) -> Any:
        return self.raw("sync/pull", body)

    def push(self, body: Any) -> JSON:
        return _good(self.push_raw(body))

    def pull(self, body: Any) -> JSON:
        return _good(self.pull_raw(body))

    def create(self, table: str = "end_user", **data: Any) -> JSON:
        """Push one create, and give the row as stored."""
        row: JSON = self.push({"table": table, "operation": "create", "data": data})["data"][0]
        return row

    def update(self, table: str = "end_user", **data: Any) -> JSON:
        row: JSON = self.push({"table": table, "operation": "update", "data": data})["data"][0]
        return row

    def delete(self, table: str = "end_user", **data: Any) -> JSON:
        row: JSON = self.push({"table": table, "operation": "delete", "data": data})["data"][0]
        return row

    def rows(self, table: str = "end_user") -> list[JSON]:
        """All rows of a table, tombstones not among them."""
        rows: list[JSON] = self.pull({"table": table})["data"][table]
        return rows

    def catch_up(self, limit: int = 1000) -> dict[str, list[JSON]]:
        """Pull page by page from this device's cursor to the end."""
        found: dict[str, list[JSON]] = {}
        while True:
            page = self.pull({"cursor": self.cursor, "limit": limit})
            for table, rows in page["data"].items():
                found.setdefault(table, []).extend(rows)
            self.cursor = page["cursor"]
            if not page["hasMore"]:
                return found

    def listen(self, transport: str = "websocket", **auth: Any) -> Listener:
        """Connect a Socket.IO client and wait until it is authenticated."""
        listener = Listener(self.tenant.server.url, transport, {"token": self.tenant.token, **auth})
        listener.wait("authenticated")
        return listener


def _good(answer: Any) -> JSON:
    assert answer.status_code == 200, answer.text
    body: JSON = answer.json()
    return body


class Listener:
    """A Socket.IO client (``python-socketio``) that keeps what it hears."""

    def __init__(self, url: str, transport: str = "websocket", auth: Any = None) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.is_connected = threading.Event()
        self.is_gone = threading.Event()
        self.contract = contract.contract_of(url)
        self.client = new_client(reconnection=False)
        self.client.on("connect", self.is_connected.set)
        self.client.on("disconnect", lambda *_: self.is_gone.set())
        self.client.on("*", self._hear)
        self.client.connect(url, auth=auth, transports=transport.split("+"), wait_timeout=WAIT_SECONDS)

    def _hear(self, event: str, *arguments: Any) -> None:
        self.heard.append((event, arguments[0] if arguments else None))
        contract.check_event(self.contract, *self.heard[-1])

    def of(self, event: str) -> list[Any]:
        return [payload for name, payload in list(self.heard) if name == event]

    def wait(self, event: str, count: int = 1) -> Any:
        """Wait for the ``count``-th event of a name, and give its payload."""
        found = functools.partial(self.of, event)
        return wait_for(lambda: len(found()) >= count and found(), lambda: f"{event} ({self.heard})")[count - 1]

    def notes(self, kind: str | None = None) -> list[JSON]:
        """The notifications heard so far, of one type or all."""
        return [note for note in self.of("sync_notification") if kind in (None, note["type"])]

    def wait_note(self, kind: str, count: int = 1) -> JSON:
        wait_for(lambda: len(self.notes(kind)) >= count, lambda: f"{count} {kind} ({self.heard})")
        return self.notes(kind)[count - 1]

    def call(self, event: str, body: Any) -> Any:
        answer = self.client.call(event, body, timeout=WAIT_SECONDS)
        contract.check_event(self.contract, event, answer, "acknowledged")
        return answer

    def close(self) -> None:
        end(self.client)


@pytest.fixture(autouse=True)
def every_event_is_as_described() -> Iterator[None]:
    """Fail the test during which an event was not as /asyncapi.json says."""
    yield
    faults, contract.FAULTS[:] = contract.FAULTS[:], []
    assert faults == []


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that need nothing special of it."""
    server = Server(tmp_path_factory.mktemp("server") / "data").start()
    yield server
    code = server.stop()
    assert code == 0, f"the server ended with {code}:\n{server.log_path.read_text()[-2000:]}"


@pytest.fixture(scope="session")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server that soon pings, and soon gives up who does not answer or says nothing."""
    hasty = {"PING_INTERVAL_SECONDS": "1", "PING_TIMEOUT_SECONDS": "1", "SOCKET_AUTH_SECONDS": "5"}
    server = Server(tmp_path_factory.mktemp("hasty") / "data", hasty).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def lines_before(server: Server) -> int:
    """How long the log was before this module."""
    return len(server.log)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers of a test's own, with settings of its own; the data folder is the same unless named."""
    servers: list[Server] = []

    def start(data: str = "data", **env: str) -> Server:
        servers.append(Server(tmp_path / data, env).start())
        return servers[-1]

    yield start
    for server in servers:
        if server.process and server.process.poll() is None:
            server.kill()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's backups go."""
    return tmp_path / "backups"


@pytest.fixture
def operate(server: Server) -> Run:
    """Run a command of the operator's beside the server."""

    def run(*arguments: str | Path, code: int = 0, data: Path | None = None) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            **FAST,
            **postgres.environ_of(data or server.data),
            "DATA_DIR": str(data or server.data),
            "PORT": "0",  # A server may be running here on the default one.
        }
        done = forking.run([*map(str, arguments)], environ)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def tenant(server: Server) -> Tenant:
    return server.register()


@pytest.fixture
def other_tenant(server: Server) -> Tenant:
    return server.register()


@pytest.fixture
def device(tenant: Tenant) -> Device:
    return tenant.device()


@pytest.fixture
def listen(tenant: Tenant) -> Iterator[Callable[..., Listener]]:
    """Connect listeners that are closed at the end; by default to ``tenant``."""
    yield from all_closed(lambda to=tenant, *transport, **auth: to.device().listen(*transport, **auth), Listener.close)


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[Tenants]:
    """A data folder opened in this process, without a server."""
    tenants = opened(tmp_path / "data")
    yield tenants
    tenants.close()


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Callable[..., Tenants]]:
    """Open the test's data folder, as a start of the server does."""
    yield from all_closed(functools.partial(opened, tmp_path / "data"), lambda tenants: tenants.close())


@pytest.fixture
def new_tenant(tenants: Tenants) -> Callable[[], str]:
    """Provision tenants in ``tenants``; give their IDs."""

    def provision() -> str:
        one = customer(f"{uuid.uuid4()}@example.com")
        tenants.provision(one)
        return one.id

    return provision


@pytest.fixture
def restart(tmp_path: Path) -> Iterator[Callable[..., Tenants]]:
    """Start anew on the test's folder with another declaration; one that is refused leaves the folder to the next."""
    from tests.declaring import declare

    running: list[Tenants] = []

    def start(text: str = "", retiring: tuple[str, ...] = ()) -> Tenants:
        if running:
            running.pop().close()
        declare(text)
        running.append(opened(tmp_path / "data", retiring=retiring))
        return running[-1]

    yield start
    for tenants in running:
        tenants.close()
    declare("")


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Draw lots for a test; the seed is printed, SEED=… draws the same ones again."""
    seed = int(os.environ.get("SEED", random.randrange(10**9)))
    print(f"SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def tenant_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests, with a profile of its own."""
    from tests.browsing import chromium

    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(browser: webdriver.Chrome) -> Iterator[Page]:
    from tests.browsing import Page

    yield Page(browser)
    browser.get("about:blank")  # Else its apps go on for as long as the run.
