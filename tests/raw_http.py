"""HTTP by hand: requests as bytes that no client library would send, and what becomes of the connection."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.conftest import Server

PROBE = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: probe\r\n\r\n"


class Answer(NamedTuple):
    """One answer: its status, its headers by their names in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def says_close(self) -> bool:
        """Tell whether it says that the connection ends."""
        return "close" in self.headers.get("connection", "").lower()


def connect(server: Server, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(data)
    return connection


def read_answer(file: Any, is_head: bool = False) -> Answer | None:
    """Read one answer, None at the end of the connection; its framing must hold."""
    first = file.readline()
    if not first:
        return None
    status = int(re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n", first)[1])  # type: ignore[index]
    headers: dict[str, str] = {}
    while (line := file.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        assert name.lower() not in headers or name.lower() == "vary", line
        headers[name.lower()] = value.strip()
    if status < 200 or status in (204, 304) or is_head:
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        return Answer(status, headers, b"".join(_chunks(file)))
    if "content-length" in headers:
        body = file.read(int(headers["content-length"]))
        assert len(body) == int(headers["content-length"]), "the body is shorter than announced"
        return Answer(status, headers, body)
    assert headers.get("connection") == "close", "nobody knows where the body ends"
    return Answer(status, headers, file.read())


def _chunks(file: Any) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        yield file.read(size)
        assert file.read(2) == b"\r\n"
    assert file.readline() == b"\r\n"


def converse(server: Server, data: bytes) -> tuple[list[Answer], bool]:
    """Send bytes, then a probe, and give what is answered before the probe's answer; and whether that came."""
    with connect(server) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data + PROBE)
        with connection.makefile("rb") as file:
            answers: list[Answer] = []
            with contextlib.suppress(ConnectionResetError):
                while answer := read_answer(file, is_head=data.startswith(b"HEAD") and not answers):
                    if answer.headers.get("x-request-id") == "probe":
                        return answers, True
                    answers.append(answer)
            return answers, False
