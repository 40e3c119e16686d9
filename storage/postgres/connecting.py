"""How a connection to PostgreSQL is opened, without holding up the event loop.

Knows: what a URL may say, what it need not. Must not know: statements, what the connection is for.
"""

from __future__ import annotations

import gevent
import psycopg
from gevent import socket
from psycopg import pq
from psycopg.pq.abc import PGconn

from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost

_DEFAULTS = {
    "application_name": "syncapp",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "tcp_user_timeout": "15000",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""What a URL need not say: whoever does not answer is given up, instead of a wait without end."""


def connect(url: str) -> Connection:
    """Open a connection, without holding up the event loop.

    Raises: ConnectionLost, with the server's reason as its text.
    """
    try:
        given = {one.keyword.decode(): one.val.decode() for one in pq.Conninfo.parse(url.encode()) if one.val}
        options = _DEFAULTS | given
        with gevent.Timeout(int(options["connect_timeout"]) or None, ConnectionLost("it did not answer in time")):
            return Connection(_opened(_resolved(options)))
    except (psycopg.Error, OSError) as error:
        raise ConnectionLost(str(error).strip()) from error


def _resolved(options: dict[str, str]) -> dict[str, str]:
    """Look the host's address up by gevent: libpq would stop the event loop for it."""
    host = options.get("host", "")
    if not host or "," in host or host.startswith(("/", "@")) or options.get("hostaddr"):
        return options
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return options | {"hostaddr": found[0][4][0]}


def _opened(options: dict[str, str]) -> PGconn:
    text = " ".join(f"{name}='{_quoted(value)}'" for name, value in options.items())
    wire = pq.PGconn.connect_start(text.encode())
    try:
        while (state := wire.connect_poll()) != pq.PollingStatus.OK:
            if state == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(wire.get_error_message())
            is_reading = state == pq.PollingStatus.READING
            (socket.wait_read if is_reading else socket.wait_write)(wire.socket)
    except BaseException:
        wire.finish()
        raise
    return wire


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
