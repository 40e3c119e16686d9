"""Who gets into the console: by a link that works once, with a session of its own, from our own pages alone."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from accounts import operator_sign_in
from tests import postgres
from tests.conftest import WAIT_SECONDS, Server
from tests.operating import Operator, done, link_of, signed_in

SECRET = re.compile(r"[\w-]{43}")


@pytest.fixture
def operator(server: Server) -> Operator:
    return signed_in(server)


def code_of(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def sign_in_with(server: Server, link: str, **headers: str) -> requests.Response:
    sent = {"Origin": server.url} | {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{server.url}/admin/sign-in", json={"link": link}, headers=sent, timeout=WAIT_SECONDS)


@contextlib.contextmanager
def clock_ahead(server: Server, seconds: int) -> Iterator[None]:
    """Let sign-ins that the server knows be so much older."""
    postgres.must_be_about_files()
    main = sqlite3.connect(server.data / "main.db", isolation_level=None, timeout=WAIT_SECONDS)
    main.execute("UPDATE operator_sessions SET expires_at = expires_at - ?", (seconds,))
    main.close()
    yield


# --- who has no session ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/tenants", "/no-such-page", "/uplot/uPlot.iife.min.js", "/sign-out"])
def test_every_page_is_the_same_refusal_without_a_session(server: Server, path: str) -> None:
    there, nowhere = (requests.get(f"{server.url}/admin{one}", timeout=WAIT_SECONDS) for one in (path, "/nowhere"))
    assert there.status_code == nowhere.status_code == 401
    assert there.text == nowhere.text and "admin-link" in there.text and "Set-Cookie" not in there.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/api/record", "/api/nowhere", "/api/tenants/x/state"])
def test_every_call_is_refused_without_a_session(server: Server, method: str, path: str) -> None:
    for cookie in ({}, {"admin_session": ""}, {"admin_session": "x" * 43}, {"admin_session": "é\x7f"}):
        headers = {"Origin": server.url, "Cookie": "; ".join(f"{name}={value}" for name, value in cookie.items())}
        answer = requests.request(
            method,
            f"{server.url}/admin{path}",
            headers={k: v.encode() for k, v in headers.items()},
            timeout=WAIT_SECONDS,
        )
        assert code_of(answer) == (401, "unauthorized")


def test_token_of_a_customer_opens_nothing(server: Server) -> None:
    tenant = server.register()
    headers = {"Authorization": f"Bearer {tenant.token}", "Cookie": f"admin_session={tenant.token}"}
    assert requests.get(f"{server.url}/admin/api/record", headers=headers, timeout=WAIT_SECONDS).status_code == 401


# --- links -----------------------------------------------------------------------------------------------------------


def test_link_works_once_and_opening_it_uses_nothing_up(server: Server) -> None:
    link = link_of(server)
    for _ in range(2):
        assert requests.get(f"{server.url}/admin/sign-in", timeout=WAIT_SECONDS).status_code == 200
    cookie = sign_in_with(server, link).headers["Set-Cookie"]
    assert {"Path=/admin", "HttpOnly", "SameSite=Strict"} <= set(cookie.split("; ")) and "Secure" not in cookie
    again = sign_in_with(server, link)
    assert code_of(again) == (401, "unauthorized") and "Set-Cookie" not in again.headers


def test_cookie_stays_on_encrypted_connections(server: Server) -> None:
    host = "console.example.com"
    answer = sign_in_with(server, link_of(server), Origin=f"https://{host}", Host=host)
    assert answer.headers["Set-Cookie"].endswith("; Secure")


def test_link_that_ran_out_and_session_that_ran_out_open_nothing(start_server: Callable[..., Server]) -> None:
    server = start_server()
    link, operator = link_of(server), signed_in(server)
    with clock_ahead(server, operator_sign_in.LINK_SECONDS):
        assert sign_in_with(server, link).status_code == 401
    assert operator.get("/api/record").status_code == 200
    with clock_ahead(server, operator_sign_in.SESSION_SECONDS):
        assert operator.get("/api/record").status_code == 401


@pytest.mark.parametrize("link", ["", "x", "x" * 43, "\ud800", "' OR 1=1 --", 7, None, ["x"]])
def test_what_is_no_link_opens_nothing(server: Server, link: Any) -> None:
    assert sign_in_with(server, link).status_code in (400, 401, 422)


def test_guesses_are_limited(start_server: Callable[..., Server]) -> None:
    server = start_server(RATE_LIMIT_LOGIN="2 per hour")
    assert [sign_in_with(server, "x" * 43).status_code for _ in range(3)] == [401, 401, 429]
    assert sign_in_with(server, link_of(server)).status_code == 429


def test_neither_secret_is_stored_or_logged(start_server: Callable[..., Server]) -> None:
    server = start_server()
    link = link_of(server)
    token = sign_in_with(server, link).cookies["admin_session"]
    assert SECRET.fullmatch(link) and SECRET.fullmatch(token)
    server.stop()
    kept = [path.read_bytes() for path in [*server.data.rglob("*"), server.log_path] if path.is_file()]
    assert not [content for content in kept for secret in (link, token) if secret.encode() in content]


# --- pages of others -------------------------------------------------------------------------------------------------

FOREIGN = ["http://evil.example", "http://localhost:1", "null", ""]


@pytest.mark.parametrize("origin", FOREIGN)
def test_page_of_another_origin_signs_nobody_in(server: Server, origin: str) -> None:
    link = link_of(server)
    assert code_of(sign_in_with(server, link, Origin=origin)) == (403, "origin_not_allowed")
    assert sign_in_with(server, link).status_code == 200


@pytest.mark.parametrize("origin", FOREIGN)
def test_page_of_another_origin_does_nothing_with_the_cookie(operator: Operator, origin: str) -> None:
    assert code_of(operator.post("/sign-out", Origin=origin)) == (403, "origin_not_allowed")
    assert operator.get("/api/record").status_code == 200


def test_origin_that_may_call_the_api_may_not_call_the_console(start_server: Callable[..., Server]) -> None:
    operator = signed_in(start_server(CORS_ORIGINS="https://app.example.com"))
    assert code_of(operator.post("/sign-out", Origin="https://app.example.com")) == (403, "origin_not_allowed")
    assert (
        "Access-Control-Allow-Credentials" not in operator.get("/api/record", Origin="https://app.example.com").headers
    )


def test_request_without_the_proof_does_nothing(operator: Operator, server: Server) -> None:
    for proof in ("", "x", signed_in(server).proof, "\xe9"):
        assert code_of(operator.post("/sign-out", X_Console_Proof=proof)) == (403, "origin_not_allowed")
    assert operator.get("/api/record").status_code == 200


# --- the end of a session --------------------------------------------------------------------------------------------


def test_session_that_ended_opens_nothing(server: Server, operator: Operator) -> None:
    other, copied = signed_in(server), dict(operator.session.cookies)
    assert operator.post("/sign-out").status_code == 200 and not operator.session.cookies
    operator.session.cookies.update(copied)
    assert operator.get("/api/record").status_code == 401 and operator.get("").status_code == 401
    assert other.get("/api/record").status_code == 200


def test_command_ends_all_sessions_and_links(start_server: Callable[..., Server]) -> None:
    server = start_server()
    operators, link = [signed_in(server), signed_in(server)], link_of(server)
    assert "3 sign-ins ended" in done(server, "admin-link", "--end-all")
    assert [one.get("/api/record").status_code for one in operators] == [401, 401]
    assert sign_in_with(server, link).status_code == 401


def test_sign_ins_are_in_the_record(server: Server, operator: Operator) -> None:
    found = operator.get("/api/record").json()["entries"]
    assert [(one["action"], one["by"]) for one in found[:2]] == [
        ("sign-in", f"console {found[1]['about']}"),
        ("admin-link", "command"),
    ]
    assert found[0]["by"] in done(server, "actions")


def test_pages_have_a_policy_and_no_script_of_their_own(operator: Operator) -> None:
    answer = operator.get("")
    assert (
        "script-src 'self'" in answer.headers["Content-Security-Policy"]
        and "http" not in answer.headers["Content-Security-Policy"]
    )
    assert not re.search(r"<script(?![^>]* src=)|style=| on\w+=", answer.text)
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Frame-Options"] == "DENY"
