"""An HTTP, TLS and WebSocket client for servers that may be misconfigured, with limits of time and size.

Knows: HTTP/1.1, TLS, WebSocket, and how to explain why a connection failed. Must not know: what is requested, what an
answer means for a deployment; nothing of ours.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import wsproto
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, RejectData, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

SECONDS = 10.0
USER_AGENT = "syncapp-doctor"
_MAX_BYTES = 8_388_608
_CHUNK_BYTES = 65_536


class NoAnswer(Exception):
    """No readable answer came; its text says why."""


class AnswerTimeout(NoAnswer):
    """No answer came in time; the connection may still be open."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; None if it is none, or is nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class Answer:
    """An answer. Header names are in lower case, and repeated headers are joined."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """Give the body as JSON, or None if it is none."""
        return parse_json(self.text)

    @property
    def text(self) -> bytes:
        """Give the decompressed body; nothing if that fails."""
        if self.headers.get("content-encoding") != "gzip":
            return self.body
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(self.body, _MAX_BYTES)
        return b""


@dataclass(frozen=True)
class Address:
    """The address of a deployment; ``is_verified``: its certificate is checked against the machine's authorities."""

    scheme: str
    host: str
    port: int
    is_verified: bool = True

    @property
    def netloc(self) -> str:
        """Give host and port as browsers write them, without the default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Give the origin of the deployment's own pages."""
        return f"{self.scheme}://{self.netloc}"

    def context(self) -> ssl.SSLContext:
        """Make the TLS context; one without verification is for the other probes if the certificate is bad."""
        context = ssl.create_default_context()
        if not self.is_verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context


