"""Measures a backup of which few tenants changed against a full one: time, CPU time and bytes, in one run.

usage: ``python bench/backups.py [--tenants 10000] [--rows 50] [--changed 100] [--folder DIR]`` prints both and their ratio.
The backups lie in a folder, so that the network is not measured. Each changed tenant gets one row and one edit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import syncapp  # noqa: F401, I001 -- first of all: it patches the standard library.

from models import synced_tables
from operations.backups import run
from protocol.messages import Limits
from protocol.push_parser import parse_push
from protocol.seen_rows import NOBODY
from settings import Settings
from storage import push_writer
from storage.main_database import Customer
from storage.positions import now_ms
from storage.sqlite.engine import SQLiteEngine
from tenants import Tenants

_LIMITS = Limits(push_rows=10_000, pull_rows=10_000, row_bytes=65_536, name_characters=64)


class Cost(NamedTuple):
    """What a run took."""

    seconds: float
    cpu_seconds: float
    stored_bytes: int
    changed: int


def push(tenants: Tenants, tenant_id: str, rows: list[dict[str, str]]) -> None:
    """Store rows as a push of a device does."""
    tables, at = {name: table.rules for name, table in synced_tables().items()}, now_ms()
    parsed = parse_push({"changes": {"end_user": rows}}, tables, _LIMITS, at, None, NOBODY)
    tenants.write(tenant_id, partial(push_writer.apply, parsed, _LIMITS.row_bytes, at, lambda: None, "merge"))


def made(tenants: Tenants, count: int, rows: int) -> list[str]:
    """Make tenants with rows, such as small businesses have."""
    ids = []
    for number in range(count):
        tenant_id = str(uuid.uuid4())
        names = {"firstName": "A", "lastName": "B", "name": "A B", "companyName": f"Company {number}"}
        about = {"email": f"{tenant_id}@example.com", "passwordHash": uuid.uuid4().hex * 2, "createdAt": "2026-01-01"}
        tenants.provision(Customer(id=tenant_id, **names, **about))
        push(tenants, tenant_id, [_row(f"r{one}") for one in range(rows)])
        ids.append(tenant_id)
    return ids


def _row(row_id: str) -> dict[str, str]:
    text = uuid.uuid4().hex
    return {"id": row_id, "name": f"Name {text[:8]}", "phone": text[8:18], "note": f"note {text} " * 3}


def measured(back_up: Callable[[], run.RunResult]) -> Cost:
    """Run a backup and tell what it took."""
    began, cpu = time.perf_counter(), time.process_time()
    made = back_up().catalogue
    return Cost(time.perf_counter() - began, time.process_time() - cpu, made.stored_bytes, made.changed)


def compare(folder: Path, count: int, rows: int, changed: int) -> tuple[Cost, Cost]:
    """Make tenants, a full backup, some changes, and a backup of these."""
    settings = Settings(data_dir=folder / "data", backup_to=str(folder / "backups"))
    tenants = Tenants(SQLiteEngine(settings.data_dir))
    ids = made(tenants, count, rows)
    back_up = partial(run.run, tenants.engine, settings, lambda _: None)
    full = measured(back_up)
    for tenant_id in ids[:: max(1, count // changed)][:changed]:
        push(tenants, tenant_id, [_row("new"), _row("r1")])
    few = measured(back_up)
    tenants.close()
    return full, few


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--changed", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        full, few = compare(Path(folder), given.tenants, given.rows, given.changed)
    for name, cost in (("full", full), ("few changed", few)):
        print(
            f"{name}: {cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of CPU, {cost.stored_bytes:,} bytes,"
            f" {cost.changed:,} of {given.tenants:,} tenants"
        )
    print("ratio: " + ", ".join(f"{name} {100 * b / a:.2f} %" for name, a, b in _ratios(full, few)))


def _ratios(full: Cost, few: Cost) -> list[tuple[str, float, float]]:
    return [
        ("time", full.seconds, few.seconds),
        ("CPU", full.cpu_seconds, few.cpu_seconds),
        ("bytes", full.stored_bytes, few.stored_bytes),
    ]


if __name__ == "__main__":
    main()
