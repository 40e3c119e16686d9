"""Networks that fail on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server
from tests.kit.proxy import Proxy


@pytest.fixture
def proxies(server: Server) -> Iterator[Callable[..., Proxy]]:
    """Networks that fail on demand, in front of a server."""
    made: list[Proxy] = []

    def make(to: Server = server) -> Proxy:
        made.append(Proxy("127.0.0.1", to.port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
