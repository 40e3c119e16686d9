"""Tokens, keys and passwords: what opens nothing, and what never gets out."""

from __future__ import annotations

import json
import re
import secrets
import stat
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest

from tests import postgres
from tests.conftest import WAIT_SECONDS, Device, Listener, Tenant
from tests.refusals import customers, forged, refused
from tests.signing_in import API, StartServer, account, log_in, me, refresh

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
    listener = Listener(tenant.server.url, auth={"token": token})
    assert listener.wait("authentication_error")["code"] == "unauthorized"
    assert listener.is_gone.wait(WAIT_SECONDS)
    listener.close()


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
    time.sleep(2.1)
    refused(me(short), 401, "token_expired")
    refused(refresh(short, short.refresh_token), 401, "token_expired")


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.files("the key in the folder")
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


def test_key_is_replaced_without_logging_anybody_out(start_server: StartServer) -> None:
    postgres.must_be_about_files()
    server = start_server()
    tenant, old, new = server.register(), server.data / "jwt_secret_key", secrets.token_urlsafe(48)
    server.stop()
    server.env |= {"JWT_SECRET_KEY": new, "JWT_OLD_KEYS_FILE": str(old)}
    server.start()
    assert me(tenant).status_code == 200
    renewed = refresh(tenant, tenant.refresh_token)
    assert renewed.status_code == 200
    assert me(tenant, forged(tenant, key=secrets.token_urlsafe(48))).status_code == 401
    server.stop()
    del server.env["JWT_OLD_KEYS_FILE"]
    server.start()
    assert me(tenant).status_code == 401
    assert me(tenant, renewed.json()["data"]["token"]).status_code == 200, "the new key signs"


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
