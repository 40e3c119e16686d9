"""Describes customers and their tenants for the operator.

Knows: what of the directory and of a tenant's database an operator is shown, and in which order. Must not know: the command
line, requests, what a tenant's rows say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from protocol.codec import format_time
from protocol.errors import InvalidTenantId
from storage import customer_list, devices, main_database
from storage.customer_list import Listed
from storage.engine import Engine
from storage.main_database import Customer, OperatorAction
from storage.sessions import live_sessions
from storage.tenant_summary import summary
from tenants import parse_tenant_id

Described = dict[str, Any]

DIRECTORY_ORDERS: dict[str, Callable[[Listed], Any]] = {
    "email": lambda one: one.email,
    "name": lambda one: one.name.casefold(),
    "created": lambda one: one.createdAt,
}
"""Orders by what the directory knows, by the word for each."""

MEASURED_ORDERS: dict[str, Callable[[Described], Any]] = {
    "size": lambda one: -(one.get("bytes") or 0),
    "rows": lambda one: -(one.get("rows") or 0),
    "devices": lambda one: -(one.get("devices") or 0),
    "seen": lambda one: one.get("lastSeenAt") or "",
}
"""Orders by what is in the databases: the largest first, the one that was seen longest ago first."""

ORDERS = (*DIRECTORY_ORDERS, *MEASURED_ORDERS)


def find(engine: Engine, text: str) -> Customer:
    """Find the customer of a tenant's ID or an e-mail address.

    Raises: NoCustomer.
    """
    found = engine.directory.read(lambda: main_database.customer_by_email(text) if "@" in text else _by_id(text))
    if found is None:
        raise _nobody(text)
    return found


def _nobody(text: str) -> NoCustomer:
    return NoCustomer(f"There is no customer {json.dumps(text)}: name one by ID or e-mail address.")


def id_of(engine: Engine, text: str) -> str:
    """Give a tenant's ID by itself, of one that may be gone, or by the e-mail address of a customer.

    Raises: NoCustomer.
    """
    return str(find(engine, text).id) if "@" in text else parse_id(text)


def parse_id(text: str) -> str:
    """Read the ID of a tenant that may be gone.

    Raises: NoCustomer for what is none.
    """
    try:
        return parse_tenant_id(text)
    except InvalidTenantId:
        raise _nobody(text) from None


def _by_id(text: str) -> Customer | None:
    try:
        return main_database.customer_by_id(parse_tenant_id(text))
    except InvalidTenantId:
        return None


class NoCustomer(LookupError):
    """Nobody has this ID or address; as text it says so."""


def listed(engine: Engine, search: str, order: str, report: Callable[[int], None]) -> list[Described]:
    """Describe all customers, or those with a word in their name, address, company or ID.

    ``report`` is called with the number of those that are done.
    """
    customers = found(engine, search)
    described = []
    for number, one in enumerate(in_directory_order(customers, order), 1):
        described.append(one._asdict() | measured(engine, one.id))
        report(number)
    return sorted(described, key=MEASURED_ORDERS[order]) if order in MEASURED_ORDERS else described


def found(engine: Engine, search: str) -> list[Listed]:
    """Give the same customers as the directory knows them, by their addresses; no tenant's database is looked into."""
    customers, word = engine.directory.read(customer_list.listed), search.casefold()
    return [one for one in customers if word in _searched(one)] if word else customers


def in_directory_order(customers: list[Listed], order: str) -> list[Listed]:
    """Sort customers, who come by their addresses, unless the order is one of what is in databases."""
    return sorted(customers, key=DIRECTORY_ORDERS[order]) if order in ("name", "created") else customers


def _searched(customer: Listed) -> str:
    return "\n".join([customer.id, customer.email, customer.name, customer.companyName or ""]).casefold()


def describe(engine: Engine, customer: Customer) -> Described:
    """Describe one customer: what the directory says, and what is in the tenant's database, or why that can't be read."""
    verified = {"emailVerified": customer.verifiedEmail == customer.email}
    return {name: getattr(customer, name) for name in Listed._fields} | verified | measured(engine, customer.id)


def sessions(engine: Engine, tenant_id: str, now: int) -> list[Described]:
    """Describe the sessions of a customer that count, each with the devices that came with it last, the newest first."""
    live = engine.directory.read(lambda: live_sessions(tenant_id, now))
    try:
        named = engine.peek(tenant_id, devices.by_session)
    except Exception:  # The sessions of a damaged database can be ended, too.
        named = {}
    return [
        {
            "id": one.id,
            "createdAt": format_time(one.created_at * 1000),
            "expiresAt": format_time(one.expires_at * 1000),
            "devices": named.get(one.id, []),
        }
        for one in live
    ]


def measured(engine: Engine, tenant_id: str) -> Described:
    """Describe what is in a tenant's database, or say why that can't be read."""
    try:
        found = engine.peek(tenant_id, summary)
    except Exception as error:  # A damaged file is one line of a list, and not the end of it.
        return {"fault": str(error) or type(error).__name__}
    return {
        "bytes": found.size_bytes,
        "rows": sum(found.rows.values()),
        "tables": found.rows,
        "changes": found.sequence,
        "openConflicts": found.open_conflicts,
        "devices": found.devices,
        "lastSeenAt": format_time(found.last_seen_at) if found.last_seen_at else None,
        "lastChangeAt": format_time(found.changed_at) if found.changed_at else None,
    }


def described_action(action: OperatorAction) -> Described:
    """Describe an entry of the record; what was done to no customer has none."""
    return {
        "at": format_time(action.at * 1000),
        "action": action.action,
        "tenant": action.tenant_id or None,
        "about": action.about,
        "by": action.made_by or "command",
    }
