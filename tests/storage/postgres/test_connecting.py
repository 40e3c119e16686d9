"""What a URL may say, and what is said of one that can't be used: nothing of its password."""

from __future__ import annotations

import logging
import tempfile
import uuid
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from models import connection
from protocol.errors import Busy
from storage.engine import CanNotOpen
from storage.postgres import pool
from storage.postgres.connecting import connect
from storage.postgres.engine import PostgresEngine
from storage.postgres.errors import ConnectionLost
from tests import postgres
from tests.conftest import needs, wait_for
from tests.inside import together
from tests.relay import Relay
from tests.storage.engine.installations import PostgresInstallation, add, create, words


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://app:hush%zz@localhost/app", "invalid percent-encoded token"),
        ("postgresql://app:hush hush@localhost/app", "unexpected spaces"),
        ("postgresql://app:hush/more@localhost/app", "its port is no number"),
        ("postgresql://app:it@hush@localhost/app", "its host is not found"),
        ("postgresql://app:hush@localhost/app?connect_timeout=hush", "connect_timeout must be a number of seconds"),
        ("postgresql://app:hush@nowhere.invalid/app", "its host is not found"),
        ("postgresql://app:hush@a:1,b:2/app?port=1,2,3", "it has 2 hosts, 1 addresses and 3 ports"),
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
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as folder:
        relay = Relay(postgres.server().folder, Path(folder))
        listener = StreamServer(("127.0.0.1", 0), relay._serve)
        listener.start()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        connection = connect(f"postgresql://app@two.example:{listener.server_port}/{installation.name}")
        assert connection.send(b"SELECT 1").fetchone() == (1,)
        connection.close()
        listener.stop()
        relay.close()


def test_each_host_of_a_url_is_tried_in_turn(installation: PostgresInstallation, tmp_path: Path) -> None:
    url = f"postgresql://app@/{installation.name}?host={tmp_path},nowhere.invalid,{postgres.server().folder}"
    found = connect(url)
    assert found.send(b"SELECT 1").fetchone() == (1,)
    found.close()
    with pytest.raises(ConnectionLost, match=r"(?s)No such file.*its host is not found"):
        connect(url.rpartition(",")[0])


@needs("openssl")
def test_certificate_that_nobody_vouches_for_encrypts_where_it_need_not_be_verified(
    installation: PostgresInstallation,
) -> None:
    """``sslmode=require``, as platforms write it."""
    server = postgres.server()
    server.encrypt()
    url = f"postgres://app@127.0.0.1:{server.port}/{installation.name}?sslmode="
    found = connect(url + "require")
    assert found.send(b"SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
    found.close()
    with pytest.raises(ConnectionLost, match="root certificate"):
        connect(url + "verify-full")


def test_address_that_stands_in_a_file_is_read_anew_for_each_connection(
    installation: PostgresInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a password that was changed, or of another server: nothing is started anew."""
    file, other = tmp_path / "services", PostgresInstallation(tmp_path)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    for name in (installation.name, other.name):
        file.write_text(f"[syncapp]\nhost={postgres.server().folder}\nuser=app\ndbname={name}\n")
        found = connect("postgresql://?service=syncapp")
        assert found.send(b"SELECT current_database()::text").fetchone() == (name,)
        found.close()
    other.end()


# --- a server that is not there yet ----------------------------------------------------------------------------------


def test_start_waits_for_a_server_that_is_not_there_yet_and_says_so(
    installation: PostgresInstallation, caplog: pytest.LogCaptureFixture
) -> None:
    """As of Docker Compose, where both start together. Else it would be ended and begun anew."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder, caplog.at_level(logging.INFO, "syncapp"):
        url = f"postgresql://app@/{installation.name}?host={folder}"
        starting = gevent.spawn(PostgresEngine, url, wait_seconds=60)
        wait_for(lambda: caplog.messages, "a line in the log")
        assert caplog.messages == ["PostgreSQL is not there yet, it is waited for"] and not starting.ready()
        Path(folder, ".s.PGSQL.5432").symlink_to(postgres.server().folder / ".s.PGSQL.5432")
        starting.get().close()
        assert caplog.messages[1:] == ["PostgreSQL is reached"]


def test_start_does_not_wait_for_what_will_not_come(installation: PostgresInstallation) -> None:
    """Else a wrong password would be said after half a minute."""
    for url in (postgres.address("missing"), "postgresql://app:p/w@localhost/x"):
        with pytest.raises(CanNotOpen), gevent.Timeout(50):
            PostgresEngine(url, wait_seconds=60)


def test_server_that_takes_fewer_connections_than_the_pool_has_serves_by_those(
    installation: PostgresInstallation, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: each attempt that was refused an error: Busy, though others were free in a moment."""
    monkeypatch.setattr(pool, "WAIT_SECONDS", 30)
    with caplog.at_level(logging.INFO, "syncapp"):
        engine = PostgresEngine(postgres.server().address(installation.name), connections=5)
        tenants = [engine.tenant(create(engine, str(uuid.uuid4()))) for _ in range(4)]
        postgres.server().ask(f"ALTER DATABASE {installation.name} CONNECTION LIMIT 2")

        def use(number: int) -> int:
            tenants[number].write(lambda: connection().execute("SELECT 1 FROM pg_sleep(0.05)").fetchall())
            tenants[number].write(lambda: add("a"))
            return len(tenants[number].read(words))

        assert together(*[lambda number=number: use(number) for number in range(4)]) == [1] * 4
        assert engine.is_intact()
    said = [message for message in caplog.messages if "DATABASE_POOL" in message]
    assert said == ["PostgreSQL takes no more connections: lower DATABASE_POOL, or raise max_connections"]
    engine.close()


def test_server_that_takes_no_connection_at_all_is_busy(
    installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_SECONDS", 30)
    engine = PostgresEngine(postgres.server().address(installation.name))
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    postgres.server().ask(f"ALTER DATABASE {installation.name} CONNECTION LIMIT 0")
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{installation.name}'"
    postgres.server().ask(end)
    with pytest.raises(Busy):
        wait_for(lambda: database.read(words), "an error")
    postgres.server().ask(f"ALTER DATABASE {installation.name} CONNECTION LIMIT -1")
    assert database.write(lambda: add("a")) == 1
    engine.close()
