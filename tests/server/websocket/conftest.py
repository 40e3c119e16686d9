"""Who speaks Engine.IO and Socket.IO by hand to the server that soon pings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.by_hand import Raw
from tests.conftest import Server, Tenant


@pytest.fixture(scope="module")
def account(hasty_server: Server) -> Tenant:
    return hasty_server.register()


@pytest.fixture
def raw(hasty_server: Server) -> Iterator[Raw]:
    """A connection of Engine.IO's."""
    with Raw(hasty_server) as raw:
        assert raw.packet().startswith("0{")
        yield raw
