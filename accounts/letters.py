"""What mails to customers say, in plain text, and the links in them.

Knows: the words, where links lead, how long they count. Must not know: SMTP, endpoints, SQL, when a mail is sent.

Nothing in them was typed by a customer, else anybody could have this server send his words to any address. The token is
in the part of a link after ``#``: browsers send that to no server, so that no log and no ``Referer`` has it.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import NamedTuple

from settings import Settings
from storage import account_links
from storage.account_links import Purpose
from storage.engine import Database
from storage.main_database import Customer, customer_by_email, customer_by_id
from storage.outbox import Mail

RESET, VERIFY, CHANGE = "reset-password", "verify-email", "change-email"
"""The kinds of mails with a link; each is written when it is sent, so that its link is fresh and no token waits."""

LINK_SECONDS: dict[Purpose, int] = {"reset": 3_600, "confirm": 3 * 86_400}
_PATHS: dict[Purpose, str] = {"reset": "/reset-password", "confirm": "/confirm-email"}


class Letter(NamedTuple):
    """A mail in words. ``message_id`` is its name, without the domain."""

    recipient: str
    subject: str
    body: str
    message_id: str


def public_url(settings: Settings) -> str:
    """Give the address at which people reach this server, as far as that is known."""
    return settings.public_url or f"http://localhost:{settings.port}"


def link_to(settings: Settings, purpose: Purpose, token: str) -> str:
    """Write a link."""
    return f"{public_url(settings)}{_PATHS[purpose]}#{token}"


def trial_letter(settings: Settings, recipient: str) -> Letter:
    """Write a mail by which an operator sees that mails arrive."""
    return _letter(recipient, "A test of mails", f"This is a test of the mails of {settings.public_url}. It arrived.")


def reset_note(settings: Settings) -> tuple[str, str]:
    """Give subject and body of the mail that tells a customer of a new password."""
    return "Your password was changed", (
        f"The password of your account at {settings.public_url} was changed by a link. All devices were logged out.\n\n"
        "If that was not you, somebody else reads your mail: secure your mailbox, then ask for a new link there.\n"
    )


def change_note(settings: Settings) -> tuple[str, str]:
    """Give subject and body of the mail that tells the old address that there is another."""
    return "Your e-mail address was changed", (
        f"Your account at {settings.public_url} has another e-mail address now, and gets no mail at this one any more.\n\n"
        "If that was not you, tell the operator of that server at once.\n"
    )


class Letters:
    """Writes the mails that wait in the outbox without words."""

    def __init__(self, settings: Settings, directory: Database) -> None:
        self._settings, self._directory = settings, directory

    def write(self, mail: Mail, now: int) -> Letter | None:
        """Write a mail and make its link; None if it is nobody's any more, or was nobody's address from the beginning."""
        return self._directory.write(partial(self._write, mail, now))

    def _write(self, mail: Mail, now: int) -> Letter | None:
        customer = customer_by_email(mail.recipient) if mail.kind == RESET else customer_by_id(mail.tenant_id or "")
        if customer is None or customer.state == "suspended":
            return None
        if mail.kind == RESET:
            return self._reset(customer, now)
        if mail.kind == VERIFY and (customer.email != mail.recipient or customer.verifiedEmail == customer.email):
            return None
        return self._confirm(customer, mail, now)

    def _reset(self, customer: Customer, now: int) -> Letter:
        link = self._link(customer, "reset", customer.email, now)
        body = (
            f"Somebody asked to set a new password for your account at {self._settings.public_url}.\n\n"
            f"Open this page to set one. The link works once, within an hour:\n\n{link}\n\n"
            "If that was not you, do nothing: your password stays as it is."
        )
        return _letter(customer.email, "Set a new password", body)

    def _confirm(self, customer: Customer, mail: Mail, now: int) -> Letter:
        link, here = self._link(customer, "confirm", mail.recipient, now), self._settings.public_url
        why = f"This address was given for an account at {here}."
        if mail.kind == CHANGE:
            why = f"This address was given as the new one of an account at {here}. It counts once it is confirmed."
        body = (
            f"{why}\n\nOpen this page to confirm that it is yours. The link works once, within three days:\n\n{link}\n\n"
            "If you know nothing of it, do nothing."
        )
        return _letter(mail.recipient, "Confirm your e-mail address", body)

    def _link(self, customer: Customer, purpose: Purpose, email: str, now: int) -> str:
        token = account_links.make(customer.id, purpose, email, now, LINK_SECONDS[purpose])
        return link_to(self._settings, purpose, token)


def _letter(recipient: str, subject: str, body: str) -> Letter:
    """Name each anew: a mail that is written again has another link, and is not a copy of the first."""
    return Letter(recipient, subject, f"{body}\n", secrets.token_hex(16))
