"""The operator's commands about tenants and accounts, beside a running server."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests import postgres
from tests.conftest import Listener, Server, Tenant, wait_for
from tests.operating import command, done, refused

NEW_PASSWORD = "another-password-1"


def is_logged_in(tenant: Tenant) -> bool:
    return bool(tenant.server.call("GET", "/api/customers/me", token=tenant.token).status_code == 200)


def log_in(server: Server, email: str, password: str) -> int:
    return int(server.post("/api/customers/login", {"email": email, "password": password}).status_code)


@pytest.fixture
def used(server: Server) -> Tenant:
    """A tenant with three rows, one of them deleted, from a device that names itself."""
    tenant = server.register(firstName="Zoë", companyName="Kulkarni & Søn")
    device = tenant.device(X_Device_Id="till-1")
    for number in range(3):
        device.create(id=f"r{number}", name="n")
    device.delete(id="r0")
    device.pull({"cursor": None})
    return tenant


def test_list_has_each_tenant_with_its_numbers(server: Server, used: Tenant) -> None:
    other = server.register()
    found = {one["id"]: one for one in json.loads(done(server, "tenants", "--json"))}
    assert {used.id, other.id} <= found.keys()
    assert found[used.id]["rows"] == 2 and found[used.id]["changes"] == 4 and found[used.id]["bytes"] > 0
    assert found[used.id]["tables"]["end_user"] == 2 and found[used.id]["companyName"] == "Kulkarni & Søn"
    assert found[other.id]["rows"] == 0 and found[other.id]["lastSeenAt"] is None
    wait_for(lambda: json.loads(done(server, "tenant", "show", used.id, "--json"))["devices"] == 1, "the saved visit")


def test_list_is_searched_and_sorted(server: Server, used: Tenant) -> None:
    text = done(server, "tenants", "--search", "zoë", "--sort", "rows")
    assert used.id in text and used.email in text and "2 " in text
    nobody = done(server, "tenants", "--search", uuid.uuid4().hex)
    assert nobody.startswith("ID") and len(nobody.splitlines()) == 1
    sizes = [one["bytes"] for one in json.loads(done(server, "tenants", "--sort", "size", "--json"))]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", ["id", "email", "shouted"])
def test_tenant_is_found_by_id_and_by_address(server: Server, used: Tenant, name: str) -> None:
    text = {"id": used.id, "email": used.email, "shouted": f" {used.email.upper()}"}[name]
    shown = done(server, "tenant", "show", text)
    assert used.id in shown and "end_user 2" in shown and "sessions: 1" in shown


@pytest.mark.parametrize("text", ["nobody", "nobody@example.com", str(uuid.UUID(int=7)), "a\0@b", "../x\x1b[2J"])
@pytest.mark.parametrize("words", [("tenant", "show"), ("tenant", "delete"), ("account", "sessions")])
def test_nobody_is_told_in_a_sentence(server: Server, text: str, words: tuple[str, str]) -> None:
    sentence = refused(server, *words, text)
    assert "There is no customer" in sentence and "\x1b" not in sentence


def test_damaged_database_is_a_line_and_not_the_end_of_the_list(server: Server, used: Tenant, tmp_path: Path) -> None:
    postgres.must_be_about_files()
    own = Server(tmp_path / "data").start()
    broken, whole = own.register(), own.register()
    own.stop()
    (own.data / "tenants" / f"tenant_{broken.id.replace('-', '')}.db").write_bytes(b"no database" * 1000)
    found = {one["id"]: one for one in json.loads(done(own, "tenants", "--json"))}
    assert "fault" in found[broken.id] and found[whole.id]["rows"] == 0
    assert "can't be read" in done(own, "tenants")


# --- changes ---------------------------------------------------------------------------------------------------------


def test_address_is_replaced_and_sessions_go_on(server: Server, used: Tenant) -> None:
    new = f"New-{uuid.uuid4()}@Example.com"
    done(server, "tenant", "rename-email", used.email, new)
    assert is_logged_in(used)
    assert log_in(server, used.email, "password123") == 401 and log_in(server, new.lower(), "password123") == 200


@pytest.mark.parametrize("address", ["taken", "no address", "a@b@c"])
def test_address_that_is_taken_or_none_changes_nothing(server: Server, used: Tenant, address: str) -> None:
    new = server.register().email if address == "taken" else address
    refused(server, "tenant", "rename-email", used.id, new)
    assert log_in(server, used.email, "password123") == 200


def test_password_is_replaced_and_every_session_ends(server: Server, used: Tenant) -> None:
    log_in(server, used.email, "password123")
    said = done(server, "account", "set-password", used.email, "--password-stdin", typed=NEW_PASSWORD)
    assert "2 sessions ended" in said
    wait_for(lambda: not is_logged_in(used), "the end of the session")
    assert log_in(server, used.email, "password123") == 401 and log_in(server, used.email, NEW_PASSWORD) == 200


def test_password_that_is_too_short_changes_nothing(server: Server, used: Tenant) -> None:
    assert "password" in refused(server, "account", "set-password", used.id, "--password-stdin", typed="short")
    assert is_logged_in(used)


def test_one_session_ends_and_the_others_go_on(server: Server, used: Tenant) -> None:
    assert log_in(server, used.email, "password123") == 200
    mine = jwt.decode(used.token, options={"verify_signature": False})["sid"]
    both = {one["id"] for one in json.loads(done(server, "account", "sessions", used.id, "--json"))}
    assert len(both) == 2 and mine in done(server, "account", "sessions", used.id)
    wait_for(lambda: "till-1" in done(server, "account", "sessions", used.id), "the device of one")
    (of_till,) = [
        one["id"] for one in json.loads(done(server, "account", "sessions", used.id, "--json")) if one["devices"]
    ]
    assert of_till == mine
    other = server.register()
    assert "no session" in refused(server, "account", "end-sessions", other.id, "--session", mine)
    done(server, "account", "end-sessions", used.id, "--session", mine)
    wait_for(lambda: not is_logged_in(used), "the end of the session")
    assert {one["id"] for one in json.loads(done(server, "account", "sessions", used.id, "--json"))} == both - {mine}
    assert "1 session " in done(server, "account", "end-sessions", used.id)


def test_deleted_tenant_is_gone_for_good_and_no_other(server: Server, used: Tenant) -> None:
    other = server.register()
    other.device().create(id="kept", name="n")
    assert "1 session ended" in done(server, "tenant", "delete", used.email, "--yes")
    wait_for(lambda: not is_logged_in(used), "the end of the session")
    answer = used.server.post(
        "/api/client/sync/push", {"table": "end_user", "operation": "create", "data": {"id": "late"}}, used.token
    )
    assert answer.status_code in (401, 404)
    assert used.id not in done(server, "tenants") and log_in(server, used.email, "password123") == 401
    assert [row["id"] for row in other.device().rows()] == ["kept"]


def test_deletion_asks_first(server: Server, used: Tenant) -> None:
    ended = command(server, "tenant", "delete", used.email, typed="n\n")
    assert ended.returncode == 1 and used.email in ended.stderr
    assert is_logged_in(used)


# --- states ----------------------------------------------------------------------------------------------------------

ROW = {"table": "end_user", "operation": "create", "data": {"id": "new", "name": "n"}}


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def test_suspended_customer_is_refused_everything_and_loses_nothing(server: Server, used: Tenant) -> None:
    other, listener = server.register().device().listen(), used.device().listen()
    done(server, "tenant", "suspend", used.email)
    wait_for(listener.is_gone.is_set, "the end of the socket")
    assert listener.wait("authentication_error")["code"] == "tenant_suspended"  # Told in a thread of its own.
    wait_for(lambda: code_of(used.device().push_raw(ROW)) == (401, "tenant_suspended"), "the refusal")
    assert code_of(used.device().pull_raw({"cursor": None})) == (401, "tenant_suspended")
    assert code_of(server.post("/api/customers/refresh", {"refreshToken": used.refresh_token})) == (
        401,
        "tenant_suspended",
    )
    known, guessed = ({"email": used.email, "password": password} for password in ("password123", "password124"))
    assert code_of(server.post("/api/customers/login", known)) == (401, "tenant_suspended")
    assert code_of(server.post("/api/customers/login", guessed)) == (401, "invalid_credentials")
    assert not other.is_gone.is_set()
    done(server, "tenant", "resume", used.email)
    wait_for(lambda: is_logged_in(used), "the end of the suspension")
    assert {"r1", "r2"} <= {row["id"] for row in used.device().rows()}
    assert server.post("/api/customers/refresh", {"refreshToken": used.refresh_token}).status_code == 200
    other.close()


def test_socket_of_a_suspended_customer_is_told_why(server: Server, used: Tenant) -> None:
    done(server, "tenant", "suspend", used.email)
    wait_for(lambda: not is_logged_in(used), "the refusal")
    late = Listener(server.url, "websocket", {"token": used.token})
    assert late.wait("authentication_error")["code"] == "tenant_suspended"
    late.close()


def test_read_only_customer_pulls_and_listens_and_does_not_push(server: Server, used: Tenant) -> None:
    listener = used.device().listen()
    done(server, "tenant", "read-only", used.id)
    pushes = (used.device().push_raw(ROW | {"data": {"id": f"new-{number}"}}) for number in itertools.count())
    refusal = next(answer for answer in pushes if not answer.ok)
    there = {row["id"] for row in used.device().rows()}
    assert refusal.status_code == 503
    assert refusal.json()["code"] == "tenant_read_only" and int(refusal.headers["Retry-After"]) > 0
    assert listener.call("sync_push", ROW)["code"] == "tenant_read_only"
    revert = server.post("/api/client/sync/history/end_user/r1/revert", {"version": 1}, used.token)
    assert code_of(revert) == (503, "tenant_read_only")
    assert {row["id"] for row in used.device().rows()} == there and "new" not in there
    done(server, "tenant", "resume", used.id)
    wait_for(lambda: used.device().push_raw(ROW).status_code == 200, "the push")
    wait_for(lambda: any(note["entityId"] == "new" for note in listener.notes("data_available")), "the notification")
    listener.close()


def test_state_is_listed_and_survives_a_restart(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.register()
    done(server, "tenant", "suspend", tenant.id)
    server.stop()
    server.start()
    assert not is_logged_in(tenant)
    assert json.loads(done(server, "tenants", "--json"))[0]["state"] == "suspended"


def test_what_operators_did_is_listed(server: Server, used: Tenant) -> None:
    done(server, "tenant", "suspend", used.id)
    done(server, "tenant", "resume", used.id)
    done(server, "account", "set-password", used.id, "--password-stdin", typed=NEW_PASSWORD)
    by_address = json.loads(done(server, "actions", "--tenant", used.email, "--json"))
    done(server, "tenant", "delete", used.id, "--yes")
    found = json.loads(done(server, "actions", "--tenant", used.id, "--json"))
    assert found[1:] == by_address and "no customer" in refused(server, "actions", "--tenant", used.email)
    assert [one["action"] for one in found] == ["delete", "set-password", "active", "suspended"]
    assert NEW_PASSWORD not in json.dumps(found) and used.id in done(server, "actions", "--limit", "1")
