"""The main database: which tables it has, and the statements on customers and closed accounts.

Knows: these tables, bound by the caller; a subject with a module of its own has its table there (``outbox``,
``backup_runs``). Must not know: passwords in clear, tokens, requests, which engine or file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

from peewee import IntegerField, TextField

from models import Bound, JsonField, connection
from protocol.codec import has_null
from protocol.errors import InvalidCredentials
from storage.accepted_tables import DeclaredTable
from storage.backup_runs import BackupRun
from storage.dialect import dialect
from storage.last_positions import LastPosition
from storage.operator_sessions import OperatorSession
from storage.outbox import Mail, withdraw_all, withdraw_links
from storage.push_batch import insert_row
from storage.schema import add_missing, fingerprint
from storage.usage import DailyUsage, forget_tenant

_MOST_COMPOSED = 1_000


State = Literal["active", "read-only", "suspended"]


class Customer(Bound):
    """One business; its ``id`` is the ID of its tenant, its ``state`` a ``State``. ``quotas`` are those of its own, by the
    names of settings; ``verifiedEmail`` is the address that was shown last to be its own."""

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
    state = TextField(default="active")
    quotas = JsonField(null=True)
    verifiedEmail = TextField(null=True)

    class Meta:
        table_name = "customers"


class Session(Bound):
    """One login and all tokens that came of it: the family of a refresh token. Times in seconds since 1970.

    ``refresh_id`` names the newest pair. ``spent_id`` is the token that it was given for, as long as nothing shows that
    the pair arrived. ``dropped_id`` is a pair that another took the place of, because its answer seemed lost.
    """

    id = TextField(primary_key=True)
    customer_id = TextField(index=True)
    refresh_id = TextField()
    spent_id = TextField(null=True)
    spent_at = IntegerField(null=True)
    dropped_id = TextField(null=True)
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


class Installation(Bound):
    """One row, once it is needed: a name of this directory alone, and while nothing is written here, to which installation
    it moved (see ``moving``) or since when an operator has it take no changes, and what clients are told."""

    id = IntegerField(primary_key=True)
    name = TextField()
    moved_to = TextField(null=True)
    maintenance_since = IntegerField(null=True)
    maintenance_message = TextField(null=True)

    class Meta:
        table_name = "installation"


class OperatorAction(Bound):
    """One thing that an operator did. ``at`` in seconds since 1970; ``tenant_id`` may be of a customer that is gone, or
    ``""`` if it was to no customer. ``made_by`` names the session of the console; None: a command did it."""

    number = IntegerField(primary_key=True)
    at = IntegerField()
    action = TextField()
    tenant_id = TextField(index=True)
    about = TextField(null=True)
    made_by = TextField(null=True)

    class Meta:
        table_name = "operator_actions"


class AccountLink(Bound):
    """A link by which a customer may do one thing once without a password (see ``account_links``); ``id`` is the digest of
    its token, ``email`` the address that it is sent to, if it is."""

    id = TextField(primary_key=True)
    customer_id = TextField(index=True)
    purpose = TextField()
    email = TextField(null=True)
    expires_at = IntegerField()

    class Meta:
        table_name = "account_links"


_MODELS = [
    Customer,
    Session,
    Closing,
    LastPosition,
    DeclaredTable,
    Installation,
    OperatorAction,
    OperatorSession,
    BackupRun,
    Mail,
    AccountLink,
    DailyUsage,
]
FINGERPRINT = fingerprint(_MODELS)
TABLES = [str(model._meta.table_name) for model in _MODELS]


def prepare() -> None:
    """Make the main database what this version needs."""
    add_missing(_MODELS)


def normal_form(text: str, form: Literal["NFC", "NFD"] = "NFC") -> str:
    """Write a text in one way, where keyboards differ: ``é`` is one character or two.

    Source: RFC 8265 sections 3.3 and 4.2: names and passwords are compared in NFC. A text that is too long to be either
    is left alone: sorting the accents of one letter takes their number squared.
    """
    return unicodedata.normalize(form, text) if len(text) <= _MOST_COMPOSED else text


def forms(text: str) -> list[str]:
    """Give a text as it was typed and in both normal forms, each once; earlier versions kept what was typed."""
    return list(dict.fromkeys([text, normal_form(text), normal_form(text, "NFD")]))


def normal_email(email: str) -> str:
    """Give the form in which addresses are compared and stored."""
    return normal_form(email.strip().lower())


def id_by_email(email: str) -> str | None:
    """Find whose address this is, in any case and normal form and with any space around it; to the letter first.

    In plain SQL: each registration asks, and nearly always it is nobody's.
    """
    if has_null(email):  # Nobody's: an engine may not even take it in a statement.
        return None
    for form in forms(email.strip().lower()):
        found = connection().execute("SELECT id FROM customers WHERE email = ?", (form,)).fetchone()
        if found:
            return str(found[0])
    return None


def customer_by_email(email: str) -> Customer | None:
    """Find a customer by address, as ``id_by_email`` does."""
    found = id_by_email(email)
    return None if found is None else customer_by_id(found)


def add_customer(customer: Customer) -> None:
    """Add a customer, whose address nobody has."""
    values = [getattr(customer, field.name) for field in Customer._meta.sorted_fields]
    connection().execute(_ADD_CUSTOMER, values)


_ADD_CUSTOMER = insert_row("customers", tuple(field.column_name for field in Customer._meta.sorted_fields))


def customer_by_id(customer_id: str) -> Customer | None:
    """Find a customer by the ID of its tenant."""
    found: Customer | None = Customer.get_or_none(Customer.id == customer_id)
    return found


def customer_ids() -> set[str]:
    """List every customer's ID."""
    return {row[0] for row in connection().execute("SELECT id FROM customers")}


