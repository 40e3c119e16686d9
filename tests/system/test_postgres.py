"""The product on PostgreSQL, as a customer and an operator meet it: from ``DATABASE_URL`` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.conftest import JSON, Listener, Server, Tenant
from tests.operations.commands.test_operator import run
from tests.relay import Relay

StartServer = Callable[..., Server]


@pytest.fixture
def database() -> Iterator[str]:
    """The name of an empty database."""
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    name = postgres.server().new_database()
    yield name
    postgres.server().drop(name)


@pytest.fixture
def address(database: str) -> str:
    """Its URL, as platforms write it."""
    return postgres.server().address(database).replace("postgresql://", "postgres://", 1)


def call(tenant: Tenant, method: str, path: str, body: Any = None) -> JSON:
    answer = tenant.server.call(method, f"/api/client/{path}", body, tenant.token)
    assert answer.status_code == 200, answer.text
    found: JSON = answer.json()
    return found


def test_customer_comes_syncs_differs_looks_back_and_goes(
    start_server: StartServer, address: str, tmp_path: Path
) -> None:
    server = start_server(DATABASE_URL=address)
    tenant, stranger = server.register(), server.register()
    first, second = tenant.device(X_Device_Id="one"), tenant.device(X_Device_Id="two")
    listener = second.listen()
    row: JSON = {
        "id": "a",
        "name": "Aşha 😀",
        "phoneModel": {"b": 1.0, "a": [None, True]},
        "active": True,
        "extra": "kept",
    }
    first.create(**row)
    assert listener.wait_note("data_available")["data"]["extra"] == "kept"
    assert first.rows() == second.rows() and second.rows()[0].items() >= {**row, "active": 1}.items()
    assert stranger.device().rows() == []
    second.catch_up()
    first.update(id="a", name="B")
    second.push(
        {
            "operations": [
                {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "C"}, "baseVersion": 1}
            ]
        }
    )
    (conflict,) = call(tenant, "GET", "sync/conflicts")["data"]
    assert conflict["conflictId"] == 1 and conflict["fields"]["name"]["server"] == "B"
    call(tenant, "POST", "sync/conflicts/1/resolve", {"resolution": "other"})
    history = call(tenant, "GET", "sync/history/end_user/a")["data"]
    assert [one["row"]["name"] for one in reversed(history)][-1] == "B"
    assert [row["id"] for row in second.catch_up()["end_user"]] == ["a"] and not any(second.catch_up().values())
    listener.close()
    assert server.call("DELETE", "/api/customers/me", {"password": tenant.password}, tenant.token).status_code == 200
    assert stranger.device().create(id="a", name="mine")["version"] == 1
    assert not (tmp_path / "data").exists()


def test_restart_keeps_everything_also_who_is_logged_in_and_where_devices_are(
    start_server: StartServer, address: str
) -> None:
    server = start_server(DATABASE_URL=address)
    device = server.register().device(X_Device_Id="one")
    device.push({"changes": {"end_user": [{"id": f"r{number}", "name": "A"} for number in range(300)]}})
    device.catch_up()
    server.kill()
    server.start()
    device.push({"changes": {"interactions": [{"id": "i", "type": "call"}]}})
    assert {name: len(rows) for name, rows in device.catch_up().items() if rows} == {"interactions": 1}
    assert len(device.rows()) == 300
    assert server.stop() == 0


def test_server_that_loses_its_database_says_so_and_goes_on_by_itself(start_server: StartServer, address: str) -> None:
    server = start_server(DATABASE_URL=address)
    device = server.register().device()
    device.create(id="a")
    postgres.server().restart()
    for _ in range(100):
        answer = device.push_raw({"table": "end_user", "operation": "create", "data": {"id": "b"}})
        if answer.status_code == 200:
            break
        assert (answer.status_code, answer.json()["code"]) in {(503, "busy"), (503, "outcome_unknown")}
    assert sorted(row["id"] for row in device.rows()) == ["a", "b"]


@pytest.mark.slow
def test_push_of_which_nobody_could_tell_is_told_to_listeners_when_it_is_found(
    start_server: StartServer, database: str, listen: Callable[..., Listener]
) -> None:
    """Fault: it was said to have failed with nothing kept, and no listener was told of it."""
    relay = Relay(postgres.server().folder)
    device = start_server(DATABASE_URL=f"postgresql://app@127.0.0.1:{relay.port}/{database}").register().device()
    device.create(id="a")
    listener = listen(device.tenant)
    relay.on_cut = lambda: setattr(relay, "is_closed", True)
    relay.cuts_at_commit = True
    answer = device.push_raw({"table": "end_user", "operation": "create", "data": {"id": "b"}})
    assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
    relay.is_closed = False
    assert listener.wait_note("data_available")["entityType"] == "batch"
    assert listener.notes("sync_error") == [] and len(device.rows()) == 2
    relay.close()


def test_socket_whose_token_is_not_looked_into_in_time_is_told_that_the_server_is_busy(
    start_server: StartServer, database: str
) -> None:
    """As while the database hangs. Fault: unauthorized, which has people log in again."""
    relay = Relay(postgres.server().folder)
    address = f"postgresql://app@127.0.0.1:{relay.port}/{database}"
    tenant = start_server(DATABASE_URL=address, SOCKET_AUTH_SECONDS="1").register()
    with relay.holding():
        listener = Listener(tenant.server.url, "polling", {"token": tenant.token})
        assert listener.wait("authentication_error")["code"] == "busy"
    listener.close()
    relay.close()


# --- the operator ----------------------------------------------------------------------------------------------------


def test_commands_work_on_the_database(start_server: StartServer, address: str, tmp_path: Path) -> None:
    who = ["--first-name", "A", "--last-name", "B", "--email", "op@example.com", "--password-stdin"]
    registered = run(tmp_path, "register", *who, DATABASE_URL=address)
    assert registered.returncode == 0, registered.stderr
    server = start_server(DATABASE_URL=address)
    body = {"email": "op@example.com", "password": "password123"}
    assert server.post("/api/customers/login", body).json()["data"]["customer"]["id"] == registered.stdout.strip()
    assert "0 tenants would be migrated" in run(tmp_path, "migrate", "--check", DATABASE_URL=address).stdout
    assert run(tmp_path, "backup", "--to", str(tmp_path / "backups"), DATABASE_URL=address).returncode == 0
    assert "op@example.com" in run(tmp_path, "tenants", DATABASE_URL=address).stdout
    assert "refused" not in run(tmp_path, "doctor", DATABASE_URL=address).stdout


@pytest.mark.parametrize("fault", ["no server", "no database", "superuser", "no url"])
def test_database_that_can_not_be_used_refuses_the_start_with_a_sentence(
    database: str, address: str, tmp_path: Path, fault: str
) -> None:
    url, sentence = {
        "no server": (f"postgresql://app@/x?host={tmp_path}", "can't be used"),
        "no database": (address.replace(database, "missing"), '"missing" does not exist'),
        "superuser": (postgres.server().address(database, "postgres"), "superuser"),
        "no url": ("mysql://localhost/x", "DATABASE_URL must be a URL"),
    }[fault]
    for command in ([], ["doctor"]):
        ended = run(tmp_path, *command, DATABASE_URL=url, DATABASE_WAIT_SECONDS="0")
        said = ended.stdout + ended.stderr
        assert ended.returncode == 1 and sentence in said and "Traceback" not in said
        assert "secret" not in said
