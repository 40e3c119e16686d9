"""Sockets of apps that were written against the older API: they authenticate, hear, ping and come back as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.test_js_client import Connect, JsListener, connect  # noqa: F401 -- a fixture
from tests.conftest import JSON, Server, Tenant, all_closed, needs, wait_for
from tests.old_apps import OldApp
from tests.old_truth import EACH_WITH_ITS_HABITS, check, settle
from tests.socketio_client import new_client


class OldListener:
    """A Socket.IO client as the older apps have it: connects, and authenticates afterwards, each time anew."""

    def __init__(self, tenant: Tenant, transport: str, handshake: JSON | None = None) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.client = new_client(reconnection_delay=0.1, reconnection_delay_max=0.2)
        credentials = {"token": tenant.token, "tenantId": tenant.id, "clientType": "mobile", "deviceId": None}
        self.client.on("connect", lambda: self.client.emit("authenticate", credentials))
        self.client.on("*", lambda event, payload=None: self.heard.append((event, payload)))
        self.client.connect(tenant.server.url, auth=handshake, transports=[transport], wait_timeout=10)

    def wait(self, event: str, count: int = 1) -> Any:
        """Wait for the ``count``-th event of a name, and give its payload."""

        def found() -> list[Any]:
            return [(payload,) for name, payload in list(self.heard) if name == event][count - 1 : count]

        return wait_for(found, lambda: f"{count} {event} ({self.heard})")[0][0]

    def notes(self, kind: str) -> list[JSON]:
        return [note for event, note in list(self.heard) if event == "sync_notification" and note["type"] == kind]


@pytest.fixture
def old_listener() -> Iterator[Callable[..., OldListener]]:
    yield from all_closed(OldListener, lambda listener: listener.client.shutdown())


transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@transports
@pytest.mark.parametrize("handshake", [None, {}], ids=["no auth", "empty auth"])
def test_old_app_authenticates_after_it_connected_and_hears_and_pings(
    tenant: Tenant, old_listener: Callable[..., OldListener], transport: str, handshake: JSON | None
) -> None:
    listener, other = (old_listener(tenant, transport, handshake) for _ in range(2))
    for one in (listener, other):
        assert one.wait("authenticated")["tenantId"] == tenant.id
    app = OldApp(tenant)
    key = app.create(name="Asha")
    assert app.sync()
    wait_for(lambda: listener.notes("sync_complete"), "the notification")
    (note,) = listener.notes("data_available")
    assert (note["entityType"], note["data"]["Unique_id"]) == ("end_user", key)
    listener.client.emit("sync_status_update", {"status": "synced", "entityType": "end_user", "count": 1})
    assert other.wait("sync_status_update") == {"status": "synced", "entityType": "end_user"}
    listener.client.emit("ping")
    assert listener.wait("pong")["timestamp"].endswith("Z")


@transports
def test_old_app_that_says_its_token_twice_and_emits_what_nobody_knows_stays_and_hears_once(
    tenant: Tenant, old_listener: Callable[..., OldListener], transport: str
) -> None:
    listener = old_listener(tenant, transport, {"token": tenant.token, "tenantId": tenant.id})
    listener.wait("authenticated", 2)
    listener.client.emit("join_tenant", {"tenantId": tenant.id})
    listener.client.emit("subscribe", ["end_user", "interactions"])
    app = OldApp(tenant)
    app.create(name="Asha")
    assert app.sync()
    wait_for(lambda: listener.notes("sync_complete"), "the notification")
    listener.client.emit("ping", {"at": "now"})
    listener.wait("pong")
    assert len(listener.notes("data_available")) == 1 and listener.client.connected


@transports
def test_old_app_authenticates_again_by_itself_after_the_server_was_killed(
    start_server: Callable[..., Server], old_listener: Callable[..., OldListener], transport: str
) -> None:
    server = start_server()
    tenant = server.register()
    listener, app = old_listener(tenant, transport), OldApp(tenant)
    listener.wait("authenticated")
    server.kill()
    app.create(name="typed while the server was away")
    assert not app.sync()
    server.start()
    listener.wait("authenticated", 2)
    assert app.sync()
    wait_for(lambda: listener.notes("data_available"), "the notification")


@pytest.mark.slow
@needs("node", "npm")
@transports
def test_page_with_the_npm_client_pulls_what_it_hears_of(tenant: Tenant, connect: Connect, transport: str) -> None:  # noqa: F811
    page = OldApp(tenant, EACH_WITH_ITS_HABITS["all at once"])
    listener: JsListener = connect(
        tenant.server.url, transport, {"token": tenant.token, "tenantId": tenant.id}, "event"
    )
    assert listener.wait("connect") is None and listener.wait("authenticated")["success"]
    assert page.sync()
    phone = OldApp(tenant, EACH_WITH_ITS_HABITS["a row a request"])
    key = phone.create(name="Asha", phone=5550100)
    assert phone.sync()
    assert listener.wait("sync_notification")["type"] == "data_available"
    assert page.pull() and page.shown()[key]["phone"] == 5550100
    page.edit(key, note="typed in the page")
    listener.tell("sync_status_update", {"status": "syncing"})
    listener.tell("ping")
    assert listener.wait("pong")["timestamp"]
    settle([page, phone])
    wait_for(lambda: notes_of(listener, "sync_complete") == 2, "the page's own push")
    check(tenant, [page, phone])


def notes_of(listener: JsListener, kind: str) -> int:
    return sum(event == "sync_notification" and note["type"] == kind for event, note in list(listener.heard))
