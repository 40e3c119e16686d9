"""What an operator changes of customers, and the record of it: who was suspended, given a password, closed, and when.

Knows: the statements on the main database, bound by the caller, and that each change is recorded with it. Must not know:
the command line, passwords in clear, tokens, engines. A running server looks at the newest entry each second, so that a
change by a command beside it counts there too.
"""

from __future__ import annotations

from peewee import fn

from protocol.errors import EmailTaken
from storage.main_database import (
    Customer,
    OperatorAction,
    Session,
    State,
    change_customer,
    customer_by_email,
    forget_links,
    normal_email,
    revoke_sessions,
)


def newest() -> int:
    """Give the number of the newest entry, 0 if there is none."""
    return int(OperatorAction.select(fn.COALESCE(fn.MAX(OperatorAction.number), 0)).scalar())


def actions(tenant_id: str | None, limit: int) -> list[OperatorAction]:
    """List the newest entries, of one tenant or all, the newest first."""
    found = OperatorAction.select().order_by(OperatorAction.number.desc()).limit(limit)
    return list(found if tenant_id is None else found.where(OperatorAction.tenant_id == tenant_id))


def _record(action: str, customer_id: str, now: int, about: str | None = None) -> None:
    OperatorAction.create(number=newest() + 1, at=now, action=action, tenant_id=customer_id, about=about)


def set_state(customer_id: str, state: State, now: int) -> None:
    """Let a customer do everything, read only, or nothing."""
    change_customer(customer_id, state=state)
    _record(state, customer_id, now)


def set_password(customer_id: str, password_hash: str, now: int) -> list[str]:
    """Replace a password without proof of the old one, and end all sessions, whose IDs it gives."""
    change_customer(customer_id, passwordHash=password_hash)
    forget_links(customer_id)
    _record("set-password", customer_id, now)
    return revoke_sessions(customer_id, now)


def change_email(customer_id: str, email: str, now: int) -> None:
    """Replace the address that a customer logs in with.

    Raises: EmailTaken.
    """
    there = customer_by_email(email)
    if there is not None and there.id != customer_id:
        raise EmailTaken
    before = Customer.get_by_id(customer_id).email
    change_customer(customer_id, email=normal_email(email))
    forget_links(customer_id)
    _record("rename-email", customer_id, now, f"{before} to {normal_email(email)}")


def end_sessions(customer_id: str, now: int, session_id: str | None = None) -> list[str]:
    """End all live sessions of a customer, or one; give those that ended."""
    if session_id is None:
        ended = revoke_sessions(customer_id, now)
    else:
        live = (Session.customer_id == customer_id) & Session.revoked_at.is_null() & (Session.id == session_id)
        ended = [session_id] if Session.update(revoked_at=now).where(live).execute() else []
    if ended:
        _record("end-sessions", customer_id, now, session_id)
    return ended


def record_link(customer_id: str, purpose: str, now: int) -> None:
    """Record that a link was made by which a customer, or whoever has it, may do something without a password."""
    _record(f"{purpose}-link", customer_id, now)


def record_removal(customer_id: str, now: int) -> None:
    """Record that an account is about to be closed."""
    _record("delete", customer_id, now)
