"""Ports for the servers of tests, of which several runs begin many at the same time."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Give a port on which a server may listen, and which nobody else is given within the next minute.

    A connection of it has ended: in TIME_WAIT the system gives its port to nobody who asks for any, but to who asks for
    this one with SO_REUSEADDR, as servers do. Source: tcp(7), socket(7).
    """
    with socket.create_server(("127.0.0.1", 0)) as entry:
        address: tuple[str, int] = entry.getsockname()
        with socket.create_connection(address):
            accepted, _ = entry.accept()
            accepted.close()  # Who closes first keeps the port.
    return address[1]
