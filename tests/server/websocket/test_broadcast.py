"""Whatever way a packet takes to a socket, each socket gets the bytes that the library would have sent, in order."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
import socketio
from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import MESSAGE, Packet
from gevent.queue import Empty
from gevent.socket import socketpair
from gevent.ssl import SSLSocket

from server.idle_reader import KEY, IdleReader
from server.websocket import connection
from server.websocket.broadcast import Broadcaster, packet_of
from server.websocket.connection import WebSocketConnection, _Queue, _Writer
from server.websocket.events import Json, TextPacket
from server.websocket.frames import BoundedWebSocket, text_frames
from tests.conftest import Device, Listener, Server, Tenant, wait_for


def frame_of(packet: Packet) -> bytes:
    return text_frames([packet.encode().encode()])


class Engine:
    """What a connection uses of Engine.IO's socket."""

    def __init__(self, sid: str) -> None:
        self.sid, self.upgraded, self.closing, self.queue = sid, True, False, _Queue()
        self.connected = self.closed = False
        self.server = SimpleNamespace(sockets={sid: self}, reason=SimpleNamespace(TRANSPORT_CLOSE="transport close"))
        self.received: list[Any] = []

    def receive(self, packet: Packet) -> None:
        """Take a packet."""
        if packet.data == "closed":
            raise SocketIsClosedError
        if packet.data == "unknown":
            raise UnknownPacketError
        self.received.append(packet.data)

    def close(self, wait: bool, abort: bool, reason: str) -> None:
        """Close it."""
        self.received.append(reason)


class TcpConnection:
    """Stands for what ends a connection."""

    def close_soon(self) -> None:
        """Do nothing."""


class Phone:
    """A connection to a client over a real pair of sockets, with the queue and the writer that Engine.IO would have."""

    def __init__(self, connections: dict[str, WebSocketConnection], sid: str) -> None:
        self.ours, self.theirs = socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.engine, self.expected = Engine(sid), b""
        self.connection = WebSocketConnection(self.engine, connections)
        stream = SimpleNamespace(read=None, write=self.ours.sendall, handler=SimpleNamespace(socket=self.ours))
        connections[sid] = self.connection
        handler: Any = SimpleNamespace(logger=None, server=SimpleNamespace(application=None), stream=TcpConnection())
        self.connection._websocket = BoundedWebSocket({}, stream, handler)

    def writes_queue(self) -> None:
        """Write the queue, as Engine.IO's writer does."""
        while self.engine.queue.qsize():
            self.connection.send(self.engine.queue.get().encode())

    def hears(self) -> bytes:
        """Read all that is expected, while the writer writes."""
        writer, found = gevent.spawn(self.writes_queue), b""
        with gevent.Timeout(10):
            while len(found) < len(self.expected):
                found += self.theirs.recv(65_536)
        writer.get()
        return found


@pytest.fixture
def io() -> Any:
    return socketio.Server(async_mode="gevent", serializer=TextPacket, json=Json)


@pytest.fixture
def broadcaster(io: Any) -> Broadcaster:
    """What is not taken at once goes into the queue of the phone of that name."""
    no: Any = {}.get
    made: Broadcaster = Broadcaster(
        io, lambda sid, packet: made._connections[sid]._socket.queue.put(packet), no, no, no
    )
    return made


@pytest.fixture
def new_phone(broadcaster: Broadcaster) -> Iterator[Callable[[str], Phone]]:
    phones: list[Phone] = []

    def make(sid: str) -> Phone:
        phones.append(Phone(broadcaster._connections, sid))
        return phones[-1]

    yield make
    for phone in phones:
        phone.ours.close()
        phone.theirs.close()


@pytest.fixture
def phone(new_phone: Callable[[str], Phone]) -> Phone:
    return new_phone("phone")


@pytest.mark.parametrize(
    "text", ["", "a", "ä😀", "x" * 124, "x" * 125, "x" * 126, "x" * 65_534, "x" * 65_535, "x" * 70_000]
)
def test_frame_is_what_the_library_would_send(text: str) -> None:
    written, packet = bytearray(), Packet(MESSAGE, text)
    stream = SimpleNamespace(read=None, write=written.extend)
    handler: Any = SimpleNamespace(logger=None, server=SimpleNamespace(application=None), stream=TcpConnection())
    BoundedWebSocket({}, stream, handler).send(packet.encode())
    assert frame_of(packet) == bytes(written)


