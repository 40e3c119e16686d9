"""The WebSocket of the live connection, which closes itself once it is lost.

Knows: websocket-client. Must not know: what is sent. Imported when it connects, since importing the library takes long.
"""

from __future__ import annotations

import websocket


class LiveSocket(websocket.WebSocket):
    """python-engineio 4.15 drops a connection that was reset, closed or silent, and leaves its socket open."""

    def recv(self) -> str | bytes:
        """Receive a message, and close the socket if there will be no other."""
        is_well = False
        try:
            received: str | bytes = super().recv()
            is_well = self.connected
            return received
        finally:
            if not is_well:
                self.shutdown()  # type: ignore[no-untyped-call]
