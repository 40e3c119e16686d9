"""A network that fails when a scenario says so: a TCP proxy in front of the server.

Knows: just enough HTTP to see a request and its answer. Must not know: the server's API beyond addresses.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

Fault = str
"""``none``; ``answer_dropped``: the server does it and nobody hears; ``answer_cut``: half of it; ``refused``: not sent;
``unavailable``: not sent, and a 503 as gateways say it; ``bad_gateway``: the server does it, and a 502 is heard."""
_STEPS_A_SECOND = 20
_OF_GATEWAYS = {
    "unavailable": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "bad_gateway": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


class Proxy:
    """One device's way to the server; each HTTP request has a connection of its own, WebSockets are carried through."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.fault_of: Callable[[str], Fault] = lambda _: "none"
        self.bytes_per_second = self.stalls_after_bytes = 0
        """How fast answers come, and how much of one comes before the line falls silent; 0: without limit."""
        self.under = ""
        """The path under which the server is found here, as ``/sync``; what is asked elsewhere is not answered."""
        self.requests: list[str] = []
        self._entry = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._entry.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def fail(self, fault: Fault, address: str, times: int = 1) -> None:
        """Let the next ``times`` requests to an address meet a fault."""
        left = [times]

        def fault_of(asked: str) -> Fault:
            if left[0] and address in asked:
                left[0] -= 1
                return fault
            return "none"

        self.fault_of = fault_of

    def close(self) -> None:
        """End it and all that goes through it."""
        with contextlib.suppress(OSError):
            self._entry.shutdown(socket.SHUT_RDWR)
        self._entry.close()
        for one in list(self._open):
            cut(one)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._entry.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with watched(self._open, client), contextlib.suppress(OSError):
            request = read_request(client)
            if not request:
                return
            address = request.split(b" ", 2)[1].decode("latin-1")
            self.requests.append(address)
            if not address.startswith(f"{self.under}/"):
                return
            request = request.replace(address.encode("latin-1"), address.removeprefix(self.under).encode("latin-1"), 1)
            fault = self.fault_of(address)
            if fault == "unavailable":
                client.sendall(_OF_GATEWAYS[fault])
            elif fault != "refused":
                self._pass_on(client, request, fault)

    def _pass_on(self, client: socket.socket, request: bytes, fault: Fault) -> None:
        with watched(self._open, socket.create_connection(self._to, 60)) as server:
            server.sendall(request)
            if re.search(rb"(?i)\r\nupgrade: websocket\r\n", request):
                back = threading.Thread(target=carry, args=(server, client), daemon=True)
                back.start()
                return carry(client, server)
            answer = b"".join(iter(lambda: server.recv(65_536), b""))
        answer = _OF_GATEWAYS.get(fault, answer)
        length = {"answer_dropped": 0, "answer_cut": len(answer) // 2}.get(fault, len(answer))
        return self._send(client, answer[:length])

    def _send(self, client: socket.socket, answer: bytes) -> None:
        """Send an answer as the line takes it: slowly, or not to its end, and then nothing until the client gives up."""
        most = self.stalls_after_bytes or len(answer)
        step = self.bytes_per_second // _STEPS_A_SECOND or len(answer)
        for start in range(0, min(most, len(answer)), step or 1):
            client.sendall(answer[start : min(start + step, most)])
            if self.bytes_per_second:
                time.sleep(1 / _STEPS_A_SECOND)
        if most < len(answer):
            client.recv(1)


@contextlib.contextmanager
def watched(opened: set[socket.socket], one: socket.socket) -> Iterator[socket.socket]:
    """Keep a socket among those that are open, until it is cut in the end."""
    opened.add(one)
    try:
        yield one
    finally:
        opened.discard(one)
        cut(one)


def read_request(client: socket.socket) -> bytes:
    """Read a whole HTTP request, and ask in it that its answer ends the connection; empty if it never gets whole."""
    found = b""
    while b"\r\n\r\n" not in found:
        if not (part := client.recv(65_536)):
            return b""
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    while len(body) < int(length[1] if length else 0):
        if not (part := client.recv(65_536)):
            return b""
        body += part
    if not re.search(rb"(?i)\r\nupgrade: ", head):
        head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head) + b"\r\nConnection: close"
    return head + b"\r\n\r\n" + body


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way until an end is closed."""
    with contextlib.suppress(OSError):
        while part := source.recv(65_536):
            target.sendall(part)
    cut(source)
    cut(target)


def cut(one: socket.socket) -> None:
    """End a connection for both of its sides."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
