"""Stands between a server and its database and keeps every byte back for a while, as a network does.

usage: ``python delay.py SOCKET FOLDER SECONDS``: listens on a Unix socket of the same name in another folder, passes on to
``SOCKET``, each way ``SECONDS`` later, and prints a line when it listens. It waits by ``select``, which counts in
microseconds; epoll counts in milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from pathlib import Path


class Later(asyncio.Protocol):
    """One side of a connection; what comes is written to the other side later."""

    def __init__(self, seconds: float, other: Later | None = None) -> None:
        self.seconds, self.other = seconds, other
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the way to write."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        asyncio.get_running_loop().call_later(self.seconds, self._pass, data)

    def connection_lost(self, _: Exception | None) -> None:
        """Close the other side as well, after what is under way."""
        asyncio.get_running_loop().call_later(self.seconds, self._pass, None)

    def _pass(self, data: bytes | None) -> None:
        transport = self.other.transport if self.other else None
        if transport is not None and data is None:
            transport.close()
        elif transport is not None and data is not None:
            transport.write(data)


class Accepted(Later):
    """The side of the server, which is opened first."""

    def __init__(self, seconds: float, target: str) -> None:
        super().__init__(seconds)
        self._target = target
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the database."""
        super().connection_made(transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        _, self.other = await asyncio.get_running_loop().create_unix_connection(
            lambda: Later(self.seconds, self), self._target
        )
        for data in self._early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Pass on, as soon as there is somewhere to."""
        if self.other is None:
            self._early.append(data)
        else:
            super().data_received(data)


async def main(target: str, own: str, seconds: float) -> None:
    """Serve until it is killed."""
    server = await asyncio.get_running_loop().create_unix_server(lambda: Accepted(seconds, target), own)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    name = Path(sys.argv[1])
    far = Path(sys.argv[2]) / name.name
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(main(str(name), str(far), float(sys.argv[3])))
