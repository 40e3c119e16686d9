"""Open open_sockets without a greenlet that waits: what comes is taken whole, in order, and the end frees everything."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import socket
import struct
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gevent
import pytest
import requests
import websocket
from gevent.pywsgi import WSGIServer
from gevent.socket import socketpair
from greenlet import greenlet

from server import idle_reader
from server.connections import Connections
from server.http.handler import Handler
from server.http.upgrade import UPGRADE
from server.idle_reader import KEY, IdleReader
from server.websocket import frames
from server.websocket.frames import BoundedWebSocket
from settings import Settings
from tests import by_hand
from tests.conftest import WAIT_SECONDS, Device, Listener, Server, Tenant, wait_for
from tests.raw_sockets import address, raw_socket
from tests.server.websocket.test_frames import frame
from tests.system.test_soak import counts, target

MANY = 40


class Numbers:
    """An idle reader of numbers of two digits, 99 being the last, over a real pair of sockets."""

    def __init__(self, received: bytes = b"", pause: Callable[[int], None] = lambda _: None) -> None:
        ours, self.theirs = socketpair()
        self.fd = ours.fileno()
        self.taken: list[int] = []
        self.said: list[str] = []
        self.pause = pause
        self.reader = IdleReader(ours)
        self.reader.receive_one = self.take
        self.reader.on_end = [lambda: self.said.append("first"), lambda: self.said.append("second")]
        self.reader.begin(received)
        ours.close()  # As the server does once its handler has returned.

    def take(self) -> bool:
        found = self.reader.read(2)
        if len(found) < 2:
            return False
        self.pause(int(found))
        self.taken.append(int(found))
        return found != b"99"

    def have_taken(self, *expected: int) -> None:
        wait_for(lambda: self.taken == list(expected), lambda: f"{expected[:10]}, not {self.taken[:10]}")

    def sends(self, data: bytes) -> None:
        self.theirs.sendall(data)
        gevent.sleep(0.02)

    @property
    def is_open(self) -> bool:
        return Path(f"/proc/self/fd/{self.fd}").exists()


@pytest.fixture
def made() -> Iterator[Callable[..., Numbers]]:
    """Make numbers whose clients leave after the test."""
    found: list[Numbers] = []

    def make(*values: Any, **named: Any) -> Numbers:
        found.append(Numbers(*values, **named))
        return found[-1]

    yield make
    for numbers in found:
        numbers.theirs.close()
    wait_for(lambda: not any(numbers.is_open for numbers in found), "every descriptor to be closed")


Made = Callable[..., Numbers]


def greenlets() -> int:
    return sum(isinstance(found, greenlet) and not found.dead for found in gc.get_objects())


def test_messages_received_together_come_in_order_and_partial_ones_whole(made: Made) -> None:
    """Faults: what was read already forgotten; only one of those that received together taken."""
    numbers = made(b"0102")
    numbers.have_taken(1, 2)
    numbers.sends(b"0304050")
    numbers.have_taken(1, 2, 3, 4, 5)
    numbers.sends(b"6")
    numbers.sends(b"0")
    numbers.have_taken(1, 2, 3, 4, 5, 6)
    assert numbers.is_open
    numbers.sends(b"7" + b"08" * 5_000)
    numbers.have_taken(1, 2, 3, 4, 5, 6, 7, *[8] * 5_000)


def test_idle_sockets_have_no_greenlet(made: Made) -> None:
    """Fault: the greenlet kept by the sock that it served last."""
    before = greenlets()
    many = [made() for _ in range(MANY)]
    for number in range(3):
        for numbers in many:
            numbers.theirs.sendall(b"%02d" % number)
        for numbers in many:
            numbers.have_taken(*range(number + 1))
    assert greenlets() <= before + idle_reader._POOL_SIZE


@pytest.mark.parametrize("data", [b"99", b"", b"1", b"xx"], ids=["said", "closed", "closed amid", "failed"])
def test_end_calls_back_in_order_and_frees_all(made: Made, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    """Faults: the sock not closed; its last reference kept; a failure that takes the pooled greenlet with it."""
    numbers, other = made(), made()
    with caplog.at_level(logging.ERROR):
        numbers.theirs.sendall(data)
        if data != b"99":
            numbers.theirs.shutdown(socket.SHUT_WR)
        gevent.sleep(0.02)
    assert numbers.said == ["first", "second"] and not numbers.is_open
    assert numbers.theirs.recv(1) == b""
    assert len(caplog.records) == (data == b"xx")
    other.sends(b"01")
    assert other.taken == [1] and other.is_open


def test_callback_that_fails_does_not_keep_the_others_from_being_called(made: Made) -> None:
    numbers = made()
    numbers.reader.on_end.insert(0, lambda: 1 / 0)  # type: ignore[arg-type]
    numbers.sends(b"99")
    assert numbers.said == ["first", "second"] and not numbers.is_open


def test_end_with_unread_bytes_is_no_reset() -> None:
    """Fault: the sock closed with bytes unread, whereupon TCP drops what was sent before too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = gevent.socket.create_connection(listener.getsockname())
        sock = gevent.socket.socket(fileno=listener.accept()[0].detach())
    reader = IdleReader(sock)
    reader.receive_one = lambda: False
    reader.begin(b"")
    sock.close()
    sock.sendall(b"goodbye")
    theirs.sendall(b"more")
    gevent.sleep(0.05)
    assert theirs.recv(100) == b"goodbye" and theirs.recv(100) == b""
    theirs.close()


