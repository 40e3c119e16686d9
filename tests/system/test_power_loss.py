"""A disk that loses power or fails, and the order of system calls: what was answered is there, and the file is sound.

The faults named below were put into a copy of the server; the tests named with them failed there.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import gevent
import pytest

from models import connection
from protocol.errors import Problem, StorageFull
from storage.sqlite import database, files
from storage.sqlite.database import SQLiteDatabase
from tests.conftest import Server, Tenant, needs, wait_for
from tests.storage.sqlite.words import prepare

pytestmark = pytest.mark.slow

SECTOR = 512


# --- a disk that loses power -----------------------------------------------------------------------------------------


class Image(NamedTuple):
    """What a power loss at one moment may leave: bytes that were synced, and writes that perhaps reached the disk."""

    synced: dict[str, bytes]
    pending: dict[str, list[tuple[int, bytes | None]]]
    answered: int


class Disk(apsw.VFS):
    """A file system that remembers what was synced, what was only written, and that fails on demand."""

    def __init__(self) -> None:
        super().__init__("faults", "")
        self.synced: dict[str, bytearray] = {}
        self.pending: dict[str, list[tuple[int, bytes | None]]] = defaultdict(list)
        self.log: list[tuple[str, str]] = []
        self.images: list[Image] = []
        self.answered = 0
        self.fault: Callable[[str, str], None] = lambda *_: None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- apsw's
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self.synced.pop(Path(filename).name, None)
        self.pending.pop(Path(filename).name, None)

    def note(self, what: str, name: str) -> None:
        """Take an image of the moment before an operation; let it fail if it should."""
        self.log.append((what, name))
        self.images.append(self.image())
        self.fault(what, name)

    def image(self) -> Image:
        synced = {name: bytes(content) for name, content in self.synced.items()}
        return Image(synced, {name: list(writes) for name, writes in self.pending.items()}, self.answered)

    def sync(self, name: str) -> None:
        apply(self.synced.setdefault(name, bytearray()), self.pending.pop(name, []))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk, self._name = disk, Path(text or "scratch").name
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._disk.note("write", self._name)
        super().xWrite(data, offset)
        self._disk.pending[self._name].append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.pending[self._name].append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.note("sync", self._name)
        super().xSync(flags)
        self._disk.sync(self._name)


def apply(content: bytearray, writes: list[tuple[int, bytes | None]]) -> None:
    """Do writes and cuts (None) to a file's bytes."""
    for offset, data in writes:
        if data is None:
            del content[offset:]
            continue
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def lose_power(image: Image, folder: Path, rng: random.Random | None) -> Path:
    """Write what a power loss leaves: what was synced, and with ``rng`` some sectors of what was not."""
    folder.mkdir()
    for name in image.synced.keys() | image.pending.keys():
        content = bytearray(image.synced.get(name, b""))
        if rng:
            apply(content, [write for write in torn(image.pending.get(name, [])) if rng.random() < 0.5])
        (folder / name).write_bytes(content)
    return folder / "a.db"


def check_after_power_losses(images: list[Image], folder: Path, is_torn: bool) -> None:
    """Open what 60 of the moments leave on the disk: what was answered is there, and the file is sound."""
    for turn, image in enumerate(random.Random(1).sample(images, 60)):
        path = lose_power(image, folder / str(turn), random.Random(turn) if is_torn else None)
        after = SQLiteDatabase.open(path, prepare, 1)
        found = after.read(numbers)
        after.close()
        assert found in (list(range(image.answered)), list(range(image.answered + 1)))
        assert files.faults_of(path) == []


def torn(writes: list[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytes | None]]:
    for offset, data in writes:
        if data is None:
            yield offset, None
        else:
            yield from ((offset + at, data[at : at + SECTOR]) for at in range(0, len(data), SECTOR))


def insert(number: int) -> None:
    connection().execute("INSERT INTO t (n, word) VALUES (?, ?)", (number, f"{number}-" * 300))


def numbers() -> list[int]:
    return [row[0] for row in connection().execute("SELECT n FROM t ORDER BY n")]


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


