"""How a connection to PostgreSQL is opened, without holding up the event loop.

Knows: what a URL may say, what it need not. Must not know: statements, what the connection is for.
"""

from __future__ import annotations

import re

import gevent
import psycopg
from gevent import socket
from psycopg import pq
from psycopg.pq.abc import PGconn

from storage.postgres import handshakes
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

_ADVICE = "If the password has other characters than letters and digits, write them as %2F is written for a /."


def connect(url: str) -> Connection:
    """Open a connection, without holding up the event loop.

    Raises: ConnectionLost, with the server's reason as its text, or what is wrong with the URL; no part of its password.
    """
    options = _DEFAULTS | _options_of(url)
    try:
        with gevent.Timeout(int(options["connect_timeout"]) or None, ConnectionLost("it did not answer in time")):
            return Connection(_opened(_resolved(options)))
    except (psycopg.Error, OSError) as error:
        raise ConnectionLost(str(error).strip()) from error


def place_of(url: str) -> str:
    """Say for a person which database a URL names, and where that is."""
    options = _options_of(url)
    return f"the database {options.get('dbname', options.get('user', ''))} at {options.get('host', 'localhost')}"


def _options_of(url: str) -> dict[str, str]:
    """Read a URL. A password with a character that has a meaning there may be taken for any other part."""
    try:
        given = {one.keyword.decode(): one.val.decode() for one in pq.Conninfo.parse(url.encode()) if one.val}
    except psycopg.Error as error:
        unquoted = re.sub('".*"', '"…"', str(error).strip(), flags=re.DOTALL)
        raise ConnectionLost(f"{unquoted}. {_ADVICE}") from None
    if not re.fullmatch("[0-9,]*", given.get("port", "")):
        raise ConnectionLost(f"its port is no number. {_ADVICE}")
    if not re.fullmatch("[0-9]{0,5}", given.get("connect_timeout", "")):
        raise ConnectionLost("connect_timeout must be a number of seconds")
    return given


def _resolved(options: dict[str, str]) -> dict[str, str]:
    """Look the host's addresses up by gevent: libpq would stop the event loop for it. It tries one after the other."""
    host = options.get("host", "")
    if not host or "," in host or host.startswith(("/", "@")) or options.get("hostaddr"):
        return options
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConnectionLost(f"its host is not found. {_ADVICE}") from None
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    return options | {"host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}


def _opened(options: dict[str, str]) -> PGconn:
    text = " ".join(f"{name}='{_quoted(value)}'" for name, value in options.items())
    wire = pq.PGconn.connect_start(text.encode())
    try:
        handshakes.finish(wire.connect_poll, wire)
    except BaseException:
        wire.finish()
        raise
    return wire


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
