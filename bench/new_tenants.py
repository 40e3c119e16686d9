"""Times how long empty tenants take to be made in PostgreSQL, in process and without the hash of a password.

usage: ``python bench/new_tenants.py URL COUNT`` prints the milliseconds of each.
"""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import syncapp  # noqa: F401, I001 -- first of all: it patches the standard library.

from storage.main_database import Customer
from storage.postgres.engine import PostgresEngine
from tenants import Tenants


def provision(tenants: Tenants) -> None:
    """Make a tenant with its customer."""
    tenant_id = str(uuid.uuid4())
    names = {"firstName": "A", "lastName": "B", "name": "A B", "companyName": "C"}
    about = {"email": f"{tenant_id}@example.com", "passwordHash": "none", "createdAt": "2026-01-01T00:00:00.000Z"}
    tenants.provision(Customer(id=tenant_id, **names, **about))


def timed(tenants: Tenants, count: int) -> list[float]:
    """Make tenants one after the other; the first ones, which prepare statements, are not counted."""
    took = []
    for number in range(count + 20):
        began = time.perf_counter()
        provision(tenants)
        if number >= 20:
            took.append((time.perf_counter() - began) * 1000)
    return took


if __name__ == "__main__":
    here = Tenants(PostgresEngine(sys.argv[1]))
    print(*(f"{one:.3f}" for one in timed(here, int(sys.argv[2]))))
    here.close()
