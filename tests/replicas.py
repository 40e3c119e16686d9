"""Devices that keep a replica by listening: they pull when a greeting says that something is missed, or a notification.

Between they never ask by themselves, so that what nobody tells them they never have.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import gevent
import requests
import socketio
from gevent.event import Event

from tests.conftest import JSON, Tenant
from tests.socketio_client import end, new_client

_SECONDS = 8.0
_PAUSE_SECONDS = 0.05
_EXPECTED = {200, 502, 503, 504}


def sequence(cursor: str) -> int:
    """Read the position in a cursor."""
    return int(cursor.split("-")[1])


class Replica:
    """One device at one door, over one transport, from now until it is closed."""

    def __init__(self, tenant: Tenant, door: str, transport: str) -> None:
        self.tenant, self.door, self.transport = tenant, door, transport
        self.name = f"{transport} at {door}"
        self.rows: dict[tuple[str, str], JSON] = {}
        self.cursor: str | None = None
        self.faults: list[str] = []
        self.told: list[tuple[str, str]] = []
        """Cursors before and after each commit that it was told of."""
        self.messages: set[str] = set()
        self._is_over = False
        self._behind, self._gone = Event(), Event()
        self._greenlets = [gevent.spawn(self._listen), gevent.spawn(self._follow)]

    @property
    def sequence(self) -> int:
        """Give how far it has pulled."""
        return sequence(self.cursor) if self.cursor else 0

    def _listen(self) -> None:
        while not self._is_over:
            self._gone.clear()
            client = new_client(reconnection=False)
            client.on("authenticated", self._greeted)
            client.on("authentication_error", self._refused)
            client.on("sync_notification", self._told)
            client.on("disconnect", self._ended)
            auth = {"token": self.tenant.token, "cursor": self.cursor}
            with contextlib.suppress(socketio.exceptions.ConnectionError):
                client.connect(self.door, auth=auth, transports=self.transport.split("+"), wait_timeout=_SECONDS)
                self._gone.wait()
            end(client)
            time.sleep(_PAUSE_SECONDS)

    def _ended(self, *_: Any) -> None:
        self._gone.set()

    def _greeted(self, greeting: JSON) -> None:
        if greeting.get("resyncRequired"):
            self.faults.append(f"{self.name} had to reload")
        if greeting["missed"]:
            self._behind.set()

    def _refused(self, error: JSON) -> None:
        if error["code"] != "busy":
            self.faults.append(f"{self.name}: {error}")
        self._gone.set()

    def _told(self, note: JSON) -> None:
        self.messages.add(note["message"])
        if "cursor" not in note:
            return
        if note.get("previousCursor"):
            self.told.append((note["previousCursor"], note["cursor"]))
        if sequence(note["cursor"]) > self.sequence:
            self._behind.set()

    def _follow(self) -> None:
        while True:
            self._behind.wait()
            self._behind.clear()
            while self._pull():
                pass

    def _pull(self) -> bool:
        """Pull a page; tell whether there is more to be had."""
        headers = {"Authorization": f"Bearer {self.tenant.token}"}
        try:
            answer = requests.post(
                f"{self.door}/api/client/sync/pull",
                json={"cursor": self.cursor, "limit": 1000},
                headers=headers,
                timeout=_SECONDS,
            )
        except requests.RequestException:
            time.sleep(_PAUSE_SECONDS)
            return True
        if answer.status_code not in _EXPECTED:
            self.faults.append(f"{self.name}: {answer.status_code} {answer.text[:200]}")
            return False
        if answer.status_code != 200:
            time.sleep(_PAUSE_SECONDS)
            return True
        return self._take(answer.json())

    def _take(self, page: JSON) -> bool:
        for table, rows in page["data"].items():
            self.rows |= {(table, row["id"]): row for row in rows}
        self.cursor = page["cursor"]
        return bool(page["hasMore"])

    def close(self) -> None:
        """End."""
        self._is_over = True
        self._gone.set()
        self._greenlets[0].join(5)
        gevent.killall(self._greenlets)
