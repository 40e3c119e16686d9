"""What an open tenant holds: memory of SQLite's and descriptors."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from tenants import Tenants
from tests import inside

_TENANTS = 10


def push(tenants: Tenants, tenant_id: str, row_id: str) -> None:
    """Push a row of some 500 bytes."""
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": row_id, "name": "A", "note": "x" * 400}]}})


def heap_kib(tenants: Tenants, ids: list[str]) -> float:
    """Give how much more SQLite has allocated for each of some tenants after a push to it."""
    before = apsw.memory_used()
    for tenant_id in ids:
        push(tenants, tenant_id, "a")
    return (apsw.memory_used() - before) / 1024 / len(ids)


def test_open_tenant_takes_little_memory(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """Faults: SQLite's own lookaside, of 48 KiB a connection; a second connection that nothing needs."""
    push(tenants, new_tenant(), "a")  # What is allocated once.
    ids = [new_tenant() for _ in range(_TENANTS)]
    assert heap_kib(tenants, ids) < 200
