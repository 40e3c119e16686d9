"""How much a tenant may store: looked at in the transaction of a push, so that what would go beyond is undone with it.

Knows: how large a database is, what still may be done in one that is full. Must not know: Flask, sockets, whose it is.
"""

from __future__ import annotations

from protocol.errors import QuotaExceeded
from protocol.messages import PushResult
from storage.dialect import dialect

_GOES_ON = {"deleted", "unchanged", "rejected"}
"""What becomes of changes that are taken although there is no room: else nobody could make any."""

_BYTES_A_ROW_BESIDE = 1_048_576
_TIMES_A_ROW = 32  # The most that was seen is 19, with 16 indexes on one long text (tests/storage/test_disk_quota.py).

_CACHED = 10_000
_spare_rows: dict[tuple[str, int], int] = {}
"""By incarnation of a database and what it may have, how many rows it takes before it needs to be looked at again."""


def check(applied: PushResult, most_bytes: int, most_row_bytes: int) -> None:
    """Refuse a push that makes its tenant's database larger than it may be, unless it only deletes.

    Raises: QuotaExceeded.
    """
    key = applied.before.epoch, most_bytes
    spare = _spare_rows.get(key, 0) - len(applied.results)
    if spare < 0:
        spare = _looked_at(applied, most_bytes) // bytes_of_row(most_row_bytes)
        if len(_spare_rows) >= _CACHED:
            _spare_rows.clear()
    _spare_rows[key] = spare


def bytes_of_row(most_row_bytes: int) -> int:
    """Give what a row of a push may take of a database at the most, many times its JSON and something beside: in the log,
    its table, each index on it, the conflict, the receipt and the kept answer."""
    return _TIMES_A_ROW * most_row_bytes + _BYTES_A_ROW_BESIDE


def _looked_at(applied: PushResult, most_bytes: int) -> int:
    """Give how many bytes a database takes at the least, unless it has too many."""
    spare = dialect().spare_bytes(most_bytes)
    if spare < 0 and not all(result["status"] in _GOES_ON for result in applied.results):
        raise QuotaExceeded
    return max(spare, 0)
