"""How much a tenant may store: looked at in the transaction of a push, so that what would go beyond is undone with it.

Knows: how large a database is, what still may be done in one that is full. Must not know: Flask, sockets, whose it is.
"""

from __future__ import annotations

from errors import QuotaExceeded
from models import connection
from writing import Applied

_GOES_ON = {"deleted", "unchanged", "rejected"}
"""What becomes of changes that are taken although there is no room: else nobody could make any."""

_LARGEST_PAGE_BYTES = 65_536
"""Source: sqlite.org/fileformat.html §1.3.2."""


def check(applied: Applied, most_bytes: int) -> None:
    """Refuse a push that makes its tenant's database larger than it may be, unless it only deletes.

    Raises: QuotaExceeded.
    """
    sql = connection()
    pages = sql.pragma("page_count")
    if pages * _LARGEST_PAGE_BYTES <= most_bytes:  # Nearly always, and each further question costs 2 µs.
        return
    page_bytes = sql.pragma("page_size")
    if pages * page_bytes <= most_bytes:
        return
    is_over = (pages - sql.pragma("freelist_count")) * page_bytes > most_bytes  # Free pages are filled again first.
    if is_over and not all(result["status"] in _GOES_ON for result in applied.results):
        raise QuotaExceeded
