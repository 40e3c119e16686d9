"""The answer to a statement: its rows, which are there when the connection has settled.

Knows: libpq's results. Must not know: how statements are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from psycopg.pq.abc import PGresult

from storage.postgres.values import reader_of


class Settling(Protocol):
    """What waits for answers."""

    def settle(self) -> None:
        """Wait until all that was sent is answered."""


class Rows:
    """The answer to a statement: its rows as tuples, read once."""

    __slots__ = ("_connection", "_left", "_result", "count", "error", "rows", "section", "tag")

    def __init__(self, connection: Settling, section: int, known: Iterable[tuple[Any, ...]] | None = None) -> None:
        """``known``: the rows, if no answer is to come."""
        self._connection, self.section = connection, section
        self._left: Iterator[tuple[Any, ...]] | None = None if known is None else iter(known)
        self._result: PGresult | None = None
        self.rows: list[tuple[Any, ...]] = []
        """All rows, also those that were read."""
        self.error: Exception | None = None
        self.tag, self.count = "", 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._answered()

    def fetchone(self) -> tuple[Any, ...] | None:
        """Give the next row, None if there is no more."""
        return next(self._answered(), None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Give the rows that are left."""
        return list(self._answered())

    def close(self) -> None:
        """Do nothing: peewee asks for it, and the rows are here."""

    @property
    def is_answered(self) -> bool:
        """Tell whether the answer is here."""
        return self._left is not None or self.error is not None

    @property
    def description(self) -> list[tuple[str]]:
        """Name the columns, as peewee asks for them."""
        self._answered()
        assert self._result is not None
        return [((self._result.fname(column) or b"").decode(),) for column in range(self._result.nfields)]

    @property
    def rowcount(self) -> int:
        """Give how many rows were written."""
        self._answered()
        return self.count

    def _answered(self) -> Iterator[tuple[Any, ...]]:
        if self._left is None:
            if self.error is None:
                self._connection.settle()
            if self.error is not None:
                raise self.error
        assert self._left is not None
        return self._left

    def take(self, result: PGresult) -> None:
        """Take what the server answered."""
        self._result = result
        if columns := result.nfields:
            readers = [(column, reader_of(result.ftype(column))) for column in range(columns)]
            self.rows = [_row(result.get_value, row, readers) for row in range(result.ntuples)]
        self._left = iter(self.rows)
        self.tag = (result.command_status or b"").decode()
        self.count = result.command_tuples or 0  # Also of a SELECT.


def _row(
    value: Callable[[int, int], bytes | None], row: int, readers: list[tuple[int, Callable[[bytes], Any]]]
) -> tuple[Any, ...]:
    return tuple([None if (one := value(row, column)) is None else read(one) for column, read in readers])


class Prepared(Rows):
    """The answer to the wish to prepare a statement."""

    __slots__ = ("text",)

    def __init__(self, connection: Settling, section: int, text: bytes) -> None:
        super().__init__(connection, section)
        self.text = text
