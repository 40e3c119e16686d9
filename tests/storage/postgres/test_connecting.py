"""What a URL may say, and what is said of one that can't be used: nothing of its password."""

from __future__ import annotations

import pytest
from gevent import socket

from storage.postgres.connecting import connect
from storage.postgres.errors import ConnectionLost
from tests import postgres
from tests.relay import Relay
from tests.storage.engine.installations import PostgresInstallation


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://app:hush%zz@localhost/app", "invalid percent-encoded token"),
        ("postgresql://app:hush hush@localhost/app", "unexpected spaces"),
        ("postgresql://app:hush/more@localhost/app", "its port is no number"),
        ("postgresql://app:it@hush@localhost/app", "its host is not found"),
        ("postgresql://app:hush@localhost/app?connect_timeout=hush", "connect_timeout must be a number of seconds"),
        ("postgresql://app:hush@nowhere.invalid/app", "its host is not found"),
    ],
)
def test_url_that_can_not_be_used_is_refused_and_its_password_not_shown(url: str, why: str) -> None:
    """Fault: libpq's own words, which quote what they stumble on, and ValueError for a number that is none."""
    with pytest.raises(ConnectionLost, match=why) as refused:
        connect(url)
    assert "hush" not in str(refused.value)


def test_each_address_of_a_host_is_tried(installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a localhost that is ::1 first, where only 127.0.0.1 is listened on. Fault: the first one alone."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]
    relay = Relay(postgres.server().socket)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    connection = connect(f"postgresql://app@two.example:{relay.port}/{installation.name}")
    assert connection.send(b"SELECT 1").fetchone() == (1,)
    connection.close()
    relay.close()
