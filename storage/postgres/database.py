"""The database of one tenant, or the directory: its reads, and its writes in one queue of this process.

Knows: which connection has which transaction. Must not know: tables, requests, sockets, rules. How writes share a commit is
``storage.group_commit``; against other processes a write locks the tenant's row of ``_meta``, or the directory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from models import bound
from protocol.errors import Moved, TenantNotFound
from storage.group_commit import GroupCommit, Write
from storage.look_ahead import Wanted
from storage.postgres.binding import Binding
from storage.postgres.connection import Connection
from storage.postgres.errors import ConnectionLost, StatementFailed, problem_of
from storage.postgres.installation import Installation
from storage.postgres.outcomes import confirm
from storage.postgres.pool import Pool
from storage.postgres.rows import Rows
from storage.postgres.transactions import begin_read, begin_write, undo_part

T = TypeVar("T")
_MOST_FORESEEN = 64
"""As many writes of a group as are looked at before it begins."""


class PostgresDatabase(GroupCommit):
    """One tenant's rows, or the directory (``tenant_id`` None)."""

    def __init__(self, pool: Pool, tenant_id: str | None, most_waiting: int, installation: Installation | None) -> None:
        """``installation``: makes the tables what this version needs, unless they are; None for the directory."""
        self._writing = Binding()
        super().__init__(most_waiting, self._writing, self._control)
        self._pool, self.tenant_id, self._installation = pool, tenant_id, installation
        self.mark = object()
        self._found: Rows | None = None
        self._number: Rows | None = None
        self._foreseen: set[Write[Any]] = set()
        self._end: float | None = None

    def read(self, query: Callable[[], T]) -> T:
        """Run a query bound to this database, on one committed state (see ``engine.Database.read``)."""
        self._prepare_tables()
        return self.peek(query)

    def peek(self, query: Callable[[], T]) -> T:
        """Do the same with the tables as they are."""
        try:
            connection = self._pool.take()
        except ConnectionLost as error:
            raise problem_of(error) from error
        try:
            return self._read(connection, query)
        except Exception as error:
            problem = self._told(error)
            if problem is error:
                raise
            raise problem from error
        finally:
            self._pool.give_back(connection)

    def _read(self, connection: Connection, query: Callable[[], T]) -> T:
        found = begin_read(connection, self.tenant_id)
        try:
            result = self._bound(connection, query)
            connection.settle()
        except Exception:
            self._must_be_there(found)
            raise
        finally:
            connection.undo()
        self._must_be_there(found)
        return result

    def _must_be_there(self, found: Rows | None) -> None:
        """Refuse what was done to a tenant that is not there: its rows are none, which is no answer.

        Raises: TenantNotFound.
        """
        if found is not None and found.is_answered and not found.error and not found.count:
            raise TenantNotFound

    def replace(self, work: Callable[[], T]) -> T:
        """Run ``work`` bound to this tenant, be it there or not, in a transaction of its own: none of a group may come
        after it that saw the tenant as it was.

        Raises: what ``work`` raises; Busy, if another has the tenant for long.
        """
        self._prepare_tables()
        connection: Connection | None = None
        try:
            connection = self._pool.take()
            _, number = begin_write(connection, self.tenant_id)
            connection.answer_seconds = None
            result = self._bound(connection, work)
            self._make_lasting(connection, number)
            self.mark = object()
            return result
        except Exception as error:
            raise self._told(error) from error
        finally:
            if connection is not None:
                connection.undo()
                self._pool.give_back(connection)

    def _bound(self, connection: Connection, work: Callable[[], T]) -> T:
        token = bound.set(Binding(connection))
        try:
            return work()
        finally:
            bound.reset(token)

    # --- transactions that write -----------------------------------------------------------------------------------------

    def _control(self, sql: str) -> None:
        """Begin, undo or end a part of the transaction."""
        connection = self._writing.conn
        if sql.startswith("SAVEPOINT"):
            connection.begin_part()
        elif sql.startswith("ROLLBACK"):
            undo_part(connection, self.tenant_id)
        else:
            connection.end_part()

    def _begin(self) -> None:
        self._found = self._number = None
        self._prepare_tables()
        self._writing.connection = connection = self._pool.take()
        self._found, self._number = begin_write(connection, self.tenant_id)
        self._look_ahead(connection)

    def _look_ahead(self, connection: Connection) -> None:
        """Have the rows of those who wait looked up in the batch that begins; who comes later is not of this group."""
        self._foreseen, self._end = set(), None
        wanted: Wanted = {}
        for write in itertools.islice(self._waiting, _MOST_FORESEEN):
            if write.ahead is not None:
                self._foreseen.add(write)
                for column, values in write.ahead().items():
                    wanted.setdefault(column, set()).update(values)
        connection.look_ahead(wanted)

    def _may_join(self, write: Write[Any], end: float) -> bool:
        """Tell the same; the first waits for the server's first answer, which is not counted."""
        self._end = self._end or self._end_of_group()
        is_foreseen = write.ahead is None or write in self._foreseen
        return is_foreseen and super()._may_join(write, self._end)

    def _commit(self) -> None:
        connection = self._writing.conn
        if not (connection.has_written and self._found and self._found.is_answered):
            connection.settle()
        self._must_be_there(self._found)
        if connection.has_written:
            assert self._number is not None
            _must_not_have_moved(self._number)
            self._make_lasting(connection, self._number)
            self.mark = object()
        self._roll_back()

    def _make_lasting(self, connection: Connection, number: Rows) -> None:
        """Commit. If the answer is lost, it is asked for over another connection."""
        connection.send_due()
        answer = connection.send(b"COMMIT")
        try:
            connection.settle()
        except ConnectionLost:
            confirm(self._pool, number.rows[0][-1] if number.rows else None, connection.history)
            return
        if answer.tag != "COMMIT":  # In a transaction that had failed, it is a ROLLBACK.
            raise StatementFailed("", f"a transaction ended with {answer.tag}")
        connection.is_clean = True

    def _roll_back(self) -> None:
        connection, self._writing.connection = self._writing.connection, None
        if connection is not None:
            try:
                connection.undo()
            finally:
                self._pool.give_back(connection)

    def _is_in_transaction(self) -> bool:
        connection = self._writing.connection
        return connection is not None and not connection.is_lost

    def _problem_of(self, error: Exception) -> Exception:
        """Give an error as one of ours; code that reads a tenant which is not there fails in ways of its own."""
        try:
            self._must_be_there(self._found)
        except TenantNotFound as missing:
            return missing
        return self._told(error)

    def _told(self, error: Exception) -> Exception:
        """Give an error as one of ours; if it tells that the tables are others by now, the next use looks at them."""
        if self._installation and isinstance(error, StatementFailed) and error.is_of_other_tables:
            self._installation.look_again()
        return problem_of(error)

    def _prepare_tables(self) -> None:
        if self._installation:
            self._installation.prepare_tenants()


def _must_not_have_moved(begun: Rows) -> None:
    """Refuse to keep what was written; the row of ``begin_write`` was read under the lock of the tenant.

    Raises: Moved.
    """
    if begun.rows and begun.rows[0][-2] is not None:
        raise Moved
