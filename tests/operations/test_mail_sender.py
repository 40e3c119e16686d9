"""Mails of the outbox, handed over to a real mail server: each once, later if need be, and never without TLS."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import settings
from accounts.letters import Letter
from operations import smtp_server
from operations.checks import doctor, trial_start
from operations.mail_sender import MailSender
from operations.smtp_server import CanNotSend, MailRefused
from storage import outbox
from storage.outbox import Mail
from tenants import Tenants
from tests.conftest import needs
from tests.mailing import MailServer

pytestmark = needs("openssl")
NOW = 1_800_000_000


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    server = MailServer(tmp_path_factory.mktemp("mail") / "box").start()
    yield server
    server.stop()


@pytest.fixture
def trusted(mail_server: MailServer, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """The settings of a server that trusts the mail server's certificate."""
    for name, value in mail_server.trust.items():
        monkeypatch.setenv(name, value)
    return settings.load(mail_server.settings)


@pytest.fixture
def sender(trusted: settings.Settings, tenants: Tenants) -> MailSender:
    return MailSender(trusted, tenants.engine, lambda _mail, _now: None)


@pytest.fixture
def add(tenants: Tenants) -> Callable[..., None]:
    def add(to: str, now: int = NOW, subject: str = "Subject") -> None:
        tenants.directory.write(lambda: outbox.add(to, subject, "Words.\n", now))

    return add


def waiting(tenants: Tenants) -> list[dict[str, Any]]:
    return tenants.directory.read(
        lambda: [{"to": one.recipient, "error": one.error, "failed": one.failed_at} for one in outbox.listed(100)]
    )


def to(name: str, request: pytest.FixtureRequest) -> str:
    """Give an address of this test's own."""
    return f"{name}@{abs(hash(request.node.name))}.example"


def test_mail_is_taken_once_with_the_headers_of_an_automatic_one(
    sender: MailSender, add: Callable[..., None], mail_server: MailServer, tenants: Tenants, request: Any
) -> None:
    me = to("asha", request)
    add(me, subject="Grüße")
    sender.send_due(NOW)
    sender.send_due(NOW + 10_000)
    (mail,) = mail_server.taken(me)
    assert (mail["From"], mail["To"], mail["Subject"]) == ("Sync <sync@example.com>", me, "Grüße")
    assert mail["Auto-Submitted"] == "auto-generated" and mail["Date"]
    assert mail["Message-ID"].endswith("@example.com>") and mail.get_content().split() == ["Words."]
    assert waiting(tenants) == []


