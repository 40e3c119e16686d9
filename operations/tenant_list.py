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
from storage import main_database
from storage.engine import Engine
from storage.main_database import Customer, OperatorAction
from storage.tenant_summary import summary
from tenants import parse_tenant_id

Described = dict[str, Any]

_SHOWN = ("id", "email", "name", "companyName", "phone", "createdAt", "state", "quotas")

ORDERS: dict[str, Callable[[Described], Any]] = {
    "email": lambda one: one["email"],
    "name": lambda one: one["name"].casefold(),
    "created": lambda one: one["createdAt"],
    "size": lambda one: -(one.get("bytes") or 0),
    "rows": lambda one: -(one.get("rows") or 0),
    "devices": lambda one: -(one.get("devices") or 0),
    "seen": lambda one: one.get("lastSeenAt") or "",
}
"""By the word for it: the largest first, the one that was seen longest ago first."""


def find(engine: Engine, text: str) -> Customer:
    """Find the customer of a tenant's ID or an e-mail address.

    Raises: NoCustomer.
    """
    found = engine.directory.read(lambda: main_database.customer_by_email(text) if "@" in text else _by_id(text))
    if found is None:
        raise NoCustomer(f"There is no customer {json.dumps(text)}: name one by ID or e-mail address.")
    return found


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
    word = search.casefold()
    found = [one for one in engine.directory.read(main_database.customers) if word in _searched(one)]
    described = []
    for number, customer in enumerate(found, 1):
        described.append(describe(engine, customer))
        report(number)
    return sorted(described, key=ORDERS[order])


def _searched(customer: Customer) -> str:
    return "\n".join([customer.id, customer.email, customer.name, customer.companyName or ""]).casefold()


def describe(engine: Engine, customer: Customer) -> Described:
    """Describe one customer: what the directory says, and what is in the tenant's database, or why that can't be read."""
    known = {name: getattr(customer, name) for name in _SHOWN}
    try:
        found = engine.peek(customer.id, summary)
    except Exception as error:  # A damaged file is one line of a list, and not the end of it.
        return known | {"fault": str(error) or type(error).__name__}
    return known | {
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
