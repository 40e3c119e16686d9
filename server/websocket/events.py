"""Events that clients emit: read from their packets, served, and acknowledged (docs/api.md, real time).

Knows: Socket.IO's packets of events. Must not know: who listens, what an event does, how bytes leave. An event as nearly
all clients write it goes past the library, which takes three times as long; all else goes its way, to the same end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import Raw
from socketio.packet import Packet

from protocol import codec
from protocol.errors import InvalidJson, NotFound, Problem, ValidationError, as_acknowledgement

_PLAIN = re.compile(r'2(0|[1-9][0-9]{0,17})\["([a-z_]{1,64})",', re.ASCII)
"""An event that wants to be acknowledged, up to its body. Source: Socket.IO protocol 5, "Packet encoding"."""

_CONNECT = re.compile(r"0(/[^,?]+)")
"""A connection to another namespace than the main one."""

_EVENT = re.compile(r"([25])(?:[0-9]+-)?(?:(/[^,]+),|/,)?([0-9]{0,99})[ \t\r\n]*(?=\[)", re.ASCII)
"""Any event, up to the list of its name and its bodies; 5 is one that announces binary."""

Serve = Callable[..., dict[str, Any] | Raw]
"""Takes a socket's ID and the event's body, and gives what acknowledges it; it does not fail."""

Read = Callable[[bytes], Any]


class Json:
    """The JSON of the Socket.IO server: strict like the HTTP one, and rows go out as the bytes that are stored."""

    @staticmethod
    def dumps(value: object, **_: object) -> str:
        """Write JSON as the library asks for it, as text."""
        return codec.encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: object) -> Any:
        """Read strict JSON."""
        try:
            return codec.decode(text)
        except InvalidJson as problem:
            raise ValueError(str(problem)) from None  # What the library expects of a JSON module.


class TextPacket(Packet):  # type: ignore[misc]
    """A packet of JSON, in which the library need not look for binary: nothing here is any."""

    uses_binary_events = False


class Events:
    """The events that are served, standing before the library's own taking of packets."""

    def __init__(self, io: Any, answer: Callable[[str, bytes], None]) -> None:
        """``answer`` sends a message to the socket of an Engine.IO ID."""
        self._io, self._answer = io, answer
        self._served: dict[str, tuple[Serve, Read]] = {}
        self._take_as_library = io.eio.handlers["message"]
        io.eio.handlers["message"] = self._take

    @property
    def names(self) -> list[str]:
        """List the events that clients may emit, but for those of the library itself."""
        return sorted(self._io.handlers["/"].keys() - {"connect", "disconnect"})

    def on(self, event: str, serve: Serve, read: Read = codec.decode) -> None:
        """Serve an event; ``read`` parses its body."""
        self._served[event] = serve, read
        self._io.on(event, serve)

    def _take(self, engine_id: str, data: str) -> None:
        """Take a packet. Raises: ValueError if it is none, or none that may come now."""
        if self._take_plain(engine_id, data):
            return
        kind = data[:1]
        if kind == "0":
            self._take_connect(engine_id, data)
        elif kind in ("2", "5"):
            self._take_event(engine_id, data)
        elif kind:
            self._take_as_library(engine_id, data)
        else:
            raise ValueError("nothing")

    def _take_connect(self, engine_id: str, data: str) -> None:
        namespace = _CONNECT.match(data)
        if namespace and namespace[1] != "/":  # The library gives a reason in which socket.io-client finds no message.
            self._answer(engine_id, b'4%b,{"message":"Invalid namespace"}' % namespace[1].encode())
        elif self._is_connected(engine_id):
            raise ValueError("connected already")
        else:
            self._take_as_library(engine_id, data)

    def _take_event(self, engine_id: str, data: str) -> None:
        event = _EVENT.match(data)
        if not event:
            raise ValueError("no event")
        if event[2]:  # In a namespace that there is not.
            return
        if not self._is_connected(engine_id):
            raise ValueError("not connected")
        problem = self._refusal(event[1], data[event.end() :])
        if problem:
            self._refuse(engine_id, event[3], problem)
        else:
            self._take_as_library(engine_id, data)

    def _is_connected(self, engine_id: str) -> bool:
        return bool(self._io.manager.is_connected(self._io.manager.sid_from_eio_sid(engine_id, "/"), "/"))

    def _refusal(self, kind: str, text: str) -> Problem | None:
        """Tell why an event can't be served: the library would end the connection over it, or not answer."""
        if kind == "5":
            return ValidationError("Events take no binary. Send it as text, in Base64 for example.")
        try:
            said = codec.decode(text)
        except InvalidJson as problem:
            return problem
        if not (isinstance(said, list) and said and isinstance(said[0], str)):
            return ValidationError("An event is a list that begins with its name.")
        return None if said[0] in self.names else NotFound("There is no event of this name.")

    def _refuse(self, engine_id: str, number: str, problem: Problem) -> None:
        """Acknowledge an event that is not served; one that asks for no acknowledgement is answered by ``error``."""
        body = as_acknowledgement(problem)
        said = b"3%b%b" % (number.encode(), codec.encode([body])) if number else b"2" + codec.encode(["error", body])
        self._answer(engine_id, said)

    def _take_plain(self, engine_id: str, data: str) -> bool:
        """Take a packet if it is a plain event, and tell whether it was."""
        plain = _PLAIN.match(data)
        served = self._served.get(plain[2]) if plain else None
        if not (plain and served and data.endswith("]")):
            return False
        if not self._is_connected(engine_id):
            return False
        sid = self._io.manager.sid_from_eio_sid(engine_id, "/")
        serve, read = served
        try:
            body = read(data[plain.end() : -1].encode())
        except InvalidJson:  # Or it says more than one thing.
            return False
        self._answer(engine_id, b"3%b[%b]" % (plain[1].encode(), codec.encode(serve(sid, body))))
        return True
