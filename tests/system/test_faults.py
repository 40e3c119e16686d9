"""Power loss, dying half way, broken, locked and protected files, a wrong clock, too few descriptors.

A fault is put where it hurts most, and then looked at from outside: what was answered is there, what was not is there
whole or not at all, other tenants go on, and a broken file is neither removed nor overwritten.
The faults named below were put into a copy of the server; the tests named with them failed there.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import gevent
import pytest
import requests

from models import connection
from operations import backup, restore
from protocol.errors import Problem, StorageFull
from storage import positions
from storage.sqlite import database, files
from storage.sqlite.database import Store
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, ROOT, Device, Server, Tenant, needs, wait_for
from tests.refusals import refused, shaped

pytestmark = pytest.mark.slow
ROW = {"changes": {"end_user": [{"id": "a", "name": "then"}]}}
SECTOR = 512


def push_of(*names: str) -> JSON:
    return {"changes": {"end_user": [{"id": name, "name": name} for name in names]}}


def names(device: Device) -> set[str]:
    return {row["name"] for row in device.rows()}


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


def torn(writes: list[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytes | None]]:
    for offset, data in writes:
        if data is None:
            yield offset, None
        else:
            yield from ((offset + at, data[at : at + SECTOR]) for at in range(0, len(data), SECTOR))


def prepare() -> None:
    connection().execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, word TEXT)")


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
def store(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store on the disk that can fail."""
    original = apsw.Connection
    with monkeypatch.context() as patch:
        patch.setattr(apsw, "Connection", lambda path: original(path, vfs="faults"))
        store = Store.open(tmp_path / "a.db", prepare, 1)
    monkeypatch.setattr(database, "_CHECKPOINT_PAGES", 12)  # So that some of the images lie amid a checkpoint.
    yield store
    disk.fault = lambda *_: None
    store.wait()
    store.close()


def answer_many(store: Store, disk: Disk, count: int) -> None:
    for number in range(count):
        store.write(lambda: insert(number))
        disk.answered = number + 1


def test_log_of_writes_is_synced_between_its_last_bytes_and_the_answer(store: Store, disk: Disk) -> None:
    for number in range(20):
        disk.log.clear()
        store.write(lambda: insert(number))
        wal = [what for what, name in disk.log if name == "a.db-wal"]
        assert "write" in wal and wal[-1] == "sync"


@pytest.mark.parametrize("is_torn", [False, True], ids=["unsynced writes are lost", "some sectors of them are not"])
def test_power_loss_at_any_moment_keeps_what_was_answered_and_a_sound_file(
    store: Store, disk: Disk, tmp_path: Path, is_torn: bool
) -> None:
    """Fault: ``synchronous`` set to normal, which the next test holds this disk against."""
    answer_many(store, disk, 60)
    assert ("sync", "a.db") in disk.log, "no checkpoint was among the moments"
    images = [image for image in disk.images if image.answered]
    for turn, image in enumerate(random.Random(1).sample(images, 60)):
        path = lose_power(image, tmp_path / str(turn), random.Random(turn) if is_torn else None)
        after = Store.open(path, prepare, 1)
        found = after.read(numbers)
        after.close()
        assert found in (list(range(image.answered)), list(range(image.answered + 1)))
        assert files.faults_of(path) == []


