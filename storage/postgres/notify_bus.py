"""The bus over PostgreSQL's NOTIFY, for processes that have no Redis.

Knows: LISTEN, NOTIFY and their limits. Must not know: what messages say, when it is tried again (``queued_bus``).

It hears by a connection of its own, which is always open, and publishes by one of the pool, for a moment, in a statement of
its own: in the transaction that commits, NOTIFY would hold a lock of all until that is on disk. What a process publishes it
hears too. If it never does, a pooler is in between that gives each transaction another session, and who listens none.
Source: postgresql.org/docs, "NOTIFY".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from protocol.errors import Busy
from server.bus.queued_bus import SILENCE_SECONDS, QueuedBus
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost, StatementFailed
from storage.postgres.pool import Pool
from storage.postgres.shared import run
from storage.postgres.values import array

_LONGEST_BYTES = 7_500
"""PostgreSQL refuses a payload of 8,000."""

_NOTIFY = b"SELECT pg_notify($1, m) FROM unnest($2::text[]) AS m"

NOT_HEARD = (
    "what is published is not heard: a pooler is in between, such as PgBouncer in transaction mode. Set REDIS_URL."
)


class NotifyBus(QueuedBus):
    """See ``server.bus.bus.Bus``."""

    broker = "NOTIFY of PostgreSQL"
    errors = (ConnectionLost, StatementFailed, Busy)

    def __init__(self, pool: Pool, connect: Callable[[], Connection], channel: str) -> None:
        """``connect`` opens the connection that listens; ``channel`` has no quotation mark, and 63 bytes at the most."""
        super().__init__()
        self._pool, self._connect, self._channel = pool, connect, channel
        self._ears: Connection | None = None
        self._taken_at = 0.0

    def _send(self, messages: list[bytes]) -> None:
        run(self._pool, _NOTIFY, (self._channel, array(map(_payload, range(len(messages)), messages))))
        self._taken_at = time.monotonic()

    def _end(self) -> None:
        """Do nothing: the pool has it."""

    def _subscribe(self) -> None:
        self._ears = self._connect()
        self._ears.send(f'LISTEN "{self._channel}"'.encode())
        self._ears.settle()
        self._ears.is_alive()  # Takes what came with the answer: a pooler's session may have listened before.

    def _received(self) -> Iterator[bytes]:
        began, has_heard = time.monotonic(), False
        assert self._ears is not None
        while heard := self._ears.notified(SILENCE_SECONDS):
            has_heard = True
            for payload in heard:
                yield payload.partition(b" ")[2]
        is_deaf = not has_heard and self._taken_at > began
        raise ConnectionLost(NOT_HEARD if is_deaf else "it says nothing")

    def _unsubscribe(self) -> None:
        if self._ears is not None:
            self._ears.close()
            self._ears = None


def _payload(number: int, message: bytes) -> str:
    """Write what is carried of a message. Its number keeps it apart from its like: of those PostgreSQL sends one."""
    carried = message if len(message) <= _LONGEST_BYTES else message.partition(b"\n")[0]
    return f"{number} {carried.decode()}"
