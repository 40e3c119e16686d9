"""What work costs with nothing but SQLite or the libraries under it: what the server takes beyond that is its own.

Run with a checkout's Python in that checkout: ``python bench/floor.py [PART…]``. No HTTP, no JSON, no rules, no event loop:
rows are ready as SQLite takes them, on the same schema. Floors that are system calls are measured by ``bench/bare.mjs``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import syncapp  # noqa: I001, F401 - first of all: it patches the standard library.

import contextlib
import itertools
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import apsw
from growth import MEASUREMENTS, new_ids, row

from models import synced_tables
from protocol.codec import encode
from storage import push_batch
from storage.positions import now_ms
from storage.sqlite import dialect
from storage.sqlite.files import put_file
from storage.sqlite.tenant_files import new_tenant_file

TABLE = synced_tables()["end_user"]
INSERT = push_batch.insert_row(TABLE.name, TABLE.columns)
DELETE = f'DELETE FROM "{TABLE.name}" AS e WHERE e._seq = ?'
PAGE = dialect.joined(
    f'SELECT e._seq AS seq, c.row AS row FROM "{TABLE.name}" AS e JOIN _changes AS c ON c.seq = e._seq'
    " WHERE e._seq > ? ORDER BY e._seq LIMIT 1000"
)
SET = {
    "sync_status": "synced",
    "version": 1,
    "server_synced": 1,
    "createdAt": "2025",
    "updatedAt": "2025",
    "is_deleted": 0,
}
sequences = itertools.count(1)

Made = tuple[tuple[Any, ...], tuple[Any, ...]]
Work = Callable[[], object]


def made(ids: list[str]) -> list[Made]:
    """Make rows as the log and the table take them."""
    rows = [{**TABLE.rules.defaults, **row(one), **SET} for one in ids]
    numbered = zip(itertools.islice(sequences, len(rows)), rows, strict=True)
    return [
        (
            (at, TABLE.name, one["id"], 1, None, 1, 1, None, None, encode(one).decode(), False, None),
            TABLE.stored(one, at),
        )
        for at, one in numbered
    ]


def write(connection: apsw.Connection, some: list[Made], ids: list[str] | None = None) -> None:
    """Write rows as a push does, in one transaction; those of ``ids`` are there, and so are read and replaced."""
    connection.execute("BEGIN IMMEDIATE")
    cursor = connection.cursor()
    if ids:
        found = cursor.execute(dialect.rows_where(TABLE.name, "id"), (dialect.listed(ids),)).fetchall()
        cursor.executemany(DELETE, [(one[3],) for one in found])
    cursor.executemany(push_batch.INSERT_LOGGED, [log for log, _ in some])
    cursor.executemany(INSERT, [stored for _, stored in some])
    connection.execute("UPDATE _digests SET count = ?, hash = ? WHERE table_name = ?", (1, "0" * 16, TABLE.name))
    connection.execute("UPDATE _meta SET sequence = ?, clock = ?", (some[-1][0][0], 1))
    connection.execute("COMMIT")


def connect(path: Path, *, leaves_log: bool = False) -> apsw.Connection:
    """Open a tenant's file; ``leaves_log``: its end neither checkpoints nor removes the write-ahead log."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    if leaves_log:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


