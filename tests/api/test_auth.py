"""Accounts and tokens (docs/api.md, customers): who gets in, how long, and what never gets out."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import stat
import subprocess
import sys
import threading
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
from tests.conftest import FAST, JSON, ROOT, Device, Listener, Server, Tenant
from tests.refusals import customers, forged, paths, refused

API = "/api/customers"
StartServer = Callable[..., Server]


def account(**fields: Any) -> JSON:
    """Write a registration with an address of its own."""
    body = {"firstName": "Asha", "lastName": "Rao", "email": f"{uuid.uuid4()}@example.com", "password": "password123"}
    return body | fields


def log_in(tenant: Tenant, **fields: str) -> Any:
    return tenant.server.post(f"{API}/login", {"email": tenant.email, "password": tenant.password} | fields)


def session(tenant: Tenant) -> Tenant:
    """Log in once more, as from another device."""
    data = log_in(tenant).json()["data"]
    return Tenant(tenant.server, tenant.id, tenant.email, tenant.password, data["token"], data["refreshToken"])


def me(tenant: Tenant, token: str | None = None) -> Any:
    return tenant.server.call("GET", f"{API}/me", token=tenant.token if token is None else token)


def refresh(tenant: Tenant, refresh_token: str) -> Any:
    return tenant.server.post(f"{API}/refresh", {"refreshToken": refresh_token})


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
    }
    assert (server.data / "tenants" / f"tenant_{uuid.UUID(customer['id']).hex}.db").exists()


def test_access_token_says_who_and_for_how_long(tenant: Tenant) -> None:
    claims = jwt.decode(tenant.token, options={"verify_signature": False})
    assert jwt.get_unverified_header(tenant.token)["alg"] == "HS256"
    assert (claims["customerId"], claims["email"], claims["type"]) == (tenant.id, tenant.email, "client")
    assert claims["exp"] - claims["iat"] == 24 * 3600 and abs(claims["iat"] - time.time()) < 60


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
    body, known = account(), len(customers(server))
    files = set((server.data / "tenants").iterdir())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: server.post(f"{API}/register", body), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    (made,) = (answer.json()["data"]["customer"]["id"] for answer in answers if answer.ok)
    assert len(customers(server)) == known + 1
    assert {path.name for path in set((server.data / "tenants").iterdir()) - files} == {
        f"tenant_{uuid.UUID(made).hex}.db"
    }


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
    assert listener.is_gone.wait(5)
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


# --- tokens that are none --------------------------------------------------------------------------------------------


def altered(token: str) -> str:
    """Change what a token says, and keep its signature."""
    head, payload, signature = token.split(".")
    claims = json.loads(jwt.utils.base64url_decode(payload)) | {"email": "someone@else"}
    return ".".join([head, jwt.utils.base64url_encode(json.dumps(claims).encode()).decode(), signature])


def unsigned(token: str) -> str:
    return jwt.encode(jwt.decode(token, options={"verify_signature": False}), None, "none")


BAD_TOKENS: dict[str, Callable[[Tenant], str]] = {
    "nonsense": lambda tenant: "nonsense",
    "three dots": lambda tenant: "...",
    "a refresh token": lambda tenant: tenant.refresh_token,
    "of algorithm none": lambda tenant: unsigned(tenant.token),
    "without a signature": lambda tenant: tenant.token.rpartition(".")[0] + ".",
    "with an altered payload": lambda tenant: altered(tenant.token),
    "of another key": lambda tenant: forged(tenant, key="k" * 64),
    "of an easy key": lambda tenant: forged(tenant, key="secret" * 6),
    "of another algorithm": lambda tenant: forged(tenant, algorithm="HS512"),
    "of another type": lambda tenant: forged(tenant, type="access"),
    "of type admin": lambda tenant: forged(tenant, type="admin"),
    "without a type": lambda tenant: forged(tenant, type=None),
    "without a session": lambda tenant: forged(tenant, sid=None),
    "without a customer": lambda tenant: forged(tenant, customerId=None),
    "without an address": lambda tenant: forged(tenant, email=None),
    "without a subject": lambda tenant: forged(tenant, sub=None),
    "without an ID": lambda tenant: forged(tenant, jti=None),
    "without an end": lambda tenant: forged(tenant, exp=None),
    "of a session that never was": lambda tenant: forged(tenant, sid=str(uuid.uuid4())),
    "of tomorrow": lambda tenant: forged(tenant, nbf=int(time.time()) + 86_400),
    "with an end that is no time": lambda tenant: forged(tenant, exp="soon"),
    "with a session that is a list": lambda tenant: forged(tenant, sid=["x"]),
    "with a customer that is an object": lambda tenant: forged(tenant, customerId={"a": 1}),
    "of another customer's ID": lambda tenant: forged(tenant, customerId=tenant.server.register().id),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_token_that_is_none_opens_nothing(tenant: Tenant, name: str) -> None:
    token = BAD_TOKENS[name](tenant)
    refused(me(tenant, token), 401, "unauthorized")
    refused(tenant.server.post("/api/client/sync/pull", {}, token), 401, "unauthorized")
    if name != "a refresh token":
        refused(refresh(tenant, token), 401, "unauthorized")
    stranger = Listener(tenant.server.url, auth={"token": token})
    assert stranger.wait("authentication_error")["code"] == "unauthorized"
    assert stranger.is_gone.wait(5)
    stranger.close()


def test_401_names_the_scheme_and_tokens_elsewhere_do_not_count(tenant: Tenant) -> None:
    answer = me(tenant, "nonsense")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    refused(tenant.server.call("GET", f"{API}/me?token={tenant.token}&jwt={tenant.token}"), 401, "unauthorized")
    refused(tenant.server.call("GET", f"{API}/me", Cookie=f"access_token_cookie={tenant.token}"), 401, "unauthorized")


def test_access_token_is_no_refresh_token(tenant: Tenant) -> None:
    refused(refresh(tenant, tenant.token), 401, "unauthorized")
    assert me(tenant).status_code == 200


@pytest.mark.slow
def test_expired_tokens_are_told_apart_from_bad_ones(tenant: Tenant, start_server: StartServer) -> None:
    short = start_server(ACCESS_TOKEN_SECONDS="1", REFRESH_TOKEN_SECONDS="1").register()
    assert me(short).status_code == 200
    time.sleep(2.1)
    refused(me(short), 401, "token_expired")
    refused(refresh(short, short.refresh_token), 401, "token_expired")


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
    assert other_listener.is_gone.wait(5) and not own_listener.is_gone.is_set()
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
    assert listener.is_gone.wait(5)
    again = tenant.server.register(email=tenant.email)
    assert again.id != tenant.id and again.device().rows() == []
    assert other_tenant.device().rows() == []


# --- closed registration, the operator -------------------------------------------------------------------------------


def operate(server: Server, *arguments: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run the operator's command beside a running server."""
    environ = {**FAST, "DATA_DIR": str(server.data), "PATH": "/usr/bin:/bin"}
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


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_key_is_made_once_kept_private_and_survives_a_restart(start_server: StartServer) -> None:
    server = start_server()
    tenant, key = server.register(), server.data / "jwt_secret_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_text()) >= 43
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in server.data.rglob("*.db")} == {0o600}
    text = key.read_text()
    server.stop()
    server.start()
    assert me(tenant).status_code == 200 and key.read_text() == text
    assert refresh(tenant, tenant.refresh_token).status_code == 200


