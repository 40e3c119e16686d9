"""A forgotten password, an address that is confirmed or changed: by links from real mails, or from the operator."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import forking, postgres
from tests.conftest import FAST, Server, Tenant, needs, wait_for
from tests.mailing import PUBLIC, MailServer, link_for
from tests.refusals import refused
from tests.signing_in import API, log_in, me

pytestmark = needs("openssl")
NEW = "a better one"


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    server = MailServer(tmp_path_factory.mktemp("mail") / "box").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mailing(tmp_path_factory: pytest.TempPathFactory, mail_server: MailServer) -> Iterator[Server]:
    """A server that sends mails, as many as are asked for."""
    env = mail_server.settings | {"RATE_LIMIT_MAIL": "10000 per minute"}
    server = Server(tmp_path_factory.mktemp("mailing") / "data", env).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def asha(mailing: Server) -> Tenant:
    return mailing.register(firstName="Buy at https://evil.example", companyName="<b>Evil</b>")


def link_in(mail: Any, path: str) -> str:
    """Give the token of the one link in a mail, which leads to a page of this server."""
    (link,) = re.findall(r"https?://\S+#\S+", mail.get_content())
    parts = urlsplit(link)
    assert (f"{parts.scheme}://{parts.netloc}", parts.path, parts.query) == (PUBLIC, path, "")
    return str(parts.fragment)


def forget(server: Server, email: str) -> Any:
    return server.post(f"{API}/password/forgotten", {"email": email})


def reset(server: Server, token: str, password: str = NEW) -> Any:
    return server.post(f"{API}/password/reset", {"token": token, "newPassword": password})


def confirm(server: Server, token: str) -> Any:
    return server.post(f"{API}/email/confirm", {"token": token})


def reset_token(tenant: Tenant, mail_server: MailServer, count: int = 2) -> str:
    """Ask for a mail, and give its token; the first mail to a customer is that of the registration."""
    assert forget(tenant.server, tenant.email).status_code == 202
    return link_in(mail_server.wait_taken(tenant.email, count), "/reset-password")


# --- a new password --------------------------------------------------------------------------------------------------


def test_link_of_a_mail_sets_a_password_once_and_ends_every_session_and_socket(
    asha: Tenant, mail_server: MailServer
) -> None:
    server, listener, other = asha.server, asha.device().listen(), asha.server.register().device().listen()
    token = reset_token(asha, mail_server)
    refused(reset(server, token, "short"), 400, "validation_error")
    done = reset(server, token)
    assert done.status_code == 200, done.text
    wait_for(listener.is_gone.is_set, "the end of the socket")
    assert listener.wait("authentication_error")["code"] == "unauthorized"
    assert me(asha).status_code == 401
    refused(server.post(f"{API}/refresh", {"refreshToken": asha.refresh_token}), 401, "unauthorized")
    refused(log_in(asha), 401, "invalid_credentials")
    assert log_in(asha, password=NEW).status_code == 200
    refused(reset(server, token, "another one"), 410, "link_invalid")
    assert log_in(asha, password=NEW).status_code == 200 and not other.is_gone.is_set()
    assert "password was changed" in mail_server.wait_taken(asha.email, 3)["Subject"]
    other.close()


def test_link_that_comes_twice_at_once_works_once(asha: Tenant, mail_server: MailServer) -> None:
    token = reset_token(asha, mail_server)
    passwords = [f"password-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda password: reset(asha.server, token, password).status_code, passwords))
    assert sorted(answers) == [200] + [410] * 5
    working = [password for password in passwords if log_in(asha, password=password).status_code == 200]
    assert working == [passwords[answers.index(200)]]


def test_link_ends_with_the_password_that_was_forgotten(asha: Tenant, mail_server: MailServer) -> None:
    token = reset_token(asha, mail_server)
    body = {"oldPassword": asha.password, "newPassword": "remembered it"}
    assert asha.server.post(f"{API}/me/password", body, asha.token).status_code == 200
    refused(reset(asha.server, token), 410, "link_invalid")


@pytest.mark.parametrize("token", ["", "x", "x" * 10_000, "../..", "\u202e", "a\0b", 7, None, ["x"]])
def test_token_that_is_none_is_refused(mailing: Server, token: Any) -> None:
    for path, rest in (("password/reset", {"newPassword": NEW}), ("email/confirm", {})):
        answer = mailing.post(f"{API}/{path}", {"token": token} | rest)
        assert (answer.status_code, answer.json()["code"]) in [(400, "validation_error"), (410, "link_invalid")]


def test_link_is_good_for_its_purpose_alone(asha: Tenant, mail_server: MailServer) -> None:
    to_confirm = link_in(mail_server.wait_taken(asha.email), "/confirm-email")
    refused(reset(asha.server, to_confirm), 410, "link_invalid")
    refused(confirm(asha.server, reset_token(asha, mail_server)), 410, "link_invalid")
    assert log_in(asha).status_code == 200


def test_answer_is_the_same_for_every_address(asha: Tenant, mail_server: MailServer) -> None:
    server, closed, suspended = asha.server, asha.server.register(), asha.server.register()
    for one in (closed, suspended):
        mail_server.wait_taken(one.email)
    assert server.call("DELETE", f"{API}/me", {"password": closed.password}, closed.token).status_code == 200
    operate(suspended, "tenant", "suspend")
    answers = [
        forget(server, email) for email in ("nobody.here@example.com", asha.email, closed.email, suspended.email)
    ]
    told = [(one.status_code, one.json(), sorted(one.headers.keys())) for one in answers]
    assert told[1:] == told[:1] * 3 and told[0][0] == 202
    mail_server.wait_taken(asha.email, 2)
    last = server.register()
    mail_server.wait_taken(last.email)  # Mails are sent in order: those of before are done.
    wait_for(lambda: json.loads(operate(None, "mail", "queue", "--json", server=server)) == [], "the empty outbox")
    assert mail_server.taken("nobody.here@example.com") == []
    assert len(mail_server.taken(closed.email)) == len(mail_server.taken(suspended.email)) == 1


def test_suspended_customer_gets_in_by_no_link_and_loses_none(asha: Tenant, mail_server: MailServer) -> None:
    token = reset_token(asha, mail_server)
    operate(asha, "tenant", "suspend")
    refused(reset(asha.server, token), 401, "tenant_suspended")
    operate(asha, "tenant", "resume")
    assert reset(asha.server, token).status_code == 200


def operate(tenant: Tenant | None, *arguments: str, server: Server | None = None) -> str:
    one = tenant.server if tenant else server
    assert one is not None
    environ = {**os.environ, **FAST, **postgres.environ_of(one.data), **one.env, "DATA_DIR": str(one.data)}
    done = forking.run([*arguments, *([tenant.id] if tenant else [])], environ)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_mails_that_may_be_asked_for_are_limited_by_account_and_by_caller(
    start_server: Callable[..., Server],
) -> None:
    """By callers of other addresses too, as a proxy says them; of an address that nobody has just the same."""
    server = start_server(
        SMTP_URL="smtp://localhost:9?starttls=no",
        MAIL_FROM="a@example.com",
        PUBLIC_URL=PUBLIC,
        RATE_LIMIT_MAIL="3 per hour",
        TRUSTED_PROXIES="1",
    )
    known = server.register().email
    for number, email in enumerate((known, "nobody@example.com")):
        asked = [
            server.post(
                f"{API}/password/forgotten", {"email": email.upper()}, X_Forwarded_For=f"192.0.2.{10 * number + one}"
            )
            for one in range(4)
        ]
        assert [one.status_code for one in asked] == [202, 202, 202, 429]
        assert int(asked[3].headers["Retry-After"]) > 0 and asked[0].headers["RateLimit"]
    by_one = [
        server.post(f"{API}/password/forgotten", {"email": f"{number}@example.com"}, X_Forwarded_For="192.0.2.99")
        for number in range(4)
    ]
    assert [one.status_code for one in by_one] == [202, 202, 202, 429]


# --- an address ------------------------------------------------------------------------------------------------------


def is_verified(tenant: Tenant) -> bool:
    return bool(me(tenant).json()["data"]["customer"]["emailVerified"])


def test_address_is_confirmed_by_a_post_and_by_no_look_at_the_link(asha: Tenant, mail_server: MailServer) -> None:
    mail = mail_server.wait_taken(asha.email)
    token = link_in(mail, "/confirm-email")
    assert "evil" not in str(mail).lower()  # What a customer typed is in no mail, which may go to anybody.
    for method in ("GET", "HEAD"):
        assert asha.server.call(method, "/confirm-email").status_code == 200
    assert not is_verified(asha)
    assert confirm(asha.server, token).json()["data"]["email"] == asha.email
    assert is_verified(asha) and log_in(asha).json()["data"]["customer"]["emailVerified"] is True
    refused(confirm(asha.server, token), 410, "link_invalid")


def test_mail_to_confirm_is_sent_again_until_it_is_not_needed(asha: Tenant, mail_server: MailServer) -> None:
    first = link_in(mail_server.wait_taken(asha.email), "/confirm-email")
    assert asha.server.post(f"{API}/me/email/verification", None, asha.token).status_code == 202
    second = link_in(mail_server.wait_taken(asha.email, 2), "/confirm-email")
    refused(confirm(asha.server, first), 410, "link_invalid")
    assert confirm(asha.server, second).status_code == 200
    assert asha.server.post(f"{API}/me/email/verification", None, asha.token).status_code == 202
    wait_for(lambda: json.loads(operate(None, "mail", "queue", "--json", server=asha.server)) == [], "the empty outbox")
    assert len(mail_server.taken(asha.email)) == 2


def test_new_address_counts_once_it_is_confirmed_and_the_old_one_is_told(asha: Tenant, mail_server: MailServer) -> None:
    server, new = asha.server, f"new-{asha.email}"
    mail_server.wait_taken(asha.email)
    forgotten = reset_token(asha, mail_server)
    body = {"email": f" {new.upper()} ", "password": asha.password}
    refused(server.post(f"{API}/me/email", body | {"password": "password124"}, asha.token), 401, "invalid_credentials")
    taken = server.register().email
    refused(server.post(f"{API}/me/email", body | {"email": taken}, asha.token), 409, "email_taken")
    assert server.post(f"{API}/me/email", body, asha.token).status_code == 202
    token = link_in(mail_server.wait_taken(new), "/confirm-email")
    assert log_in(asha).status_code == 200 and log_in(asha, email=new).status_code == 401
    assert confirm(server, token).json()["data"]["email"] == new
    assert log_in(asha, email=new).status_code == 200 and log_in(asha).status_code == 401
    assert is_verified(asha), "sessions go on"
    assert "address was changed" in mail_server.wait_taken(asha.email, 3)["Subject"]
    refused(reset(server, forgotten), 410, "link_invalid")


def test_address_that_somebody_else_took_meanwhile_stays_theirs(asha: Tenant, mail_server: MailServer) -> None:
    new = f"new-{asha.email}"
    body = {"email": new, "password": asha.password}
    assert asha.server.post(f"{API}/me/email", body, asha.token).status_code == 202
    token = link_in(mail_server.wait_taken(new), "/confirm-email")
    other = asha.server.register(email=new)
    refused(confirm(asha.server, token), 409, "email_taken")
    assert me(other).json()["data"]["customer"]["email"] == new and me(asha).status_code == 200


# --- without mail, and beside it -------------------------------------------------------------------------------------


def test_operator_makes_each_link_without_a_mail_server(tenant: Tenant) -> None:
    link = link_for(tenant, "reset")
    assert re.fullmatch(r"http://localhost:\d+/reset-password#[\w-]{43}", link)
    to_confirm = json.loads(link_for(tenant, "confirm", "--json", "--hours", "1"))
    assert confirm(tenant.server, to_confirm["link"].partition("#")[2]).status_code == 200 and is_verified(tenant)
    assert reset(tenant.server, link.partition("#")[2]).status_code == 200
    assert log_in(tenant, password=NEW).status_code == 200
    recorded = json.loads(operate(None, "actions", "--tenant", tenant.id, "--json", server=tenant.server))
    assert [one["action"] for one in recorded] == ["confirm-link", "reset-link"]
    assert link.partition("#")[2] not in json.dumps(recorded)


def test_server_without_mail_says_so_and_offers_none(tenant: Tenant) -> None:
    refused(forget(tenant.server, tenant.email), 403, "no_mail")
    refused(tenant.server.post(f"{API}/me/email/verification", None, tenant.token), 403, "no_mail")
    body = {"email": "x@example.com", "password": tenant.password}
    refused(tenant.server.post(f"{API}/me/email", body, tenant.token), 403, "no_mail")
    assert "Forgotten your password?" not in tenant.server.call("GET", "/websocket-test.html").text
    assert "sends no mail" in tenant.server.call("GET", "/forgotten-password").text


def test_log_has_no_token_and_no_address_in_full(asha: Tenant, mail_server: MailServer) -> None:
    token = reset_token(asha, mail_server)
    assert reset(asha.server, token).status_code == 200
    mail_server.wait_taken(asha.email, 3)
    log = asha.server.log_path.read_text()
    assert token not in log and asha.email not in log
    assert any(line["message"] == "mail sent" and line["kind"] == "reset-password" for line in asha.server.log)


def test_link_of_the_operator_outlives_a_mail_that_is_still_tried(start_server: Callable[..., Server]) -> None:
    """Fault: the mail was written anew at each try, with a newer link, and the operator's counted no more."""
    server = start_server(SMTP_URL="smtp://localhost:9?starttls=no", MAIL_FROM="a@example.com", PUBLIC_URL=PUBLIC)
    tenant = server.register()
    assert forget(server, tenant.email).status_code == 202
    link = link_for(tenant, "reset")
    operate(None, "mail", "retry", server=server)
    wait_for(lambda: "refused" in operate(None, "mail", "queue", server=server), "a try")
    assert link.startswith(PUBLIC) and reset(server, link.partition("#")[2]).status_code == 200


def test_mail_server_that_hangs_holds_up_nobody_and_its_mails_come_after_a_restart(
    start_server: Callable[..., Server], mail_server: MailServer
) -> None:
    (mail_server.folder / "hang").touch()
    (mail_server.folder / "hung").unlink(missing_ok=True)
    server = start_server(**mail_server.settings)
    try:
        tenant = server.register()
        wait_for((mail_server.folder / "hung").exists, "the connection that hangs")
        tenant.device().create(id="a", name="n")
        assert forget(server, tenant.email).status_code == 202
        assert server.stop() == 0
    finally:
        (mail_server.folder / "hang").unlink()
    assert mail_server.taken(tenant.email) == []
    server.start()
    operate(None, "mail", "retry", server=server)
    wait_for(lambda: len(mail_server.taken(tenant.email)) == 2, "both mails")
