"""What tests of the client are written with: a real server process, accounts on it, and clients.

Nothing here imports the server: its monkey patch would make threads and SQLite something else than on a device.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kit.proxy import Proxy
from tests.kit.server import LocalServer
from tests.kit.truth import Account, register

from syncclient import SyncClient

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell takes it from what runs in the background.

MakeClient = Callable[..., SyncClient]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """One server for all tests that need nothing special of it."""
    server = LocalServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., LocalServer]]:
    """Start a server of a test's own, with settings of its own."""
    servers: list[LocalServer] = []

    def start(**settings: str) -> LocalServer:
        servers.append(LocalServer(tmp_path / f"server-{len(servers)}"))
        servers[-1].start(**settings)
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def account(server: LocalServer) -> Account:
    return register(server.url)


@pytest.fixture
def proxy(server: LocalServer) -> Iterator[Proxy]:
    """A network that fails on demand."""
    proxy = Proxy("127.0.0.1", server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def make_client(tmp_path: Path, account: Account) -> Iterator[MakeClient]:
    """Make clients, each on a replica of its own unless one is named, logged in unless ``session`` is None."""
    clients: list[SyncClient] = []

    def make(name: str | None = None, to: Account | None = None, session: Any = "new", **options: Any) -> SyncClient:
        owner = to or account
        path = tmp_path / (name or f"replica-{len(clients)}.db")
        client = SyncClient(path, options.pop("url", owner.url), **options)
        clients.append(client)
        if session == "new":
            client.adopt(*owner.session())
        elif session:
            client.adopt(*session)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> SyncClient:
    return make_client()
