"""What a socket is told that was let in while others were told of a commit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import assembly
import sockets
from protocol.codec import decode
from settings import Settings
from tests.conftest import JSON

CUSTOMER = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}


class Joining(sockets.Sockets):
    """Sockets of which one, that is no connection, authenticates; ``sent`` is what it alone was sent."""

    sent: list[JSON]

    def join(self, token: str, pushed: Any) -> None:
        """Authenticate it; ``pushed`` is called between the reading of its greeting and its joining of the room."""
        self.sent, read = [], self._greeting

        def greeting(*arguments: Any) -> Any:
            found = read(*arguments)
            pushed()
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "_greeting", greeting)
            patch.setattr(self._server.io, "enter_room", lambda *_: None)
            patch.setattr(self, "_emit", lambda event, payload, _: self.sent.append(payload))
            patch.setattr(
                self._server.broadcaster, "answer", lambda _, message, __: self.sent.append(decode(message[1:])[1])
            )
            self._clients["sid"] = sockets._Client("engine")
            self._authenticate("sid", {"token": token})


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    made: list[Joining] = []

    def make(*arguments: Any) -> Joining:
        made.append(Joining(*arguments))
        return made[-1]

    monkeypatch.setattr(assembly, "Sockets", make)
    app = assembly.build(Settings(data_dir=tmp_path / "data", bcrypt_rounds=8, shutdown_seconds=1))
    app.extensions["joining"] = made[0]
    yield app
    app.extensions["lifecycle"].end()


def test_socket_is_told_of_a_push_that_came_between_its_greeting_and_its_room(app: Flask) -> None:
    """Fault: ``greeted`` not called, or nothing noted for a tenant without listeners: it would not know of the push."""
    client, joining = app.test_client(), app.extensions["joining"]
    token = client.post("/api/customers/register", json=CUSTOMER, buffered=True).get_json()["data"]["token"]
    answers: list[JSON] = []

    def push() -> None:
        body = {"table": "end_user", "operation": "create", "data": {"name": "x"}}
        headers = {"Authorization": f"Bearer {token}"}
        answers.append(client.post("/api/client/sync/push", json=body, headers=headers, buffered=True).get_json())

    joining.join(token, push)
    greeting, hint = joining.sent
    assert greeting["cursor"] == answers[0]["previousCursor"]
    assert (hint["type"], hint["cursor"]) == ("data_available", answers[0]["cursor"])
    joining.join(token, lambda: None)
    assert [sent["cursor"] for sent in joining.sent] == [answers[0]["cursor"]], "nothing came between"
