"""Links that stand for a password once, in the main database: how long they count, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from blinker import Signal

from accounts.letters import LINK_SECONDS, Letter, Letters
from accounts.passwords import Passwords
from accounts.rescue import Rescue
from operations import customer_changes
from protocol.errors import Busy, LinkInvalid
from settings import Settings
from storage import account_links, operator_actions, outbox
from storage.main_database import AccountLink, Customer
from storage.outbox import Mail
from storage.sessions import change_password
from tenants import Tenants

NOW = 1_800_000_000
SETTINGS = Settings(
    smtp_url="smtp://localhost", mail_from="a@example.com", public_url="https://a.example", bcrypt_rounds=8
)


@pytest.fixture
def rescue(tenants: Tenants) -> Rescue:
    return Rescue(SETTINGS, tenants.directory, Passwords(8), Signal())


def customer_of(tenants: Tenants, tenant_id: str) -> Customer:
    return tenants.directory.read(lambda: Customer.get_by_id(tenant_id))


def stored(tenants: Tenants) -> tuple[list[dict[str, Any]], int]:
    """Give the outbox without what differs from mail to mail, and the number of links."""

    def look() -> tuple[list[dict[str, Any]], int]:
        mails = [
            {name: getattr(mail, name) for name in Mail._meta.fields.keys() - {"id", "recipient"}}
            for mail in Mail.select()
        ]
        return mails, AccountLink.select().count()

    return tenants.directory.read(look)


def test_request_does_the_same_for_every_address(
    tenants: Tenants, new_tenant: Callable[[], str], rescue: Rescue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is looked up, written or hashed for one address that is not for another: until the mail is sent."""
    monkeypatch.setattr("accounts.rescue.time.time", lambda: NOW)
    known, closed, suspended = (customer_of(tenants, new_tenant()) for _ in range(3))
    tenants.close_account(closed.id)
    tenants.directory.write(lambda: operator_actions.set_state(suspended.id, "suspended", NOW))
    found = []
    for email in ("nobody@example.com", known.email, closed.email, suspended.email):
        rescue.ask_for_reset(email)
        found.append(stored(tenants))
        tenants.directory.write(lambda: Mail.delete().execute())
    assert found == [found[0]] * 4 and len(found[0][0]) == 1 and found[0][1] == 0


def test_mail_is_written_for_who_has_the_address_and_is_not_suspended(
    tenants: Tenants, new_tenant: Callable[[], str], rescue: Rescue
) -> None:
    known, suspended = (customer_of(tenants, new_tenant()) for _ in range(2))
    tenants.directory.write(lambda: operator_actions.set_state(suspended.id, "suspended", NOW))
    letters, written = Letters(SETTINGS, tenants.directory), dict[str, Letter | None]()
    for email in (known.email, suspended.email, "nobody@example.com"):
        rescue.ask_for_reset(email)
    for mail in tenants.directory.read(lambda: outbox.listed(9)):
        written[mail.recipient] = letters.write(mail, NOW)
    assert written[suspended.email] is None and written["nobody@example.com"] is None
    letter = written[known.email]
    assert letter and "https://a.example/reset-password#" in letter.body
    kept = str([vars(one)["__data__"] for one in tenants.directory.read(lambda: list(AccountLink.select()))])
    assert letter.body.partition("#")[2].split()[0] not in kept, "a digest alone is kept"


def test_link_counts_until_its_time_is_over_and_no_longer(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id, write = new_tenant(), tenants.directory.write
    for purpose, use in (("reset", reset), ("confirm", account_links.confirm_email)):
        seconds = LINK_SECONDS[purpose]  # type: ignore[index]
        token = write(lambda: account_links.make(tenant_id, purpose, "a@example.com", NOW, seconds))  # type: ignore[arg-type]
        with pytest.raises(LinkInvalid):
            write(lambda: use(token, NOW + seconds))
        write(lambda: use(token, NOW + seconds - 1))
        with pytest.raises(LinkInvalid):
            write(lambda: use(token, NOW))


def reset(token: str, now: int) -> object:
    return account_links.reset_password(token, "hash", now)


@pytest.mark.parametrize(
    "change",
    [
        lambda tenant_id: operator_actions.set_password(tenant_id, "hash", NOW),
        lambda tenant_id: operator_actions.change_email(tenant_id, "new@example.com", NOW),
        lambda tenant_id: account_links.make(tenant_id, "reset", None, NOW, 3600),
    ],
    ids=["another password", "another address", "a newer link"],
)
def test_link_ends_with_what_it_was_for(
    tenants: Tenants, new_tenant: Callable[[], str], change: Callable[[str], object]
) -> None:
    (tenant_id, other_id), write = (new_tenant(), new_tenant()), tenants.directory.write
    token = write(lambda: account_links.make(tenant_id, "reset", None, NOW, 3600))
    other = write(lambda: account_links.make(other_id, "reset", None, NOW, 3600))
    write(lambda: change(tenant_id))
    with pytest.raises(LinkInvalid):
        write(lambda: reset(token, NOW))
    write(lambda: reset(other, NOW))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: operator_actions.set_password(one.id, "hash", NOW),
        lambda one: change_password(one.id, "-", "hash", NOW, but=""),
        lambda one: reset(account_links.make(one.id, "reset", None, NOW, 3600), NOW),
        lambda one: account_links.confirm_email(account_links.make(one.id, "confirm", "b@example.com", NOW, 9), NOW),
    ],
    ids=["by the operator", "by the customer", "by a link", "another address"],
)
def test_mail_that_waits_with_a_link_ends_with_the_password_too_and_no_other_tenants(
    tenants: Tenants, new_tenant: Callable[[], str], rescue: Rescue, change: Callable[[Customer], object]
) -> None:
    """Fault: who had known a password asked for an address whose mail server put the mail off. The next try made a link
    that counted, after the password had been changed. And who asked for the same address took away another's mail."""
    one, other = (customer_of(tenants, new_tenant()) for _ in range(2))
    for customer in (one, other):
        rescue.ask_for_change(customer, "new@example.com")
    assert len(stored(tenants)[0]) == 2
    tenants.directory.write(lambda: change(one))
    assert [mail["tenant_id"] for mail in stored(tenants)[0]] == [other.id]


def test_link_of_the_operator_is_not_ended_by_a_mail_that_waits(
    tenants: Tenants, new_tenant: Callable[[], str], rescue: Rescue
) -> None:
    customer = customer_of(tenants, new_tenant())
    rescue.ask_for_change(customer, "new@example.com")
    rescue.ask_for_verification(customer)
    customer_changes.make_link(tenants.engine, SETTINGS, customer, "confirm", 60)
    assert stored(tenants) == ([], 1)


def test_closed_account_keeps_no_link_and_no_mail(
    tenants: Tenants, new_tenant: Callable[[], str], rescue: Rescue
) -> None:
    tenant_id = new_tenant()
    rescue.ask_for_verification(customer_of(tenants, tenant_id))
    tenants.directory.write(lambda: account_links.make(tenant_id, "reset", None, NOW, 3600))
    tenants.close_account(tenant_id)
    assert stored(tenants) == ([], 0)


def test_flood_of_requests_is_bounded(tenants: Tenants, rescue: Rescue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_MOST_ASKED_FOR", 3)
    for number in range(3):
        rescue.ask_for_reset(f"{number}@example.com")
    with pytest.raises(Busy):
        rescue.ask_for_reset("one.more@example.com")
    tenants.directory.write(lambda: outbox.add("operator@example.com", "s", "b", NOW))  # Nobody asked from outside.
