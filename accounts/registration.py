"""Creates accounts, each with a tenant database of its own.

Knows: what an account is made of. Must not know: endpoints, tokens, how accounts are stored.
"""

from __future__ import annotations

import uuid
from typing import Any

from accounts.account_fields import DEFAULT_COMPANY, FieldReader
from accounts.passwords import Passwords
from protocol.codec import format_time
from storage import main_database
from storage.positions import now_ms
from tenants import Tenants


def create_customer(tenants: Tenants, passwords: Passwords, body: dict[str, Any]) -> main_database.Customer:
    """Create an account and its database, for a request or for the operator's command line.

    Raises: ValidationError, EmailTaken.
    """
    customer = new_customer(passwords, body, str(uuid.uuid4()))
    tenants.provision(customer)
    return customer


def new_customer(passwords: Passwords, body: dict[str, Any], customer_id: str) -> main_database.Customer:
    """Make an account of what a body says, which is stored nowhere yet.

    Raises: ValidationError.
    """
    fields = FieldReader(body)
    names = {name: fields.line(name) for name in ("firstName", "lastName")}
    email = fields.email()
    password = fields.password("password")
    phone = fields.line("phone")
    company = fields.line("companyName") or DEFAULT_COMPANY
    fields.check()
    return main_database.Customer(
        id=customer_id,
        name=f"{names['firstName']} {names['lastName']}",
        email=email,
        phone=phone,
        companyName=company,
        passwordHash=passwords.hash(password),
        createdAt=format_time(now_ms()),
        **names,
    )