def test_message_handler_that_waits_delays_no_other_socket_and_receives_nothing_meanwhile(made: Made) -> None:
    """Faults: watched while it is served, so that two greenlets take from one; served by the event loop itself."""
    pausing = made(pause=lambda _: gevent.sleep(0.1))
    other = made()
    pausing.sends(b"01")
    pausing.sends(b"02")
    other.sends(b"01")
    assert other.taken == [1] and pausing.taken == []
    gevent.sleep(0.25)
    assert pausing.taken == [1, 2]


def test_socket_that_sends_without_pause_lets_others_run() -> None:
    """Fault: read until all is there: nobody else ran meanwhile."""

    def recv(count: int) -> bytes:
        until = time.monotonic() + 0.001
        while time.monotonic() < until:
            pass
        return b"x" * min(count, 1_000)

    rounds: list[int] = []

    def look() -> None:
        while True:
            rounds.append(len(rounds))
            gevent.sleep(0.001)

    looking = gevent.spawn(look)
    gevent.sleep(0.01)
    before = len(rounds)
    assert IdleReader(SimpleNamespace(recv=recv)).read(100_000) == b"x" * 100_000
    assert len(rounds) >= before + 5
    looking.kill()


def test_context_variables_of_one_socket_are_not_seen_by_the_next(made: Made) -> None:
    """Fault: served in the context of the greenlet, which serves others next."""
    whose: ContextVar[int] = ContextVar("whose", default=0)
    seen = []

    def look(number: int) -> None:
        seen.append(whose.get())
        whose.set(number)

    for numbers in [made(pause=look) for _ in range(3)]:
        numbers.sends(b"05")
    assert seen == [0, 0, 0]


# --- in the server ---------------------------------------------------------------------------------------------------


def open_sockets(server: Server) -> int:
    """Count the sockets of TCP that the server's process has open."""
    assert server.process
    others = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()}
    names = [target(file) for file in Path(f"/proc/{server.process.pid}/fd").iterdir()]
    return sum(name.startswith("socket:") and name[8:-1] not in others for name in names)


@contextlib.contextmanager
def nothing_is_left(server: Server) -> Iterator[dict[str, int]]:
    """Check that the server holds at the end what it held before."""
    before, open_before = counts(server), open_sockets(server)
    yield before
    names = ("in_flight", "sockets", "clients", "rooms")
    wait_for(
        lambda: all(counts(server)[name] == before[name] for name in names), lambda: f"{before}, not {counts(server)}"
    )
    wait_for(lambda: open_sockets(server) <= open_before, "the open_sockets to be closed")


