"""What a refusal looks like, what it must leave alone, and ways to say what no client library would."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt

from protocol.errors import Problem
from tests import postgres
from tests.conftest import JSON, Server, Tenant

LONG = "x" * 100_000
ANYTHING: list[Any] = [None, True, False, 0, -1, 1.5, 10**40, "", "x", LONG, "\0", [], {}, ["x"], {"x": None}]
"""A value of every kind, and some too long."""

SAID_OF_DEVICES = {"_devices", "_evidence"}
"""Tables that even a refused request may touch: that a device was here is true."""


def wrong(*right: Any) -> list[Any]:
    """Give values of every kind but those that are right; ``1`` is no ``True`` here."""
    kinds = {json.dumps(value) for value in right}
    return [value for value in ANYTHING if json.dumps(value) not in kinds]


def kinds_of_error(base: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Give each error that has a status or a code of its own, whatever it derives from."""
    for one in base.__subclasses__():
        if one.__module__ == "protocol.errors":
            yield from [one] if {"status", "code"} & vars(one).keys() else []
            yield from kinds_of_error(one)


def shaped(body: JSON) -> JSON:
    """Check the one shape of a failure, and give its body."""
    assert body["success"] is False
    assert body["error"] == body["message"] and body["error"].endswith((".", ">"))
    assert re.fullmatch("[a-z_]+", body["code"])
    assert all(set(detail) == {"path", "error"} and detail["error"] for detail in body.get("details", []))
    assert not body.keys() - {"success", "error", "message", "code", "details", "requestId"}
    assert not re.search(r"Traceback|File \"|\.py|SELECT|INSERT|sqlite|/work|/tmp", str(body)), body
    return body


def refused(answer: Any, status: int, code: str) -> JSON:
    """Check that an answer is this refusal, in the one shape, and give its body."""
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    body = shaped(answer.json())
    assert body["code"] == code, body
    assert body["requestId"] == answer.headers["X-Request-ID"]
    assert answer.headers["Content-Type"] == "application/json"
    return body


def paths(body: JSON) -> list[str]:
    return [detail["path"] for detail in body["details"]]


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Read everything in a database, beside the server that has it open."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: file.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables}


def dump_of(tenant: Tenant) -> dict[str, list[tuple[Any, ...]]]:
    """Read everything of a tenant, beside the server."""
    return postgres.dump(tenant.server.data, tenant.id) if postgres.IS_UNDER_TEST else dump(tenant.path)


def customers(server: Server) -> list[tuple[Any, ...]]:
    """Read the directory's customers, beside the server."""
    if postgres.IS_UNDER_TEST:
        return postgres.ask(server.data, "SELECT * FROM syncapp.customers ORDER BY id")
    return dump(server.data / "main.db")["customers"]


def _key_of(server: Server) -> str:
    """Read the key that signs tokens."""
    if postgres.IS_UNDER_TEST:
        return str(postgres.ask(server.data, "SELECT secret FROM syncapp.secrets")[0][0])
    return (server.data / "jwt_secret_key").read_text()


@contextlib.contextmanager
def nothing_changes(tenant: Tenant) -> Iterator[None]:
    """Check that what happens inside changes neither the tenant's rows, log and cursor nor any customer or file."""

    def everything() -> tuple[Any, ...]:
        rows = {name: rows for name, rows in dump_of(tenant).items() if name not in SAID_OF_DEVICES}
        return rows, customers(tenant.server), sorted(tenant.server.data.parent.iterdir())

    before = everything()
    yield
    assert everything() == before


def request_bytes(path: str, body: bytes, *headers: str, token: str | None = None) -> bytes:
    """Write a POST request by hand."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def say(server: Server, data: bytes, is_end: bool = True) -> bytes:
    """Send bytes as they are, and give all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            if is_end:
                connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(_receiver(connection), b""))


def _receiver(connection: socket.socket) -> Callable[[], bytes]:
    def receive() -> bytes:
        try:
            return connection.recv(65_536)
        except ConnectionResetError:
            return b""

    return receive


def complaints(server: Server, since: int = 0) -> list[JSON]:
    """Give the lines of the log, from one on, that speak of a bug: raw ones, tracebacks and errors."""
    lines = server.log[since:]
    return [line for line in lines if line["level"] in ("raw", "error", "critical") or "exception" in line]


def peak_kilobytes(server: Server) -> int:
    """Tell the most memory that a server ever had."""
    assert server.process is not None
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert peak
    return int(peak[1])


def forged(tenant: Tenant, key: str | None = None, algorithm: str = "HS256", **claims: Any) -> str:
    """Sign the claims of a tenant's access token anew, some of them changed; None takes one away."""
    real = jwt.decode(tenant.token, options={"verify_signature": False})
    changed = {name: value for name, value in (real | claims).items() if value is not None}
    secret = _key_of(tenant.server) if key is None else key
    return jwt.encode(changed, secret, algorithm)
