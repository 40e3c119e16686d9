"""Group commit: writes that wait for one database share a transaction, each in its own savepoint.

Knows: the queue of writes, and in which order they run, are committed, reported and answered. Must not know: which engine,
files, statements on tables, requests. An engine's database inherits from ``GroupCommit`` and says how a transaction begins
and ends there.
"""

from __future__ import annotations

import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from models import bound
from protocol.errors import Busy, OutcomeUnknown
from server.metrics import COMMIT_SECONDS, WRITES
from storage.look_ahead import Wanted

T = TypeVar("T")
log = logging.getLogger("syncapp.storage")

_GROUP_SECONDS = 0.01
"""How long writes are taken into a commit before it is made; each is itself bounded by what one request may hold."""


class Write(Generic[T]):
    """One piece of work that waits for its commit."""

    __slots__ = ("after", "ahead", "error", "is_done", "result", "waiter", "work")

    def __init__(
        self, work: Callable[[], T], after: Callable[[T], None] | None, ahead: Callable[[], Wanted] | None
    ) -> None:
        self.work, self.after, self.ahead = work, after, ahead
        self.result: Any = None
        self.error: Exception | None = None
        self.is_done = False
        self.waiter: Waiter[None] | None = None

    def outcome(self) -> T:
        """Wait until it is on disk, and give its result. Raises: its error."""
        if not self.is_done:
            self.waiter = Waiter()
            self.waiter.get()
        if self.error:
            raise self.error
        return cast(T, self.result)

    def finish(self) -> None:
        """Let who waits for it go on, in this round of the event loop."""
        self.is_done = True
        if self.waiter:
            gevent.get_hub().loop.run_callback(self.waiter.switch, None)


