"""How much a tenant has stored: PostgreSQL keeps the rows of all in the same files, so their own bytes are counted.

Knows: the log of changes, what the rest takes beside it. Must not know: how much a tenant may have.
"""

from __future__ import annotations

from cachetools import LRUCache

from models import connection

_TIMES = 3
"""A row's JSON is in the log, and its values in its table and its indexes; both have their overhead."""

_counted: LRUCache[str, tuple[int, int]] = LRUCache(10_000)
"""By the epoch of a tenant, up to which sequence its log was counted, and how many bytes it had."""


def spare_bytes(most_bytes: int) -> int:
    """Give how much the bound tenant may grow at the least until it has ``most_bytes``; below 0 if it has more.

    Only what is new is counted, until it seems to be too much: then what was purged since is looked at too.
    """
    epoch, sequence = connection().execute("SELECT epoch, sequence FROM _meta").fetchone()
    since, before = _counted.get(epoch, (0, 0))
    stored = before + _bytes_after(since)
    if stored * _TIMES > most_bytes and since:
        stored = _bytes_after(0)
    _counted[epoch] = sequence, stored
    return most_bytes - stored * _TIMES


def _bytes_after(sequence: int) -> int:
    sql = "SELECT coalesce(sum(octet_length(c.row)), 0)::bigint FROM _changes AS c WHERE c.seq > ?"
    return int(connection().execute(sql, (sequence,)).fetchone()[0])