def test_event_to_a_room_is_what_the_library_would_emit(io: Any, broadcaster: Broadcaster, phone: Phone) -> None:
    """Fault: ``data`` without the event's name: other bytes."""
    sid = io.manager.connect("phone", "/")
    io.manager.enter_room(sid, "/", "tenant")
    emitted: list[bytes] = []
    io._send_eio_packet = lambda _, packet: emitted.append(frame_of(packet))
    for payload in ({"a": 1, "text": "ä\n"}, {"rows": [1, None, "x"]}):
        io.emit("sync_notification", payload, to="tenant")
        broadcaster.send_packets("tenant", [packet_of("sync_notification", payload)])
    phone.expected = b"".join(emitted)
    gevent.sleep(0)
    assert phone.hears() == phone.expected and phone.engine.queue.qsize() == 0


def test_broadcast_reaches_its_room_only_also_if_a_socket_changes_rooms_meanwhile(
    io: Any, broadcaster: Broadcaster, new_phone: Callable[[str], Phone]
) -> None:
    """Fault: membership not looked at again: the socket that left for another tenant's room heard of the first."""
    phones = {f"phone {n}": new_phone(f"phone {n}") for n in range(130)}
    sids = {name: io.manager.connect(name, "/") for name in phones}
    for name, sid in sids.items():
        io.manager.enter_room(sid, "/", "other" if name == "phone 3" else "tenant")
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    gevent.spawn(io.manager.leave_room, sids["phone 129"], "/", "tenant")  # Runs at the first yield.
    gevent.sleep(0.05)
    silent = []
    for name, phone in phones.items():
        phone.theirs.settimeout(0)
        try:
            assert phone.theirs.recv(100).endswith(b'42["note",{}]')
        except BlockingIOError:
            silent.append(name)
    assert silent == ["phone 3", "phone 129"]


@pytest.fixture
def room_of_300(io: Any, broadcaster: Broadcaster, new_phone: Callable[[str], Phone]) -> list[tuple[str, bytes]]:
    """Fill the room ``tenant``; give what is handed over, in order, as Engine.IO ID and bytes."""
    handed: list[tuple[str, bytes]] = []
    hand_over = broadcaster._send

    def note(engine_id: str, packets: list[bytes], frames: bytes) -> None:
        handed.append((engine_id, frames))
        hand_over(engine_id, packets, frames)

    broadcaster._send = note  # type: ignore[method-assign]
    for number in range(300):
        new_phone(f"phone {number}")
        io.manager.enter_room(io.manager.connect(f"phone {number}", "/"), "/", "tenant")
    return handed


NOTE, ANSWER = frame_of(Packet(MESSAGE, '2["note",{}]')), frame_of(Packet(MESSAGE, "30[{}]"))


def test_acknowledgement_is_sent_with_the_broadcast_and_first_of_all(
    broadcaster: Broadcaster, room_of_300: list[tuple[str, bytes]]
) -> None:
    """Faults: not sorted, so that it waited for 250 others; sent alone, before what it is the answer to."""
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    broadcaster.answer("phone 250", b"30[{}]", "tenant")
    gevent.sleep(0.1)
    assert room_of_300[0] == ("phone 250", NOTE + ANSWER)
    assert len(room_of_300) == 300 and {frames for _, frames in room_of_300[1:]} == {NOTE}


def test_packet_sent_after_an_acknowledgement_arrives_after_it(
    broadcaster: Broadcaster, room_of_300: list[tuple[str, bytes]]
) -> None:
    """Faults: ``_delayed`` not looked at: the answer to the later event came first; or begun anew: the first was lost."""
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    broadcaster.answer("phone 250", b"30[{}]", "tenant")
    broadcaster.answer("phone 250", b"30[{}]", "tenant")
    broadcaster.send("phone 250", Packet(MESSAGE, "31[{}]"))
    broadcaster.send("phone 251", Packet(MESSAGE, "31[{}]"))
    gevent.sleep(0.1)
    later = frame_of(Packet(MESSAGE, "31[{}]"))
    heard = [frames for engine_id, frames in room_of_300 if engine_id == "phone 250"]
    assert (
        heard == [NOTE + ANSWER + ANSWER + later]
        and room_of_300[0] == ("phone 251", later)
        and not broadcaster._delayed
    )


def test_acknowledgement_does_not_wait_for_a_broadcast_that_has_begun(
    broadcaster: Broadcaster, room_of_300: list[tuple[str, bytes]]
) -> None:
    """Fault: ``is_under_way`` never set: it was lost, since nothing more was told."""
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    gevent.spawn(broadcaster.answer, "phone 250", b"30[{}]", "tenant")  # Runs at the first yield.
    gevent.sleep(0.1)
    assert room_of_300[128] == ("phone 250", ANSWER) and room_of_300[251] == ("phone 250", NOTE)


