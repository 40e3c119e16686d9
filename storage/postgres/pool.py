"""The few connections of a process, each lent for one transaction.

Knows: how many there may be, which are of use again. Must not know: tenants, transactions, statements.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from protocol.errors import Busy
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost, TooManyConnections

log = logging.getLogger("syncapp.storage")

WAIT_SECONDS = 10.0
_ADVICE_SECONDS = 60.0
"""How often it is said that there are too few connections."""


class Pool:
    """Lends connections. Whoever took one gives it back, whatever became of it."""

    def __init__(self, connect: Callable[[], Connection], size: int) -> None:
        """``connect``: opens a connection, ready to be used."""
        self.connect = connect
        """For those alone who hold a connection that ended: what they open beside the pool is in its place."""
        self._free = BoundedSemaphore(size)
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._given_back = Event()
        self.is_closed = False
        self._advised_at = -_ADVICE_SECONDS
        self.is_reachable = False
        """Whether the last attempt to connect succeeded, or others go on."""

    def take(self) -> Connection:
        """Give a connection that nobody else has.

        Raises: Busy if none becomes free for long; ConnectionLost.
        """
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise Busy
        try:
            connection = self._idle_one() or self._opened_or_given_back()
        except BaseException:
            self._free.release()
            raise
        self._lent.add(connection)
        if self.is_closed:  # Meanwhile.
            connection.cut()
        return connection

    def _idle_one(self) -> Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).is_alive():
                return connection
        return None

    def _opened_or_given_back(self) -> Connection:
        """Open a connection; where the server takes no more, wait for one of ours."""
        while True:
            if self.is_closed:
                raise ConnectionLost("the engine is closed")
            self._given_back.clear()
            try:
                return self._opened()
            except TooManyConnections:
                if not (self._idle or (self._lent and self._given_back.wait(WAIT_SECONDS))):
                    raise
            if connection := self._idle_one():
                return connection

    def _opened(self) -> Connection:
        """Open a connection, and log once when that begins to fail, and when it works again."""
        try:
            connection = self.connect()
        except ConnectionLost as error:
            self._note(error)
            raise
        if not self.is_reachable:
            log.info("PostgreSQL is reached")
        self.is_reachable = True
        return connection

    def _note(self, error: ConnectionLost) -> None:
        why = str(error).partition("\n")[0][:200]
        if isinstance(error, TooManyConnections):
            if time.monotonic() - self._advised_at >= _ADVICE_SECONDS:
                advice = "PostgreSQL takes no more connections: lower DATABASE_POOL, or raise max_connections"
                log.warning(advice, extra={"in_use": len(self._lent), "error": why})
                self._advised_at = time.monotonic()
        elif self.is_reachable:
            log.warning("PostgreSQL is not reached, it is tried again", extra={"error": why})
        self.is_reachable = isinstance(error, TooManyConnections) and bool(self._lent or self._idle)

    def give_back(self, connection: Connection) -> None:
        """Take a connection back. Only one whose transaction has ended is lent again: of a greenlet that was killed, or ran
        out of time, it may be busy and hold the lock of a tenant."""
        if not connection.is_clean or self.is_closed:
            connection.abandon()
        if connection.is_open:
            self._idle.append(connection)
        self._lent.discard(connection)
        self._given_back.set()
        self._free.release()

    def close(self) -> None:
        """Close the connections that are here, and each other when it comes back."""
        self.is_closed = True
        while self._idle:
            self._idle.pop().close()

    def give_up(self) -> None:
        """Close all connections, and have who waits for the server, as one that hangs, hear that it is lost."""
        self.close()
        for connection in self._lent:
            connection.cut()
