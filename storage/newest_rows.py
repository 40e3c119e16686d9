"""The newest rows of a table, for people who look at a tenant.

Knows: the statement, bound to one tenant by the caller. Must not know: who looks, engines, how rows are pulled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models import connection
from protocol.codec import decode_stored


def newest_rows(table: str, before: int, count: int) -> Sequence[dict[str, Any]]:
    """Give rows of a synced table as pulls send them, those that changed last first; deleted ones have ``is_deleted`` 1.

    ``before``: only those whose newest change has a lower sequence; each row is given with that ``sequence``.
    """
    sql = (
        f'SELECT e._seq, c.row FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq WHERE e._seq < ?'
        " ORDER BY e._seq DESC LIMIT ?"
    )
    found = connection().execute(sql, (before, count))
    return [{"sequence": int(sequence), "row": decode_stored(row)} for sequence, row in found]
