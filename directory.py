"""The main database: customers and their sessions.

Knows: the tables of the installation and every query on them, bound by the caller. Must not know: passwords in clear,
tokens, requests, which engine or file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peewee import BooleanField, IntegerField, TextField

from models import Bound, JsonField, connection
from schema import add_missing, fingerprint


class Customer(Bound):
    """One business; its ``id`` is the ID of its tenant."""

    id = TextField(primary_key=True)
    name = TextField()
    email = TextField(unique=True)
    companyName = TextField()
    phone = TextField(null=True)
    subscriptionPlan = TextField(default="free")
    firstName = TextField()
    lastName = TextField()
    passwordHash = TextField()
    createdAt = TextField()

    class Meta:
        table_name = "customers"


class Session(Bound):
    """One login and all tokens that came of it: the family of a refresh token. Times in seconds since 1970."""

    id = TextField(primary_key=True)
    customer_id = TextField(index=True)
    refresh_id = TextField()
    created_at = IntegerField()
    expires_at = IntegerField()
    revoked_at = IntegerField(null=True)

    class Meta:
        table_name = "sessions"


class Closing(Bound):
    """An account that was closed and whose files are still to be removed; finished at the next start if need be."""

    tenant_id = TextField(primary_key=True)

    class Meta:
        table_name = "closings"


class DeclaredTable(Bound):
    """A table as it was last declared and accepted (see ``migration``); of a retired one tenants may still hold rows."""

    name = TextField(primary_key=True)
    declaration = JsonField()
    is_retired = BooleanField(default=False)

    class Meta:
        table_name = "declared_tables"


_MODELS = [Customer, Session, Closing, DeclaredTable]
FINGERPRINT = fingerprint(_MODELS)


def prepare() -> None:
    """Make the main database what this version needs."""
    add_missing(_MODELS)


def normal_email(email: str) -> str:
    """Give the form in which addresses are compared and stored."""
    return email.strip().lower()


def customer_by_email(email: str) -> Customer | None:
    """Find a customer by address, in any case and with any space around it."""
    found: Customer | None = Customer.get_or_none(Customer.email == normal_email(email))
    return found


def customer_by_id(customer_id: str) -> Customer | None:
    """Find a customer by the ID of its tenant."""
    found: Customer | None = Customer.get_or_none(Customer.id == customer_id)
    return found


def customer_ids() -> set[str]:
    """List every customer's ID."""
    return {row[0] for row in connection().execute("SELECT id FROM customers")}


def change_customer(customer_id: str, **columns: str | None) -> None:
    """Set some columns of a customer."""
    Customer.update(**columns).where(Customer.id == customer_id).execute()


def add_missing_customer(customer: Customer) -> None:
    """Bring a customer back as it was, unless the directory knows it; a new account under its address stays first."""
    fields = {name: getattr(customer, name) for name in Customer._meta.fields}
    if customer_by_email(customer.email):
        fields["email"] = f"{customer.id}+{customer.email}"
    if customer_by_id(customer.id) is None:
        Customer.create(**fields)


def remove_customer(customer_id: str) -> list[str]:
    """Take an account out of the directory and note that its files are to be removed; return its sessions."""
    sessions = revoke_sessions(customer_id, now=0)
    Session.delete().where(Session.customer_id == customer_id).execute()
    Customer.delete().where(Customer.id == customer_id).execute()
    Closing.insert(tenant_id=customer_id).on_conflict_ignore().execute()
    return sessions


def unfinished_closings() -> list[str]:
    """List the accounts whose files are still to be removed."""
    return [closing.tenant_id for closing in Closing.select()]


def finish_closing(tenant_id: str) -> None:
    """Note that the files of a closed account are gone."""
    Closing.delete().where(Closing.tenant_id == tenant_id).execute()


def begin_session(session_id: str, customer_id: str, refresh_id: str, now: int, expires_at: int) -> None:
    """Note a login, and forget those of this customer whose tokens have all run out."""
    Session.delete().where((Session.customer_id == customer_id) & (Session.expires_at < now)).execute()
    Session.create(id=session_id, customer_id=customer_id, refresh_id=refresh_id, created_at=now, expires_at=expires_at)


def is_session_live(session_id: str, customer_id: str) -> bool:
    """Tell whether tokens of a session still count; asked at each request, so in plain SQL."""
    sql = "SELECT 1 FROM sessions WHERE id = ? AND customer_id = ? AND revoked_at IS NULL"
    return any(connection().execute(sql, (session_id, customer_id)))


def rotate_session(session_id: str, spent_id: str, refresh_id: str, now: int, expires_at: int) -> bool:
    """Replace a session's refresh token; False, with the session revoked, if ``spent_id`` was spent before.

    Source: RFC 9700 section 4.14.2, refresh token rotation.
    """
    session = Session.get_or_none((Session.id == session_id) & Session.revoked_at.is_null())
    if session is None:
        return False
    if session.refresh_id != spent_id:
        revoke_session(session_id, now)
        return False
    mine = Session.update(refresh_id=refresh_id, expires_at=expires_at).where(Session.id == session_id)
    mine.execute()
    return True


def revoke_session(session_id: str, now: int) -> None:
    """Let the tokens of one session count no more."""
    Session.update(revoked_at=now).where(Session.id == session_id).execute()


def revoke_sessions(customer_id: str, now: int, but: str = "") -> list[str]:
    """Revoke a customer's sessions except ``but``; return those that were live."""
    live = (Session.customer_id == customer_id) & Session.revoked_at.is_null() & (Session.id != but)
    sessions = [session.id for session in Session.select(Session.id).where(live)]
    Session.update(revoked_at=now).where(live).execute()
    return sessions


# --- declared tables -------------------------------------------------------------------------------------------------


def accepted_tables() -> list[DeclaredTable]:
    """List the tables as they were last accepted."""
    return list(DeclaredTable.select().order_by(DeclaredTable.name))


def accept_tables(declared: Mapping[str, Any]) -> None:
    """Keep what is declared now; whatever else was accepted before is retired."""
    DeclaredTable.update(is_retired=True).execute()
    for name, declaration in declared.items():
        DeclaredTable.insert(name=name, declaration=declaration, is_retired=False).on_conflict_replace().execute()
