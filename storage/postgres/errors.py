"""Turns errors of PostgreSQL and of its connections into ours, where somebody can do something about them.

Knows: SQLSTATEs. Must not know: connections' life, transactions, whose request it is.
Source: postgresql.org/docs, appendix "PostgreSQL Error Codes".
"""

from __future__ import annotations

from psycopg import pq
from psycopg.pq.abc import PGresult

from protocol.errors import Busy, StorageFull
from storage.engine import EngineFailed


class StatementFailed(EngineFailed):
    """A statement that the server refused; ``state`` is its SQLSTATE, empty for one that was not run at all."""

    def __init__(self, state: str, sentence: str) -> None:
        super().__init__(sentence)
        self.state = state

    @property
    def is_outdated(self) -> bool:
        """Tell whether the statement has to be prepared anew."""
        return self.state == "26000" or (self.state == "0A000" and _CHANGED in str(self))

    @property
    def is_of_other_tables(self) -> bool:
        """Tell whether the tables are not those that this process has laid out or found."""
        return self.state in _OF_OTHER_TABLES

    @property
    def ends_connection(self) -> bool:
        """Tell whether the connection is of no use after it."""
        is_of_replica = self.state == "0A000" and _IN_RECOVERY in str(self)
        return is_of_replica or self.state in _ENDED or self.state.startswith("08")


class ConnectionLost(Exception):
    """A connection that could not be made, or that ended; what it was about to do is not known by itself."""


class TooManyConnections(ConnectionLost):
    """A connection that the server refused, since it has as many as it takes."""


class DatabaseUnavailable(Busy):
    """PostgreSQL can't be reached, or ended the connection; nothing was kept."""

    sentence = "The database can't be reached for now. Send this again soon."


_BUSY = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
    "57014",  # query_canceled
    "53300",  # too_many_connections
}
_ENDED = {"57P01", "57P02", "57P03", "57P05", "25P03", "25006"}
"""The server goes down, crashes, starts up, closed what was idle, or takes no writes: it is a replica by now."""

_IN_RECOVERY = "during recovery"
"""What a replica says of BEGIN READ WRITE (feature_not_supported)."""

_CHANGED = "cached plan must not change result type"
"""Said of a prepared statement whose columns have other types by now: another process migrated (feature_not_supported)."""

_NO_ROOM = {"53100"}
_OF_OTHER_TABLES = {"42703", "42P01"}
"""undefined_column, undefined_table: a process with another declaration has started, and changed the tables."""


def failure_of(result: PGresult) -> StatementFailed:
    """Read what the server says of a statement."""
    if result.status == pq.ExecStatus.PIPELINE_ABORTED:
        return StatementFailed("", "an earlier statement failed")
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    return StatementFailed(state, result.get_error_message().strip())


def problem_of(error: Exception) -> Exception:
    """Say an engine's error as one of ours, where a client can do something about it."""
    if isinstance(error, ConnectionLost):
        return DatabaseUnavailable()
    if isinstance(error, StatementFailed):
        if error.ends_connection:
            return DatabaseUnavailable()
        if error.state in _BUSY or error.is_outdated or error.is_of_other_tables:
            return Busy()
        if error.state in _NO_ROOM:
            return StorageFull()
    return error
