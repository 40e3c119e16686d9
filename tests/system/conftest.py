"""Networks that fail on demand, and a Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server, all_closed
from tests.kit.proxy import Proxy
from tests.redis_server import redis_server  # noqa: F401 -- a fixture of all


@pytest.fixture
def proxies(server: Server) -> Iterator[Callable[..., Proxy]]:
    """Networks that fail on demand, in front of a server."""
    yield from all_closed(lambda to=server: Proxy("127.0.0.1", to.port), Proxy.close)
