"""The Socket.IO connection on which the server notifies of changes.

Knows: the server's events. Must not know: rows. A notification is only a hint, and may get lost; the cursor is the truth.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from . import places
from .replica import Replica
from .session import Session
from .transport import Transport
from .wire import JSON

log = logging.getLogger("syncclient")

_ANSWER_SECONDS = 15
_LONGEST_PAUSE_SECONDS = 60.0


class Live:
    """A thread that keeps a connection, and wakes who pulls."""

    def __init__(
        self,
        session: Session,
        replica: Replica,
        transport: Transport,
        hear: Callable[[str], None],
        greeted: Callable[[], None],
    ) -> None:
        """``hear``: is told the server's cursor whenever it may have moved; ``greeted``: that the server is there."""
        self._session, self._replica, self._transport = session, replica, transport
        self._hear, self._is_there = hear, greeted
        self._stopped, self._ended = threading.Event(), threading.Event()
        self._path = f"{urlsplit(transport.url).path.strip('/')}/socket.io".lstrip("/")
        self._failures = 0
        self._refused: str | None = None
        self._thread = threading.Thread(target=self._run, name="syncclient-live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the connection and the thread."""
        self._stopped.set()
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._ended.clear()
            if self._stopped.is_set():  # Looked at after that: ``stop`` may have set both meanwhile.
                return
            try:
                self._listen()
            except Exception as error:  # Of whatever kind the library has: connect again, later.
                log.info("no live connection, it is tried again: %s", error)
            self._failures += 1
            longest = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2 ** min(self._failures, 10))
            self._stopped.wait(random.uniform(0.5, 1.0) * longest)

    def _listen(self) -> None:
        """Connect, and stay until the connection ends or the client stops."""
        import socketio  # Half a second that only this thread waits for.

        from .live_socket import LiveSocket

        token = self._session.renew(self._refused)
        self._refused = None
        client = socketio.Client(reconnection=False, websocket_extra_options={"class_": LiveSocket})
        client.on("authenticated", self._greeted)
        client.on("authentication_error", lambda _: setattr(self, "_refused", token))
        client.on("sync_notification", self._notified)
        client.on("disconnect", lambda *_: self._ended.set())
        with self._replica.reading() as connection:
            place = places.shared(connection)
        auth = {"token": token, "deviceId": self._transport.device_id, "cursor": place}
        about = {"transports": ["websocket"], "wait_timeout": _ANSWER_SECONDS}
        try:
            client.connect(self._transport.url, auth=auth, socketio_path=self._path, **about)
            self._ended.wait()
        finally:
            client.disconnect()

    def _greeted(self, greeting: JSON) -> None:
        self._failures = 0
        self._is_there()
        if isinstance(greeting.get("cursor"), str):
            self._hear(greeting["cursor"])

    def _notified(self, note: JSON) -> None:
        if "cursor" in note:  # Not in those of failed pushes and of tests.
            self._hear(note["cursor"])