@pytest.fixture
def store(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteDatabase]:
    """A store on the disk that can fail."""
    original = apsw.Connection
    with monkeypatch.context() as patch:
        patch.setattr(apsw, "Connection", lambda path, **how: original(path, vfs="faults", **how))
        store = SQLiteDatabase.open(tmp_path / "a.db", prepare, 1)
    monkeypatch.setattr(database, "_CHECKPOINT_PAGES", 12)  # So that some of the images lie amid a checkpoint.
    yield store
    disk.fault = lambda *_: None
    store.wait()
    store.close()


def answer_many(store: SQLiteDatabase, disk: Disk, count: int) -> None:
    for number in range(count):
        store.write(lambda: insert(number))
        disk.answered = number + 1


def test_write_ahead_log_is_synced_between_its_last_bytes_and_the_answer(store: SQLiteDatabase, disk: Disk) -> None:
    for number in range(20):
        disk.log.clear()
        store.write(lambda: insert(number))
        wal = [what for what, name in disk.log if name == "a.db-wal"]
        assert "write" in wal and wal[-1] == "sync"


@pytest.mark.parametrize("is_torn", [False, True], ids=["unsynced writes are lost", "some sectors of them are not"])
def test_power_loss_at_any_moment_keeps_what_was_answered_and_a_sound_file(
    store: SQLiteDatabase, disk: Disk, tmp_path: Path, is_torn: bool
) -> None:
    """Fault: ``synchronous`` set to normal, which the next test holds this disk against."""
    answer_many(store, disk, 60)
    assert ("sync", "a.db") in disk.log, "no checkpoint was among the moments"
    images = [image for image in disk.images if image.answered]
    check_after_power_losses(images, tmp_path, is_torn)


@pytest.mark.parametrize("is_torn", [False, True], ids=["unsynced writes are lost", "some sectors of them are not"])
def test_power_loss_amid_closings_that_leave_their_logs_keeps_what_was_answered(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_torn: bool
) -> None:
    """Fault: a log that is removed before the file is synced (``VFS.xSync`` of "a.db" left out)."""
    path, original = tmp_path / "a.db", apsw.Connection
    with monkeypatch.context() as patch:
        patch.setattr(apsw, "Connection", lambda path, **how: original(path, vfs="faults", **how))
        for number in range(40):
            store = SQLiteDatabase.open(path, prepare, 1)
            store.write(lambda: insert(number))
            disk.answered = number + 1
            assert store.leave()
            if number % 7 == 6:
                files.take_log_in(path)
                assert not Path(f"{path}-wal").exists()
        images = [image for image in disk.images if image.answered]
    check_after_power_losses(images, tmp_path, is_torn)