def test_key_of_the_operator_is_used_and_none_is_written(start_server: StartServer) -> None:
    key = secrets.token_urlsafe(48)
    server = start_server(JWT_SECRET_KEY=key)
    tenant = server.register()
    assert me(tenant, forged(tenant, key=key)).status_code == 200
    assert not (server.data / "jwt_secret_key").exists()


@pytest.mark.slow
def test_hashing_of_many_passwords_stalls_nobody_else(start_server: StartServer) -> None:
    """With one hash at a time in the event loop, about one other answer would fit between two."""
    tenant = start_server(BCRYPT_ROUNDS="12").register()
    answered, done = 0, threading.Event()

    def ask() -> None:
        nonlocal answered
        while not done.is_set():
            assert tenant.server.call("GET", "/health").status_code == 200
            answered += 1

    asking = threading.Thread(target=ask)
    asking.start()
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: log_in(tenant), range(10)))
    done.set()
    asking.join()
    assert {answer.status_code for answer in answers} == {200}
    assert answered > 50


def test_passwords_and_tokens_never_reach_the_log_or_an_answer(start_server: StartServer) -> None:
    server = start_server()
    secret, other = "Very-Secret-1", "Very-Secret-2"
    tenant = server.register(password=secret)
    answers = [
        log_in(tenant),
        log_in(tenant, password=other),
        server.post(f"{API}/register", account(password=secret * 9)),
        server.post(f"{API}/login", {"email": secret, "password": [secret]}),
        server.post(f"{API}/me/password", {"oldPassword": other, "newPassword": secret}, tenant.token),
        server.call("PATCH", f"{API}/me", {"password": secret}, tenant.token),
        server.call("GET", f"{API}/me?password={secret}&token={tenant.token}", token=tenant.token),
        server.call("DELETE", f"{API}/me", {"password": other}, tenant.token),
    ]
    device = tenant.device()
    device.listen().close()
    device.create(note=secret)
    Listener(server.url, auth={"token": tenant.token + "x"}).close()
    for answer in answers:
        assert "Very-Secret" not in answer.text and "passwordHash" not in answer.text and "$2" not in answer.text
    server.stop()
    log = server.log_path.read_text()
    assert not re.search(r"Very-Secret|\$2[aby]\$|eyJ[A-Za-z0-9_-]{10}", log)
    assert tenant.refresh_token not in log


def test_password_is_stored_as_a_hash_only(device: Device) -> None:
    tenant = device.tenant
    (row,) = [row for row in customers(tenant.server) if row[0] == tenant.id]
    assert tenant.password not in map(str, row)
    assert any(re.fullmatch(r"\$2b\$08\$.{53}", str(value)) for value in row)
