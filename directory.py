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
    """An account that was closed. Without ``finished_at``, in seconds since 1970, its files are still to be removed.

    It stays, without anything else of the customer, so that a restore does not bring the account back unasked.
    """

    tenant_id = TextField(primary_key=True)
    finished_at = IntegerField(null=True)

    class Meta:
        table_name = "closings"


class LastPlace(Bound):
    """Where a tenant's file stood when it was noted last: a file that is behind that went back (see ``incarnations``)."""

    tenant_id = TextField(primary_key=True)
    epoch = TextField(index=True)
    sequence = IntegerField()

    class Meta:
        table_name = "last_places"


class DeclaredTable(Bound):
    """A table as it was last declared and accepted (see ``migration``); of a retired one tenants may still hold rows."""

    name = TextField(primary_key=True)
    declaration = JsonField()
    is_retired = BooleanField(default=False)

    class Meta:
        table_name = "declared_tables"


_MODELS = [Customer, Session, Closing, LastPlace, DeclaredTable]
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
    """Bring a customer back as it was, unless the directory knows it; a new account under its address stays first.

    A closing that is under way ends, else it would remove what was restored.
    """
    Closing.delete().where(Closing.tenant_id == customer.id).execute()
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
    LastPlace.delete().where(LastPlace.tenant_id == customer_id).execute()
    Closing.insert(tenant_id=customer_id).on_conflict_ignore().execute()
    return sessions


def unfinished_closings() -> list[str]:
    """List the accounts whose files are still to be removed."""
    return [closing.tenant_id for closing in Closing.select().where(Closing.finished_at.is_null())]


def finish_closing(tenant_id: str, now: int) -> None:
    """Note that the files of a closed account are gone."""
    Closing.update(finished_at=now).where(Closing.tenant_id == tenant_id).execute()


def closed_ids() -> set[str]:
    """List the accounts that were closed."""
    return {closing.tenant_id for closing in Closing.select()}


# --- where files stood ------------------------------------------------------------------------------------------------


def note_places(places: Mapping[str, tuple[str, int]]) -> None:
    """Note where customers' files stand, by ID their epoch and sequence; of those that are no more, nothing."""
    sql = "INSERT OR REPLACE INTO last_places (tenant_id, epoch, sequence) SELECT ?, ?, ? FROM customers WHERE id = ?"
    connection().executemany(sql, [(one, *place, one) for one, place in places.items()])


def last_place(tenant_id: str) -> tuple[str, int] | None:
    """Tell where a customer's file stood when it was noted last: its epoch and its sequence."""
    found = connection().execute("SELECT epoch, sequence FROM last_places WHERE tenant_id = ?", (tenant_id,))
    return next(((str(epoch), int(sequence)) for epoch, sequence in found), None)


def owner_of(epoch: str) -> str | None:
    """Tell whose file is of an epoch."""
    found = connection().execute("SELECT tenant_id FROM last_places WHERE epoch = ?", (epoch,))
    return next((str(row[0]) for row in found), None)


# --- sessions ---------------------------------------------------------------------------------------------------------


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
