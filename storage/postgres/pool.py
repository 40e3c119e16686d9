"""The few connections of a process, each lent for one transaction.

Knows: how many there may be, which are of use again. Must not know: tenants, transactions, statements.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gevent.lock import BoundedSemaphore

from protocol.errors import Busy
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost

log = logging.getLogger("syncapp.storage")

WAIT_SECONDS = 10.0


class Pool:
    """Lends connections. Whoever took one gives it back, whatever became of it."""

    def __init__(self, connect: Callable[[], Connection], size: int) -> None:
        """``connect``: opens a connection, ready to be used."""
        self.connect = connect
        """For those alone who hold a connection that ended: what they open beside the pool is in its place."""
        self._free = BoundedSemaphore(size)
        self._idle: list[Connection] = []
        self._is_closed = False
        self.is_reachable = False
        """Whether the last attempt to connect succeeded."""

    def take(self) -> Connection:
        """Give a connection that nobody else has.

        Raises: Busy if none becomes free for long; ConnectionLost.
        """
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise Busy
        try:
            while self._idle:
                if (connection := self._idle.pop()).is_alive():
                    return connection
            if self._is_closed:
                raise ConnectionLost("the engine is closed")
            return self._opened()
        except BaseException:
            self._free.release()
            raise

    def _opened(self) -> Connection:
        """Open a connection, and log once when that begins to fail, and when it works again."""
        try:
            connection = self.connect()
        except ConnectionLost as error:
            if self.is_reachable:
                why = str(error).partition("\n")[0][:200]
                log.warning("PostgreSQL is not reached, it is tried again", extra={"error": why})
            self.is_reachable = False
            raise
        if not self.is_reachable:
            log.info("PostgreSQL is reached")
        self.is_reachable = True
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take a connection back. Only one whose transaction has ended is lent again: of a greenlet that was killed, or ran
        out of time, it may be busy and hold the lock of a tenant."""
        if not connection.is_clean or self._is_closed:
            connection.abandon()
        if connection.is_open:
            self._idle.append(connection)
        self._free.release()

    def close(self) -> None:
        """Close the connections that are here, and each other when it comes back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
