"""A device with python-socketio's asyncio client, which says "authenticated" each time it is.

usage: python listener.py URL TRANSPORT TOKEN
"""

from __future__ import annotations

import asyncio
import sys

import socketio


async def listen(url: str, transport: str, token: str) -> None:
    """Connect, and come back whenever the connection is lost, until standard input ends."""
    client = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.2)
    client.on("authenticated", lambda _: print("authenticated", flush=True))
    await client.connect(url, auth={"token": token}, transports=[transport])
    await asyncio.to_thread(sys.stdin.read)
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(listen(*sys.argv[1:]))
