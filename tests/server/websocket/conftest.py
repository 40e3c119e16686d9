"""Who speaks Engine.IO and Socket.IO by hand to the server that soon pings, and whom hostile events must not harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.by_hand import Raw
from tests.conftest import Listener, Server, Tenant
from tests.refusals import complaints


@pytest.fixture(scope="module")
def account(hasty_server: Server) -> Tenant:
    return hasty_server.register()


@pytest.fixture
def raw(hasty_server: Server) -> Iterator[Raw]:
    """A connection of Engine.IO's."""
    with Raw(hasty_server) as raw:
        assert raw.packet().startswith("0{")
        yield raw


@pytest.fixture(scope="module")
def victim(server: Server, lines_before: int) -> Iterator[Tenant]:
    """A tenant with a row, which hostile events must not harm; in the end the log tells of no bug."""
    tenant = server.register()
    tenant.device().create(id="kept", name="Asha")
    yield tenant
    assert complaints(server, lines_before) == []


@pytest.fixture(scope="module")
def good(victim: Tenant) -> Iterator[Listener]:
    """A listener of the same tenant that does nothing wrong."""
    listener = victim.device().listen()
    yield listener
    listener.close()


@pytest.fixture
def all_well(victim: Tenant, good: Listener) -> Iterator[None]:
    """After the test the server still answers, and a good listener still hears of pushes."""
    yield
    assert victim.server.call("GET", "/health").status_code == 200
    heard = len(good.notes("sync_complete"))
    victim.device().create()
    good.wait_note("sync_complete", heard + 1)
    assert not good.is_gone.is_set()
