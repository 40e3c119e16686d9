"""The bus over Redis: one channel, published and heard by two connections of redis-py.

Knows: Redis's PUBLISH and SUBSCRIBE, when to connect again. Must not know: what messages say.

A greenlet publishes what waits in a queue, many messages in one trip: a Redis that hangs or restarts is felt by nobody who
commits. What was under way when a connection broke is sent again. The commands go through redis-py's connections, not
through its clients, which take three times the CPU a message.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import redis
from gevent.event import Event

from server.bus.bus import Subscriber
from server.scheduler import yield_if_due

log = logging.getLogger("syncapp.bus")

_MOST_WAITING, _MOST_WAITING_BYTES = 10_000, 16 * 1024 * 1024
_MOST_LOST = 1_000
"""Tenants of dropped messages that are remembered by name."""
_AT_ONCE = 64
_ANSWER_SECONDS = 5.0
_SILENCE_SECONDS = 15.0
"""A channel is dead if nothing came for so long: each process gives signs of life."""
_LAST_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0


class _Link:
    """One connection, made again and again."""

    def __init__(self, make: Callable[[], Any], what: str) -> None:
        self._make, self._what = make, what
        self.connection: Any = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._is_broken = False

    def connect(self) -> Any:
        """Give the connection. Raises: RedisError, OSError."""
        if self.connection is None:
            connection = self._make()
            connection.connect()
            self.connection = connection
        return self.connection

    def works(self) -> None:
        """Note that it works."""
        self._pause = _FIRST_PAUSE_SECONDS
        if self._is_broken:
            self._is_broken = False
            log.warning("Redis is back", extra={"link": self._what})

    def drop(self, error: Exception) -> None:
        """Close it after an error, and wait before the next is made."""
        if not self._is_broken:
            self._is_broken = True
            log.warning(
                "Redis is not reached, it is tried again", extra={"link": self._what, "error": str(error)[:200]}
            )
        self.close()
        gevent.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        """Close it."""
        if self.connection is not None:
            self.connection.disconnect()
            self.connection = None


def _maker(url: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    """Give what makes a connection, and try whether it can: redis-py says some mistakes only then, and quotes the URL."""
    try:
        make: Callable[[], Any] = redis.ConnectionPool.from_url(url, **options).make_connection
        make()
    except (ValueError, TypeError, redis.RedisError):
        raise ValueError(
            "must be an address such as redis://:password@host:6379/0. If the password has other characters than letters"
            " and digits, write them as %2F is written for a /."
        ) from None
    return make


class RedisBus:
    """See ``bus.Bus``."""

    is_shared = True

    def __init__(self, url: str, channel: str, *, verifies: bool = True) -> None:
        """``verifies``: whether a certificate of ``rediss://`` must be one that this machine trusts.

        Raises: ValueError for an address that is none.
        """
        options: dict[str, Any] = {"protocol": 2, "socket_connect_timeout": _ANSWER_SECONDS}
        options |= {"retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0)}  # It is tried again here.
        if url.startswith("rediss:") and not verifies:
            options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        self._errors = (redis.RedisError, OSError)
        self._publisher = _Link(_maker(url, options | {"socket_timeout": _ANSWER_SECONDS}), "publish")
        self._subscriber = _Link(_maker(url, options | {"socket_timeout": _SILENCE_SECONDS}), "subscribe")
        self._channel = channel.encode()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._lost_tenants: set[str] = set()
        self._something = Event()
        self._greenlets: list[gevent.Greenlet] = []

    def start(self, subscriber: Subscriber) -> None:
        """See ``bus.Bus.start``."""
        self._hear, self._gap, self._lost = subscriber
        self._greenlets = [gevent.spawn(self._publish_all), gevent.spawn(self._listen)]

    def close(self) -> None:
        """See ``bus.Bus.close``. What waits is given a moment: it may tell of pushes that were just answered."""
        end = time.monotonic() + _LAST_SECONDS
        while self._waiting and time.monotonic() < end:
            gevent.sleep(0.01)
        gevent.killall(self._greenlets)
        self._publisher.close()
        self._subscriber.close()

    # --- publishing --------------------------------------------------------------------------------------------------

    def publish(self, tenant_id: str, message: bytes) -> None:
        """See ``bus.Bus.publish``."""
        self._something.set()
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes + len(message) > _MOST_WAITING_BYTES:
            self._lost_tenants.add(tenant_id)
            return
        self._waiting.append((tenant_id, message))
        self._waiting_bytes += len(message)

    def _publish_all(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            while self._waiting or self._lost_tenants:
                try:
                    self._publish_some()
                    self._publisher.works()
                except self._errors as error:
                    self._publisher.drop(error)

    def _publish_some(self) -> None:
        """Publish what waits, as much as goes into one trip; it waits until Redis has taken it."""
        connection = self._publisher.connect()
        some = [message for _, message in list(self._waiting)[:_AT_ONCE]]
        lost = set(self._lost_tenants) if len(some) < _AT_ONCE else set()
        if lost:
            is_any = "" in lost or len(lost) > _MOST_LOST
            some.append(self._lost(() if is_any else tuple(lost)))
        commands = [(b"PUBLISH", self._channel, message) for message in some]
        connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            connection.read_response()
        if lost:
            self._lost_tenants -= lost
            some.pop()
        for _ in some:
            self._waiting_bytes -= len(self._waiting.popleft()[1])

    # --- hearing -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                connection = self._subscriber.connect()
                connection.send_command(b"SUBSCRIBE", self._channel)
                connection.read_response()
                self._subscriber.works()
                self._gap()
                while True:
                    self._pass_on(connection.read_response())
                    yield_if_due()
            except self._errors as error:
                self._subscriber.drop(error)

    def _pass_on(self, answer: Any) -> None:
        if answer[0] != b"message":
            return
        try:
            self._hear(answer[2])
        except Exception:
            log.exception("a message of the bus was not passed on")
