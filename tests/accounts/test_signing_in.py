"""Signing in and staying in, whatever happens meanwhile: clocks, keyboards, lost answers, crashes, a full disk.

``api/test_auth.py`` holds what accounts and tokens are; here is what would lock somebody out, or leave somebody in.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from flask import Flask

import assembly
from accounts import passwords, signing_key
from settings import Settings
from storage import sessions
from tests import forking, postgres
from tests.conftest import FAST, JSON, Server, Tenant
from tests.refusals import forged, paths, refused

API = "/api/customers"
StartServer = Callable[..., Server]

NFC, NFD = partial(unicodedata.normalize, "NFC"), partial(unicodedata.normalize, "NFD")
Form = Callable[[str], str]
NFC_PASSWORD, NFD_PASSWORD = NFC("Zoë-Ångström-각"), NFD("Zoë-Ångström-각")


def log_in(tenant: Tenant, **fields: str) -> Any:
    return tenant.server.post(f"{API}/login", {"email": tenant.email, "password": tenant.password} | fields)


def me(tenant: Tenant, token: str | None = None) -> Any:
    return tenant.server.call("GET", f"{API}/me", token=tenant.token if token is None else token)


def refresh(tenant: Tenant, refresh_token: str | None = None) -> Any:
    return tenant.server.post(f"{API}/refresh", {"refreshToken": refresh_token or tenant.refresh_token})


def change_main(server: Server, sql: str, *values: Any) -> None:
    """Change the main database beside the server, as a version before this one would have left it."""
    postgres.must_be_about_files()
    with contextlib.closing(sqlite3.connect(server.data / "main.db", timeout=10, isolation_level=None)) as main:
        assert main.execute(sql, values).rowcount == 1


# --- a clock that was set back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 24, 24 * 400])
def test_token_made_before_the_clock_was_set_back_counts(tenant: Tenant, hours: int) -> None:
    """Fault: the library's ``nbf``, and PyJWT's own look at ``iat``: nobody got in until the clock caught up."""
    made = int(time.time()) + hours * 3600
    for nbf in (made, None):  # The first is what earlier versions wrote.
        token = forged(tenant, iat=made, nbf=nbf, exp=made + 60)
        assert me(tenant, token).status_code == 200
        assert tenant.server.post("/api/client/sync/pull", {}, token).status_code == 200


def test_refresh_token_made_before_the_clock_was_set_back_counts(tenant: Tenant) -> None:
    made = int(time.time()) + 7200
    real = Tenant(tenant.server, tenant.id, tenant.email, "", tenant.refresh_token, "")
    assert refresh(tenant, forged(real, iat=made, nbf=made, exp=made + 60)).status_code == 200


@pytest.mark.parametrize("nbf", [10**11, "soon", [1], {"a": 1}])
def test_token_that_says_that_it_counts_later_is_refused(tenant: Tenant, nbf: Any) -> None:
    refused(me(tenant, forged(tenant, nbf=nbf)), 401, "unauthorized")


# --- keyboards that write one text in two ways -----------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "typed"), [(NFC_PASSWORD, NFD_PASSWORD), (NFD_PASSWORD, NFC_PASSWORD)])
def test_password_is_one_in_either_normal_form(server: Server, kept: str, typed: str) -> None:
    assert kept != typed
    tenant = server.register(password=kept)
    assert log_in(tenant, password=typed).status_code == 200
    assert log_in(tenant, password=kept).status_code == 200
    refused(log_in(tenant, password=typed + "x"), 401, "invalid_credentials")
    body = {"oldPassword": typed, "newPassword": f"{kept}2"}
    assert server.post(f"{API}/me/password", body, tenant.token).status_code == 200
    assert log_in(tenant, password=f"{typed}2").status_code == 200


@pytest.mark.parametrize("as_typed", [NFD_PASSWORD, NFC_PASSWORD, "\u0958" * 24], ids=["NFD", "NFC", "no NFC of 72"])
def test_hash_of_an_earlier_version_takes_what_it_took(server: Server, as_typed: str) -> None:
    """The last one has 72 bytes as typed and 144 in the normal form."""
    tenant = server.register()
    old = bcrypt.hashpw(as_typed.encode(), bcrypt.gensalt(4)).decode()
    change_main(server, "UPDATE customers SET passwordHash = ? WHERE id = ?", old, tenant.id)
    for other in (NFC_PASSWORD, NFD_PASSWORD):
        assert log_in(tenant, password=other).ok == (as_typed[0] == "Z")
    assert log_in(tenant, password=as_typed).status_code == 200
    refused(log_in(tenant, password=as_typed[:-1]), 401, "invalid_credentials")


@pytest.mark.parametrize(
    ("password", "is_taken"), [("e\u0301" * 36, True), ("e\u0301" * 37, False), ("\u0958" * 24, False)]
)
def test_bound_of_72_bytes_is_that_of_the_normal_form(server: Server, password: str, is_taken: bool) -> None:
    body = {"firstName": "A", "lastName": "B", "email": f"{uuid.uuid4()}@example.com", "password": password}
    answer = server.post(f"{API}/register", body)
    if is_taken:
        assert answer.status_code == 201
    else:
        assert paths(refused(answer, 400, "validation_error")) == ["password"]


@pytest.mark.parametrize("form", [NFC, NFD], ids=["NFC", "NFD"])
def test_address_is_one_in_either_normal_form(server: Server, form: Form) -> None:
    name = f"zoë.{uuid.uuid4()}@exämple.com"
    tenant = server.register(email=form(name))
    for other in (NFC, NFD):
        typed = other(name).upper()
        assert log_in(tenant, email=typed).json()["data"]["customer"]["id"] == tenant.id
        body = {"firstName": "A", "lastName": "B", "email": typed, "password": "password123"}
        refused(server.post(f"{API}/register", body), 409, "email_taken")


def test_address_that_an_earlier_version_kept_as_typed_still_logs_in(server: Server) -> None:
    tenant, name = server.register(), f"zoë.{uuid.uuid4()}@example.com"
    kept = NFD(name)
    change_main(server, "UPDATE customers SET email = ? WHERE id = ?", kept, tenant.id)
    for form in (NFC, NFD):
        assert log_in(tenant, email=form(name)).status_code == 200
    both = server.register(email=name + "x")  # A second account whose address differs in its form alone.
    change_main(server, "UPDATE customers SET email = ? WHERE id = ?", NFC(name), both.id)
    for form, account in ((NFC, both), (NFD, tenant)):
        data = log_in(tenant, email=form(name)).json()["data"]
        assert data["customer"]["id"] == account.id, "who has an address to the letter comes first"


@pytest.mark.parametrize("field", ["email", "password"])
def test_endless_run_of_accents_costs_nothing(server: Server, field: str) -> None:
    """Sorting the accents of one letter takes their number squared: 40,000 took 2 s, in the event loop."""
    body = {"email": "a@example.com", "password": "password123", field: "a" + "\u0301\u0327" * 50_000}
    refused(server.post(f"{API}/login", body), 401, "invalid_credentials")
    account = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
    refused(server.post(f"{API}/register", account | {field: body[field]}), 400, "validation_error")


# --- a lost answer to a refresh --------------------------------------------------------------------------------------


def pair_of(answer: Any) -> Tenant:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    return Tenant(None, "", "", "", data["token"], data["refreshToken"])  # type: ignore[arg-type]


def check_over(tenant: Tenant, *pairs: Tenant) -> None:
    """Check that nothing of a session opens anything any more."""
    for pair in pairs:
        refused(me(tenant, pair.token), 401, "unauthorized")
        refused(refresh(tenant, pair.refresh_token), 401, "unauthorized")


def test_refresh_whose_answer_was_lost_is_taken_once_more(tenant: Tenant) -> None:
    lost = pair_of(refresh(tenant))
    again = pair_of(refresh(tenant))
    assert me(tenant, again.token).status_code == 200
    assert pair_of(refresh(tenant, again.refresh_token)).token != lost.token


def test_refresh_whose_answer_a_crash_swallowed_is_taken_after_the_restart(start_server: StartServer) -> None:
    server = start_server()
    tenant = server.register()
    refresh(tenant)
    server.kill()
    server.start()
    assert me(tenant, pair_of(refresh(tenant)).token).status_code == 200


def test_old_access_token_that_still_counts_does_not_end_the_grace(tenant: Tenant) -> None:
    """A call that was under way when the pair was renewed."""
    refresh(tenant)
    assert me(tenant).status_code == 200
    assert refresh(tenant).status_code == 200


@pytest.mark.parametrize("use", ["access token", "refresh token", "socket"])
def test_spent_token_ends_all_once_anything_of_the_new_pair_was_used(tenant: Tenant, use: str) -> None:
    pair = pair_of(refresh(tenant))
    assert me(tenant).status_code == 200  # So that the session was looked up since.
    newest = pair
    if use == "access token":
        assert me(tenant, pair.token).status_code == 200
    elif use == "refresh token":
        newest = pair_of(refresh(tenant, pair.refresh_token))
    else:
        Tenant(tenant.server, tenant.id, "", "", pair.token, "").device().listen().close()
    refused(refresh(tenant), 401, "unauthorized")
    check_over(tenant, tenant, pair, newest)


def test_spent_token_comes_once_more_and_not_twice(tenant: Tenant) -> None:
    first, second = pair_of(refresh(tenant)), pair_of(refresh(tenant))
    refused(refresh(tenant), 401, "unauthorized")
    check_over(tenant, tenant, first, second)


@pytest.mark.parametrize(
    "use", [lambda tenant, pair: me(tenant, pair.token), lambda t, pair: refresh(t, pair.refresh_token)]
)
def test_two_who_hold_a_pair_of_one_spent_token_are_both_out(tenant: Tenant, use: Callable[..., Any]) -> None:
    """A thief who repeats a token within the grace, and the owner: who comes with the pair that was replaced ends it."""
    first, second = pair_of(refresh(tenant)), pair_of(refresh(tenant))
    assert me(tenant, second.token).status_code == 200
    refused(use(tenant, first), 401, "unauthorized")
    check_over(tenant, tenant, first, second)


def test_spent_refresh_token_after_the_grace_is_refused_and_ends_the_session(tenant: Tenant) -> None:
    pair = pair_of(refresh(tenant))
    sql = "UPDATE sessions SET spent_at = spent_at - ? WHERE customer_id = ?"
    change_main(tenant.server, sql, sessions.GRACE_SECONDS + 1, tenant.id)
    refused(refresh(tenant), 401, "unauthorized")
    check_over(tenant, tenant, pair)


def test_grace_does_not_outlive_a_logout(tenant: Tenant) -> None:
    pair = pair_of(refresh(tenant))
    assert tenant.server.post(f"{API}/logout", token=tenant.token).status_code == 200
    check_over(tenant, tenant, pair)


# --- a new password --------------------------------------------------------------------------------------------------

DYING_SERVER = """
from accounts import signing_key
import syncapp
import os, sys
from pathlib import Path
from storage import group_commit, sessions
from storage.postgres.database import PostgresDatabase
from storage.sqlite import database
from accounts import tokens
arm = Path(os.environ["DATA_DIR"] + ".arm")

