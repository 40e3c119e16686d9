"""The replica's file: its tables, its transactions, and the lock of an exchange with the server.

Knows: SQLite. Must not know: HTTP, what a push or a pull means. One connection serves all threads of a process, under a
lock that is never held while the network is waited for; several processes may have the file open. A commit is on disk
(``synchronous=FULL``).
"""

from __future__ import annotations

import contextlib
import json
import platform
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import SyncError

_FORMAT = 2
_WAIT_SECONDS = 30.0
_TURN_SECONDS = 300.0
_LOOK_SECONDS = 0.1

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- A row as the server last gave it, and as the app sees it while an edit of it is not answered (else NULL).
-- ``generation`` counts first pulls of its table: a row of an earlier one was not among those of the latest.
CREATE TABLE rows (
  table_name TEXT NOT NULL, id TEXT NOT NULL,
  server TEXT, version INTEGER NOT NULL DEFAULT 0, is_tombstone INTEGER NOT NULL DEFAULT 0,
  local TEXT, is_hidden INTEGER NOT NULL DEFAULT 0,
  generation INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (table_name, id)
) WITHOUT ROWID;

-- Edits that are not answered. What was once written here is sent as it is until it is answered, since the server
-- knows a retry by its op_id and refuses another operation under that name.
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, is_edit INTEGER NOT NULL, op_id TEXT NOT NULL UNIQUE,
  table_name TEXT NOT NULL, row_id TEXT NOT NULL, operation TEXT NOT NULL, fields TEXT NOT NULL,
  timestamp TEXT NOT NULL, base_version INTEGER NOT NULL
);
CREATE INDEX outbox_by_row ON outbox (table_name, row_id);

CREATE TABLE conflicts (
  number INTEGER PRIMARY KEY AUTOINCREMENT, conflict_id INTEGER NOT NULL, detected_at TEXT NOT NULL,
  table_name TEXT NOT NULL, row_id TEXT NOT NULL, detail TEXT NOT NULL,
  is_told INTEGER NOT NULL DEFAULT 0, decision TEXT, decision_key TEXT, is_decided INTEGER NOT NULL DEFAULT 0,
  UNIQUE (conflict_id, detected_at)
);

CREATE TABLE refusals (
  number INTEGER PRIMARY KEY AUTOINCREMENT, table_name TEXT NOT NULL, row_id TEXT NOT NULL, operation TEXT NOT NULL,
  fields TEXT NOT NULL, timestamp TEXT NOT NULL, error TEXT NOT NULL, is_told INTEGER NOT NULL DEFAULT 0
);
"""


class Replica:
    """An open replica. Functions that take its connection run inside ``transaction`` or ``reading``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock, self._exchange = threading.RLock(), threading.RLock()
        self._depth = 0
        self.turn_seconds, self.closing = _TURN_SECONDS, threading.Event()
        self._connection = _open(self.path)
        self._turn = _open_turn(self.path)
        with self.transaction() as connection:
            _prepare(connection)
            _tell_copies_apart(connection, self.path)
        self.path.chmod(0o600)  # It holds the session.

    def close(self) -> None:
        """Close the file; nothing may run any more."""
        self._connection.close()
        self._turn.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:  # Of the commit too: a full disk must not leave a transaction open for ever.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read; what several statements see is of one moment only inside ``transaction``."""
        with self._lock:
            yield self._connection

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only one, of all threads and processes, that exchanges with the server; may be nested.

        The turn is a lock on a file beside the replica, which ends with its process however that ends.
        Raises: SyncError if another process does not end its turn, or this client is being closed.
        """
        with self._exchange:
            self._depth += 1
            try:
                if self._depth == 1:
                    self._begin_turn()
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._turn.in_transaction:
                    self._turn.execute("ROLLBACK")

    def _begin_turn(self) -> None:
        give_up = time.monotonic() + self.turn_seconds
        while True:
            try:
                self._turn.execute("BEGIN EXCLUSIVE")
                return
            except sqlite3.OperationalError as error:
                if time.monotonic() > give_up or self.closing.wait(_LOOK_SECONDS):
                    raise SyncError("Another process exchanges by this replica.", "turn_taken") from error

    def meta(self, name: str) -> Any:
        """Read one of the replica's own values, None if it is not set."""
        with self.reading() as connection:
            return get_meta(connection, name)


def get_meta(connection: sqlite3.Connection, name: str) -> Any:
    """Read one of the replica's own values, None if it is not set."""
    found = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return json.loads(found[0]) if found else None


def set_meta(connection: sqlite3.Connection, **values: Any) -> None:
    """Set some of the replica's own values."""
    rows = [(name, json.dumps(value)) for name, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _open_turn(path: Path) -> sqlite3.Connection:
    lock = path.with_name(path.name + "-turn")
    return sqlite3.connect(lock, timeout=0.0, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file.

    Raises: ValueError for a file of another format.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, 1, _FORMAT):
        raise ValueError(f"this replica has format {found}, and this client knows {_FORMAT}")
    if found == 0:
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        set_meta(connection, places={}, left={}, generations={})
    if found == 1:
        _take_over_format_1(connection)
    connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _take_over_format_1(connection: sqlite3.Connection) -> None:
    """Give each table a place: in format 1 they had one, and one generation."""
    found = connection.execute("SELECT DISTINCT table_name FROM rows").fetchall()
    tables = {*(get_meta(connection, "tables") or ()), *(table for (table,) in found)}
    left = {None: None, "missed": [], "restored": ["of before"]}[get_meta(connection, "resync")]
    set_meta(connection, places=dict.fromkeys(tables, get_meta(connection, "cursor")))
    set_meta(connection, generations=dict.fromkeys(tables, get_meta(connection, "generation")))
    set_meta(connection, left={} if left is None else dict.fromkeys(tables, left))


def new_device_id() -> str:
    """Make a name for a device."""
    return f"py-{uuid.uuid4().hex}"


def _tell_copies_apart(connection: sqlite3.Connection, path: Path) -> None:
    """Give a new file a name as a device, and likewise a copy of one: two devices of one name would hide their conflicts.

    A copy is another file in another place: by its number alone a file on some network drives would be a new one each time.
    """
    here = {"inode": path.stat().st_ino, "place": f"{platform.node()}:{path.resolve()}"}
    known = get_meta(connection, "file")
    if known is None or (known["inode"] != here["inode"] and known["place"] != here["place"]):
        is_named = known is None and get_meta(connection, "device_id") is not None
        set_meta(connection, **({} if is_named else {"device_id": new_device_id()}))
    if known != here:
        set_meta(connection, file=here)
