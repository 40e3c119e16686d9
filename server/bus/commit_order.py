"""Puts the commits of one tenant, which come from several processes, into the order of their sequences.

Knows: positions before and after a commit. Must not know: brokers, sockets, the clock (its caller knows it).

Each commit says from which position it led to which. One that follows the last is passed on. One that is not after the last
was told already. One beyond it waits for those between; when these do not come in time, listeners are told the position
alone, which has them pull.
"""

from __future__ import annotations

from collections.abc import Sequence

_MOST_WAITING = 500
"""Commits that wait for one that is missing; with more, it is given up."""


class CommitOrder:
    """The commits of one tenant, as far as this process was told of them."""

    __slots__ = ("_expected", "_past", "_waiting", "epoch", "last")

    def __init__(self) -> None:
        self.epoch = ""
        self.last = -1
        """The sequence up to which listeners were told; -1 while none is known."""
        self._expected = -1
        """The sequence up to which there are commits; those between may be under way."""
        self._past: frozenset[str] = frozenset()
        """Epochs that restores ended: what comes of them now was late, and is of rows that are no more."""
        self._waiting: dict[int, tuple[int, Sequence[bytes]]] = {}
        """By the sequence that it follows, each commit that waits: its own sequence, and its packets."""

    @property
    def is_waiting(self) -> bool:
        """Tell whether a commit is missing."""
        return self._expected > self.last

    def take(self, epoch: str, before: int, after: int, packets: Sequence[bytes]) -> list[bytes]:
        """Take a commit, and give the packets that are to be sent now."""
        if epoch in self._past:
            return []
        if epoch != self.epoch or self.last < 0:
            self._begin(epoch, after)
            return list(packets)
        if after <= self.last:
            return []
        if before > self.last:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[before] = after, packets
            self._expected = max(self._expected, after)
            return []
        sent = list(packets)
        self.last = after
        while self.last in self._waiting:
            self.last, more = self._waiting.pop(self.last)
            sent += more
        if not self.is_waiting:
            self._waiting.clear()
        return sent

    def expect(self, epoch: str, sequence: int) -> bool:
        """Note that there are commits up to a position; tell whether it begins a new epoch, of which nothing was told."""
        if self.last < 0:
            self._begin(epoch, sequence)
            return False
        if epoch in self._past:
            return False
        if epoch != self.epoch:
            self._begin(epoch, sequence)
            return True
        self._expected = max(self._expected, sequence)
        return False

    def jump(self, epoch: str, sequence: int) -> None:
        """Note that listeners were told up to a position, whatever came before."""
        self._begin(epoch, sequence)

    def give_up(self) -> int:
        """Wait no longer for what is missing, and give the sequence that listeners are to be told."""
        self.last = max(self.last, self._expected)
        self._waiting.clear()
        return self.last

    def _begin(self, epoch: str, last: int) -> None:
        if self.epoch not in ("", epoch):
            self._past |= {self.epoch}
        self.epoch, self.last, self._expected = epoch, last, last
        self._waiting.clear()
