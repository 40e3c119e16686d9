"""A Redis, and buses on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import pytest

from server.bus import redis_bus
from server.bus.bus import Subscriber
from server.bus.redis_bus import RedisBus
from tests.conftest import all_closed, wait_for
from tests.redis_server import Redis, redis_server  # noqa: F401 -- a fixture of all

CHANNEL = "test"


class Heard:
    """A bus, and what it heard."""

    def __init__(self, url: str, *, verifies: bool = True, is_ready: bool = True) -> None:
        self.messages: list[bytes] = []
        self.gaps = 0
        self.bus = RedisBus(url, CHANNEL, verifies=verifies)
        self.bus.start(Subscriber(self.messages.append, self._gap, self._lost))
        if is_ready:
            self.wait_gaps(1)

    def _gap(self) -> None:
        self.gaps += 1

    def _lost(self, tenant_ids: Collection[str]) -> bytes:
        return b"lost " + ",".join(sorted(tenant_ids)).encode()

    def wait_gaps(self, count: int) -> None:
        """Wait until it has connected so often."""
        wait_for(lambda: self.gaps >= count, f"{count} gaps")

    def wait(self, count: int) -> list[bytes]:
        """Wait until it heard so many messages, and give them."""
        wait_for(lambda: len(self.messages) >= count, f"{count} messages")
        return self.messages


@pytest.fixture
def heard(redis_server: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Heard]]:  # noqa: F811 -- the fixture
    """Make buses that soon try again, and are closed at the end; by default on ``redis_server``."""
    monkeypatch.setattr(redis_bus, "_FIRST_PAUSE_SECONDS", 0.01)

    def make(url: str = redis_server.url, *, verifies: bool = True, is_ready: bool = True) -> Heard:
        return Heard(url, verifies=verifies, is_ready=is_ready)

    yield from all_closed(make, lambda one: one.bus.close())
