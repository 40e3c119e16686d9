"""What a transaction need not ask for: what it was told when it began, or was looked up in advance (``known_rows``).

Knows: the statements on a tenant's position and digests, of ``positions`` and ``digest``. Must not know: connections, what
is written besides. Each push asks for them, and over a network the answer takes longer than all the rest. A tenant is its
write's alone, so that nobody else changes them meanwhile. What the transaction changes itself is noted here, and stored at
its end: of the many pushes of a group the last says where the tenant stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from storage import digest, positions
from storage.postgres.known_rows import KnownRows

Row = tuple[Any, ...]

_COLUMNS = 6  # What else a row may have is not asked for.
ALL_DIGESTS = b"SELECT table_name, count, hash FROM _digests"
KNOWN_TABLES = (None, "_meta", "_digests")
"""Which tables a statement may write that has a say in what is known here; None if it may be any."""


class State(NamedTuple):
    """What was known at a point of the transaction."""

    place: Iterable[Row] | None
    digests: Iterable[Row] | None
    by_table: dict[str, Row]
    due: dict[str, tuple[str, Sequence[Any]]]


class KnownAnswers:
    """The answers of one transaction."""

    def __init__(
        self, place: Iterable[Row], digests: Iterable[Row] | None = None, rows: KnownRows | None = None
    ) -> None:
        """``place``, ``digests``: the answers, which are read when they are asked for first."""
        self._place: Iterable[Row] | None = place
        self._digests: Iterable[Row] | None = digests
        self._by_table: dict[str, Row] = {}
        self._due: dict[str, tuple[str, Sequence[Any]]] = {}
        self.rows = rows

    def answer(self, sql: str, values: Sequence[Any]) -> list[Row] | None:
        """Give the rows of a statement; None if they are not known."""
        if sql == positions.POSITION and self._place is not None:
            self._place = found = [row[:_COLUMNS] for row in self._place]
            return found
        if sql == digest.READ and self._digests is not None:
            if not isinstance(self._digests, tuple):
                self._by_table = {table: (count, text) for table, count, text in self._digests}
                self._digests = ()
            return [self._by_table[values[0]]] if values[0] in self._by_table else []
        return self.rows.answer(sql, values) if self.rows is not None else None

    def takes(self, sql: str, values: Sequence[Any]) -> bool:
        """Take a statement on what is known here, to be stored when it is ``due``; tell whether it is one."""
        if sql == positions.MOVE and isinstance(self._place, list) and self._place:
            epoch, _, _, *others = self._place[0]
            self._place = [(epoch, *values, *others)]
            self._due[""] = sql, values
        elif sql == digest.CHANGE and values[2] in self._by_table:
            self._by_table[values[2]] = tuple(values[:2])
            self._due[values[2]] = sql, values
        else:
            return False
        return True

    def due(self) -> list[tuple[str, Sequence[Any]]]:
        """Give the statements that were taken and are to be sent now, the last of each kind."""
        taken = list(self._due.values())
        self._due.clear()
        return taken

    def note(self, sql: str, rows: Sequence[Sequence[Any]], table: str | None) -> None:
        """Note what a statement changes; ``table`` is None if it may be any."""
        if self.rows is not None:
            self.rows.note(sql, rows, table)
        if table in (None, "_meta"):
            self._place = None
        if table in (None, "_digests"):
            self._digests, self._by_table = None, {}

    def state(self) -> State:
        """Give what is known, to come back to."""
        return State(self._place, self._digests, dict(self._by_table), dict(self._due))

    def return_to(self, state: State) -> None:
        """Know again what was known, as after a part of the transaction that was not sent."""
        place, digests, self._by_table, self._due = state
        self._place = place if isinstance(place, list) else None  # What was not read then may have been since.
        self._digests = digests if isinstance(digests, tuple) else None

    def forget(self) -> None:
        """Know nothing any more, as after a part of the transaction was undone."""
        self._place = self._digests = None
        self._by_table, self._due = {}, {}
