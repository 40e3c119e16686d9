"""How a customer gets in again without a password, and shows that an address is its own.

Knows: which mails are asked for, what a link does. Must not know: endpoints, SMTP, what mails say, SQL.
"""

from __future__ import annotations

import time

from blinker import Signal

from accounts import letters
from accounts.passwords import Passwords
from protocol.errors import EmailTaken, NoMail
from settings import Settings
from storage import account_links, outbox
from storage.engine import Database
from storage.main_database import Customer, customer_by_email


class Rescue:
    """Asks for mails with links, and does what links are for."""

    def __init__(self, settings: Settings, directory: Database, passwords: Passwords, ended: Signal) -> None:
        """``ended`` is sent with the IDs of sessions that have ended."""
        self._settings, self._directory, self._passwords, self._ended = settings, directory, passwords, ended
        self.sends_mail = bool(settings.smtp_url)

    def ask_for_reset(self, email: str) -> None:
        """Ask for a mail with a link for a new password, whoever has this address or nobody: that is looked up when the
        mail is written, so that neither the answer nor its time tells.

        Raises: NoMail, Busy.
        """
        self._ask(letters.RESET, email, None)

    def ask_for_verification(self, customer: Customer) -> None:
        """Ask for a mail by which the customer's address is confirmed. Raises: NoMail, Busy."""
        self._ask(letters.VERIFY, customer.email, customer.id)

    def ask_for_change(self, customer: Customer, email: str) -> None:
        """Ask for a mail to a new address, which counts once it is confirmed.

        Raises: NoMail, Busy, EmailTaken.
        """
        there = self._directory.read(lambda: customer_by_email(email))
        if there is not None and there.id != customer.id:
            raise EmailTaken
        self._ask(letters.CHANGE, email, customer.id)

    def _ask(self, kind: str, email: str, customer_id: str | None) -> None:
        if not self.sends_mail:
            raise NoMail
        self._directory.write(lambda: outbox.ask_for(kind, email, int(time.time()), customer_id))

    def reset_password(self, token: str, password: str) -> Customer:
        """Replace a password by a link, and end all sessions of its customer, everywhere.

        Raises: LinkInvalid, TenantSuspended, Busy.
        """
        now = int(time.time())
        self._directory.read(lambda: account_links.must_be_valid(token, "reset", now))  # Before a hash is spent on it.
        hashed = self._passwords.hash(password)

        def reset() -> account_links.Reset:
            """Spend the link, and tell its customer."""
            done = account_links.reset_password(token, hashed, now)
            if self.sends_mail:
                outbox.add(done.customer.email, *letters.reset_note(self._settings), now, done.customer.id)
            return done

        done = self._directory.write(reset)
        self._ended.send(done.ended)
        return done.customer

    def confirm_email(self, token: str) -> tuple[Customer, str]:
        """Confirm an address by a link, and tell the old one if it is another; give the customer, and the address.

        Raises: LinkInvalid, TenantSuspended, EmailTaken.
        """
        now = int(time.time())

        def confirm() -> tuple[Customer, str]:
            """Spend the link, and tell the address of before."""
            before, email = account_links.confirm_email(token, now)
            if self.sends_mail and before.email != email:
                outbox.add(before.email, *letters.change_note(self._settings), now, before.id)
            return before, email

        return self._directory.write(confirm)
