"""What an operator changes of customers, and the record of it: who was suspended, given a password, closed, and when.

Knows: the statements on the main database, bound by the caller, and that each change is recorded with it. Must not know:
the command line, passwords in clear, tokens, engines. A running server looks at the newest entry each second, so that a
change by a command beside it counts there too. ``by`` names the session of the console that did something; None: a command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from peewee import fn

from protocol.errors import EmailTaken
from storage.main_database import (
    Customer,
    OperatorAction,
    State,
    change_customer,
    customer_by_email,
    forget_links,
    normal_email,
    revoke_sessions,
)
from storage.sessions import revoke_session_of


def newest() -> int:
    """Give the number of the newest entry, 0 if there is none."""
    return int(OperatorAction.select(fn.COALESCE(fn.MAX(OperatorAction.number), 0)).scalar())


def actions(tenant_id: str | None, limit: int) -> list[OperatorAction]:
    """List the newest entries, of one tenant or all, the newest first."""
    found = OperatorAction.select().order_by(OperatorAction.number.desc()).limit(limit)
    return list(found if tenant_id is None else found.where(OperatorAction.tenant_id == tenant_id))


def record(action: str, customer_id: str, now: int, about: str | None = None, by: str | None = None) -> None:
    """Record what was done to a customer; ``""`` stands for none."""
    OperatorAction.create(number=newest() + 1, at=now, action=action, tenant_id=customer_id, about=about, made_by=by)


def set_state(customer_id: str, state: State, now: int, by: str | None = None) -> None:
    """Let a customer do everything, read only, or nothing."""
    change_customer(customer_id, state=state)
    record(state, customer_id, now, by=by)


def set_quotas(customer_id: str, quotas: Mapping[str, Any], now: int, by: str | None = None) -> None:
    """Give a customer quotas of its own, by the names of settings; none: those of all."""
    change_customer(customer_id, quotas=dict(quotas) or None)
    record("quota", customer_id, now, json.dumps(quotas) if quotas else "default", by)


def set_password(customer_id: str, password_hash: str, now: int, by: str | None = None) -> list[str]:
    """Replace a password without proof of the old one, and end all sessions, whose IDs it gives."""
    change_customer(customer_id, passwordHash=password_hash)
    forget_links(customer_id)
    record("set-password", customer_id, now, by=by)
    return revoke_sessions(customer_id, now)


def change_email(customer_id: str, email: str, now: int, by: str | None = None) -> None:
    """Replace the address that a customer logs in with.

    Raises: EmailTaken.
    """
    there = customer_by_email(email)
    if there is not None and there.id != customer_id:
        raise EmailTaken
    before = Customer.get_by_id(customer_id).email
    change_customer(customer_id, email=normal_email(email))
    forget_links(customer_id)
    record("rename-email", customer_id, now, f"{before} to {normal_email(email)}", by)


def end_sessions(customer_id: str, now: int, session_id: str | None = None, by: str | None = None) -> list[str]:
    """End all live sessions of a customer, or one; give those that ended."""
    if session_id is None:
        ended = revoke_sessions(customer_id, now)
    else:
        ended = [session_id] if revoke_session_of(customer_id, session_id, now) else []
    if ended:
        record("end-sessions", customer_id, now, session_id, by)
    return ended


def record_link(customer_id: str, purpose: str, now: int, by: str | None = None) -> None:
    """Record that a link was made by which a customer, or whoever has it, may do something without a password."""
    record(f"{purpose}-link", customer_id, now, by=by)


def record_removal(customer_id: str, now: int, by: str | None = None) -> None:
    """Record that an account is about to be closed."""
    record("delete", customer_id, now, by=by)


# --- rows that an operator changed -----------------------------------------------------------------------------------

REWOUND, IMPORTED = "rewound", "imported"
"""Recorded once rows were written, so that servers tell their sockets."""


def changed_since(number: int) -> list[str]:
    """List the tenants whose rows an operator wrote, as recorded after an entry."""
    written = (OperatorAction.number > number) & OperatorAction.action.in_([REWOUND, IMPORTED])
    return sorted({found.tenant_id for found in OperatorAction.select(OperatorAction.tenant_id).where(written)})
