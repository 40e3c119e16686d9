"""What a push costs with nothing but the C library under it: the same statements, on the same schema, by apsw alone.

Run with a checkout's Python in that checkout: ``python bench/floor.py``. No HTTP, no JSON, no rules, no event loop: the
rows are ready as SQLite takes them. What the server takes beyond that is its own.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import syncapp  # noqa: I001, F401 - first of all: it patches the standard library.

import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import apsw
from growth import MEASUREMENTS, new_ids, row

from storage import push_batch
from models import synced_tables
from storage.sqlite.files import put_file
from storage.sqlite.tenant_files import new_tenant_file, open_tenant_file
from storage.positions import now_ms
from protocol.codec import encode

TABLE = synced_tables()["end_user"]
INSERT = push_batch.insert_row(TABLE.name, TABLE.columns)
SET = {
    "sync_status": "synced",
    "version": 1,
    "server_synced": 1,
    "createdAt": "2025",
    "updatedAt": "2025",
    "is_deleted": 0,
}

Made = tuple[tuple[Any, ...], tuple[Any, ...]]


def made(sequence: int, count: int) -> list[Made]:
    """Make rows as the log and the table take them."""
    rows = [{**TABLE.rules.defaults, **row(one), **SET} for one in new_ids(count)]
    return [
        (
            (at, TABLE.name, one["id"], 1, None, 1, 1, None, None, encode(one).decode(), False, None),
            TABLE.stored(one, at),
        )
        for at, one in enumerate(rows, sequence)
    ]


def write(connection: apsw.Connection, some: list[Made]) -> None:
    """Write rows as a push does, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    cursor = connection.cursor()
    cursor.executemany(push_batch.INSERT_LOGGED, [log for log, _ in some])
    cursor.executemany(INSERT, [stored for _, stored in some])
    connection.execute("UPDATE _digests SET count = ?, hash = ? WHERE table_name = ?", (1, "0" * 16, TABLE.name))
    connection.execute("UPDATE _meta SET sequence = ?, clock = ?", (some[-1][0][0], 1))
    connection.execute("COMMIT")


def times(connection: apsw.Connection, sequence: Iterator[int], count: int, pushes: int) -> tuple[float, float]:
    """Give CPU and elapsed microseconds a row."""
    batches = [made(next(sequence) * 10_000, count) for _ in range(pushes)]
    cpu, began = time.process_time(), time.perf_counter()
    for some in batches:
        write(connection, some)
    rows = count * pushes / 1e6
    return (time.process_time() - cpu) / rows, (time.perf_counter() - began) / rows


def main() -> None:
    """Measure pushes of one, of 100 and of 1,000 rows."""
    print("| rows a push | µs of CPU a row | µs a row | rows/s |\n|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent / "data") as folder:
        path = Path(folder) / "a.db"
        put_file(path, new_tenant_file(now_ms()))
        store = open_tenant_file(path)
        sequence = iter(range(1, 10**6))
        for count in (1, 100, 1000):
            found = [times(store._writer.conn, sequence, count, max(10, 500 // count)) for _ in range(MEASUREMENTS)]
            cpu, elapsed = (statistics.median(one) for one in zip(*found, strict=True))
            print(f"| {count} | {cpu:.1f} | {elapsed:.1f} | {1e6 / elapsed:,.0f} |")
        store.close()


if __name__ == "__main__":
    main()
