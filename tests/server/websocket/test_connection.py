"""What a session holds, and until when."""

from __future__ import annotations

import gc
import weakref

import engineio
import gevent
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


def test_all_that_wait_for_a_shorter_queue_are_woken() -> None:
    """Fault: each had an event of its own in one place, so that who waited first was never woken."""
    engine = engineio.Server(async_mode="gevent")
    engine.on("disconnect", lambda *_: None)
    connection.install(engine)
    queue = engine.create_queue()
    for _ in range(2):
        queue.put(Packet(PONG))
    waiting = [gevent.spawn(queue.wait_while, lambda: queue.qsize() > 0) for _ in range(3)]
    gevent.sleep(0)
    for _ in range(2):
        queue.get()
        gevent.sleep(0)
    assert len(gevent.joinall(waiting, timeout=20)) == len(waiting)
