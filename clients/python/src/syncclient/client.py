"""The client that an app uses: it reads and writes rows at any time, and exchanges them with the server.

Knows: how the parts work together. Must not know: SQL, HTTP. All methods may be called from any thread. Reading and writing
never wait for the network.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from . import places, records, rows
from .checked import checked_id, checked_row, checked_table
from .errors import ResyncRequired, SyncError
from .live import Live
from .pulling import Pulling
from .pushing import Pushing
from .records import Conflict, Refusal, Resolution
from .replica import Replica
from .runner import Runner
from .session import Session
from .transport import Transport
from .wire import Row, format_time


@dataclass(frozen=True)
class Progress:
    """How far an exchange is: rows so far in this direction, and how many still wait to be pushed."""

    phase: Literal["pull", "push"]
    rows: int
    waiting: int


@dataclass(frozen=True)
class Hooks:
    """What an app wants to be told, each called from the thread that exchanges, after the data is on disk.

    ``on_renamed`` is told the table, the old id and the new one of a row that the server has under another id than it was
    created with; what other rows say of the old one is the app's to mend.
    ``on_conflict`` may give a decision (see ``SyncClient.decide``). A conflict or a refusal is told again at the next
    exchange if the process ended, or the hook raised, before it returned.
    """

    on_change: Callable[[str, Sequence[str]], object] | None = None
    on_progress: Callable[[Progress], object] | None = None
    on_conflict: Callable[[Conflict], Resolution | None] | None = None
    on_refusal: Callable[[Refusal], object] | None = None
    on_error: Callable[[SyncError], object] | None = None
    on_renamed: Callable[[str, str, str], object] | None = None


@dataclass(frozen=True)
class Status:
    """How a replica stands."""

    waiting: int
    conflicts: int
    refusals: int
    cursor: str | None
    device_id: str
    is_logged_in: bool
    clock_offset_ms: int


class SyncClient:
    """A local replica of one account's tables, and its exchange with the server."""

    def __init__(
        self,
        path: str | Path,
        url: str,
        *,
        tables: Iterable[str] | None = None,
        email: str | None = None,
        password: str | None = None,
        hooks: Hooks | None = None,
        page_rows: int | None = None,
        part_rows: int = 500,
        timeout_seconds: float = 30.0,
        patience_seconds: float = 60.0,
    ) -> None:
        """Open the replica, or make it; the network is not touched.

        ``tables``: which to sync, None for all. ``email`` and ``password``: to log in without being asked, whenever it
        is needed; they are never written. ``patience_seconds``: how long a request waits for a busy server in all.
        """
        self._hooks = hooks or Hooks()
        self._replica = Replica(path)
        self._transport = Transport(url, self._replica.meta("device_id"), timeout_seconds, patience_seconds)
        self._session = Session(self._replica, self._transport, email, password)
        self._pulling = Pulling(self._replica, self._session, list(tables) if tables else None, page_rows, self._report)
        self._pushing = Pushing(self._replica, self._session, part_rows, self._report, self._rename)
        self._done = {"pull": 0, "push": 0}
        self._background = threading.Lock()
        self._runner: Runner | None = None
        self._live: Live | None = None

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the background, and close the file. What waits is sent the next time."""
        self._transport.stopped.set()
        self._replica.closing.set()
        self.stop()
        self._transport.close()
        self._replica.close()

    # --- account -----------------------------------------------------------------------------------------------------

    def login(self, email: str, password: str) -> None:
        """Begin a session, which is kept in the replica.

        Raises: WrongAccount, Unauthorized, Offline, Busy.
        """
        self._session.login(email, password)
        self._retry()

    def adopt(self, token: str, refresh_token: str) -> None:
        """Take over a session that the app began by itself. Raises: WrongAccount."""
        self._session.adopt(token, refresh_token)
        self._retry()

    def logout(self) -> None:
        """End the session; rows and edits stay."""
        self._session.logout()

    # --- rows --------------------------------------------------------------------------------------------------------

    def put(self, table: str, row: Row) -> Row:
        """Create a row, or change the fields given of the row with this ``id``; give it as it is now.

        Without an ``id`` a row gets one. On disk when this returns. Raises: ValueError for what can't be sent.
        """
        return self.put_many(table, [row])[0]

    def put_many(self, table: str, many: Iterable[Row]) -> list[Row]:
        """Put several rows, all or none; much faster than one by one."""
        checked_table(table)
        named = [(_id_of(checked_row(row)), row) for row in many]
        timestamp = self._timestamp()
        with self._replica.transaction() as connection:
            done = [rows.put(connection, table, row_id, row, timestamp) for row_id, row in named]
        self._wake()
        return done

    def delete(self, table: str, row_id: str) -> None:
        """Delete a row; one that is not there stays so."""
        timestamp = self._timestamp()
        with self._replica.transaction() as connection:
            rows.delete(connection, checked_table(table), checked_id(row_id), timestamp)
        self._wake()

    def get(self, table: str, row_id: str) -> Row | None:
        """Give a row with all edits of this device, None if there is none. ``sync_status`` is ``pending`` or ``synced``."""
        with self._replica.reading() as connection:
            return rows.visible(connection, table, row_id)

    def rows(self, table: str, **equals: Any) -> list[Row]:
        """Give the rows of a table, those whose fields equal the given ones: ``rows("end_user", status="open")``."""
        with self._replica.reading() as connection:
            return rows.visible_rows(connection, table, equals)

    # --- exchange ----------------------------------------------------------------------------------------------------

    def sync(self, verify: bool = False) -> None:
        """Send and fetch until neither side has anything new; ``verify`` compares the digests too, and repairs.

        The first exchange of a process compares them anyway. Raises: SyncError; what was done until then is done.
        """
        with self._exchange():
            self._pulling.run(verify)
            while not self._push():
                self._pulling.run()

    def pull(self, verify: bool = False) -> None:
        """Only fetch."""
        with self._exchange():
            self._pulling.run(verify)

    def push(self) -> None:
        """Only send; the first time in a process, and after a restore of the server, it fetches first.

        For the server has to tell whether this is a copy of another device, and what waits is based on what was before.
        """
        with self._exchange():
            with self._replica.reading() as connection:
                may_be_copy = places.latest(connection) is not None and not self._pulling.is_known
                fetches_first = may_be_copy or bool(places.starting(connection))
            if fetches_first:
                self._pulling.run()
            self._push()

    def start(self, every_seconds: float = 60.0, live: bool = True) -> None:
        """Exchange in the background from now on: soon after each edit, every so often, and when the server notifies.

        A failure is told to ``on_error`` and tried again, later and later.
        """
        with self._background:
            if self._runner is None:
                self._runner = runner = Runner(self.sync, self._place, every_seconds, self._hooks.on_error)
                parts = self._session, self._replica, self._transport
                self._live = Live(*parts, runner.hear, runner.retry) if live else None

    def stop(self) -> None:
        """End what ``start`` began, after the exchange that is under way; not to be called from a hook."""
        with self._background:
            for running in (self._live, self._runner):
                if running is not None:
                    running.stop()
            self._runner = self._live = None

    # --- records -----------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Tell how the replica stands."""
        with self._replica.transaction() as connection:
            open_conflicts = [one for one in records.conflicts(connection) if not one.is_decided]
            counts = rows.count_edits(connection), len(open_conflicts), len(records.refusals(connection))
            place = places.shared(connection)
        device_id = self._transport.device_id
        return Status(*counts, place, device_id, self._session.tokens[0] is not None, self._transport.clock_offset_ms)

    def conflicts(self) -> list[Conflict]:
        """List the conflicts that edits of this device met, the oldest first."""
        with self._replica.reading() as connection:
            return records.conflicts(connection)

    def refusals(self) -> list[Refusal]:
        """List the edits that the server would not store."""
        with self._replica.reading() as connection:
            return records.refusals(connection)

    def decide(self, number: int, resolution: Resolution) -> None:
        """Decide a conflict: ``"keep"`` the row, ``"other"`` for the values that lost, or a dict of fields to set.

        The server is told with the next exchange. Raises: LookupError if there is no such open conflict.
        """
        with self._replica.transaction() as connection:
            records.decide(connection, number, resolution)
        self._wake()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _push(self) -> bool:
        """Send what waits, and tell whether there is nothing to fetch after it. Raises: SyncError."""
        try:
            return self._pushing.run()
        except ResyncRequired:  # The server was restored since it was fetched from.
            self._pulling.run()
            return self._pushing.run()

    def _place(self) -> str | None:
        with self._replica.reading() as connection:
            return places.shared(connection)

    def _timestamp(self) -> str:
        return format_time(self._transport.now_ms())

    def _wake(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.wake()

    def _retry(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.retry()

    def _report(self, phase: Literal["pull", "push"], count: int, changed: dict[str, list[str]]) -> None:
        self._done[phase] += count
        if self._hooks.on_progress:
            with self._replica.reading() as connection:
                waiting = rows.count_edits(connection)
            self._hooks.on_progress(Progress(phase, self._done[phase], waiting))
        for table, ids in changed.items():
            if self._hooks.on_change:
                self._hooks.on_change(table, ids)

    def _rename(self, table: str, from_id: str, to_id: str) -> None:
        if self._hooks.on_renamed:
            self._hooks.on_renamed(table, from_id, to_id)

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Be the only one who exchanges; in the end, however it came, tell the app what it must know."""
        with self._replica.turn():
            self._done = {"pull": 0, "push": 0}
            try:
                yield
            finally:
                self._tell()

    def _tell(self) -> None:
        """Tell the app of conflicts and refusals that it does not know."""
        with self._replica.reading() as connection:
            conflicts, refusals = (
                records.conflicts(connection, "is_told = 0"),
                records.refusals(connection, "is_told = 0"),
            )
        for conflict in conflicts if self._hooks.on_conflict else []:
            assert self._hooks.on_conflict
            resolution = self._hooks.on_conflict(conflict)
            with self._replica.transaction() as connection:
                records.mark_told(connection, conflict)
                if resolution is not None and not conflict.is_decided:
                    records.decide(connection, conflict.number, resolution)
        for refusal in refusals if self._hooks.on_refusal else []:
            assert self._hooks.on_refusal
            self._hooks.on_refusal(refusal)
            with self._replica.transaction() as connection:
                records.mark_told(connection, refusal)


def _id_of(row: Row) -> str:
    return str(uuid.uuid4()) if row.get("id") is None else checked_id(row["id"])