def test_broadcast_that_fails_delays_nothing(
    broadcaster: Broadcaster, new_phone: Callable[[str], Phone], io: Any
) -> None:
    """Fault: ``_delayed`` kept: all that the phone was sent later waited for ever."""
    phone = new_phone("phone")
    io.manager.enter_room(io.manager.connect("phone", "/"), "/", "tenant")
    found, io.manager.get_participants = io.manager.get_participants, None
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    broadcaster.answer("phone", b"30[{}]", "tenant")
    gevent.sleep(0.01)
    io.manager.get_participants = found
    broadcaster.answer("phone", b"31[{}]", "tenant")
    phone.expected = frame_of(Packet(MESSAGE, "31[{}]"))
    assert phone.hears() == phone.expected


def test_broadcast_reaches_all_though_one_socket_is_closed(
    broadcaster: Broadcaster, room_of_300: list[tuple[str, bytes]]
) -> None:
    """Fault: the error let through: 297 heard nothing."""
    broadcaster._connections["phone 2"]._websocket.closed = True
    queue, broadcaster._queue = broadcaster._queue, _closed
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    gevent.sleep(0.1)
    broadcaster._queue = queue
    assert len(room_of_300) == 300


def _closed(*_: object) -> None:
    raise SocketIsClosedError


def test_socket_that_left_its_room_gets_its_acknowledgement(
    io: Any, broadcaster: Broadcaster, room_of_300: list[tuple[str, bytes]]
) -> None:
    """Fault: answers only given to who is in the room: a device waited for ever."""
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    broadcaster.answer("phone 250", b"30[{}]", "tenant")
    io.manager.leave_room(io.manager.sid_from_eio_sid("phone 250", "/"), "/", "tenant")
    gevent.sleep(0.1)
    assert [frames for engine_id, frames in room_of_300 if engine_id == "phone 250"] == [ANSWER]


@pytest.mark.parametrize("why", ["polling", "closing", "queue", "sending"])
def test_socket_that_can_not_be_sent_to_now_gets_it_by_the_queue(
    broadcaster: Broadcaster, phone: Phone, why: str
) -> None:
    if why == "queue":
        phone.engine.queue.put(Packet(MESSAGE, "before"))
    phone.engine.upgraded, phone.engine.closing = why != "polling", why == "closing"
    if why == "sending":
        phone.connection._websocket._write_lock.acquire()
    broadcaster.send("phone", Packet(MESSAGE, "now"))
    queued = [packet.data for packet in phone.engine.queue.queue]
    assert queued == (["before", "now"] if why == "queue" else ["now"])


def test_unsent_rest_goes_before_all_later_frames(broadcaster: Broadcaster, phone: Phone) -> None:
    """Random sizes, some far beyond the kernel's buffer. Fault: ``_unsent`` ignored in ``send_nowait``: other bytes."""
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(300):
        packet = Packet(MESSAGE, f"{number}" * rng.choice([1, 10, 1000, 20_000]))
        phone.expected += frame_of(packet)
        broadcaster.send("phone", packet)
        if rng.random() < 0.1:
            with phone.connection._websocket._write_lock:
                for packet in [Packet(MESSAGE, f"during {number}") for _ in range(2)]:
                    broadcaster.send("phone", packet)
                    phone.expected += frame_of(packet)
    assert phone.hears() == phone.expected


def test_connection_over_tls_is_left_to_the_library(broadcaster: Broadcaster, phone: Phone) -> None:
    """Fault: sent below TLS: rows went over the network in clear."""
    phone.connection._websocket.stream.handler.socket = SSLSocket.__new__(SSLSocket)
    broadcaster.send("phone", Packet(MESSAGE, "x"))
    assert phone.engine.queue.qsize() == 1


def test_pong_is_not_written_within_a_frame(broadcaster: Broadcaster, phone: Phone) -> None:
    """The reading greenlet answers pings by itself. Fault: ``_write`` without the rest: the pong stood amid the frame."""
    big, ping = Packet(MESSAGE, "x" * 3_000_000), b"ping"
    broadcaster.send("phone", big)
    assert phone.connection._websocket.has_unsent
    phone.expected = frame_of(big) + bytes([0x8A, len(ping)]) + ping
    pong = gevent.spawn(phone.connection._websocket.send_frame, ping, phone.connection._websocket.OPCODE_PONG)
    assert phone.hears() == phone.expected
    pong.get()


