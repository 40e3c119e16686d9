"""How running code is bound to a connection: a peewee database that follows a context variable and fails closed.

Knows: apsw's connections, what peewee asks of one. Must not know: files, transactions. Code that is bound to no database
fails, in whatever greenlet or thread it runs (ARCHITECTURE.md, trap 2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import apsw
from playhouse.apsw_ext import APSWDatabase

import models
from models import NotBound, bound
from storage.sqlite import dialect


class _PeeweeDatabase(APSWDatabase):  # type: ignore[misc]
    """A peewee database whose connection is that of the running context, and that never makes one by itself."""

    def __init__(self) -> None:
        super().__init__(":bound:", thread_safe=False)

    @property
    def _state(self) -> Binding:
        try:
            binding: Binding = bound.get()
            return binding
        except LookupError:
            raise NotBound("no database is bound here") from None

    @_state.setter
    def _state(self, state: object) -> None:
        """Peewee's constructor brings a state of its own, which nothing may use."""

    def connection(self) -> apsw.Connection:
        """Give the connection of the running context; asked several times a request."""
        connection: apsw.Connection = models.connection()
        return connection

    def is_closed(self) -> bool:
        """Tell whether no database is bound here."""
        return bound.get(None) is None

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Refuse, since only the engine opens a file."""
        raise NotBound("no database is bound here")


class Binding:
    """What peewee asks a connection's state for, with a connection that is always open."""

    closed = False
    dialect = dialect
    database = _PeeweeDatabase()

    def __init__(self, connection: apsw.Connection) -> None:
        self.conn = connection
        self.control = connection.cursor().execute  # A cursor that is kept halves what a transaction costs.
        self.ctx: list[Any] = []
        self.transactions: list[Any] = []
        self.commit_callbacks: list[Any] = []


@contextlib.contextmanager
def bound_to(binding: Binding) -> Iterator[None]:
    """Bind the code that runs here to a connection."""
    token = bound.set(binding)
    try:
        yield
    finally:
        bound.reset(token)
