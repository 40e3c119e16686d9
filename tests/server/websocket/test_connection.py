"""What a session holds, and until when."""

from __future__ import annotations

import gc
import weakref

import engineio
from engineio.packet import PONG, Packet
from engineio.socket import Socket

from server.websocket import connection


def test_closed_session_is_kept_by_no_ping_that_is_not_due_yet() -> None:
    """Fault: the timer of the next ping kept it: 20 MiB for 25 s after 5,000 had left."""
    engine = engineio.Server(async_mode="gevent", ping_interval=1000)
    engine.on("disconnect", lambda *_: None)
    connection.install(engine)
    session = engine.sockets["sid"] = Socket(engine, "sid")
    kept = weakref.ref(session)
    session.schedule_ping()
    session.close(wait=False, abort=True)
    session.receive(Packet(PONG))
    engine.sockets.clear()
    del session
    gc.collect()
    assert kept() is None
