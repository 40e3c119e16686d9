"""Events that clients emit: parsed from their packets, handled, and acknowledged (docs/api.md, real time).

Knows: Socket.IO's event packets. Must not know: who listens, what an event does, how bytes are sent. Events in the form
that nearly all clients write take a fast path past the library, which takes three times as long; all others go through it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import Raw
from socketio.packet import Packet

from protocol import codec
from protocol.errors import InvalidJson, NotFound, Problem, ValidationError, as_acknowledgement
from server.metrics import REFUSALS

_FAST_PATH = re.compile(r'2(0|[1-9][0-9]{0,17})\["([a-z_]{1,64})",', re.ASCII)
"""An event with an acknowledgement ID, up to its body. Source: Socket.IO protocol 5, "Packet encoding"."""

_CONNECT = re.compile(r"0(/[^,?]+)")
"""A CONNECT packet of another namespace than the main one."""

_EVENT = re.compile(r"([25])(?:[0-9]+-)?(?:(/[^,]+),|/,)?([0-9]{0,99})[ \t\r\n]*(?=\[)", re.ASCII)
"""Any event, up to the list of its name and arguments; 5 is one with binary attachments."""

Serve = Callable[..., dict[str, Any] | Raw]
"""Takes a socket's ID and the event's body, and returns the acknowledgement; it does not raise."""

Read = Callable[[bytes], Any]


class Json:
    """The JSON module of the Socket.IO server: strict as for HTTP, and rows are sent as the bytes that are stored."""

    @staticmethod
    def dumps(value: object, **_: object) -> str:
        """Encode JSON, as text for the library."""
        return codec.encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: object) -> Any:
        """Decode strict JSON."""
        try:
            return codec.decode(text)
        except InvalidJson as problem:
            raise ValueError(str(problem)) from None  # As the library expects of a JSON module.


class TextPacket(Packet):  # type: ignore[misc]
    """A packet in which the library does not look for binary: this server sends none."""

    uses_binary_events = False


class Events:
    """The event handlers, called before the library's own handling of packets."""

    def __init__(self, io: Any, answer: Callable[[str, bytes], None]) -> None:
        """``answer`` sends a message to the socket of an Engine.IO ID."""
        self._io, self._answer = io, answer
        self._served: dict[str, tuple[Serve, Read]] = {}
        self._receive_by_library = io.eio.handlers["message"]
        io.eio.handlers["message"] = self._receive

    @property
    def names(self) -> list[str]:
        """List the events that clients may emit, except those of the library itself."""
        return sorted(self._io.handlers["/"].keys() - {"connect", "disconnect"})

    def on(self, event: str, serve: Serve, read: Read = codec.decode) -> None:
        """Serve an event; ``read`` parses its body."""
        self._served[event] = serve, read
        self._io.on(event, serve)

    def _receive(self, engine_id: str, data: str) -> None:
        """Receive a packet. Raises: ValueError if it is malformed, or not allowed now."""
        if self._receive_fast(engine_id, data):
            return
        kind = data[:1]
        if kind == "0":
            self._receive_connect(engine_id, data)
        elif kind in ("2", "5"):
            self._receive_event(engine_id, data)
        elif kind:
            self._receive_by_library(engine_id, data)
        else:
            raise ValueError("nothing")

    def _receive_connect(self, engine_id: str, data: str) -> None:
        namespace = _CONNECT.match(data)
        if namespace and namespace[1] != "/":  # socket.io-client finds no message in the library's answer.
            self._answer(engine_id, b'4%b,{"message":"Invalid namespace"}' % namespace[1].encode())
        elif self._is_connected(engine_id):
            raise ValueError("connected already")
        else:
            self._receive_by_library(engine_id, data)

    def _receive_event(self, engine_id: str, data: str) -> None:
        event = _EVENT.match(data)
        if not event:
            raise ValueError("no event")
        if event[2]:  # There is no other namespace.
            return
        if not self._is_connected(engine_id):
            raise ValueError("not connected")
        problem = self._refusal(event[1], data[event.end() :])
        if problem:
            self._refuse(engine_id, event[3], problem)
        else:
            self._receive_by_library(engine_id, data)

    def _is_connected(self, engine_id: str) -> bool:
        return bool(self._io.manager.is_connected(self._io.manager.sid_from_eio_sid(engine_id, "/"), "/"))

    def _refusal(self, kind: str, text: str) -> Problem | None:
        """Return why an event can't be served; the library would close the connection, or not answer."""
        if kind == "5":
            return ValidationError("Events take no binary. Send it as text, in Base64 for example.")
        try:
            items = codec.decode(text)
        except InvalidJson as problem:
            return problem
        if not (isinstance(items, list) and items and isinstance(items[0], str)):
            return ValidationError("An event is a list that begins with its name.")
        return None if items[0] in self.names else NotFound("There is no event of this name.")

    def _refuse(self, engine_id: str, number: str, problem: Problem) -> None:
        """Acknowledge an event with an error; one without an acknowledgement ID is answered by the event ``error``."""
        REFUSALS[problem.code,] += 1
        body = as_acknowledgement(problem)
        items = b"3%b%b" % (number.encode(), codec.encode([body])) if number else b"2" + codec.encode(["error", body])
        self._answer(engine_id, items)

    def _receive_fast(self, engine_id: str, data: str) -> bool:
        """Receive a packet by the fast path, if it has the usual form; tell whether it had."""
        event = _FAST_PATH.match(data)
        served = self._served.get(event[2]) if event else None
        if not (event and served and data.endswith("]")):
            return False
        if not self._is_connected(engine_id):
            return False
        sid = self._io.manager.sid_from_eio_sid(engine_id, "/")
        serve, read = served
        try:
            body = read(data[event.end() : -1].encode())
        except InvalidJson:  # Or it has several arguments.
            return False
        self._answer(engine_id, b"3%b[%b]" % (event[1].encode(), codec.encode(serve(sid, body))))
        return True
