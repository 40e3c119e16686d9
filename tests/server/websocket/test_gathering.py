"""The pushes of a busy tenant: what its sockets are told of them leaves together, and with the acknowledgements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from flask import Flask

import assembly
import sockets
from api import push_handler
from server import disk_threads
from server.admission import Admission
from server.websocket import socketio_server
from settings import Settings
from storage import group_commit
from tests.server.websocket.test_announcements import CUSTOMER

PUSH = '2{}["sync_push",{{"table":"end_user","operation":"create","data":{{"name":"x"}}}}]'


class Busy:
    """A tenant's sockets that are no connections; ``sent`` is what each was sent, in order."""

    def __init__(self, app: Flask, all_sockets: sockets.Sockets, count: int) -> None:
        self._server = all_sockets._server
        self._engine, self.sent = self._server.io.eio, list[tuple[str, list[bytes]]]()
        self._server.broadcaster._send = self._note  # type: ignore[method-assign]
        answer = app.test_client().post("/api/customers/register", json=CUSTOMER, buffered=True).get_json()
        identity = all_sockets._tokens.verify(answer["data"]["token"])
        self.tenant_id = identity.tenant_id
        for engine_id in (f"engine {number}" for number in range(count)):
            queue = SimpleNamespace(qsize=lambda: 0, stop_ping_timer=lambda: None)
            self._engine.sockets[engine_id] = SimpleNamespace(
                closed=False, closing=True, queue=queue, close=lambda **_: None
            )
            sid = self._server.io.manager.connect(engine_id, "/")
            all_sockets._clients[sid] = client = sockets._Client(engine_id)
            all_sockets._join(sid, client, identity, None)

    def _note(self, engine_id: str, packets: list[bytes], frames: bytes) -> None:
        self.sent.append((engine_id, packets))

    def push(self) -> None:
        """Have all push at once; returns when all is sent."""
        receive = self._engine.handlers["message"]
        gevent.joinall([gevent.spawn(receive, name, PUSH.format(7)) for name in self._engine.sockets], raise_error=True)
        while self._server.broadcaster._pending:
            gevent.sleep(0.001)


@pytest.fixture
def all_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Flask, sockets.Sockets]]:
    made: list[sockets.Sockets] = []

    def make(*arguments: Any) -> sockets.Sockets:
        made.append(sockets.Sockets(*arguments))
        return made[-1]

    monkeypatch.setattr(assembly, "Sockets", make)
    for module, name in ((socketio_server, "_GATHER_SECONDS"), (group_commit, "_GROUP_SECONDS")):
        monkeypatch.setattr(module, name, 60)  # Else a slow machine sends more often.
    monkeypatch.setattr(
        disk_threads, "_FAST_SECONDS", 60
    )  # The same: requests would wait for the disk, not for their turn.
    monkeypatch.setattr(disk_threads.disk, "_slow_until", 0.0)
    app = assembly.build(Settings(data_dir=tmp_path / "data", bcrypt_rounds=8, shutdown_seconds=1))
    yield app, made[0]
    app.extensions["lifecycle"].end()


@pytest.mark.files("a commit that nobody waits for elsewhere")
@pytest.mark.parametrize("count", [6, 20])  # Few go on at once; of more, some wait for their turn.
def test_pushes_that_come_together_are_told_together_and_each_acknowledgement_leaves_with_them(
    all_sockets: tuple[Flask, sockets.Sockets], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: ``_gather`` does nothing; no ``sleep`` in it, with 6; requests that wait not let go first, or no round more
    after the last of them, with 20: sockets were sent to more than once, and acknowledgements alone."""
    monkeypatch.setattr(Admission, "is_alone", lambda *_: False)  # Else each is handled before the next is read.
    busy = Busy(*all_sockets, count)
    busy.push()
    assert len({name for name, _ in busy.sent}) == len(busy.sent) == count
    for _, packets in busy.sent:
        *notifications, acknowledgement = packets
        assert [packet[:2] for packet in notifications] == [b"42"] * 2 * count, "a push is two notifications to each"
        assert acknowledgement.startswith(b"437[") and b'"success":true' in acknowledgement


@pytest.mark.parametrize(("count", "is_more_ready", "is_alone"), [(2, True, False), (2, False, True), (1, True, True)])
def test_push_is_not_alone_while_another_socket_of_its_tenant_may_be_ready(
    all_sockets: tuple[Flask, sockets.Sockets],
    count: int,
    is_more_ready: bool,
    is_alone: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Faults: what is ready not looked at; the only socket of a tenant waits for those of others."""
    monkeypatch.setattr(push_handler, "is_more_ready", lambda: is_more_ready)
    _, server = all_sockets
    busy = Busy(*all_sockets, count)
    handler: Any = SimpleNamespace(_sockets=server, _quotas=server._server._quotas)
    assert push_handler.PushHandler._is_alone(handler, busy.tenant_id) is is_alone
