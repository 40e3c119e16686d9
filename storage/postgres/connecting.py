"""How a connection to PostgreSQL is opened, without holding up the event loop.

Knows: what a URL may say, what it need not. Must not know: statements, what the connection is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import gevent
import psycopg
from gevent import socket
from psycopg import pq
from psycopg.pq.abc import PGconn

from storage.postgres import handshakes
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost, TooManyConnections

_DEFAULTS = {
    "application_name": "syncapp",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "target_session_attrs": "read-write",
    "tcp_user_timeout": "15000",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""What a URL need not say: whoever does not answer is given up, instead of a wait without end; a replica is passed by."""

_ADVICE = "If the password has other characters than letters and digits, write them as %2F is written for a /."
_FULL = re.compile("too many (clients|connections)|connection slots are reserved|no more connections allowed")
"""What PostgreSQL and PgBouncer say of it; libpq gives no code for an attempt to connect."""


def connect(url: str) -> Connection:
    """Open a connection, without holding up the event loop, to the first host and address that takes it.

    Raises: ConnectionLost, with the servers' reasons as its text, or what is wrong with the URL; no part of its password.
    """
    options, reasons = _DEFAULTS | _options_of(url), list[str]()
    for one in _each_address(options, reasons):
        try:
            with gevent.Timeout(int(options["connect_timeout"]) or None, ConnectionLost("it did not answer in time")):
                return Connection(_opened(one))
        except (psycopg.Error, OSError, ConnectionLost) as error:
            reasons.append(str(error).strip())
    said = "; ".join(dict.fromkeys(reasons))
    raise (TooManyConnections if _FULL.search(said) else ConnectionLost)(said)


def is_coming_up(url: str) -> bool:
    """Tell whether nobody answers yet, or says that it is starting. It may hold up the event loop.

    Raises: ConnectionLost for a URL that can't be used.
    """
    answer = pq.PGconn.ping(_text_of(_DEFAULTS | _options_of(url)))
    return answer in (pq.Ping.REJECT, pq.Ping.NO_RESPONSE)


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


def _each_address(options: dict[str, str], reasons: list[str]) -> Iterator[dict[str, str]]:
    """Give the options for each host, and for each address of it, in turn: libpq would wait for one that says nothing.

    ``reasons``: where is noted why a host has no address.
    """
    hosts, addresses, ports = (options.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(addresses))
    if len(ports) not in (1, count) or (hosts != [""] and addresses != [""] and len(hosts) != len(addresses)):
        raise ConnectionLost(f"it has {len(hosts)} hosts, {len(addresses)} addresses and {len(ports)} ports")
    for number in range(count):
        host, address, port = (some[number % len(some)] for some in (hosts, addresses, ports))
        try:
            for found in [address] if address else _addresses_of(host):
                one = {"host": host, "hostaddr": found, "port": port}
                yield {name: value for name, value in (options | one).items() if value}
        except ConnectionLost as error:
            reasons.append(str(error))


def _addresses_of(host: str) -> list[str]:
    """Look a host's addresses up by gevent: libpq would stop the event loop for it. A socket's folder has none."""
    if not host or host.startswith(("/", "@")):
        return [""]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConnectionLost(f"its host is not found. {_ADVICE}") from None
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _opened(options: dict[str, str]) -> PGconn:
    wire = pq.PGconn.connect_start(_text_of(options))
    try:
        handshakes.finish(wire.connect_poll, wire)
    except BaseException:
        wire.finish()
        raise
    return wire


def _text_of(options: dict[str, str]) -> bytes:
    return " ".join(f"{name}='{_quoted(value)}'" for name, value in options.items()).encode()


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