def before(owner, name):
    original = getattr(owner, name)
    def dying(*arguments, **named):
        if arm.exists():
            os._exit(9)
        return original(*arguments, **named)
    setattr(owner, name, dying)

{
    "before the sessions": lambda: before(sessions, "revoke_sessions"),
    "before COMMIT": lambda: (before(database.disk, "at_once"), before(PostgresDatabase, "_make_lasting")),
    "after COMMIT": lambda: before(group_commit.Write, "finish"),
}[os.environ["POINT"]]()
syncapp.main()
"""


@pytest.mark.parametrize("point", ["before the sessions", "before COMMIT", "after COMMIT"])
def test_new_password_and_the_end_of_other_sessions_are_one_commit(tmp_path: Path, point: str) -> None:
    """Fault: two commits: the process ended between them, and the thief's session went on under the new password."""
    server = Server(tmp_path / "data", {"POINT": point}, [sys.executable, "-c", DYING_SERVER]).start()
    tenant = server.register()
    other = log_in(tenant).json()["data"]["token"]
    arm = tmp_path / "data.arm"
    arm.touch()
    with contextlib.suppress(OSError):
        body = {"oldPassword": tenant.password, "newPassword": "a new password"}
        server.post(f"{API}/me/password", body, tenant.token)
    assert server.process and server.process.wait(timeout=20) == 9
    arm.unlink()
    server.command = [sys.executable, "syncapp.py"]
    server.start()
    is_changed = log_in(tenant, password="a new password").ok
    assert is_changed == (point == "after COMMIT") == (not log_in(tenant).ok)
    assert me(tenant, other).ok == (not is_changed)
    assert server.stop() == 0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = assembly.build(Settings(data_dir=tmp_path / "data", bcrypt_rounds=8, shutdown_seconds=1))
    yield app
    app.extensions["lifecycle"].end()


