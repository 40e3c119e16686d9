"""All that a push writes in its transaction, as one function that the engine runs, and what is noted once it is committed.

Knows: which parts belong together: the rows, the device's first push, the tenant's quota. Must not know: Flask, sockets,
which engine or file, how rows are written (``push_writer``), who is notified.
"""

from __future__ import annotations

from protocol.messages import Push, PushResult, Strategy
from server.scheduler import yield_if_due
from storage import disk_quota, positions, push_writer, seen_rows
from storage.positions import now_ms
from storage.seen_rows import Evidences


def write(push: Push, row_bytes: int, stored_bytes: int, strategy: Strategy) -> PushResult:
    """Write a push into the tenant this code is bound to, with what must be stored together with it.

    ``row_bytes`` and ``stored_bytes``: how large a row and a tenant's database may be.
    Raises: what ``push_writer.apply`` raises; QuotaExceeded.
    """
    now = now_ms()
    applied = push_writer.apply(push, row_bytes, now, yield_if_due, strategy)
    seen_rows.note_first_push(push.evidence, applied, now)
    disk_quota.check(applied, stored_bytes, row_bytes)
    return applied


def note_committed(tenant_id: str, push: Push, applied: PushResult, evidences: Evidences) -> None:
    """Note in memory what a push that is on disk says of its device and of its time."""
    positions.note_commit(applied.after)
    evidences.pushed(tenant_id, push.evidence, applied)