def test_connection_of_a_client_that_left_is_left_to_the_library(broadcaster: Broadcaster, phone: Phone) -> None:
    phone.theirs.close()
    for _ in range(3):
        broadcaster.send("phone", Packet(MESSAGE, "x"))
    assert phone.engine.queue.qsize() > 0


@pytest.mark.parametrize(("end", "level"), [(b"", None), (b"\x88\x80\0\0\0\0", None), (b"\x81\x80\0\0\0\0", "WARNING")])
def test_open_connection_is_served_by_its_idle_reader(
    broadcaster: Broadcaster, phone: Phone, caplog: pytest.LogCaptureFixture, end: bytes, level: str | None
) -> None:
    """It ends with the socket, a close frame, or a malformed packet. Fault: the connection kept after its end."""
    reader = IdleReader(phone.ours)
    assert phone.connection({"wsgi.websocket": phone.connection._websocket, KEY: reader}, lambda *_: None) == []
    assert reader.receive_one and broadcaster._connections == {"phone": phone.connection}
    reader.begin(b"")
    for text in (b"4a", b"4unknown", b"4b"):
        phone.theirs.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    wait_for(lambda: phone.engine.received == ["a", "b"], lambda: f"two packets ({phone.engine.received})")
    assert phone.engine.server.sockets
    phone.theirs.sendall(end)
    phone.theirs.shutdown(socket.SHUT_WR)
    wait_for(
        lambda: phone.engine.received == ["a", "b", "transport close"], lambda: f"the end ({phone.engine.received})"
    )
    assert not broadcaster._connections and not phone.engine.server.sockets and not phone.engine.queue.qsize()
    ours = [record for record in caplog.records if record.name == "syncapp.socket"]  # Others' clients log too.
    assert [record.levelname for record in ours] == ([level] if level else [])


def test_closed_connection_receives_nothing_more(broadcaster: Broadcaster, phone: Phone) -> None:
    reader = IdleReader(phone.ours)
    phone.connection({"wsgi.websocket": phone.connection._websocket, KEY: reader}, lambda *_: None)
    reader.begin(b"")
    for text in (b"4closed", b"4b"):
        phone.theirs.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    gevent.sleep(0.02)
    assert phone.engine.received == ["transport close"]


def test_connection_over_tls_is_served_by_its_own_greenlet(broadcaster: Broadcaster, phone: Phone) -> None:
    """TLS may have read what the network has no more."""
    phone.connection._websocket.raw_read = phone.connection._websocket.stream.read = phone.ours.makefile("rb").read
    phone.theirs.sendall(b"\x81\x82\0\0\0\x004a")
    phone.theirs.shutdown(socket.SHUT_WR)
    assert phone.connection({"wsgi.websocket": phone.connection._websocket, KEY: None}, lambda *_: None) == []
    assert phone.engine.received == ["a", "transport close"] and not broadcaster._connections