class GroupCommit(ABC):
    """The writes of one database, one transaction after the other (see ``engine.Database`` for what is promised)."""

    def __init__(self, most_waiting: int, binding: Any, execute: Callable[[str], object]) -> None:
        """``binding``: what code that writes is bound to (``models.bound``). ``execute``: runs SQL in the transaction."""
        self._most_waiting, self._binding, self._execute = most_waiting, binding, execute
        self._waiting: deque[Write[Any]] = deque()
        self._idle = Event()
        self._idle.set()

    # --- what an engine says of its transactions -----------------------------------------------------------------------

    @abstractmethod
    def _begin(self) -> None:
        """Begin a transaction that has the database to itself until its end."""

    @abstractmethod
    def _commit(self) -> None:
        """Commit the transaction: when this returns, it is on disk."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Undo the transaction, if there is one."""

    @abstractmethod
    def _is_in_transaction(self) -> bool:
        """Tell whether the transaction is still there; some errors end it."""

    @abstractmethod
    def _problem_of(self, error: Exception) -> Exception:
        """Give an engine's error as one of ours, where a client can do something about it."""

    def _is_maintenance_due(self) -> bool:
        """Tell whether something is to be done between two groups."""
        return False

    def _maintain(self) -> None:  # noqa: B027 -- not every engine has something to do here
        """Do what is due between two groups, when nobody waits for an answer any more."""

    # --- the queue -----------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Tell whether no write is under way."""
        return bool(self._idle.is_set())

    def wait(self) -> None:
        """Wait until no write is under way; who is woken before the caller may begin another."""
        self._idle.wait()

    def write(
        self,
        work: Callable[[], T],
        after: Callable[[T], None] | None = None,
        *,
        is_alone: bool = False,
        ahead: Callable[[], Wanted] | None = None,
    ) -> T:
        """Run ``work`` bound to this database in a transaction; return when it is on disk.

        See ``engine.Database.write``.
        """
        if len(self._waiting) >= self._most_waiting:
            raise Busy
        write = Write(work, after, ahead)
        self._waiting.append(write)
        if self._idle.is_set():
            self._idle.clear()
            try:
                if is_alone:
                    self._serve_group()
            finally:
                self._go_on()
        return write.outcome()

    def _go_on(self) -> None:
        if self._waiting or self._is_maintenance_due():
            gevent.spawn(self._drain)
        else:
            self._idle.set()

    def _drain(self) -> None:
        try:
            while self._waiting or self._is_maintenance_due():
                if self._waiting:
                    self._serve_group()
                if self._is_maintenance_due():
                    self._maintain()
        finally:
            self._idle.set()

    # --- one group -----------------------------------------------------------------------------------------------------

    def _serve_group(self) -> None:
        """Commit what waits, report it, and let those go on who wait for it."""
        group: list[Write[Any]] = []
        try:
            self._commit_group(group)
            for write in group:
                _report(write)
        finally:
            for write in group:
                write.finish()

    def _commit_group(self, group: list[Write[Any]]) -> None:
        """Run a group in one transaction, and list it; an error of the commit is the error of each of them.

        Raises: what interrupts the greenlet, which may be one of them.
        """
        token, is_committing = bound.set(self._binding), False
        try:
            self._begin()
            self._run_group(group)
            is_committing, began = True, time.perf_counter()
            self._commit()
            COMMIT_SECONDS.observe(time.perf_counter() - began)
            WRITES[()] += len(group)
        except BaseException as error:  # Whatever it is, those who wait must hear of it.
            if not group:  # It did not begin: the first alone, if it was interrupted, which is its own.
                count = len(self._waiting) if isinstance(error, Exception) else 1
                group += [self._waiting.popleft() for _ in range(count)]
            for write in group:
                write.error = write.error or self._error_of(error, is_committing)
            self._roll_back()
            if not isinstance(error, Exception):
                raise
        finally:
            bound.reset(token)

    def _error_of(self, error: BaseException, is_committing: bool) -> Exception:
        """Give the error of a write whose transaction failed. What interrupts the greenlet that commits is not theirs who
        wait for it."""
        if isinstance(error, Exception):
            return self._problem_of(error)
        return OutcomeUnknown() if is_committing else Busy()

    def _run_group(self, group: list[Write[Any]]) -> None:
        """Run what waits, one after the other, as long as a group may take; each that was begun is in ``group``."""
        end = self._end_of_group()
        while self._waiting and (not group or self._may_join(self._waiting[0], end)):
            group.append(self._waiting.popleft())
            self._run(group[-1], is_first=len(group) == 1)

    def _end_of_group(self) -> float:
        """Tell until when a group takes writes that begins its work now."""
        return time.monotonic() + _GROUP_SECONDS

    def _may_join(self, write: Write[Any], end: float) -> bool:
        """Tell whether a write may be of the group that is under way."""
        return time.monotonic() < end

    def _run(self, write: Write[Any], is_first: bool) -> None:
        """Run one piece of work; what it raises is its own, unless the whole transaction is gone with it.

        The first of a transaction needs no savepoint, for which SQLite would copy each page: there is no more to undo.
        """
        if not is_first:
            self._execute("SAVEPOINT one")
        try:
            write.result = write.work()
        except Exception as error:
            drop_statements(error)
            write.error = self._problem_of(error)
            if not self._is_in_transaction():
                raise  # The engine itself undid it: a full disk, an I/O error.
            if is_first:
                self._roll_back()
                return self._begin()
            self._execute("ROLLBACK TO SAVEPOINT one")
        if not is_first:
            self._execute("RELEASE SAVEPOINT one")
        return None


def drop_statements(error: Exception) -> None:
    """Drop what the failed code held: a statement that is half read keeps its connection at an old state of the database,
    as long as the traceback lives, which may be until the next garbage collection."""
    traceback.clear_frames(error.__traceback__)


def _report(write: Write[Any]) -> None:
    """Report a commit before who waits for it goes on, so that the notifications of a group can leave together."""
    if write.error is None and write.after:
        try:
            write.after(write.result)
        except Exception:
            log.exception("reporting a commit failed")
