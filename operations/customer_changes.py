"""What an operator does to a customer, by a command or in the console.

Knows: which checks come before each change. Must not know: the command line, requests, SQL. ``by`` names who did it in the
record: a session of the console, or None for a command. A running server notices each change within a second.
"""

from __future__ import annotations

import time

from accounts.account_fields import FieldReader
from accounts.letters import RESET, link_to
from accounts.passwords import Passwords
from settings import Settings
from storage import account_links, operator_actions, outbox
from storage.account_links import Purpose
from storage.engine import Engine
from storage.main_database import Customer, State
from tenants import Tenants


def set_state(engine: Engine, customer: Customer, state: State, by: str | None = None) -> None:
    """Let a customer do everything, read only, or nothing."""
    engine.directory.write(lambda: operator_actions.set_state(customer.id, state, _now(), by))


def change_email(engine: Engine, customer: Customer, email: str, by: str | None = None) -> str:
    """Replace the address that a customer logs in with; give it as it is stored.

    Raises: ValidationError, EmailTaken.
    """
    fields = FieldReader({"email": email})
    address = fields.email()
    fields.check()
    engine.directory.write(lambda: operator_actions.change_email(customer.id, address, _now(), by))
    return address


def set_password(engine: Engine, passwords: Passwords, customer: Customer, password: str, by: str | None = None) -> int:
    """Replace a password and end all sessions; give how many those were.

    Raises: ValidationError.
    """
    fields = FieldReader({"password": password})
    new = fields.password("password")
    fields.check()
    hashed = passwords.hash(new)
    return len(engine.directory.write(lambda: operator_actions.set_password(customer.id, hashed, _now(), by)))


def make_link(
    engine: Engine, settings: Settings, customer: Customer, purpose: Purpose, seconds: int, by: str | None = None
) -> str:
    """Make a link by which a customer sets a new password or confirms its address, once and for so long.

    Mails that wait with such a link are not sent any more: theirs would be newer, and end this one.
    """
    email = customer.email if purpose == "confirm" else None  # What was not mailed shows nothing of an address.

    def make() -> str:
        """Record it, and make the link in the place of those of before."""
        operator_actions.record_link(customer.id, purpose, _now(), by)
        _withdraw(purpose, customer)
        return account_links.make(customer.id, purpose, email, _now(), seconds)

    return link_to(settings, purpose, engine.directory.write(make))


def _withdraw(purpose: Purpose, customer: Customer) -> None:
    if purpose == "reset":
        outbox.withdraw(RESET, customer.email)  # Whose it is, is looked up when it is sent.
    else:
        outbox.withdraw_links(customer.id)


def end_sessions(engine: Engine, customer: Customer, session_id: str | None = None, by: str | None = None) -> int:
    """End all sessions of a customer, or one; give how many ended."""
    return len(engine.directory.write(lambda: operator_actions.end_sessions(customer.id, _now(), session_id, by)))


def delete(tenants: Tenants, customer: Customer, by: str | None = None) -> int:
    """Close an account and remove its data for good; give how many sessions ended."""
    tenants.directory.write(lambda: operator_actions.record_removal(customer.id, _now(), by))
    return len(tenants.close_account(customer.id))


def record_export(engine: Engine, customer: Customer, by: str | None = None) -> None:
    """Record that all that is held of a customer is about to be written out."""
    engine.directory.write(lambda: operator_actions.record("export", customer.id, _now(), by=by))


def _now() -> int:
    return int(time.time())
