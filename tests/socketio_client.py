"""python-socketio's client, which closes each of its sockets once that is lost.

Knows: websocket-client, whose class python-engineio lets one choose. Must not know: what is sent.
"""

from __future__ import annotations

import contextlib
from typing import Any

import socketio
import websocket


class _ClosedWhenLost(websocket.WebSocket):
    """python-engineio 4.15 drops a connection that was reset, closed or silent, and leaves its socket open."""

    def recv(self) -> Any:
        is_well = False
        try:
            received = super().recv()
            is_well = self.connected
            return received
        finally:
            if not is_well:
                self.shutdown()  # type: ignore[no-untyped-call]


def new_client(**options: Any) -> socketio.Client:
    """Make a client; ``options`` are those of ``socketio.Client``."""
    return socketio.Client(websocket_extra_options={"class_": _ClosedWhenLost}, **options)


def end(client: socketio.Client) -> None:
    """End a client, also one whose connection is lost."""
    with contextlib.suppress(Exception):
        client.disconnect()
