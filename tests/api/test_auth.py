"""Accounts (docs/api.md, customers): who gets in, how long, and how often one may try."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import bcrypt
import jwt
import pytest

from accounts.passwords import Passwords
from tests import postgres
from tests.conftest import FAST, JSON, ROOT, WAIT_SECONDS, Listener, Server, Tenant
from tests.data_folder import stored_in
from tests.refusals import customers, paths, refused
from tests.signing_in import API, StartServer, account, log_in, me, refresh, session

# --- register, log in ------------------------------------------------------------------------------------------------


def test_registration_answers_with_tokens_the_customer_and_a_database(server: Server) -> None:
    body = account(phone="+91 98200", companyName="Rao & Co")
    answer = server.post(f"{API}/register", body)
    assert answer.status_code == 201 and answer.json()["success"] is True
    data = answer.json()["data"]
    assert data.keys() == {"token", "refreshToken", "customer", "message"}
    customer = data["customer"]
    assert customer == {
        "id": str(uuid.UUID(customer["id"])),
        "name": "Asha Rao",
        "email": body["email"],
        "companyName": "Rao & Co",
        "phone": "+91 98200",
        "subscriptionPlan": "free",
        "emailVerified": False,
    }
    assert customer["id"] in stored_in(server.data)


def test_access_token_says_who_and_for_how_long(tenant: Tenant) -> None:
    claims = jwt.decode(tenant.token, options={"verify_signature": False})
    assert jwt.get_unverified_header(tenant.token)["alg"] == "HS256"
    assert (claims["customerId"], claims["email"], claims["type"]) == (tenant.id, tenant.email, "client")
    assert claims["exp"] - claims["iat"] == 24 * 3600 and abs(claims["iat"] - time.time()) < 60


@pytest.mark.files("main.db")
def test_operators_query_of_customers_works_as_written(tenant: Tenant) -> None:
    with closing(sqlite3.connect(tenant.server.data / "main.db")) as main:
        query = f"SELECT id, name, email, companyName FROM customers WHERE email = '{tenant.email}'"
        (row,) = main.execute(query)
    assert (row[0], row[2:]) == (tenant.id, (tenant.email, "Individual Customer"))


@pytest.mark.parametrize("absent", [{}, {"companyName": None, "phone": None}, {"companyName": "", "phone": ""}])
def test_company_and_phone_may_be_absent(server: Server, absent: JSON) -> None:
    customer = server.post(f"{API}/register", account(**absent)).json()["data"]["customer"]
    assert (customer["companyName"], customer["phone"]) == ("Individual Customer", None)


def test_space_around_names_is_dropped(server: Server) -> None:
    customer = server.post(f"{API}/register", account(firstName=" Asha ", lastName="\u3000Rao ")).json()["data"]
    assert customer["customer"]["name"] == "Asha Rao"


def test_login_answers_with_tokens_and_the_same_customer(tenant: Tenant) -> None:
    data = log_in(tenant).json()["data"]
    assert data.keys() == {"token", "refreshToken", "customer"}
    assert (
        data["customer"]
        == me(tenant).json()["data"]["customer"]
        == me(tenant, data["token"]).json()["data"]["customer"]
    )


@pytest.mark.parametrize("change", [str.upper, str.title, lambda email: f"  {email}\t", lambda email: f"\n{email} "])
def test_address_is_one_in_any_case_and_with_space_around_it(tenant: Tenant, change: Callable[[str], str]) -> None:
    before = customers(tenant.server)
    refused(tenant.server.post(f"{API}/register", account(email=change(tenant.email))), 409, "email_taken")
    assert log_in(tenant, email=change(tenant.email)).json()["data"]["customer"]["id"] == tenant.id
    assert customers(tenant.server) == before


def test_registrations_of_one_address_at_once_make_one_customer(server: Server) -> None:
    body, known, before = account(), len(customers(server)), stored_in(server.data)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: server.post(f"{API}/register", body), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    (made,) = (answer.json()["data"]["customer"]["id"] for answer in answers if answer.ok)
    assert len(customers(server)) == known + 1
    assert stored_in(server.data) - before == {made}


@pytest.mark.parametrize(
    "password", ["12345678", "x" * 72, "é" * 36, "日本語" * 8, "😀" * 2, " spaces ", "a\0bcdefg", "\u202e12345"]
)
def test_password_of_8_to_72_bytes_is_taken_exactly(server: Server, password: str) -> None:
    tenant = server.register(password=password)
    assert log_in(tenant).status_code == 200
    for other in (password + "x", password[:-1], password.strip() + " ", password.upper() + "!"):
        refused(log_in(tenant, password=other), 401, "invalid_credentials")


@pytest.mark.parametrize("password", ["1234567", "é" * 3, "x" * 73, "é" * 37, "日本語" * 9, "x" * 100_000])
def test_password_of_fewer_or_more_bytes_is_refused_with_the_bounds(server: Server, password: str) -> None:
    body = refused(server.post(f"{API}/register", account(password=password)), 400, "validation_error")
    assert paths(body) == ["password"] and "8 to 72 bytes" in body["error"]


def test_wrong_password_and_unknown_address_are_one_answer(tenant: Tenant) -> None:
    wrong = refused(log_in(tenant, password="password124"), 401, "invalid_credentials")
    unknown = refused(log_in(tenant, email="nobody@example.com"), 401, "invalid_credentials")
    del wrong["requestId"], unknown["requestId"]
    assert wrong == unknown


@pytest.mark.slow
def test_wrong_password_and_unknown_address_cost_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(8)
    known = passwords.hash("password123")
    assert not passwords.matches("password124", None)
    costs: list[bytes] = []
    check = bcrypt.checkpw

    def counted(secret: bytes, hashed: bytes) -> bool:
        costs.append(hashed[:7])
        return check(secret, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    assert not passwords.matches("password124", known)
    assert not passwords.matches("password124", None)
    assert not passwords.matches("x" * 100, known)
    assert costs == [b"$2b$08$"] * 3


# --- refresh, log out ------------------------------------------------------------------------------------------------


def test_refresh_gives_a_pair_that_works_and_spends_the_old_one(tenant: Tenant) -> None:
    pair = refresh(tenant, tenant.refresh_token).json()["data"]
    assert pair.keys() == {"token", "refreshToken"} and pair["refreshToken"] != tenant.refresh_token
    assert me(tenant, pair["token"]).status_code == 200
    assert refresh(tenant, pair["refreshToken"]).status_code == 200


def test_refresh_token_used_twice_ends_its_whole_family_and_no_other(
    tenant: Tenant, listen: Callable[..., Listener]
) -> None:
    other, listener = session(tenant), listen()
    pair = refresh(tenant, tenant.refresh_token).json()["data"]
    assert (
        me(tenant, pair["token"]).status_code == 200
    )  # So it arrived (tests/accounts/test_signing_in.py has what if not).
    refused(refresh(tenant, tenant.refresh_token), 401, "unauthorized")
    refused(refresh(tenant, pair["refreshToken"]), 401, "unauthorized")
    for token in (tenant.token, pair["token"]):
        refused(me(tenant, token), 401, "unauthorized")
    assert listener.is_gone.wait(WAIT_SECONDS)
    assert me(other).status_code == 200 and refresh(other, other.refresh_token).status_code == 200


def test_refresh_token_raced_for_is_spent_once_and_once_more(tenant: Tenant) -> None:
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: refresh(tenant, tenant.refresh_token), range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 401, 401, 401]


def test_logout_ends_the_session_its_family_and_no_other(tenant: Tenant) -> None:
    other = session(tenant)
    answer = tenant.server.post(f"{API}/logout", token=tenant.token)
    assert answer.status_code == 200 and answer.json()["success"]
    refused(me(tenant), 401, "unauthorized")
    refused(refresh(tenant, tenant.refresh_token), 401, "unauthorized")
    refused(tenant.server.post(f"{API}/logout", token=tenant.token), 401, "unauthorized")
    assert me(other).status_code == 200


# --- profile, password, closing --------------------------------------------------------------------------------------


def test_profile_is_shown_and_changed_field_by_field(tenant: Tenant) -> None:
    def change(**fields: Any) -> JSON:
        answer = tenant.server.call("PATCH", f"{API}/me", fields, tenant.token)
        assert answer.status_code == 200 and answer.json()["data"] == me(tenant).json()["data"]
        customer: JSON = answer.json()["data"]["customer"]
        return customer

    assert change(firstName="Bela")["name"].startswith("Bela User")
    assert change(lastName="Shah", phone="1")["name"] == "Bela Shah"
    assert change(companyName="Shah & Co")["companyName"] == "Shah & Co"
    assert change(companyName=None, phone=None) | {"id": 0} == {
        "id": 0,
        "name": "Bela Shah",
        "email": tenant.email,
        "companyName": "Individual Customer",
        "phone": None,
        "subscriptionPlan": "free",
        "emailVerified": False,
    }


def test_password_change_needs_the_old_one_and_ends_other_sessions_only(
    tenant: Tenant, listen: Callable[..., Listener]
) -> None:
    other, own_listener = session(tenant), listen()
    other_listener = other.device().listen()

    def change(old: str, new: str) -> Any:
        return tenant.server.post(f"{API}/me/password", {"oldPassword": old, "newPassword": new}, tenant.token)

    refused(change("password124", "new password"), 401, "invalid_credentials")
    assert paths(refused(change(tenant.password, "short"), 400, "validation_error")) == ["newPassword"]
    assert me(other).status_code == 200
    assert change(tenant.password, "new password").status_code == 200
    refused(me(other), 401, "unauthorized")
    refused(refresh(other, other.refresh_token), 401, "unauthorized")
    assert other_listener.is_gone.wait(WAIT_SECONDS) and not own_listener.is_gone.is_set()
    assert me(tenant).status_code == 200 and refresh(tenant, tenant.refresh_token).status_code == 200
    refused(log_in(tenant), 401, "invalid_credentials")
    assert log_in(tenant, password="new password").status_code == 200


def test_closing_an_account_needs_the_password_and_leaves_nothing(tenant: Tenant, other_tenant: Tenant) -> None:
    other, listener = session(tenant), tenant.device().listen()
    tenant.device().create(name="Asha")

    def close(password: str) -> Any:
        return tenant.server.call("DELETE", f"{API}/me", {"password": password}, tenant.token)

    refused(close("password124"), 401, "invalid_credentials")
    assert tenant.path.exists() and me(tenant).status_code == 200
    assert close(tenant.password).status_code == 200
    assert not list(tenant.path.parent.glob(f"{tenant.path.stem}*"))
    assert tenant.id not in {row[0] for row in customers(tenant.server)}
    for token in (tenant.token, other.token):
        refused(me(tenant, token), 404, "tenant_not_found")
        refused(tenant.server.post("/api/client/sync/push", {"changes": {}}, token), 404, "tenant_not_found")
    refused(refresh(other, other.refresh_token), 401, "unauthorized")
    refused(log_in(tenant), 401, "invalid_credentials")
    assert listener.is_gone.wait(WAIT_SECONDS)
    again = tenant.server.register(email=tenant.email)
    assert again.id != tenant.id and again.device().rows() == []
    assert other_tenant.device().rows() == []


# --- closed registration, the operator -------------------------------------------------------------------------------


def operate(server: Server, *arguments: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run the operator's command beside a running server."""
    environ = {**FAST, **postgres.environ_of(server.data), "DATA_DIR": str(server.data), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "syncapp.py", "register", "--password-stdin", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, input=password, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_while_registration_is_closed_the_operator_registers_beside_the_server(start_server: StartServer) -> None:
    server = start_server(REGISTRATION="closed")
    refused(server.post(f"{API}/register", account()), 403, "registration_closed")
    arguments = ("--first-name", "Asha", "--last-name", "Rao", "--email", "Asha@Example.com")
    done = operate(server, *arguments, password="password123\n")
    assert done.returncode == 0, done.stderr
    tenant_id = done.stdout.strip()
    answer = server.post(f"{API}/login", {"email": "asha@example.com", "password": "password123"})
    data = answer.json()["data"]
    assert data["customer"]["id"] == tenant_id
    tenant = Tenant(server, tenant_id, "asha@example.com", "password123", data["token"], data["refreshToken"])
    assert tenant.device().create(name="A") in tenant.device().rows()
    for fields, password in ((arguments, "password123\n"), ((*arguments[:4], "--email", "b@c"), "short\n")):
        failed = operate(server, *fields, password=password)
        assert failed.returncode == 1 and failed.stderr.startswith("Error: ") and "Traceback" not in failed.stderr
        assert "password123" not in failed.stderr
    assert len(customers(server)) == 1


# --- attempts --------------------------------------------------------------------------------------------------------


def test_attempts_to_log_in_are_limited_by_account_and_address(start_server: StartServer) -> None:
    server = start_server(RATE_LIMIT_LOGIN="3 per minute")
    tenant = server.register()
    answers = [log_in(tenant, password="password124") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    refused(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61
    refused(log_in(tenant), 429, "rate_limited")
    refused(server.post(f"{API}/login", {}), 429, "rate_limited")
    assert me(tenant).status_code == 200


def test_guesses_with_a_token_in_hand_are_limited_too(start_server: StartServer) -> None:
    tenant = start_server(RATE_LIMIT_LOGIN="2 per minute").register()

    def guess() -> int:
        body = {"oldPassword": "password124", "newPassword": "password125"}
        return int(tenant.server.post(f"{API}/me/password", body, tenant.token).status_code)

    assert [guess() for _ in range(3)] == [401, 401, 429]


def test_registrations_are_limited_by_address(start_server: StartServer) -> None:
    server = start_server(RATE_LIMIT_REGISTER="2 per hour")
    answers = [server.post(f"{API}/register", account()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    refused(answers[-1], 429, "rate_limited")
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert len(customers(server)) == 2


@pytest.mark.parametrize(("proxies", "statuses"), [("0", [401, 429, 429]), ("1", [401, 401, 401])])
def test_forwarded_address_counts_only_behind_a_trusted_proxy(
    start_server: StartServer, proxies: str, statuses: list[int]
) -> None:
    server = start_server(RATE_LIMIT_LOGIN="1 per minute", TRUSTED_PROXIES=proxies)

    def guess(number: int, forwarded: str) -> int:
        body = {"email": f"{number}@example.com", "password": "password123"}
        return int(server.post(f"{API}/login", body, X_Forwarded_For=forwarded).status_code)

    assert [guess(number, f"203.0.113.{number}") for number in range(3)] == statuses
    if proxies == "1":  # What a client puts before the proxy's own word is not believed.
        assert guess(9, "198.51.100.77, 203.0.113.0") == 429