@contextlib.contextmanager
def new_files(count: int) -> Iterator[list[Path]]:
    """Make files of new tenants, on the disk that this folder is on."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent / "data") as folder:
        paths = [Path(folder) / f"{i}.db" for i in range(count)]
        for path in paths:
            put_file(path, new_tenant_file(now_ms()))
        yield paths


def measured(prepare: Callable[[], list[Work]], each: int = 1) -> tuple[str, ...]:
    """Give CPU and elapsed microseconds of one of the things of which every work does ``each``: medians, least and most."""
    found = []
    for work in [prepare() for _ in range(MEASUREMENTS + 1)]:
        cpu, began = time.process_time(), time.perf_counter()
        for one in work:
            one()
        count = len(work) * each / 1e6
        found.append(((time.process_time() - cpu) / count, (time.perf_counter() - began) / count))
    columns = zip(*found[1:], strict=True)  # The first warmed up.
    return tuple(f"{statistics.median(some):,.1f} ({min(some):,.1f} to {max(some):,.1f})" for some in columns)


def tell(what: str, *cells: object) -> None:
    """Print a line of a table."""
    print(f"| {what} | {' | '.join(map(str, cells))} |", flush=True)


def title(what: str, *heads: str) -> None:
    """Begin a table."""
    print(f"\n| {what} | {' | '.join(heads)} |\n|---|{'--:|' * len(heads)}")


def pushes() -> None:
    """The statements of a push of 1, 100 and 1,000 rows, and of a page."""
    title("apsw alone, a row of", "µs of CPU", "µs")
    with new_files(1) as [path]:
        connection = connect(path)
        for count in (1, 100, 1000):
            there = [new_ids(count) for _ in range(max(10, 500 // count))]

            def new(count: int = count, there: list[list[str]] = there) -> list[Work]:
                return [partial(write, connection, made(new_ids(count))) for _ in there]

            def changed(there: list[list[str]] = there) -> list[Work]:
                return [partial(write, connection, made(ids), ids) for ids in there]

            tell(f"a push of {count:,} new", *measured(new, count))
            for ids in there:
                write(connection, made(ids))
            tell(f"a push of {count:,} changed", *measured(changed, count))
        page = partial(connection.execute, PAGE, (0,))
        tell("a page of 1,000, joined", *measured(lambda: [lambda: page().fetchall()] * 20, 1000))
        connection.close()


def cold() -> None:
    """A push of one row to files that are opened for it, beside files that stay open."""
    title("apsw alone, a push of one row to", "µs of CPU", "µs")
    with new_files(100) as paths:
        stay = [connect(path) for path in paths]
        tell("a file that stays open", *measured(lambda: [partial(write, one, made(new_ids(1))) for one in stay]))
        for connection in stay:
            connection.close()

        def opened(path: Path, some: list[Made], leaves_log: bool) -> None:
            connection = connect(path, leaves_log=leaves_log)
            write(connection, some)
            connection.close()

        def works(leaves_log: bool) -> list[Work]:
            return [partial(opened, path, made(new_ids(1)), leaves_log) for path in paths]

        tell("one that is opened, and closed", *measured(partial(works, False)))
        tell("the same, its log left at the end", *measured(partial(works, True)))


def open_files() -> None:
    """Memory and descriptors of a file that is open and has had one push."""
    title("apsw alone, each of 200 open files", "KiB", "descriptors")

    def at_rest() -> tuple[int, int]:
        kib = re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
        return int(kib[1] if kib else 0), len(list(Path("/proc/self/fd").iterdir()))

    with new_files(220) as paths, contextlib.ExitStack() as stack:
        some = [made(new_ids(1)) for _ in paths]
        for i, (path, rows) in enumerate(zip(paths, some, strict=True)):
            if i == 20:  # The first have warmed up what all share.
                before = at_rest()
            write(stack.enter_context(contextlib.closing(connect(path))), rows)
        grown = [(now - then) / 200 for now, then in zip(at_rest(), before, strict=True)]
        tell("once a row was pushed", *(f"{one:.1f}" for one in grown))


def run(code: str, *arguments: str) -> str:
    """Run Python code in a process of its own, where there are the modules of the server."""
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout


BUILD = """
import pathlib, sys, tempfile
import syncapp
syncapp.import_server()
import assembly
from settings import Settings
folder = tempfile.TemporaryDirectory()
assembly.build(Settings(data_dir=pathlib.Path(folder.name)))
"""
NAMES = """
own = {path.stem for path in pathlib.Path.cwd().iterdir()} | {"__main__"}
print(*(name for name in sys.modules if name.partition(".")[0] not in own))
"""
IMPORT = """
import contextlib, importlib, sys
names = sys.argv[1].split()
class NoOthers:
    @staticmethod
    def find_spec(name, path, target=None):
        if name not in names:
            raise ImportError(name)
sys.meta_path.insert(0, NoOthers)  # The server hides some that libraries would take along.
for name in names:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
"""
REST = """
import re, time
print(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1], time.process_time())
"""


def imports() -> None:
    """Memory and CPU time of Python alone, with all that the server imports of others, and with the server built."""
    title("a process that has imported", "MiB", "ms of CPU")
    names = run(BUILD + NAMES)
    for what, code in (("nothing", ""), ("all libraries, none of the server", IMPORT), ("the server, built", BUILD)):
        found = [run(code + REST, names).split() for _ in range(MEASUREMENTS + 1)][1:]
        kib, seconds = (statistics.median(float(one[at]) for one in found) for at in (0, 1))
        tell(what, f"{kib / 1024:.1f}", f"{seconds * 1000:.0f}")


def main() -> None:
    """Measure all, or what the command line names: ``python bench/floor.py cold``."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # As users start it: compiled once.
    for part in (pushes, cold, open_files, imports):
        if not sys.argv[1:] or part.__name__ in sys.argv[1:]:
            part()


if __name__ == "__main__":
    main()