def test_recipient_that_is_refused_for_good_is_not_tried_again_and_not_told_in_full(
    sender: MailSender,
    add: Callable[..., None],
    tenants: Tenants,
    request: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    me = to("nobody", request)
    add(me)
    with caplog.at_level(logging.INFO):
        sender.send_due(NOW)
    (left,) = waiting(tenants)
    assert left["failed"] == NOW and "550" in left["error"] and me not in left["error"]
    with pytest.raises(MailRefused) as refusal:
        smtp_server.deliver(sender._settings, Letter("nobody@Bücher.example", "s", "b", "1"))
    assert "550" in str(refusal.value) and "obody" not in str(refusal.value), "nor as the mail server writes it"
    (line,) = caplog.records
    assert vars(line)["to"] == f"n…@{me.partition('@')[2]}" and me not in str(vars(line))
    assert tenants.directory.read(lambda: outbox.due(NOW + 10_000_000, 10)) == []
    tenants.directory.write(lambda: outbox.add("other@example.com", "s", "b", NOW + 8 * 86_400))
    assert [one["to"] for one in waiting(tenants)] == ["other@example.com"]


def test_mail_that_is_not_taken_now_is_tried_later_and_later_and_given_up_after_a_day(
    sender: MailSender, add: Callable[..., None], tenants: Tenants, request: Any
) -> None:
    add(to("later", request))
    tried, now, failed_at = [], NOW, None
    while failed_at is None:
        sender.send_due(now)
        ((next_at, failed_at),) = tenants.directory.read(
            lambda: [(one.next_at, one.failed_at) for one in outbox.listed(9)]
        )
        tried.append(next_at - now)
        assert failed_at or tenants.directory.read(lambda: outbox.due(next_at - 1, 9)) == []
        now = next_at
    assert tried[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert 86_400 < failed_at - NOW < 86_400 + 3700 and "451" in waiting(tenants)[0]["error"]


def test_mails_wait_while_the_mail_server_is_down_and_come_in_order_when_it_is_back(
    trusted: settings.Settings,
    tenants: Tenants,
    add: Callable[..., None],
    tmp_path: Path,
    request: Any,
    monkeypatch: Any,
) -> None:
    own = MailServer(tmp_path / "own").start()
    own.stop()
    monkeypatch.setenv("SSL_CERT_FILE", own.trust["SSL_CERT_FILE"])
    sender = MailSender(settings.load(own.settings), tenants.engine, lambda _mail, _now: None)
    first, second = to("a", request), to("b", request)
    add(first)
    add(second, NOW + 1)
    sender.send_due(NOW + 1)
    assert ["refused" in one["error"] for one in waiting(tenants)] == [True, True]
    own.start()
    try:
        assert tenants.directory.write(lambda: outbox.retry(NOW + 2)) == 2
        sender.send_due(NOW + 2)
        assert sorted(mail["To"] for mail in own.taken()) == [first, second] and waiting(tenants) == []
    finally:
        own.stop()


def test_mail_that_another_process_tries_is_left_to_it(
    sender: MailSender, add: Callable[..., None], tenants: Tenants, mail_server: MailServer, request: Any
) -> None:
    me = to("asha", request)
    add(me)
    (mail,) = tenants.directory.read(lambda: outbox.due(NOW, 1))
    assert tenants.directory.write(lambda: outbox.claim(mail, NOW))
    assert not tenants.directory.write(lambda: outbox.claim(mail, NOW))
    sender._send(mail, NOW)
    assert mail_server.taken(me) == [] and len(waiting(tenants)) == 1


def test_mail_is_not_sent_to_whom_it_may_not_be_trusted_to(
    mail_server: MailServer, trusted: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that nobody vouches for, another host's, a server without STARTTLS, a wrong password."""
    letter, plain = Letter("a@example.com", "s", "b", "1"), MailServer(tmp_path / "plain", "plain").start()
    stripped = f"smtp://localhost:{plain.port}"
    wrong = {"SMTP_URL": mail_server.url.replace("p%40ss", "pass")}
    other = {"SMTP_URL": mail_server.url.replace("localhost", "127.0.0.1")}
    try:
        for changed, why in ((wrong, "535"), (other, "CERTIFICATE"), ({"SMTP_URL": stripped}, "STARTTLS")):
            with pytest.raises(CanNotSend, match=why):
                smtp_server.deliver(settings.load(mail_server.settings | changed), letter)
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(CanNotSend, match="CERTIFICATE"):
            smtp_server.deliver(settings.load(mail_server.settings), letter)
        assert mail_server.taken("a@example.com") == [] and plain.taken() == []
        smtp_server.deliver(settings.load(plain.settings), letter)
        assert len(plain.taken()) == 1
    finally:
        plain.stop()


def test_doctor_tries_the_mail_server_and_sends_nothing(
    mail_server: MailServer, trusted: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(mail_server.taken())
    assert trial_start.mail_server(doctor.this_machine(trusted)) is None
    assert trial_start.mail_server(doctor.this_machine(settings.Settings())) is None
    wrong = settings.load(mail_server.settings | {"SMTP_URL": mail_server.url.replace("p%40ss", "secret")})
    finding = trial_start.mail_server(doctor.this_machine(wrong))
    assert finding and not finding.refuses and "535" in str(finding) and "secret" not in str(finding)
    monkeypatch.delenv("SSL_CERT_FILE")
    finding = trial_start.mail_server(doctor.this_machine(trusted))
    assert finding and "CERTIFICATE" in str(finding)
    assert len(mail_server.taken()) == before


@pytest.mark.parametrize("address", ["a@example.com\r\nBcc: b@example.com", "a\n@example.com", "a@b..c", "@", ""])
def test_address_that_is_none_is_refused_and_brings_no_header(trusted: settings.Settings, address: str) -> None:
    with pytest.raises(MailRefused) as refusal:
        smtp_server.deliver(trusted, Letter(address, "s", "b", "1"))
    assert refusal.value.is_final


def test_strange_but_valid_addresses_are_written_as_they_must_be(
    trusted: settings.Settings, mail_server: MailServer
) -> None:
    for number, address in enumerate(["a,b@example.com", '"x@y"@example.com', "é@bücher.example"]):
        smtp_server.deliver(trusted, Letter(address, "s", "b", f"strange-{number}"))
    found = {str(mail["Message-ID"]): str(mail["To"]) for mail in mail_server.taken()}
    assert found["<strange-0@example.com>"] == '"a,b"@example.com'
    assert found["<strange-2@example.com>"] == "é@xn--bcher-kva.example"


def test_mail_of_a_kind_replaces_the_one_that_waits_and_goes_with_its_tenant(tenants: Tenants, new_tenant: Any) -> None:
    tenant_id = new_tenant()
    for _ in range(3):
        tenants.directory.write(lambda: outbox.ask_for("some", "a@example.com", NOW, tenant_id))
    tenants.directory.write(lambda: outbox.ask_for("other", "a@example.com", NOW))
    assert len(waiting(tenants)) == 2
    tenants.close_account(tenant_id)
    assert tenants.directory.read(lambda: [one.kind for one in Mail.select()]) == ["other"]


def test_server_that_hangs_is_given_up(
    sender: MailSender,
    add: Callable[..., None],
    mail_server: MailServer,
    tenants: Tenants,
    monkeypatch: Any,
    request: Any,
) -> None:
    monkeypatch.setattr(smtp_server, "_STEP_SECONDS", 0.2)
    (mail_server.folder / "hang").touch()
    add(to("asha", request), int(time.time()))
    try:
        sender.send_due(int(time.time()))
    finally:
        (mail_server.folder / "hang").unlink()
    assert "timed out" in waiting(tenants)[0]["error"]
