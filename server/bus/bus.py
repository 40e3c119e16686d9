"""The contract of a bus between processes, and the bus of a process that is alone.

Knows: nothing that runs; what is promised. Must not know: any broker, what messages say (``messages``).

1. ``publish`` never waits, never raises and never fails a commit, whatever the broker does.
2. What one process publishes, each other hears in that order. The order between publishers is not that of commits
   (``commit_order`` sees to that), and a message may come twice.
3. Nothing is lost in silence. A subscriber that may have missed something calls ``gap``. A publisher that had to drop
   messages publishes what ``lost`` makes of their tenants, as soon as it can.
4. Of a message that is too long for a broker, its first line is carried, which says what happened (``messages``) and has
   less than 7,000 bytes.
5. A process that dies may take its last messages with it: who must know everything looks for itself, now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol


class Subscriber(NamedTuple):
    """What a bus calls in its process."""

    hear: Callable[[bytes], None]
    """Gets each message."""
    gap: Callable[[], None]
    """Is called when messages may have been missed, after each reconnection too."""
    lost: Callable[[Collection[str]], bytes]
    """Makes a message for others of the tenants whose messages were dropped; of none if it may be any."""


class Bus(Protocol):
    """What connects the processes of one installation."""

    @property
    def is_shared(self) -> bool:
        """Tell whether other processes may be on it."""

    @property
    def broker(self) -> str:
        """Name what carries the messages, for people."""

    @property
    def is_alive(self) -> bool:
        """Tell whether it works both ways, as far as is known."""

    def publish(self, tenant_id: str, message: bytes) -> None:
        """Give a message that concerns a tenant, "" for all, to the other processes; the sender may hear it too."""

    def start(self, subscriber: Subscriber) -> None:
        """Begin to hear and to publish."""

    def close(self) -> None:
        """End; what is not published is dropped."""


class NoBus:
    """The bus of a process that is alone."""

    is_shared, is_alive, broker = False, True, ""

    def publish(self, tenant_id: str, message: bytes) -> None:
        """Give it to nobody."""

    def start(self, subscriber: Subscriber) -> None:
        """Nothing will come."""

    def close(self) -> None:
        """Nothing runs."""
