"""The brokers that a bus may have, each with an end of its own, and buses on them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from gevent.event import Event

from server.bus import queued_bus
from server.bus.bus import Subscriber
from server.bus.queued_bus import QueuedBus
from server.bus.redis_bus import RedisBus
from storage.postgres.connecting import connect
from storage.postgres.notify_bus import NotifyBus
from storage.postgres.pool import Pool
from tests import postgres
from tests.conftest import all_closed, needs, wait_for
from tests.redis_server import Redis, redis_server  # noqa: F401 -- a fixture of all
from tests.relay import Relay

CHANNEL = "test"


class Broker(Protocol):
    """A broker that can hang, die and come back."""

    def bus(self, channel: str = CHANNEL) -> QueuedBus:
        """Make a bus on it."""

    def stopped(self) -> AbstractContextManager[None]:
        """Have it do nothing meanwhile, with its connections open."""

    def kill(self) -> None:
        """Let it die, if it runs."""

    def start(self) -> None:
        """Let it come back."""

    def subscribers(self, channel: str = CHANNEL) -> int:
        """Count who listens."""

    def hold_publisher(self, bus: Any, gate: Event) -> None:
        """Let a bus publish over no new connection until a gate opens."""


class RedisBroker:
    """A Redis."""

    def __init__(self, folder: Path) -> None:
        self._redis = Redis(folder)
        self.stopped, self.kill, self.start = self._redis.stopped, self._redis.kill, self._redis.start

    def bus(self, channel: str = CHANNEL) -> QueuedBus:
        return RedisBus(self._redis.url, channel)

    def subscribers(self, channel: str = CHANNEL) -> int:
        return self._redis.subscribers(channel)

    def hold_publisher(self, bus: Any, gate: Event) -> None:
        make = bus._publisher._make
        bus._publisher._make = lambda: gate.wait() and make()


class PostgresBroker:
    """A PostgreSQL that others use too: what hangs and dies is the way to it."""

    def __init__(self) -> None:
        self.database = postgres.server().new_database()
        self._relay = Relay(postgres.server().folder)
        self._relay.is_closed = True
        self.stopped = self._relay.holding
        self.url = f"postgresql://app@127.0.0.1:{self._relay.port}/{self.database}"
        self._pools: list[Pool] = []

    def bus(self, channel: str = CHANNEL) -> QueuedBus:
        pool = Pool(partial(connect, self.url), 2)
        self._pools.append(pool)
        return NotifyBus(pool, partial(connect, self.url), channel)

    def kill(self) -> None:
        self._relay.is_closed = True
        self._relay.cut()

    def start(self) -> None:
        self._relay.is_closed = False

    def subscribers(self, channel: str = CHANNEL) -> int:
        listening = f"query = 'LISTEN \"{channel}\"' AND datname = '{self.database}'"
        ((count,),) = postgres.server().ask(f"SELECT count(*) FROM pg_stat_activity WHERE {listening}")
        return int(count)

    def hold_publisher(self, bus: Any, gate: Event) -> None:
        make = bus._pool.connect
        bus._pool.connect = lambda: gate.wait() and make()

    def end(self) -> None:
        for pool in self._pools:
            pool.close()
        self._relay.close()
        postgres.server().give_back(self.database)


_REDIS = pytest.param("redis", marks=needs("redis-server"))
_IS_THERE = pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)
_POSTGRES = pytest.param("postgres", marks=[pytest.mark.server, _IS_THERE])


@pytest.fixture(params=[_REDIS, _POSTGRES])
def idle_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Each broker, before its start."""
    if request.param == "redis":
        redis = RedisBroker(tmp_path)
        yield redis
        redis.kill()
    else:
        broker = PostgresBroker()
        yield broker
        broker.end()


@pytest.fixture
def broker(idle_broker: Broker) -> Broker:
    """Each broker, which runs."""
    idle_broker.start()
    return idle_broker


class Heard:
    """A bus, and what it heard."""

    def __init__(self, bus: QueuedBus, *, is_ready: bool = True) -> None:
        self.messages: list[bytes] = []
        self.gaps = 0
        self.bus = bus
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
def hearing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Heard]]:
    """Have buses hear until the end of the test, and soon try again.

    A bus may be closed amid a TLS handshake, whose socket redis-py 8 leaves to the garbage collector: it closes it after
    errors alone. That warning is not the next test's.
    """
    monkeypatch.setattr(queued_bus, "_FIRST_PAUSE_SECONDS", 0.01)
    yield from all_closed(Heard, lambda one: one.bus.close())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def heard(broker: Broker, hearing: Callable[..., Heard]) -> Callable[..., Heard]:
    """Make buses on the broker, which hear."""
    return lambda: hearing(broker.bus())