@pytest.fixture
def quiet(start_server: Callable[..., Server]) -> Server:
    """A server of this test alone, which nobody else makes hold anything; a first client has warmed it up."""
    server = start_server()
    server.register().device().listen().close()
    wait_for(lambda: counts(server)["sockets"] == 0, "the first to be gone")
    return server


def hello(tenant: Tenant) -> str:
    return "40" + json.dumps({"token": tenant.token})


def leave_politely(connection: Any) -> None:
    connection.send_close()


def leave_without_a_word(connection: Any) -> None:
    connection.sock.shutdown(socket.SHUT_RDWR)


def leave_with_a_reset(connection: Any) -> None:
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def leave_amid_a_frame(connection: Any) -> None:
    connection.sock.sendall(frame(b"2x" * 50)[:20])


def leave_by_engine_io(connection: Any) -> None:
    connection.send("1")


def send_what_is_no_packet(connection: Any) -> None:
    connection.send("x")
    assert connection.recv_data(control_frame=True)[0] in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_CLOSE)


@pytest.mark.parametrize(
    "leave",
    [
        leave_politely,
        leave_without_a_word,
        leave_with_a_reset,
        leave_amid_a_frame,
        leave_by_engine_io,
        send_what_is_no_packet,
    ],
)
def test_socket_that_leaves_leaves_nothing_behind(quiet: Server, leave: Callable[[Any], None]) -> None:
    """Faults: the engine's socket kept; the count of what is in flight; the place among the connections."""
    tenant = quiet.register()
    with nothing_is_left(quiet):
        for _ in range(5):
            with raw_socket(tenant) as connection:
                leave(connection)
    assert [line for line in quiet.log if line["level"] in ("error", "raw")] == []


def test_socket_that_the_server_ends_leaves_nothing_behind(quiet: Server) -> None:
    tenant = quiet.register()
    with nothing_is_left(quiet), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(raw_socket(tenant)) for _ in range(5)]
        quiet.post("/api/customers/logout", {}, tenant.token)
        for connection in connections:
            with contextlib.suppress(websocket.WebSocketException, OSError):
                while connection.recv():
                    pass
    assert [line for line in quiet.log if line["level"] in ("error", "raw")] == []


def test_sockets_that_left_make_room_for_others(start_server: Callable[..., Server]) -> None:
    """Fault: the place among the connections kept: the eleventh was refused."""
    tenant = start_server(MAX_CONNECTIONS="10").register()
    for _ in range(25):
        with raw_socket(tenant) as connection:
            leave_politely(connection)


def test_silent_listeners_cost_the_server_no_greenlet(quiet: Server) -> None:
    """Fault: the library's own loop for every socket."""
    tenant = quiet.register()
    with nothing_is_left(quiet) as before, contextlib.ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(raw_socket(tenant))
        wait_for(
            lambda: counts(quiet)["greenlets"] <= before["greenlets"] + idle_reader._POOL_SIZE + 2, "them to be silent"
        )
        assert counts(quiet)["clients"] == counts(quiet)["in_flight"] == MANY


def test_packets_that_come_with_the_upgrade_are_taken_after_it_in_order(quiet: Server) -> None:
    """Fault: what the handler has read beyond the upgrade is forgotten when it hands over."""
    tenant = quiet.register()
    with nothing_is_left(quiet):
        said = requests.get(f"{quiet.url}/socket.io/?EIO=4&transport=polling", timeout=WAIT_SECONDS).text
        query = f"EIO=4&transport=websocket&sid={json.loads(said[1:])['sid']}"
        connection: Any = websocket.create_connection(address(quiet, query), timeout=WAIT_SECONDS)
        connection.send("2probe")
        assert connection.recv() == "3probe"
        pings = [frame(b'42%d["ping"]' % number) for number in range(1, 30)]
        connection.sock.sendall(b"".join([frame(b"5"), frame(hello(tenant).encode()), *pings]))
        acknowledged: list[str] = []
        while len(acknowledged) < 29:
            said = connection.recv()
            acknowledged += [said[2:].partition("[")[0]] * said.startswith("43")
        assert acknowledged == [str(number) for number in range(1, 30)]
        connection.close()


