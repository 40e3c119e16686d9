"""The bus over Redis: one channel, published and heard by two connections of redis-py.

Knows: Redis's PUBLISH and SUBSCRIBE. Must not know: what messages say, when it is tried again (``queued_bus``).

The commands go through redis-py's connections, not through its clients, which take three times the CPU a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis

from server.bus.queued_bus import ANSWER_SECONDS, SILENCE_SECONDS, QueuedBus


class _Connection:
    """One connection, made when it is needed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._open: Any = None

    def open(self) -> Any:
        """Give it. Raises: RedisError, OSError."""
        if self._open is None:
            connection = self._make()
            connection.connect()
            self._open = connection
        return self._open

    def close(self) -> None:
        """Close it."""
        if self._open is not None:
            self._open.disconnect()
            self._open = None


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


class RedisBus(QueuedBus):
    """See ``bus.Bus``."""

    broker = "Redis"
    errors = (redis.RedisError, OSError)

    def __init__(self, url: str, channel: str, *, verifies: bool = True) -> None:
        """``verifies``: whether a certificate of ``rediss://`` must be one that this machine trusts.

        Raises: ValueError for an address that is none.
        """
        super().__init__()
        options: dict[str, Any] = {"protocol": 2, "socket_connect_timeout": ANSWER_SECONDS}
        options |= {"retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0)}  # It is tried again here.
        if url.startswith("rediss:") and not verifies:
            options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        self._publisher = _Connection(_maker(url, options | {"socket_timeout": ANSWER_SECONDS}))
        self._subscriber = _Connection(_maker(url, options | {"socket_timeout": SILENCE_SECONDS}))
        self._channel = channel.encode()

    def _send(self, messages: list[bytes]) -> None:
        connection = self._publisher.open()
        commands = [(b"PUBLISH", self._channel, message) for message in messages]
        connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            connection.read_response()

    def _end(self) -> None:
        self._publisher.close()

    def _subscribe(self) -> None:
        connection = self._subscriber.open()
        connection.send_command(b"SUBSCRIBE", self._channel)
        connection.read_response()

    def _received(self) -> Iterator[bytes]:
        while True:
            answer = self._subscriber.open().read_response()
            if answer[0] == b"message":
                yield answer[2]

    def _unsubscribe(self) -> None:
        self._subscriber.close()