def test_disk_of_these_tests_finds_out_what_does_not_sync(store: Store, disk: Disk, tmp_path: Path) -> None:
    store._writer.conn.pragma("synchronous", "normal")
    answer_many(store, disk, 5)
    after = Store.open(lose_power(disk.image(), tmp_path / "after", None), prepare, 1)
    assert len(after.read(numbers)) < 5
    after.close()


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError, apsw.ReadOnlyError, apsw.CantOpenError])
@pytest.mark.parametrize("what", ["write", "sync"])
def test_failing_disk_fails_the_write_alone_and_the_next_one_works(
    store: Store, disk: Disk, what: str, error: type[apsw.Error]
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


def test_failing_sync_tells_every_write_of_its_group(store: Store, disk: Disk) -> None:
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


def test_failing_checkpoint_loses_nothing(store: Store, disk: Disk) -> None:
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


def test_file_that_can_grow_no_further_refuses_in_one_shape_and_keeps_what_was_answered(tmp_path: Path) -> None:
    """The kernel refuses it (RLIMIT_FSIZE), to the log of writes or to a checkpoint, whichever comes first."""
    command = ["bash", "-c", f"ulimit -f 1200; exec {sys.executable} syncapp.py"]
    server = Server(tmp_path / "data", command=command).start()
    tenant, other = server.register(), server.register()
    answered, refusals = set[str](), 0
    for number in range(60):
        row = {"id": f"r{number}", "name": f"r{number}", "note": os.urandom(15_000).hex()}
        answer = tenant.device().push_raw({"changes": {"end_user": [row]}})
        if answer.ok:
            answered.add(f"r{number}")
        else:
            refusals += bool(is_refused(answer))
    assert answered and refusals
    assert names(tenant.device()) == answered
    other.device().push(ROW)
    server.stop()
    server.command = [sys.executable, "syncapp.py"]
    server.start()
    assert names(tenant.device()) == answered
    tenant.device().push(push_of("goes-on"))
    assert server.stop() == 0
    assert files.faults_of(tenant.path) == []


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
    """Give the lines where the row was written to the log of writes, synced there, and sent."""
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


# --- dying half way --------------------------------------------------------------------------------------------------

DYING_SERVER = """
import syncapp
import os, sys
from pathlib import Path
from storage.sqlite import database
from storage import push_writer
from storage import push_fast_path
arm = Path(os.environ["DATA_DIR"] + ".arm")

def die(*_, **__):
    os._exit(9)

def before(owner, name, act=die):
    original = getattr(owner, name)
    def dying(*arguments, **named):
        if arm.exists():
            act(original, *arguments, **named)
        return original(*arguments, **named)
    setattr(owner, name, dying)

def amid_commit(original, commit):
    database.disk._threads.spawn(commit)
    die()

{
    "between log and rows": lambda: (before(push_writer, "insert_row"), before(push_fast_path, "insert_row")),
    "before COMMIT": lambda: before(database.disk, "at_once"),
    "amid COMMIT": lambda: before(database.disk, "at_once", amid_commit),
    "after COMMIT": lambda: before(database, "_answer"),
}[os.environ["POINT"]]()
syncapp.main()
"""


@pytest.mark.parametrize("point", ["between log and rows", "before COMMIT", "amid COMMIT", "after COMMIT"])
def test_server_that_dies_in_a_group_commit_keeps_each_push_whole_or_not_at_all(tmp_path: Path, point: str) -> None:
    server = Server(tmp_path / "data", {"POINT": point}, [sys.executable, "-c", DYING_SERVER]).start()
    tenants = [server.register() for _ in range(2)]
    for tenant in tenants:
        tenant.device().push(push_of("then"))
    (tmp_path / "data.arm").touch()
    push_until_gone(server, tenants)
    (tmp_path / "data.arm").unlink()
    server.command = [sys.executable, "syncapp.py"]
    server.start()
    for tenant in tenants:
        check_after_death(tenant, point)
    assert server.stop() == 0


def push_until_gone(server: Server, tenants: list[Tenant]) -> None:
    """Push from several devices at once to a server that dies of it."""

    def push(tenant: Tenant, name: str) -> None:
        with pytest.raises(requests.ConnectionError):
            tenant.device(Idempotency_Key=name).push_raw(push_of(f"{name}.1", f"{name}.2"))

    threads = [threading.Thread(target=push, args=(tenant, name)) for tenant in tenants for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.process is not None and server.process.wait(timeout=20) == 9


def check_after_death(tenant: Tenant, point: str) -> None:
    """All or nothing of each push, and a retry under its key makes it whole and only once."""
    there = names(tenant.device())
    assert "then" in there
    assert all((f"{name}.1" in there) == (f"{name}.2" in there) for name in "xyz")
    if point in ("between log and rows", "before COMMIT"):
        assert there == {"then"}
    for name in "xyz":
        tenant.device(Idempotency_Key=name).push(push_of(f"{name}.1", f"{name}.2"))
    rows = tenant.device().rows()
    assert len(rows) == 7 and {row["version"] for row in rows} == {1}
    assert files.faults_of(tenant.path) == []


DYING = """
import syncapp
import os, sys
from pathlib import Path
from storage import main_database
from storage import digest
from storage.sqlite import files
from storage import positions
from operations import restore
from storage import schema
from storage.sqlite import database
from storage.sqlite import file_replacement
import tenants

folder, tenant_id, made, work, when, owner, name, about = sys.argv[1:]
opened = tenants.Tenants(Path(folder), is_server=False)
module, _, attribute = owner.partition(":")
owner = getattr(sys.modules[module], attribute) if attribute else sys.modules[module]
original = getattr(owner, name)

def dying(*arguments, **named):
    meant = about in str(arguments)
    if meant and when == "before":
        os._exit(9)
    result = original(*arguments, **named)
    if meant:
        os._exit(9)
    return result

setattr(owner, name, dying)
if work == "open":
    opened.read(tenant_id, positions.place)
else:
    restore.restore(opened, restore.choose(opened, Path(made)), print)
"""


def die(folder: Path, tenant_id: str, made: Path, work: str, *point: str) -> None:
    """Open a tenant's file, or restore, in a process that dies before or after a call."""
    command = [sys.executable, "-c", DYING, str(folder), tenant_id, str(made), work, *point]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 9, process.stdout + process.stderr


def make_older(path: Path) -> None:
    """Make a tenant's file one of a version that knew less."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        for sql in (
            "ALTER TABLE end_user DROP COLUMN name",
            "ALTER TABLE end_user DROP COLUMN firstName",
            "DROP TABLE _digests",
            "PRAGMA user_version = 7",
        ):
            file.execute(sql)


def everything_in(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        return [*file.iterdump(), str(file.execute("PRAGMA user_version").fetchone())]


@pytest.mark.parametrize(
    "point",
    [
        ("before", "storage.schema", "_add_column", "name"),
        ("after", "storage.schema", "_add_column", "name"),
        ("before", "storage.digest", "add_missing", ""),
        ("after", "storage.digest", "add_missing", ""),
    ],
    ids=" ".join,
)
def test_migration_that_dies_has_not_happened_and_the_next_opening_does_it(
    tmp_path: Path, tenants: Tenants, new_tenant: Callable[[], str], point: tuple[str, ...]
) -> None:
    """Fault: no transaction around ``prepare``."""
    tenant_id = new_tenant()
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", "name": "A", "firstName": "F"}]}})
    shutil.copytree(tenants.folder, tmp_path / "older")
    new = Tenants(tmp_path / "older")
    path = new.path_of(tenant_id)
    make_older(path)
    before = everything_in(path)
    die(new.folder, tenant_id, tmp_path, "open", *point)
    assert everything_in(path) == before
    assert [(row["name"], row["firstName"]) for row in inside.rows(new, tenant_id)] == [("A", "F")]
    assert new.read(tenant_id, positions.place_and_digests)[1]["end_user"]["count"] == 1
    inside.push(new, tenant_id, push_of("b"))
    new.close()
    assert files.faults_of(path) == []


class Crashed(NamedTuple):
    """A folder as a crash leaves it, log of writes and all, and a backup of what was before its last push."""

    folder: Path
    tenant_id: str
    made: Path
    epoch: str


@pytest.fixture
def crashed(tmp_path: Path, tenants: Tenants, new_tenant: Callable[[], str]) -> Crashed:
    tenant_id = new_tenant()
    inside.push(tenants, tenant_id, ROW)
    made = backup.make(tenants, tmp_path / "backups", None, None, lambda _: None).path
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", "name": "now"}]}})
    folder = tmp_path / "crashed"
    shutil.copytree(tenants.folder, folder)
    return Crashed(folder, tenant_id, made, tenants.read(tenant_id, positions.place).epoch)


def check_state(crashed: Crashed, expected: str) -> None:
    """Open the folder as the next start does: one state or the other, with its epoch, and nothing left over."""
    tenants = Tenants(crashed.folder)
    assert [row["name"] for row in inside.rows(tenants, crashed.tenant_id)] == [expected]
    assert (tenants.read(crashed.tenant_id, positions.place).epoch == crashed.epoch) == (expected == "now")
    inside.push(tenants, crashed.tenant_id, push_of("on"))
    assert len(inside.rows(tenants, crashed.tenant_id)) == 2
    tenants.close()
    path = tenants.path_of(crashed.tenant_id)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert files.faults_of(path) == []


@pytest.mark.parametrize(
    ("expected", "point"),
    [
        ("now", ("before", "operations.restore", "open_tenant_file", ".making")),
        ("now", ("before", "storage.positions", "begin_epoch", "")),
        ("now", ("after", "storage.positions", "begin_epoch", "")),
        ("now", ("before", "pathlib:Path", "rename", ".making")),
        ("then", ("before", "operations.restore", "sync_folder", "")),
        ("then", ("before", "storage.main_database", "add_missing_customer", "")),
        ("then", ("before", "storage.sqlite.file_replacement", "keep_aside", "")),
        ("then", ("after", "storage.sqlite.file_replacement", "copy_file", "")),
        ("then", ("before", "storage.sqlite.file_replacement", "replace_contents", "")),
        ("then", ("after", "storage.sqlite.file_replacement", "replace_contents", "")),
        ("then", ("before", "pathlib:Path", "unlink", ".restored")),
        ("then", ("before", "storage.sqlite.file_replacement", "sync_folder", "/crashed/tenants")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_restore_that_dies_is_the_old_state_or_the_new_one_and_never_a_mixture(
    crashed: Crashed, expected: str, point: tuple[str, ...]
) -> None:
    """Faults: the old log of writes left beside the new file, which ``crashed`` has; the old epoch kept."""
    die(crashed.folder, crashed.tenant_id, crashed.made, "restore", *point)
    check_state(crashed, expected)


def test_restore_of_a_lost_customer_that_dies_before_it_is_known_is_put_right_by_another_restore(
    crashed: Crashed, tmp_path: Path
) -> None:
    lost = crashed._replace(folder=tmp_path / "new machine")
    die(
        lost.folder, lost.tenant_id, lost.made, "restore", "before", "storage.main_database", "add_missing_customer", ""
    )
    Tenants(lost.folder).close()
    tenants = Tenants(lost.folder)
    assert tenants.path_of(lost.tenant_id).exists(), "rows of nobody were removed"
    restore.restore(tenants, restore.choose(tenants, lost.made), lambda _: None)
    tenants.close()
    check_state(lost, "then")


# --- files that are broken, locked or protected ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that holds one tenant open, so that another's file is closed as soon as this one's is used."""
    server = Server(tmp_path_factory.mktemp("small") / "data", {"OPEN_TENANTS": "1"}).start()
    yield server
    assert server.stop() == 0, server.log_path.read_text()[-2000:]


@pytest.fixture
def other(small: Server) -> Tenant:
    return small.register()


@pytest.fixture
def victim(small: Server, other: Tenant) -> Tenant:
    """A tenant with rows whose file is closed."""
    victim = small.register()
    rows = [{"id": f"r{number}", "name": f"{number}", "note": os.urandom(300).hex()} for number in range(400)]
    victim.device().push({"changes": {"end_user": rows}})
    other.device().create(name="of another")
    assert not Path(f"{victim.path}-wal").exists()
    return victim


def check_others(small: Server, other: Tenant) -> None:
    before = len(other.device().rows())
    other.device().create(name="goes on")
    assert len(other.device().rows()) == before + 1
    assert requests.get(f"{small.url}/health", timeout=5).json()["status"] in ("ok", "degraded")


def is_refused(answer: Any) -> JSON:
    """Check that an answer is a failure of the server's, said in the one shape."""
    assert answer.status_code >= 500, (answer.status_code, answer.text[:300])
    body = shaped(answer.json())
    assert body["requestId"] == answer.headers["X-Request-ID"]
    return body


def damage(path: Path, kind: str) -> bytes:
    """Break a file, and give its bytes before."""
    whole = path.read_bytes()
    broken = {
        "random bytes": os.urandom(len(whole)),
        "cut to half": whole[: len(whole) // 8192 * 4096],
        "cut amid a page": whole[:5000],
        "cut amid the header": whole[:50],
        "header destroyed": bytes(100) + whole[100:],
        "text": b"this is no database. " * 1000,
        "empty": b"",
    }
    path.write_bytes(broken[kind])
    return whole


KINDS = ["random bytes", "cut to half", "cut amid a page", "cut amid the header", "header destroyed", "text", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_file_is_an_error_for_its_tenant_alone_and_stays_as_it_is(
    small: Server, other: Tenant, victim: Tenant, kind: str
) -> None:
    """Fault: an empty file was taken for a new tenant's, and devices were told that all rows are gone."""
    whole, device = damage(victim.path, kind), victim.device()
    broken = victim.path.read_bytes()
    try:
        for answer in (device.pull_raw({"cursor": None}), device.push_raw(push_of("b")), device.raw("sync/pull", {})):
            is_refused(answer)
        check_others(small, other)
        is_refused(device.push_raw(push_of("c")))
        assert victim.path.read_bytes() == broken or kind == "empty"  # SQLite writes the head of a file of nothing.
    finally:
        other.device().rows()
        for suffix in ("-wal", "-shm"):
            Path(f"{victim.path}{suffix}").unlink(missing_ok=True)
        victim.path.write_bytes(whole)
    assert len(device.rows()) == 400


def test_pull_that_meets_broken_pages_never_looks_like_a_whole_answer(
    small: Server, other: Tenant, victim: Tenant
) -> None:
    whole = victim.path.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    victim.path.write_bytes(whole[:middle] + os.urandom(len(whole) - middle))
    try:
        answer = victim.device().pull_raw({"cursor": None})
        assert answer.status_code >= 500, "broken rows were sent as if they were good"
        shaped(answer.json())
    except requests.exceptions.ChunkedEncodingError:
        pass  # It was under way: the answer is cut off, and no client takes it for a whole one.
    check_others(small, other)


def test_server_starts_beside_a_broken_file_and_leaves_it_alone(start_server: Callable[..., Server]) -> None:
    server = start_server()
    victim, other = server.register(), server.register()
    assert server.stop() == 0
    damage(victim.path, "random bytes")
    broken = victim.path.read_bytes()
    server.start()
    is_refused(victim.device().push_raw(push_of("a")))
    check_others(server, other)
    assert server.stop() == 0
    assert victim.path.read_bytes() == broken


def test_server_ends_well_though_a_device_of_a_broken_file_was_here(start_server: Callable[..., Server]) -> None:
    """Fault: saving visits ended at the first tenant that failed, and with it the end: no file was closed."""
    server = start_server(OPEN_TENANTS="1")
    victim, other = server.register(), server.register()
    other.device().create(name="closes the first")
    damage(victim.path, "random bytes")
    is_refused(victim.device(X_Device_Id="tablet").push_raw(push_of("a")))
    other.device(X_Device_Id="phone").create(name="b")
    assert server.stop() == 0
    assert not list(victim.path.parent.glob("*-wal")), "a database was not closed"


HOLD_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode = " + sys.argv[2])
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(path: Path, mode: str) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD_LOCK, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"locked\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["normal", "exclusive"])
def test_locked_file_is_busy_with_a_time_to_come_back_while_other_tenants_go_on(
    start_server: Callable[..., Server], mode: str
) -> None:
    """Normal: others may read the file. Exclusive: nobody else may even open it."""
    server = start_server(OPEN_TENANTS="1" if mode == "exclusive" else "256")
    victim, other = server.register(), server.register()
    victim.device().push(ROW)
    other.device().create(name="a")
    answers: list[Any] = []
    with locked(victim.path, mode):
        pushing = threading.Thread(target=lambda: answers.append(victim.device().push_raw(push_of("b"))))
        pushing.start()
        for _ in range(20):
            check_others(server, other)
        pushing.join()
        if mode == "normal":
            assert names(victim.device()) == {"then"}
    assert refused(answers[0], 503, "busy") and answers[0].headers["Retry-After"] == "1"
    victim.device().push(push_of("c"))
    assert names(victim.device()) == {"then", "c"}


@contextlib.contextmanager
def protected(path: Path) -> Iterator[None]:
    """Forbid to change a file or folder, even to root."""
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i does not work here: it needs root and a file system that knows it")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@needs("chattr")
def test_file_that_may_not_be_written_is_an_error_for_its_tenant_alone(
    small: Server, other: Tenant, victim: Tenant
) -> None:
    with protected(victim.path):
        is_refused(victim.device().push_raw(push_of("b")))
        check_others(small, other)
    victim.device().push(push_of("b"))
    assert len(victim.device().rows()) == 401


@needs("chattr")
def test_folder_that_may_not_be_written_refuses_registrations_and_leaves_no_customer(
    small: Server, other: Tenant
) -> None:
    person = {"firstName": "A", "lastName": "B", "email": f"{uuid.uuid4()}@example.com", "password": "password123"}
    with protected(small.data / "tenants"):
        is_refused(small.post("/api/customers/register", person))
        assert requests.get(f"{small.url}/health", timeout=5).ok
    assert small.post("/api/customers/register", person).status_code == 201
    check_others(small, other)


# --- a clock that is wrong -------------------------------------------------------------------------------------------

WRONG_CLOCK = """
import os, time
from pathlib import Path
original, offset = time.time_ns, Path(os.environ["DATA_DIR"] + ".years")
time.time_ns = lambda: original() + int(offset.read_text() or 0) * 31_536_000 * 10**9
import syncapp
syncapp.main()
"""


def test_clock_that_jumps_by_years_gives_rising_times_and_misses_nothing(tmp_path: Path) -> None:
    """Fault: ``now`` for ``max(now, clock + 1)``."""
    years = tmp_path / "data.years"
    years.write_text("0")
    server = Server(tmp_path / "data", command=[sys.executable, "-c", WRONG_CLOCK]).start()
    tenant = server.register()
    pusher, by_cursor, held, last_sync = tenant.device(), tenant.device(), set[str](), None
    times: list[str] = []
    for number, jump in enumerate([0, -20, 30, -5, 0, 40, -1, 0]):
        years.write_text(str(jump))
        times.append(pusher.create(id=f"r{number}", name=f"r{number}")["updatedAt"])
        assert f"r{number}" in {row["id"] for row in by_cursor.catch_up()["end_user"]}
        page = pusher.pull({"table": "end_user", "lastSync": last_sync})
        held |= {row["id"] for row in page["data"]["end_user"]}
        last_sync = page["syncTimestamp"]
        assert held == {f"r{known}" for known in range(number + 1)}
        if number == 4:
            assert server.stop() == 0
            server.start()
    assert times == sorted(set(times))
    assert server.stop() == 0


# --- too few descriptors ---------------------------------------------------------------------------------------------


def test_too_few_descriptors_are_an_error_that_ends_when_connections_do(tmp_path: Path) -> None:
    """The server's own bounds keep room, so the limit is lowered under it, to what it holds at that moment."""
    server = Server(tmp_path / "data", {"OPEN_TENANTS": "4"}).start()
    assert server.process is not None
    tenants = [server.register() for _ in range(8)]
    with requests.Session() as session, contextlib.ExitStack() as idle:
        assert session.get(f"{server.url}/health", timeout=10).ok
        for _ in range(80):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        wait_for(lambda: descriptors(server) >= 80, "all to be connected")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (descriptors(server) + 1,) * 2)
        assert [check_without_descriptors(session, tenant) for tenant in tenants].count(False) >= 4
        assert session.get(f"{server.url}/health", timeout=20).ok
    for tenant in tenants:
        tenant.device().push(push_of("after"))
        assert "after" in names(tenant.device())
    assert server.stop() == 0


def descriptors(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def check_without_descriptors(session: requests.Session, tenant: Tenant) -> bool:
    """Push over a connection that stands, and tell whether it was stored or refused in the one shape."""
    headers = {"Authorization": f"Bearer {tenant.token}"}
    url = f"{tenant.server.url}/api/client/sync/push"
    answer = session.post(url, json=push_of("amid"), headers=headers, timeout=20)
    if not answer.ok:
        is_refused(answer)
    return bool(answer.ok)
