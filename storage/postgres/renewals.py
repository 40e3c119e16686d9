"""Which tenants there are, under which epochs, and which of them began a new one: the directory's rows about tenants.

Knows: these tables. Must not know: what an epoch is begun for, who is told.
"""

from __future__ import annotations

from models import connection
from storage.postgres.transactions import DIRECTORY

TABLES = (
    'CREATE TABLE IF NOT EXISTS tenants (id text COLLATE "C" PRIMARY KEY, epoch text NOT NULL)',
    'CREATE TABLE IF NOT EXISTS renewals (tenant_id text COLLATE "C" PRIMARY KEY, number bigint NOT NULL UNIQUE)',
)
_HOLD = f"INSERT INTO {DIRECTORY}.tenants (id, epoch) VALUES ($1, '') ON CONFLICT (id) DO UPDATE SET id = excluded.id"
_NOTE = (
    f"INSERT INTO {DIRECTORY}.tenants (id, epoch) SELECT $1::text, epoch FROM _meta"
    " ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch"
)
_TELL = (
    "INSERT INTO renewals (tenant_id, number) SELECT $1::text, coalesce(max(number), 0) + 1 FROM renewals"
    " ON CONFLICT (tenant_id) DO UPDATE SET number = excluded.number"
)


def hold(tenant_id: str) -> None:
    """Keep others from restoring the tenant, be it there or not, until the transaction ends; bound to the tenant."""
    connection().send(_HOLD.encode(), (tenant_id,))


def note(tenant_id: str) -> None:
    """Note that the tenant is there, and its epoch; bound to the tenant."""
    connection().send(_NOTE.encode(), (tenant_id,))


def tell(tenant_id: str) -> None:
    """Tell all processes of the tenant's new epoch; bound to the directory, which is locked, so that numbers grow in the
    order of commits. A number is never given again: its row stays."""
    connection().send(_TELL.encode(), (tenant_id,))


def last() -> int:
    """Give the number of the last new epoch."""
    (number,) = connection().execute("SELECT coalesce(max(number), 0) FROM renewals").fetchone() or (0,)
    return int(number)


def after(number: int) -> tuple[int, list[str]]:
    """Give the last number, and the tenants that began a new epoch after the one of ``number``."""
    found = connection().execute("SELECT number, tenant_id FROM renewals WHERE number > ? ORDER BY number", (number,))
    rows = found.fetchall()
    return (rows[-1][0] if rows else number), [tenant_id for _, tenant_id in rows]


def is_any() -> bool:
    """Tell whether there is any tenant."""
    return connection().execute("SELECT 1 FROM tenants LIMIT 1").fetchone() is not None


def epoch_of(tenant_id: str) -> str | None:
    """Give a tenant's epoch; None if it is not there."""
    found = connection().execute("SELECT epoch FROM tenants WHERE id = ?", (tenant_id,)).fetchone()
    return None if found is None else str(found[0])


def owner_of(epoch: str) -> str | None:
    """Tell whose epoch this is."""
    found = connection().execute("SELECT id FROM tenants WHERE epoch = ?", (epoch,)).fetchone()
    return None if found is None else str(found[0])
