"""What a transaction was told when it began, and need not ask for again: the tenant's position and its digests.

Knows: the statements on both, of ``positions`` and ``digest``. Must not know: connections, what is written besides. Each
push asks for them, and over a network the answer takes longer than all the rest. A tenant is its write's alone, so that
nobody else changes them meanwhile; what the transaction changes itself is noted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from storage import digest, positions

Row = tuple[Any, ...]

_COLUMNS = 6  # What else a row may have is not asked for.
ALL_DIGESTS = b"SELECT table_name, count, hash FROM _digests"


class KnownAnswers:
    """The answers of one transaction."""

    def __init__(self, place: Iterable[Row], digests: Iterable[Row] | None = None) -> None:
        """``place``, ``digests``: the answers, which are read when they are asked for first."""
        self._place: Iterable[Row] | None = place
        self._digests: Iterable[Row] | None = digests
        self._by_table: dict[str, Row] = {}

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
        return None

    def note(self, sql: str, values: Sequence[Any], table: str | None) -> None:
        """Note what a statement changes; ``table`` is None if it may be any."""
        if sql == positions.MOVE and isinstance(self._place, list) and self._place:
            epoch, _, _, *others = self._place[0]
            self._place = [(epoch, *values, *others)]
        elif sql == digest.CHANGE and values[2] in self._by_table:
            self._by_table[values[2]] = tuple(values[:2])
        else:
            self._forget_what_is_in(table)

    def _forget_what_is_in(self, table: str | None) -> None:
        if table in (None, "_meta"):
            self._place = None
        if table in (None, "_digests"):
            self.forget_digests()

    def forget_digests(self) -> None:
        """Know no digest any more."""
        self._digests, self._by_table = None, {}

    def forget(self) -> None:
        """Know nothing any more, as after a part of the transaction was undone."""
        self._place = None
        self.forget_digests()