def connect(address: Address, seconds: float = SECONDS) -> socket.socket:
    """Connect, with TLS if the address has it.

    Raises: NoAnswer, ssl.SSLCertVerificationError.
    """
    with _errors_translated(address):
        sock = socket.create_connection((address.host, address.port), seconds)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.scheme == "https":
                return _with_tls(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock


def _with_tls(sock: socket.socket, address: Address) -> socket.socket:
    try:
        return address.context().wrap_socket(sock, server_hostname=address.host)
    except TimeoutError:
        where = f"{address.host}:{address.port}"
        raise AnswerTimeout(f"{where} did not answer with TLS in time. Is it an address of http:// ?") from None


def request(
    address: Address,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Answer:
    """Send a request on a new connection and read the answer, at most 8 MiB of it.

    Raises: NoAnswer, ssl.SSLCertVerificationError.
    """
    about = {"Host": address.netloc, "Accept-Encoding": "identity", "Connection": "close", "User-Agent": USER_AGENT}
    with connected(address, seconds) as connection, _errors_translated(address):
        with contextlib.suppress(OSError):  # It may answer before it has all of the body: RFC 9112 section 9.5.
            connection.request(method, path, body or None, {**about, **(headers or {})})
        with connection.getresponse() as answer:
            return Answer(answer.status, _joined(answer.getheaders()), answer.read(_MAX_BYTES))


@contextlib.contextmanager
def connected(address: Address, seconds: float = SECONDS) -> Iterator[http.client.HTTPConnection]:
    """Give a connection for one request."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=seconds)
    connection.sock = connect(address, seconds)
    try:
        yield connection
    finally:
        connection.close()


def interim_status(address: Address, path: str, announced_bytes: int) -> int:
    """Announce a body, wait for the interim answer, and give its status; 0 if none came.

    Raises: NoAnswer. Source: RFC 9110 section 10.1.1.
    """
    head = [f"POST {path} HTTP/1.1", f"Host: {address.netloc}", "Content-Type: application/json"]
    head += [f"Content-Length: {announced_bytes}", "Expect: 100-continue", f"User-Agent: {USER_AGENT}", "", ""]
    with contextlib.closing(connect(address)) as sock, _errors_translated(address):
        sock.sendall("\r\n".join(head).encode())
        with contextlib.suppress(TimeoutError):
            line = sock.recv(_CHUNK_BYTES).split(b" ", 2)
            return int(line[1]) if len(line) > 1 and line[1].isdigit() else 0
    return 0


def _joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


class HandshakeRefused(Exception):
    """A WebSocket handshake was refused with ``answer``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


class WebSocket:
    """A client's end of a WebSocket with text messages (RFC 6455)."""

    def __init__(self, address: Address, path: str) -> None:
        """Raises: NoAnswer, HandshakeRefused."""
        self._address, self._messages = address, list[str]()
        self._protocol = wsproto.WSConnection(ConnectionType.CLIENT)
        self.is_open, self._network = False, connect(address)
        try:
            self._send(Request(host=address.netloc, target=path))
            self._shake_hands()
        except BaseException:
            self._network.close()
            raise

    def _shake_hands(self) -> None:
        status, headers, body = 0, dict[str, str](), b""
        while not self.is_open:
            for event in self._read_events(SECONDS):
                if isinstance(event, AcceptConnection):
                    self.is_open = True
                elif isinstance(event, RejectConnection):
                    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
                    status, headers = event.status_code, _joined(pairs)
                    if not event.has_body:
                        raise HandshakeRefused(Answer(status, headers))
                elif isinstance(event, RejectData):
                    body += event.data
                    if event.body_finished or len(body) > _MAX_BYTES:
                        raise HandshakeRefused(Answer(status, headers, body))
                elif isinstance(event, TextMessage):
                    self._messages.append(event.data)

    def send(self, text: str) -> None:
        """Send a message. Raises: NoAnswer."""
        self._send(TextMessage(data=text))

    def receive(self, seconds: float = SECONDS) -> str | None:
        """Wait for a message; None if the connection ended first.

        Raises: AnswerTimeout.
        """
        give_up = time.monotonic() + seconds
        while self.is_open and not self._messages:
            try:
                self._handle_events(max(0.01, give_up - time.monotonic()))
            except AnswerTimeout:
                raise
            except NoAnswer:
                self.is_open = False
        return self._messages.pop(0) if self._messages else None

    def _handle_events(self, seconds: float) -> None:
        for event in self._read_events(seconds):
            if isinstance(event, TextMessage):
                self._messages.append(event.data)
            elif isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, CloseConnection):
                self.is_open = False

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(NoAnswer, LocalProtocolError):
            self._send(CloseConnection(code=1000))
        self._network.close()

    def _send(self, event: Any) -> None:
        with _errors_translated(self._address):
            self._network.sendall(self._protocol.send(event))

    def _read_events(self, seconds: float) -> Iterator[Any]:
        with _errors_translated(self._address):
            self._network.settimeout(seconds)
            data = self._network.recv(_CHUNK_BYTES)
            try:
                self._protocol.receive_data(data or None)
                yield from self._protocol.events()
            except RemoteProtocolError as error:
                hint = error.event_hint
                if not isinstance(hint, RejectConnection):
                    raise NoAnswer(f"{self._address.origin} sends what is no WebSocket.") from None
                yield hint
        if not data:
            if not self.is_open:
                raise NoAnswer(f"{self._address.origin} closed the connection without an answer.")
            self.is_open = False


_MESSAGES: dict[type[Exception], str] = {
    socket.gaierror: "The name {host} has no address: {reason}.",
    TimeoutError: "{where} did not answer in time.",
    ssl.SSLError: "{where} speaks no TLS that this machine understands ({reason}). Is it an address of http:// ?",
    ConnectionRefusedError: "Nothing listens at {where}.",
    ConnectionResetError: "{where} closed the connection without an answer.",
    BrokenPipeError: "{where} closed the connection without an answer.",
    http.client.HTTPException: "What answers at {where} speaks no HTTP that can be read ({reason}).",
}
"""The message for an error, by the first class that matches."""


@contextlib.contextmanager
def _errors_translated(address: Address) -> Iterator[None]:
    """Turn errors of the network or the other end into messages, but not a bad certificate.

    Raises: NoAnswer, ssl.SSLCertVerificationError.
    """
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, http.client.HTTPException) as error:
        kind = AnswerTimeout if isinstance(error, TimeoutError) else NoAnswer
        raise kind(_message(error, address)) from None


def _message(error: Exception, address: Address) -> str:
    where = f"{address.host}:{address.port}"
    for kind, sentence in _MESSAGES.items():
        if isinstance(error, kind):
            return sentence.format(where=where, host=address.host, reason=_reason(error))
    return f"{where} can't be reached: {_reason(error)}."


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "the handshake failed").replace("_", " ").lower()
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