def emails_of(customer_ids: Iterable[str]) -> dict[str, str]:
    """Give the addresses of some customers by their IDs, in one statement; of those that are no more, none."""
    sql = f"SELECT id, email FROM customers WHERE {dialect().is_among('id')}"
    return {str(one): str(email) for one, email in connection().execute(sql, (dialect().listed(customer_ids),))}


def count_customers() -> int:
    """Count the customers."""
    return int(Customer.select().count())


def customer_ids_after(customer_id: str, count: int) -> list[str]:
    """List the next IDs in order, from ``""`` on, for who goes over all customers and need not hold their IDs at once."""
    found = connection().execute("SELECT id FROM customers WHERE id > ? ORDER BY id LIMIT ?", (customer_id, count))
    return [row[0] for row in found]


def change_customer(customer_id: str, **columns: Any) -> None:
    """Set some columns of a customer."""
    Customer.update(**columns).where(Customer.id == customer_id).execute()


def add_missing_customer(customer: Customer) -> str | None:
    """Bring a customer back as it was, unless the directory knows it; a new account under its address stays first.

    Gives the address that it has instead then. A closing that is under way ends, else it would remove what was restored.
    """
    Closing.delete().where(Closing.tenant_id == customer.id).execute()
    if customer_by_id(customer.id) is not None:
        return None
    fields = {name: getattr(customer, name) for name in Customer._meta.fields}
    other = f"{customer.id}+{customer.email}" if customer_by_email(customer.email) else None
    Customer.create(**{**fields, "email": other or customer.email})
    return other


def remove_customer(customer_id: str, proven: str | None = None) -> list[str]:
    """Take an account out of the directory and note that its files are to be removed; return its sessions.

    Raises: InvalidCredentials if ``proven`` is not the hash any more that the password was compared with.
    """
    if proven is not None and not is_hash_of(customer_id, proven):
        raise InvalidCredentials("The password is wrong.")
    sessions = revoke_sessions(customer_id, now=0)
    Session.delete().where(Session.customer_id == customer_id).execute()
    Customer.delete().where(Customer.id == customer_id).execute()
    LastPosition.delete().where(LastPosition.tenant_id == customer_id).execute()
    withdraw_all(customer_id)
    forget_links(customer_id)
    forget_tenant(customer_id)
    Closing.insert(tenant_id=customer_id).on_conflict_ignore().execute()
    return sessions


def unfinished_closings() -> list[str]:
    """List the accounts whose files are still to be removed."""
    return [closing.tenant_id for closing in Closing.select().where(Closing.finished_at.is_null())]


def finish_closing(tenant_id: str, now: int) -> None:
    """Note that the files of a closed account are gone."""
    Closing.update(finished_at=now).where(Closing.tenant_id == tenant_id).execute()


def is_closed(tenant_id: str) -> bool:
    """Tell whether an account was closed."""
    return bool(Closing.select().where(Closing.tenant_id == tenant_id).exists())


def closed_ids() -> set[str]:
    """List the accounts that were closed."""
    return {closing.tenant_id for closing in Closing.select()}


# --- sessions ---------------------------------------------------------------------------------------------------------


def is_hash_of(customer_id: str, password_hash: str) -> bool:
    """Tell whether a customer still has this hash of a password."""
    return bool(Customer.get_or_none((Customer.id == customer_id) & (Customer.passwordHash == password_hash)))


def revoke_sessions(customer_id: str, now: int, but: str = "") -> list[str]:
    """Revoke a customer's sessions except ``but``; return those that were live."""
    live = (Session.customer_id == customer_id) & Session.revoked_at.is_null() & (Session.id != but)
    sessions = [session.id for session in Session.select(Session.id).where(live)]
    Session.update(revoked_at=now).where(live).execute()
    return sessions


def forget_links(customer_id: str) -> None:
    """Let a customer's links count no more, also those of mails that wait: each try of one makes its link anew."""
    withdraw_links(customer_id)
    AccountLink.delete().where(AccountLink.customer_id == customer_id).execute()
