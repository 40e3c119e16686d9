"""A part of a transaction that stands for itself: one work of a group. Its rows are held back until it is done.

Knows: what is held back, what was known before. Must not know: connections, tenants, what statements say.

A work that fails has mostly written nothing that anybody has read: then there is nothing to undo, and it needed no
savepoint, which with its release would be a third of a small push's statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.postgres.known_answers import State

_MOST_HELD = 200
"""Statements beyond it are sent: a long push is written while it is parsed."""

Held = tuple[bytes, Sequence[Any]]


class Part:
    """What a work has written so far."""

    def __init__(self, before: State | None) -> None:
        """``before``: what was known when it began."""
        self.before = before
        self.held: list[Held] = []
        self.is_sent = False
        """Whether the server has its savepoint."""

    def holds(self, text: bytes, rows: Sequence[Sequence[Any]]) -> bool:
        """Hold a statement back, with each of some rows of values; tell whether there was room for it."""
        if self.is_sent or len(self.held) + len(rows) > _MOST_HELD:
            return False
        self.held += [(text, values) for values in rows]
        return True