def test_event_received_in_many_parts_is_handled_while_others_are(tenant: Tenant, device: Device) -> None:
    """A frame that is there in part waits for the rest, also when silence was before it and another socket speaks."""
    row = {"table": "end_user", "operation": "create", "data": {"id": "slow", "note": "x" * 5_000}}
    with raw_socket(tenant) as slow, raw_socket(tenant) as other:
        data = frame(("421" + json.dumps(["sync_push", row])).encode()) + frame(b'422["ping"]')
        for start in range(0, len(data), 700):
            slow.sock.sendall(data[start : start + 700])
            other.send('423["ping"]')
            while not other.recv().startswith("433"):
                pass
        answers: list[str] = []
        while len(answers) < 2:
            said = slow.recv()
            answers += [said[:3]] * said.startswith("43")
    assert answers == ["431", "432"]
    assert [found["note"] for found in device.rows() if found["id"] == "slow"] == ["x" * 5_000]


def test_events_are_answered_while_notifications_are_told(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    listeners = [listen(tenant) for _ in range(3)]
    device = tenant.device()
    for number in range(20):
        device.create(id=f"row-{number}")
        assert [listener.call("ping", None) for listener in listeners] == [{"success": True}] * 3
    for listener in listeners:
        listener.wait_note("sync_complete", 20)
        ids = [note["data"]["id"] for note in listener.notes("data_available")]
        assert ids == [f"row-{number}" for number in range(20)]


def acknowledged(said: str) -> list[int]:
    return [int(said[2:].partition("[")[0])] if said.startswith("43") else []


def test_flood_waits_in_its_own_socket(start_server: Callable[..., Server]) -> None:
    """Fault: what comes after is taken while the quota makes the first wait."""
    tenant = start_server(SOCKET_BYTES="30000 per second", MAX_FRAME_BYTES="4096").register()
    events = [frame(f'42{number}["ping","{"x" * 1_000}"]'.encode()) for number in range(1, 61)]
    with raw_socket(tenant) as flood, raw_socket(tenant) as other:
        began = time.monotonic()
        flood.sock.sendall(b"".join(events))
        other.send('421["ping"]')
        while not other.recv().startswith("431["):
            pass
        numbers: list[int] = []
        flood.settimeout(0.005)
        with contextlib.suppress(websocket.WebSocketTimeoutException):
            while True:
                numbers += acknowledged(flood.recv())
        assert len(numbers) < 60  # The other did not wait for all of them.
        flood.settimeout(10)
        while len(numbers) < 60:
            numbers += acknowledged(flood.recv())
        assert numbers == list(range(1, 61)) and time.monotonic() - began > 0.5


class _NotedHandler(Handler):
    """A handler whose end can be seen."""

    connections = Connections(Settings())
    load_shedding: Any = SimpleNamespace(refusal=lambda _: None)
    made: ClassVar[list[weakref.ref[Handler]]] = []

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        self.made.append(weakref.ref(self))


def _upgrade(environ: dict[str, Any], _: object) -> list[bytes]:
    environ[UPGRADE]()
    environ["wsgi.websocket"].read_from(environ[KEY])
    environ[KEY].receive_one = lambda: False
    return []


def test_handler_of_a_websocket_is_freed_when_the_idle_reader_takes_over() -> None:
    """Fault: the environ kept it, with a buffer of a kilobyte, until the next garbage collection."""
    frames.install(BoundedWebSocket.most_bytes)
    gc.collect()
    gc.disable()
    server = WSGIServer(("127.0.0.1", 0), _upgrade, handler_class=_NotedHandler, log=None)
    server.start()
    try:
        lines = ["GET / HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in by_hand.UPGRADE.items()), "", ""]
        with contextlib.closing(gevent.socket.create_connection(("127.0.0.1", server.server_port))) as client:
            client.sendall("\r\n".join(lines).encode())
            assert client.recv(65_536).startswith(b"HTTP/1.1 101 ")
            wait_for(lambda: _NotedHandler.made[0]() is None, "the end of the handler")
    finally:
        gc.enable()
        server.stop()
