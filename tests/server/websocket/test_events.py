"""An event that goes past the library is served and acknowledged as the library would have done it, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
import socketio
from engineio.packet import MESSAGE, Packet
from msgspec import Raw

from server.websocket.events import Events, Json, TextPacket
from tests.conftest import Device, Tenant, wait_for

PLAIN = [
    '20["echo",{"a":1}]',
    '2123456789012345678["echo",{"text":"ä😀\\n","list":[1,null,true]}]',
    '27["echo",[1,2]]',
    '27["echo","text"]',
    '27["echo",null]',
    '27["echo",{"deep":' + "[" * 60 + "]" * 60 + "}]",
    '27["raw",{"a":1}]',
]
OTHER = [
    '2007["echo",{"a":1}]',
    '2["echo",{"a":1}]',
    '27["echo"]',
    '27["echo",{"a":1},"more"]',
    '27 ["echo",{"a":1}]',
    '27[ "echo",{"a":1}]',
    '2/,7["echo",{"a":1}]',
    '2/other,7["echo",{"a":1}]',
    '27["echo",{"a":1}] ',
    '2999999999999999999999["echo",{"a":1}]',
]
REFUSED = [
    ('27["unknown",{"a":1}]', "not_found"),
    ('27["connect",{"a":1}]', "not_found"),
    ('27["echo",{"a":1}}', "invalid_json"),
    ('27["echo",{"a":NaN}]', "invalid_json"),
    ('27["echo",{"a":1}', "invalid_json"),
    ('27["echo",{"a":1]', "invalid_json"),
    ('27["echo",{"half":"\\udc00"}]', "invalid_json"),
    ('27["echo",' + "[" * 70 + "]" * 70 + "]", "invalid_json"),
    ('27["echo",{"deep":' + "[" * 3000 + "]" * 3000 + "}]", "invalid_json"),
    ('27["echo",]', "invalid_json"),
    ("27[]", "validation_error"),
    ('27[5,"echo"]', "validation_error"),
    ("27[null]", "validation_error"),
    ('51-7["echo",{"_placeholder":true,"num":0}]', "validation_error"),
    ('512-7["unknown",{"_placeholder":true,"num":3}]', "validation_error"),
]
"""Events that the library ends the connection over, or leaves without an answer."""


class Served:
    """A Socket.IO server with two events of ours, and what it was asked and sent."""

    def __init__(self) -> None:
        self.io = socketio.Server(async_mode="gevent", serializer=TextPacket, json=Json, async_handlers=False)
        self.sent: list[str] = []
        self.asked: list[tuple[str, Any]] = []
        self.past = 0
        self.io.eio.send_packet = lambda _, packet: self.sent.append(packet.encode())
        self.events = Events(self.io, self._answered)
        self.events.on("echo", self._echo)
        self.events.on("raw", lambda sid, body=None, *_: Raw(b'{"raw": true}'))
        self.sid = self.io.manager.connect("engine", "/")

    def _answered(self, engine_id: str, message: bytes) -> None:
        self.past += 1
        self.sent.append(Packet(MESSAGE, message.decode()).encode())

    def _echo(self, sid: str, body: object = None, *_: object) -> dict[str, Any]:
        self.asked.append((sid, body))
        return {"success": True, "said": body}

    def take(self, packet: str, is_past_library: bool) -> tuple[list[str], list[tuple[str, Any]], str]:
        """Take a packet in one of the two ways; give what was sent, what was asked, and what was raised."""
        self.sent, self.asked, raised = [], [], ""
        try:
            (self.events._receive if is_past_library else self.events._receive_by_library)("engine", packet)
        except ValueError as error:
            raised = str(error)
        return self.sent, self.asked, raised


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.mark.parametrize("packet", [*PLAIN, *OTHER], ids=lambda packet: packet[:40])
def test_event_comes_to_what_the_library_makes_of_it(served: Served, packet: str) -> None:
    """Faults: a leading zero taken, the last character not looked at, the number left out: other bytes, or more asked."""
    assert served.take(packet, True) == served.take(packet, False)
    assert served.past == (packet in PLAIN)


@pytest.mark.parametrize(("packet", "code"), REFUSED, ids=lambda value: value[:40])
def test_event_that_can_not_be_served_is_acknowledged_all_the_same(served: Served, packet: str, code: str) -> None:
    """Fault, the library's own way: it raises, which ends the connection, or says nothing."""
    (said,), asked, raised = served.take(packet, True)
    assert said.startswith("437[") and (asked, raised) == ([], "")
    assert json.loads(said[3:])[0]["code"] == code


@pytest.mark.parametrize(("packet", "code"), REFUSED, ids=lambda value: value[:40])
def test_event_that_asks_for_no_acknowledgement_is_refused_by_an_event(served: Served, packet: str, code: str) -> None:
    (said,), asked, raised = served.take(packet.replace("7[", "[", 1), True)
    event, body = json.loads(said.removeprefix("42"))
    assert (event, body["code"], asked, raised) == ("error", code, [], "")


def test_event_of_a_socket_that_is_not_connected_is_not_served(served: Served) -> None:
    """Fault: ``is_connected`` not asked: it was served and acknowledged."""
    served.io.manager.pre_disconnect(served.sid, "/")
    assert served.take(PLAIN[0], True) == ([], [], "not connected")


def test_names_are_those_of_all_events(served: Served) -> None:
    assert served.events.names == ["echo", "raw"]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_who_pushes_by_an_event_is_told_of_it_before_it_is_acknowledged(
    tenant: Tenant, device: Device, transport: str
) -> None:
    """Fault: ``answer`` without the wait for what is told: the acknowledgement came first."""
    listener = device.listen(transport)
    heard: list[str] = []
    listener.client.on("sync_notification", lambda note: heard.append(note["type"]))
    rows = {"changes": {"end_user": [{"id": "r1", "note": "ä"}]}}
    listener.client.emit("sync_push", rows, callback=lambda answer: heard.append(f"success {answer['success']}"))
    wait_for(lambda: len(heard) == 3, "two notifications and an acknowledgement")
    assert heard == ["data_available", "sync_complete", "success True"]
    listener.close()
