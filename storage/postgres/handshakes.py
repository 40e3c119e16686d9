"""Waits for what libpq does in steps over a socket of its own: to connect, to have a statement cancelled.

Knows: libpq's polling, gevent's event loop. Must not know: what is connected to, and what for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import gevent
import psycopg
from gevent import socket
from psycopg import pq
from psycopg.pq.abc import PGcancelConn, PGconn

_CANCEL_SECONDS = 5.0


def finish(poll: Callable[[], int], wire: PGconn | PGcancelConn) -> None:
    """Go step by step to the end.

    Raises: psycopg.OperationalError.
    """
    while (state := poll()) != pq.PollingStatus.OK:
        if state == pq.PollingStatus.FAILED:
            raise psycopg.OperationalError(wire.get_error_message())
        is_reading = state == pq.PollingStatus.READING
        (socket.wait_read if is_reading else socket.wait_write)(wire.socket)


def cancel(request: PGcancelConn) -> None:
    """Have the server stop what it does for a connection. Not by ``PQcancel`` in a thread: psycopg holds the interpreter's
    lock meanwhile, and a server that hangs would stop this process too."""
    try:
        # If it is gone, or can't be reached, nothing is left to stop.
        with contextlib.suppress(psycopg.Error, OSError), gevent.Timeout(_CANCEL_SECONDS, False):
            request.start()
            finish(request.poll, request)
    finally:
        request.finish()
