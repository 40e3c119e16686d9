"""Which connection a read has: that of the writer while nobody writes, and else one of its own.

That a read sees only what is committed, and may not write, is told by the engine's contract (``tests/storage/engine``). The
faults named below were put into a copy of ``storage/sqlite/database.py``; the tests named with them failed there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import gevent
import pytest
from gevent.event import Event

from models import connection
from server import disk_threads
from storage.sqlite import database
from storage.sqlite.database import FileReplaced, SQLiteDatabase, WrittenByRead
from tests.storage.sqlite.words import descriptors, insert, prepare, words


class Paused:
    """A write that stands still in its transaction until it is let go."""

    def __init__(self, store: SQLiteDatabase, word: str) -> None:
        began, self.gate = Event(), Event()
        self._writing = gevent.spawn(store.write, lambda: (insert(word), began.set(), self.gate.wait()))
        began.wait()

    def end(self) -> None:
        self.gate.set()
        self._writing.get()


def test_file_that_is_read_and_written_in_turn_has_three_descriptors(store: SQLiteDatabase) -> None:
    """Fault: a connection for reads opened with the file: five."""
    for number in range(5):
        store.write(lambda number=number: insert(f"w{number}"))  # type: ignore[misc]
        assert len(store.read(words)) == number + 1
    assert descriptors(store.path) == 3


def test_file_that_rests_has_no_second_connection_and_goes_on(store: SQLiteDatabase) -> None:
    paused = Paused(store, "w0")
    assert store.read(words) == []
    store.rest()  # Not amid a write.
    assert descriptors(store.path) == 5
    paused.end()
    store.rest()
    assert descriptors(store.path) == 4  # SQLite keeps one for the next: closing it would drop the writer's locks.
    paused = Paused(store, "w1")
    assert store.read(words) == ["w0"]
    paused.end()


def test_read_amid_a_write_sees_none_of_it_and_reads_after_it_all(store: SQLiteDatabase) -> None:
    """Fault: reads bound to the writer whatever it does: the word was seen before its commit."""
    for turn in range(3):
        paused = Paused(store, f"w{turn}")
        assert len(store.read(words)) == turn
        paused.end()
        assert len(store.read(words)) == turn + 1


def test_read_within_a_write_sees_what_is_committed(store: SQLiteDatabase) -> None:
    store.write(lambda: insert("a"))
    assert store.write(lambda: (insert("b"), words(), store.read(words))[1:]) == (["a", "b"], ["a"])


def test_read_within_a_read_is_of_the_same_moment(store: SQLiteDatabase) -> None:
    store.write(lambda: insert("a"))

    def twice() -> tuple[list[str], list[str], bool]:
        return words(), store.read(words), connection().get_autocommit()

    assert store.read(twice) == (["a"], ["a"], False)


@pytest.mark.parametrize("what", ["COMMIT", "checkpoint"])
def test_read_does_not_wait_for_a_disk_that_the_writer_waits_for(
    store: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Fault: whether a transaction is open asked in place of whether nobody writes: a read had the connection that a thread
    was checkpointing with, and stood still with the event loop until that was done."""
    amid, gate, in_thread = Event(), Event(), disk_threads.disk.in_thread

    def slowly(work: Callable[[], Any]) -> Any:
        amid.set()
        gate.wait()
        return in_thread(work)

    monkeypatch.setattr(disk_threads.disk, "in_thread", slowly)
    monkeypatch.setattr(disk_threads.disk, "at_once", lambda work: work())
    monkeypatch.setattr(database, "_CHECKPOINT_PAGES", 1 if what == "checkpoint" else 1_000)
    rows = 1 if what == "checkpoint" else 200
    writing = gevent.spawn(store.write, lambda: [insert(f"w{number}") for number in range(rows)])
    amid.wait()
    seen, bound_to = store.read(lambda: (len(words()), connection()))
    gate.set()
    writing.get()
    assert bound_to is not store._writer.conn
    assert seen == (1 if what == "checkpoint" else 0)


def test_read_leaves_no_old_state_behind_on_the_writers_connection(store: SQLiteDatabase) -> None:
    """Another process commits after it: the next read and the next write are of what it left."""
    store.read(words)
    with closing(apsw.Connection(str(store.path))) as other:
        other.execute("INSERT INTO t (word) VALUES ('theirs')")
    assert store.read(words) == ["theirs"]
    store.write(lambda: insert("ours"))
    assert store.read(words) == ["theirs", "ours"]


@pytest.mark.parametrize("is_beside_a_write", [False, True])
def test_read_that_writes_is_an_error_and_undone(store: SQLiteDatabase, is_beside_a_write: bool) -> None:
    """Fault: no look at the transaction's state: the word was stored by a read."""
    paused = Paused(store, "written") if is_beside_a_write else None
    with pytest.raises(apsw.Error if paused else WrittenByRead):
        store.read(lambda: insert("read"))
    if paused:
        paused.end()
    assert store.read(words) == (["written"] if paused else [])
    store.write(lambda: insert("goes on"))
    assert store.read(words)[-1] == "goes on"


def test_read_beside_a_write_does_not_open_another_file_that_came_in_the_place_of_this_one(
    store: SQLiteDatabase, tmp_path: Path
) -> None:
    """Fault: no look at what was opened: the words of the other file were read."""
    other = SQLiteDatabase.open(tmp_path / "other.db", prepare, 1)
    other.write(lambda: insert("another's"))
    other.close()
    paused = Paused(store, "a")
    os.replace(other.path, store.path)
    with pytest.raises(FileReplaced):
        store.read(words)
    with pytest.raises(FileReplaced):
        paused.end()
    assert store.read(words) == ["a"], "what is open is read until it is let go of"