Call = Callable[..., Any]


@pytest.fixture
def call(app: Flask) -> Call:
    """Call the application in this process, as whom a token says."""

    def call(method: str, path: str, body: JSON | None = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return app.test_client().open(API + path, method=method, json=body, headers=headers, buffered=True)

    return call


ACCOUNT = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
MEANWHILE: dict[str, tuple[str, str, JSON]] = {
    "log-in": ("POST", "/login", {"email": "a@example.com", "password": "password123"}),
    "another change": ("POST", "/me/password", {"oldPassword": "password123", "newPassword": "the thief's own"}),
    "closing": ("DELETE", "/me", {"password": "password123"}),
}


@pytest.mark.parametrize("name", MEANWHILE)
def test_what_was_proved_by_the_old_password_does_not_outlive_the_change(
    call: Call, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fault: a log-in whose hash was running when the password changed got a session that nobody ended."""
    token = call("POST", "/register", ACCOUNT).get_json()["data"]["token"]
    matches = passwords.Passwords.matches

    def change_meanwhile(self: passwords.Passwords, password: str, hashed: str | None) -> bool:
        right = matches(self, password, hashed)
        monkeypatch.setattr(passwords.Passwords, "matches", matches)
        body = {"oldPassword": "password123", "newPassword": "a new password"}
        assert call("POST", "/me/password", body, token).status_code == 200
        return right

    monkeypatch.setattr(passwords.Passwords, "matches", change_meanwhile)
    method, path, body = MEANWHILE[name]
    answer = call(method, path, body, token if path != "/login" else "")
    assert answer.status_code == 401 and answer.get_json()["code"] == "invalid_credentials"
    assert call("POST", "/login", ACCOUNT | {"password": "a new password"}).status_code == 200
    assert call("GET", "/me", token=token).status_code == 200


# --- the key that signs ----------------------------------------------------------------------------------------------


def start_of(data: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Start a server that is to refuse, or run a command."""
    environ = {**os.environ, **FAST, "DATA_DIR": str(data), "PORT": "0", **env}
    return forking.run([*arguments], environ)


@pytest.mark.files("the key in the folder")
@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"\xff\xfe" * 30, b"abab" * 12], ids=repr)
def test_key_that_signs_nothing_is_never_served_with(tmp_path: Path, content: bytes) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "jwt_secret_key").write_bytes(content)
    ended = start_of(data)
    assert ended.returncode == 1 and ended.stderr.startswith("syncapp: "), ended.stderr
    assert str(data / "jwt_secret_key") in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
    told = start_of(data, "doctor")
    assert told.returncode == 1 and "jwt_secret_key" in told.stdout
    assert (data / "jwt_secret_key").read_bytes() == content


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_first_start_on_a_full_disk_leaves_no_key_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Fault: the file was made before it was written: it stayed empty, and the next start signed with it."""
    settings = Settings(data_dir=tmp_path)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            signing_key.signing_key(settings)
    assert not (tmp_path / "jwt_secret_key").exists()
    key = signing_key.signing_key(settings)
    assert len(key) >= 43 and key == signing_key.signing_key(settings)
    assert [path.name for path in tmp_path.iterdir()] == ["jwt_secret_key"]
