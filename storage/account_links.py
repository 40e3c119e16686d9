"""Links that stand for a password once: to set a new one, to confirm an address.

Knows: the statements on them in the main database, bound by the caller, and that only a digest of each token is kept. Must
not know: mails, addresses of pages, passwords in clear, engines.

A customer has one link of each purpose: a newer one takes the place of an older. It ends when it is used, when its time is
over, and when the password or the address is changed otherwise; then mails that wait with one are not sent any more.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal, NamedTuple

from protocol.errors import EmailTaken, LinkInvalid, TenantSuspended
from storage.main_database import (
    AccountLink,
    Customer,
    change_customer,
    customer_by_email,
    customer_by_id,
    forget_links,
    revoke_sessions,
)

Purpose = Literal["reset", "confirm"]


def make(customer_id: str, purpose: Purpose, email: str | None, now: int, seconds: int) -> str:
    """Make a link, and give its token. ``email``: the address that it is sent to, and that it confirms."""
    token = secrets.token_urlsafe(32)
    older = (AccountLink.customer_id == customer_id) & (AccountLink.purpose == purpose)
    AccountLink.delete().where(older | (AccountLink.expires_at <= now)).execute()
    values = {"customer_id": customer_id, "purpose": purpose, "email": email, "expires_at": now + seconds}
    AccountLink.create(id=_digest(token), **values)
    return token


def _digest(token: str) -> str:
    """A fast hash is enough: nobody can try the tokens through, which have 256 bits."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def must_be_valid(token: str, purpose: Purpose, now: int) -> tuple[AccountLink, Customer]:
    """Give a link and its customer.

    Raises: LinkInvalid, TenantSuspended.
    """
    link = AccountLink.get_or_none((AccountLink.id == _digest(token)) & (AccountLink.purpose == purpose))
    if link is None or link.expires_at <= now or (customer := customer_by_id(link.customer_id)) is None:
        raise LinkInvalid
    if customer.state == "suspended":
        raise TenantSuspended
    return link, customer


def _spend(token: str, purpose: Purpose, now: int) -> tuple[AccountLink, Customer]:
    """Use a link up; of two who come at once, also to two processes, one gets it. Raises: as ``must_be_valid``."""
    link, customer = must_be_valid(token, purpose, now)
    if not AccountLink.delete().where(AccountLink.id == link.id).execute():
        raise LinkInvalid
    return link, customer


class Reset(NamedTuple):
    """Whose password was replaced, and the sessions that ended."""

    customer: Customer
    ended: list[str]


def reset_password(token: str, password_hash: str, now: int) -> Reset:
    """Replace a password, end all sessions, and spend the link, which shows that its address is the customer's.

    Raises: LinkInvalid, TenantSuspended.
    """
    link, customer = _spend(token, "reset", now)
    verified = {"verifiedEmail": link.email} if link.email else {}
    change_customer(customer.id, passwordHash=password_hash, **verified)
    forget_links(customer.id)
    return Reset(customer, revoke_sessions(customer.id, now))


def confirm_email(token: str, now: int) -> tuple[Customer, str]:
    """Take over the address that a link was sent to, and spend the link; give the customer as it was, and the address.

    Raises: LinkInvalid, TenantSuspended, EmailTaken; each undoes the write, so that the link is not spent.
    """
    link, customer = _spend(token, "confirm", now)
    email = link.email or customer.email
    there = customer_by_email(email)
    if there is not None and there.id != customer.id:
        raise EmailTaken
    change_customer(customer.id, email=email, verifiedEmail=email)
    if email != customer.email:
        forget_links(customer.id)
    return customer, email