def test_websocket_that_never_probes_is_given_up_and_ends_with_its_session(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: no time by which it must come; a stop of the server waited for it."""
    phone.engine.connected, phone.engine.upgraded = True, False
    with phone.ours.makefile("rb") as incoming:
        phone.connection._websocket.raw_read = phone.connection._websocket.stream.read = incoming.read
        monkeypatch.setattr(connection, "_UPGRADE_SECONDS", 0.05)
        assert phone.connection._open() is False and phone.engine.queue.on_put is None
        monkeypatch.setattr(connection, "_UPGRADE_SECONDS", 60)
        ended = gevent.spawn(phone.connection._open)
        gevent.sleep(0.01)
        phone.connection._websocket._connection = SimpleNamespace(
            close_soon=lambda: None, end=lambda: phone.ours.shutdown(socket.SHUT_RDWR)
        )
        phone.engine.closed = True
        phone.engine.queue.put(None)
        assert ended.get(timeout=60) is False


def test_broadcast_reaches_all_though_one_has_sent_its_close_frame(
    io: Any, broadcaster: Broadcaster, new_phone: Callable[[str], Phone]
) -> None:
    """Its engine takes a moment longer. Fault: a closed WebSocket was asked for its stream: the others heard nothing."""
    for name in ("gone", "here"):
        io.manager.enter_room(io.manager.connect(name, "/"), "/", "tenant")
    gone, here = new_phone("gone"), new_phone("here")
    gone.connection._websocket.close()
    broadcaster.send_packets("tenant", [packet_of("note", {})])
    gevent.sleep(0.05)
    here.theirs.settimeout(1)
    assert here.theirs.recv(100).endswith(b'42["note",{}]') and gone.engine.queue.qsize() == 1


def test_writer_writes_what_waits_and_then_waits_without_a_greenlet(phone: Phone) -> None:
    """Fault: ``on_put`` not called by ``put``: the second packet stayed in the queue."""
    phone.engine.queue = _Queue()
    writer = _Writer(phone.connection, phone.engine.queue)
    for text in ("first", "second"):
        phone.engine.queue.put(Packet(MESSAGE, text))
        phone.expected += frame_of(Packet(MESSAGE, text))
        gevent.sleep(0.01)
        assert not writer._is_writing
    assert phone.theirs.recv(1000) == phone.expected
    ended: list[bool] = []
    phone.connection.close = lambda: ended.append(True)  # type: ignore[method-assign]
    phone.engine.queue.put(None)
    with gevent.Timeout(5):
        writer.join()
    phone.engine.queue.put(Packet(MESSAGE, "late"))
    assert ended == [True] and phone.engine.queue.qsize() == 1


def test_writer_whose_client_left_ends_the_connection(phone: Phone) -> None:
    phone.engine.queue, ended = _Queue(), list[bool]()
    phone.connection.close = lambda: ended.append(True)  # type: ignore[method-assign]
    writer = _Writer(phone.connection, phone.engine.queue)
    phone.theirs.close()
    for _ in range(3):
        phone.engine.queue.put(Packet(MESSAGE, "x"))
        gevent.sleep(0.01)
    with gevent.Timeout(5):
        writer.join()
    assert ended == [True]


def test_answer_to_polling_has_no_more_packets_than_each_client_takes() -> None:
    """Fault: no bound: clients of python-engineio ended the connection after a burst."""
    queue = _Queue()
    for number in range(40):
        queue.put(Packet(MESSAGE, str(number)))
    sizes = []
    while queue.qsize():
        taken = [queue.get()]
        with contextlib.suppress(Empty):
            while True:
                taken.append(queue.get(block=False))
        sizes.append(len(taken))
    assert sizes == [16, 16, 8]


@pytest.mark.slow
def test_silent_socket_is_pinged_and_one_that_does_not_answer_is_closed(start_server: Callable[..., Server]) -> None:
    """Fault: pings not sent: both stayed open, and the good one was closed by its own client."""
    server = start_server(PING_INTERVAL_SECONDS="1", PING_TIMEOUT_SECONDS="1")
    tenant = server.register()
    good, dead = tenant.device().listen(), tenant.device().listen()
    pongs: list[Packet] = []
    answer = good.client.eio._send_packet

    def answer_and_count(packet: Packet) -> None:
        pongs.append(packet)
        answer(packet)

    good.client.eio._send_packet, dead.client.eio._send_packet = answer_and_count, lambda _: None
    wait_for(dead.is_gone.is_set, "the dead one to be closed")
    wait_for(lambda: len(pongs) >= 3, "three pings")
    assert not good.is_gone.is_set()
    tenant.device().create(name="still heard")
    good.wait_note("data_available")
    good.close()
    dead.close()


@pytest.mark.slow
def test_listeners_of_every_kind_hear_all_of_a_burst_in_order(device: Device, tenant: Tenant) -> None:
    """By WebSocket, by polling, and by polling that upgrades meanwhile; pushed from eight devices at once.

    Fault: the queue not looked at in ``send_nowait``: a link of the chain came before the one before it.
    """
    begin = tenant.device().push({"changes": {}})["cursor"]
    listeners = [tenant.device().listen(transport) for transport in ("websocket", "polling", "websocket")]
    upgrading = Listener(tenant.server.url, "polling+websocket", {"token": tenant.token})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: device.create(id=f"r{number}", note="x" * (number % 7) * 1000), range(200)))
    upgrading.wait("authenticated")
    for listener in listeners:
        listener.wait_note("sync_complete", 200)
        place = begin
        for note in listener.notes("data_available"):
            assert note["previousCursor"] == place
            place = note["cursor"]
    wait_for(lambda: upgrading.notes() and upgrading.notes()[-1]["cursor"] == place, "the last note")
    heard = [note["cursor"] for note in upgrading.notes("sync_complete")]
    assert heard == sorted(heard, key=lambda cursor: int(cursor.split("-")[1]))
    for listener in [*listeners, upgrading]:
        listener.close()
