"""Finds out what became of a transaction whose answer to COMMIT was lost.

Knows: that PostgreSQL remembers the outcome of a transaction by its number. Must not know: tenants, what was written.
"""

from __future__ import annotations

import time

import gevent

from protocol.errors import OutcomeUnknown
from storage.postgres.errors import ConnectionLost, DatabaseUnavailable, StatementFailed
from storage.postgres.pool import Pool

ASK_SECONDS, _PAUSE_SECONDS = 10.0, 0.1
_STATUS = b"SELECT pg_xact_status($1::text::xid8)"


def confirm(pool: Pool, number: str | None) -> None:
    """Return if a transaction was committed, whose connection ended and is not given back yet.

    Source: postgresql.org/docs, "Transaction ID and Snapshot Information".
    Raises: DatabaseUnavailable if it was not; OutcomeUnknown if nobody can tell, as when the server stays away.
    """
    give_up = time.monotonic() + ASK_SECONDS
    while number is not None and time.monotonic() < give_up:
        try:
            found = _ask(pool, number)
        except (ConnectionLost, StatementFailed):
            found = "in progress"
        if found == "committed":
            return
        if found == "aborted":
            raise DatabaseUnavailable
        gevent.sleep(_PAUSE_SECONDS)
    raise OutcomeUnknown


def _ask(pool: Pool, number: str) -> str:
    connection = pool.connect()  # Not lent: each that is may be held by one who asks, too.
    try:
        (found,) = connection.send(_STATUS, (number,)).fetchone() or ("",)
        return str(found)
    finally:
        connection.close()
