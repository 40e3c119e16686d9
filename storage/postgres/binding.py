"""How running code is bound to a connection of PostgreSQL, and what peewee takes for its database.

Knows: what peewee asks of a database. Must not know: transactions, tenants. Code that is bound to nothing fails.
"""

from __future__ import annotations

from typing import Any

from peewee import PostgresqlDatabase

import models
from models import NotBound
from storage.postgres import dialect
from storage.postgres.connection import Connection
from storage.postgres.rows import Rows


class _PeeweeDatabase(PostgresqlDatabase):
    """PostgreSQL's words, with our parameters and over our connections; it never makes one by itself."""

    param = "?"

    def __init__(self) -> None:
        super().__init__(":bound:", thread_safe=False)

    def _execute_cursor(self, sql: str, params: Any, **_: Any) -> Rows:
        answer: Rows = models.connection().execute(sql, params or ())
        return answer

    def is_closed(self) -> bool:
        """Tell whether nothing is bound here."""
        return models.bound.get(None) is None

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Refuse, since only the engine connects."""
        raise NotBound("no database is bound here")


_DATABASE = _PeeweeDatabase()


class Binding:
    """What code is bound to. The connection is there during a transaction, and may be another in the next."""

    dialect = dialect
    database = _DATABASE

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection

    @property
    def conn(self) -> Connection:
        """Give the connection.

        Raises: NotBound when no transaction is under way.
        """
        if self.connection is None:
            raise NotBound("no transaction is under way here")
        return self.connection