def test_log_that_a_full_disk_can_not_take_in_stays(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the connection closed as if nothing had failed, and the log removed: the rows were gone."""
    path, original = tmp_path / "a.db", apsw.Connection

    def fail(what: str, name: str) -> None:
        if (what, name) == ("write", "a.db"):
            raise apsw.FullError

    with monkeypatch.context() as patch:
        patch.setattr(apsw, "Connection", lambda path, **how: original(path, vfs="faults", **how))
        store = SQLiteDatabase.open(path, prepare, 1)
        store.write(lambda: insert(1))
        store.leave()
        disk.fault = fail
        with pytest.raises(StorageFull):
            files.take_log_in(path)
        disk.fault = lambda *_: None
        assert Path(f"{path}-wal").stat().st_size
        again = SQLiteDatabase.open(path, prepare, 1)
    assert again.read(numbers) == [1]
    again.close()


def test_disk_of_these_tests_finds_out_what_does_not_sync(store: SQLiteDatabase, disk: Disk, tmp_path: Path) -> None:
    store._writer.conn.pragma("synchronous", "normal")
    answer_many(store, disk, 5)
    after = SQLiteDatabase.open(lose_power(disk.image(), tmp_path / "after", None), prepare, 1)
    assert len(after.read(numbers)) < 5
    after.close()


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError, apsw.ReadOnlyError, apsw.CantOpenError])
@pytest.mark.parametrize("what", ["write", "sync"])
def test_failing_disk_fails_the_write_alone_and_the_next_one_works(
    store: SQLiteDatabase, disk: Disk, what: str, error: type[apsw.Error]
) -> None:
    def fail(now: str, name: str) -> None:
        if (now, name) == (what, "a.db-wal"):
            raise error("the disk said no")

    store.write(lambda: insert(1))
    disk.fault = fail
    for number in (2, 3):
        with pytest.raises(Exception) as raised:
            store.write(lambda: insert(number))
        assert isinstance(raised.value, apsw.Error | Problem)
        assert store.read(numbers) == [1]
    disk.fault = lambda *_: None
    store.write(lambda: insert(4))
    assert store.read(numbers) == [1, 4]


def test_failing_sync_tells_every_write_of_its_group(store: SQLiteDatabase, disk: Disk) -> None:
    def fail(now: str, _: str) -> None:
        if now == "sync":
            raise apsw.FullError

    def write(number: int) -> str:
        try:
            store.write(lambda: insert(number))
        except StorageFull:
            return "full"
        return "stored"

    disk.fault = fail
    greenlets = [gevent.spawn(write, number) for number in range(10)]
    gevent.joinall(greenlets)
    assert {greenlet.value for greenlet in greenlets} == {"full"}
    assert store.read(numbers) == []


def test_failing_checkpoint_loses_nothing(store: SQLiteDatabase, disk: Disk) -> None:
    """SQLite commits and goes on; only apsw raises at the end what a file of Python's raised on the way."""

    def fail(_: str, name: str) -> None:
        if name == "a.db":
            raise apsw.IOError

    disk.fault = fail
    for number in range(30):
        with contextlib.suppress(apsw.IOError):
            store.write(lambda: insert(number))
    assert store.read(numbers) == list(range(30))
    disk.fault = lambda *_: None
    store.write(lambda: insert(30))
    assert store.read(numbers) == list(range(31))


# --- the order of system calls ---------------------------------------------------------------------------------------


@needs("strace")
def test_answer_leaves_after_the_row_was_written_and_synced_as_the_kernel_saw_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg"
    command = ["strace", "-f", "-y", "-s", "4000", "-o", str(trace), "-e", calls, sys.executable, "syncapp.py"]
    server = Server(tmp_path / "data", command=command).start()
    try:
        tenant = server.register()
        tenant.device().create(name="traced-row")
        lines = wait_for(lambda: moments(trace, tenant), "the trace")
    finally:
        assert server.process is not None
        traced = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(int(traced[0]), signal.SIGTERM)
        server.process.wait(timeout=40)
    written, synced, answered = lines
    assert max(written) < min(synced) < min(answered)


def moments(trace: Path, tenant: Tenant) -> tuple[list[int], list[int], list[int]] | None:
    """Give the lines where the row was written to the write-ahead log, synced there, and sent."""
    wal = re.escape(tenant.path.name) + "-wal"
    lines = list(enumerate(trace.read_text(errors="replace").splitlines()))
    written = [at for at, line in lines if re.search(rf"pwrite64\(\d+<[^>]*{wal}>", line) and "traced-row" in line]
    ended = pending_ends(lines, rf"f(data)?sync\(\d+<[^>]*{wal}>")
    synced = [at for at in ended if written and at > written[0]]
    sent = [at for at, line in lines if re.search(r"(send|write)\w*\(\d+<(socket|TCP)", line) and "traced-row" in line]
    return (written, synced, sent) if written and synced and sent else None


def pending_ends(lines: list[tuple[int, str]], call: str) -> list[int]:
    """Give the lines where a call returned; strace breaks one in two when another thread comes between."""
    ends, waiting = [], set()
    for at, line in lines:
        thread = line.split(maxsplit=1)[0]
        if re.search(call, line):
            if "unfinished" in line:
                waiting.add(thread)
            else:
                ends.append(at)
        elif thread in waiting and "sync resumed" in line:
            waiting.discard(thread)
            ends.append(at)
    return ends
