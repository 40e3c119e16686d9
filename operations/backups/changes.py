"""Which tenants have changed since the last backup, found without reading those that have not.

Knows: what shows that a tenant's file is untouched; how many tenants are asked at once. Must not know: how a change
is backed up. Positions that the main database notes are some seconds late, so that they prove nothing here.

A file is known by its inode, size and time of change, and that of its write-ahead log. If these are as they were, nobody
wrote. If they are not, what is in the file decides (``increments.LOOK``). Of a file that was written a moment ago no mark
is taken: the clock of a file system may tell two writes apart only after some time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from operations.backups.catalogue import Held
from storage import increments
from storage.engine import Engine
from storage.sqlite.engine import SQLiteEngine

_SETTLED_NS = 2_000_000_000
_AT_ONCE = 200


def unchanged(
    engine: Engine, held: Mapping[str, Held], tenant_ids: list[str], go_on: Callable[[], None]
) -> tuple[dict[str, str], dict[str, str]]:
    """Give the tenants without a change since what is held of them, with their marks, and the marks of the others.

    ``go_on`` is called now and then.
    """
    if isinstance(engine, SQLiteEngine):
        return _by_files(engine, held, tenant_ids, go_on)
    same: dict[str, str] = {}
    for at in range(0, len(tenant_ids), _AT_ONCE):
        go_on()
        for one, found in engine.ask_each(tenant_ids[at : at + _AT_ONCE], increments.LOOK).items():
            if one in held and held[one].state.is_at(found):
                same[one] = ""
    return same, {}


def _by_files(
    engine: SQLiteEngine, held: Mapping[str, Held], tenant_ids: list[str], go_on: Callable[[], None]
) -> tuple[dict[str, str], dict[str, str]]:
    same: dict[str, str] = {}
    others: dict[str, str] = {}
    for number, one in enumerate(tenant_ids):
        if number % _AT_ONCE == 0:
            go_on()
        mark, before = _mark_of(engine.folder.path_of(one)), held.get(one)
        is_same = before is not None and ((mark and mark == before.mark) or _is_at(engine, one, before))
        (same if is_same else others)[one] = mark
    return same, others


def later_marks(engine: Engine, held: Mapping[str, Held]) -> dict[str, str]:
    """Give the marks of files that are no more as they were when they were read, and have no change since.

    To copy a file may take its write-ahead log into it: without this, the next run would have to look into each of them.
    """
    found: dict[str, str] = {}
    if isinstance(engine, SQLiteEngine):
        for one, before in held.items():
            mark = _mark_of(engine.folder.path_of(one))
            if mark and mark != before.mark and _is_at(engine, one, before):
                found[one] = mark
    return found


def _is_at(engine: SQLiteEngine, tenant_id: str, held: Held) -> bool:
    """Look into a file; one that can't be read has changed, and who copies it says why it can't."""
    try:
        return engine.peek(tenant_id, partial(increments.is_at, held.state))
    except Exception:
        return False


def _mark_of(path: Path) -> str:
    found = []
    for file in (path, Path(f"{path}-wal")):
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue
        if abs(time.time_ns() - stat.st_mtime_ns) < _SETTLED_NS:
            return ""
        found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest() if found else ""
