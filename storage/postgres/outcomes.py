"""Finds out what became of a transaction whose answer to COMMIT was lost.

Knows: that PostgreSQL remembers the outcome of a transaction by its number, and that a replica which became the primary, or
a server that crashed, may have given that number to another one. Must not know: tenants, what was written.
"""

from __future__ import annotations

import time

import gevent

from protocol.errors import OutcomeUnknown
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost, DatabaseUnavailable, StatementFailed
from storage.postgres.pool import Pool

ASK_SECONDS, _PAUSE_SECONDS = 10.0, 0.1
_STATUS = b"SELECT pg_xact_status($1::text::xid8)"
_HISTORY = (
    b"SELECT system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || '/' || stats_reset"
    b" FROM pg_control_system(), pg_stat_bgwriter"
)
"""The database cluster, its timeline, and its last crash: a replica that becomes the primary begins another timeline, and a
crash begins the statistics anew. Source: postgresql.org/docs, "The Cumulative Statistics System"."""


def history_of(connection: Connection) -> str | None:
    """Give which history of the database a connection's commits go into; None where the server does not tell."""
    try:
        (found,) = connection.send(_HISTORY).fetchone() or (None,)
    except StatementFailed:
        return None
    return None if found is None else str(found)


def confirm(pool: Pool, number: str | None, history: str | None) -> None:
    """Return if a transaction was committed, whose connection ended and is not given back yet.

    Source: postgresql.org/docs, "Transaction ID and Snapshot Information".
    Raises: DatabaseUnavailable if it was not; OutcomeUnknown if nobody can tell, as when the server stays away, or it
        crashed or another one took its place, which may never have had it.
    """
    give_up = time.monotonic() + ASK_SECONDS
    while number is not None and time.monotonic() < give_up and not pool.is_closed:
        try:
            found = _ask(pool, number, history)
        except (ConnectionLost, StatementFailed):
            found = "in progress"
        if found == "committed":
            return
        if found == "aborted":
            raise DatabaseUnavailable
        gevent.sleep(_PAUSE_SECONDS)
    raise OutcomeUnknown


def _ask(pool: Pool, number: str, history: str | None) -> str:
    connection = pool.connect()  # Not lent: each that is may be held by one who asks, too.
    try:
        if history is None or connection.history != history:
            raise OutcomeUnknown
        (found,) = connection.send(_STATUS, (number,)).fetchone() or ("",)
        return str(found)
    finally:
        connection.close()
