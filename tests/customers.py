"""Customers and their files in a data folder that this process has opened."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from storage.main_database import Customer
from tenants import Tenants

NewTenant = Callable[[], str]
ROW = {"changes": {"end_user": [{"id": "a", "name": "A"}]}}


def customer(email: str = "a@example.com", tenant_id: str = "") -> Customer:
    """Write a customer, with an ID of its own unless one is given."""
    names = {"name": "A B", "companyName": "C", "firstName": "A", "lastName": "B", "passwordHash": "-"}
    return Customer(id=tenant_id or str(uuid.uuid4()), email=email, createdAt="2026-01-01T00:00:00.000Z", **names)


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "tenants").iterdir() if not path.name.endswith(("-wal", "-shm"))}


def customers(tenants: Tenants) -> dict[str, str]:
    """Every customer's ID by e-mail address."""
    return tenants.directory.read(lambda: {found.email: found.id for found in Customer.select()})
