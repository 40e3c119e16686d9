"""Decides how many rows to request or send at once on a slow network.

Knows: numbers of rows. Must not know: their tables, when a network is too slow.
"""

from __future__ import annotations


class Pace:
    """A number of rows that falls by half when so many were too many, and rises again by and by."""

    def __init__(self, most: int) -> None:
        self.most = self.rows = most

    def shrink(self, tried: int) -> None:
        """Note that so many did not get through."""
        self.rows = max(1, min(self.rows, tried) // 2)

    def grow(self) -> None:
        """Note that some got through."""
        self.rows = min(self.most, self.rows + max(1, self.rows // 8))
