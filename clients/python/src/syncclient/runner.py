"""Decides when to exchange in the background.

Knows: intervals, wake-ups and pauses after failures. Must not know: what an exchange is.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from .errors import SyncError

log = logging.getLogger("syncclient")

_GATHER_SECONDS = 0.02
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 300.0


class Runner:
    """A thread that exchanges when it is woken, and every so often."""

    def __init__(
        self,
        exchange: Callable[[], None],
        place: Callable[[], str | None],
        every_seconds: float,
        on_error: Callable[[SyncError], object] | None,
    ) -> None:
        """``place``: gives the replica's cursor."""
        self._exchange, self._place, self._every_seconds, self._on_error = exchange, place, every_seconds, on_error
        self._is_asked, self._heard = True, ""
        self._lock = threading.Lock()
        """Held to set and to take what is wanted: a wake-up in between would be lost."""
        self._wanted, self._stopped, self._hopeful = threading.Event(), threading.Event(), threading.Event()
        self._wanted.set()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="syncclient", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Exchange soon."""
        with self._lock:
            self._is_asked = True
            self._wanted.set()

    def hear(self, cursor: str) -> None:
        """Exchange soon, unless the replica is at this place then: the news may be of our own push under way."""
        with self._lock:
            self._heard = cursor
            self._wanted.set()

    def retry(self) -> None:
        """End the pause after failures: there is reason to believe that it goes now."""
        self._hopeful.set()

    def stop(self) -> None:
        """End, after the exchange that is under way."""
        self._stopped.set()
        self._hopeful.set()
        self._wanted.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            is_news = self._wanted.wait(self._every_seconds)
            if self._stopped.wait(_GATHER_SECONDS):  # What comes at once is taken at once.
                return
            with self._lock:
                self._wanted.clear()
                is_asked, self._is_asked, heard = self._is_asked, False, self._heard
            if is_asked or not is_news or heard != self._place():
                self._try()
            if self._failures and not self._stopped.is_set():  # ``stop`` ends no pause that it came before.
                self._hopeful.wait(self._pause_seconds())
                self.wake()

    def _try(self) -> None:
        self._hopeful.clear()
        try:
            self._exchange()
            self._failures = 0
        except SyncError as error:
            self._failures += 1
            log.info("exchange failed, it is tried again: %s", error)
            if self._on_error:
                self._on_error(error)
        except Exception:  # A hook of the app that raises must not end the exchange for ever.
            self._failures += 1
            log.exception("exchange failed, it is tried again")

    def _pause_seconds(self) -> float:
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * (1 << min(self._failures, 10)))
        return random.uniform(0.5, 1.0) * longest
