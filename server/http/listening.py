"""Listens on an address and a port.

Knows: socket options, what may be in the way. Must not know: requests, who serves.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

_BACKLOG = 4_096


class CannotListen(RuntimeError):
    """The address or port is not available; as text it says why and what to do."""


def listen(host: str, port: int, setting: str = "") -> Any:
    """Listen with TCP_NODELAY, which accepted connections inherit (trap 16: without it each answer takes 44 ms).

    ``setting``: what the names of the settings of the address and the port begin with.

    Raises: CannotListen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        what = setting + ("PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST")
        raise CannotListen(f"Can't listen on {host}:{port}: {error.strerror}. Set {what} to another one.") from None
    return listener
