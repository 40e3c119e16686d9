"""Checks the data of every tenant from end to end, beside a server or without one.

Knows: what is noted of a run, so that one that was cut off goes on. Must not know: the command line, engines, what is
checked (``storage.tenant_check``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

import gevent

from operations import fleet
from protocol.errors import Busy
from storage import main_database
from storage.engine import Engine

_JOURNAL = "checked.jsonl"
_TRIES, _TRY_AGAIN_SECONDS = 5, 0.2


class CheckUnderWay(RuntimeError):
    """Somebody else checks the tenants of this folder; as text it says so."""


@dataclass(slots=True)
class Checked:
    """What was found: how many were checked, how many of them by the run before; what is wrong; who is to be migrated."""

    checked: int = 0
    resumed: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def add(self, tenant_id: str, faults: list[str], *, is_current: bool) -> None:
        """Take a tenant in."""
        self.checked += 1
        if faults:
            self.faults[tenant_id] = faults
        elif not is_current:
            self.waiting.append(tenant_id)


def check_all(engine: Engine, data_dir: Path, jobs: int, say: Callable[[str], None], *, resumes: bool) -> Checked:
    """Check every customer's data, ``jobs`` at once; ``resumes``: but for those that the run before came to.

    Raises: CheckUnderWay.
    """
    found = Checked()
    with _journal(data_dir, resumes=resumes) as journal:
        left = engine.directory.read(main_database.customer_ids)
        for tenant_id, faults, is_current in _noted(journal):
            if tenant_id in left:
                left.remove(tenant_id)
                found.add(tenant_id, faults, is_current=is_current)
        found.resumed = found.checked
        progress = fleet.Progress(len(left), "tenants", say)
        for tenant_id, outcome in fleet.over(sorted(left), partial(_check, engine), jobs):
            progress.note()
            faults, is_current = ([_reason(outcome)], False) if isinstance(outcome, Exception) else outcome
            if faults and engine.directory.read(partial(main_database.customer_by_id, tenant_id)) is None:
                continue  # The account was closed meanwhile.
            journal.write(json.dumps([tenant_id, faults, is_current]) + "\n")
            journal.flush()
            found.add(tenant_id, faults, is_current=is_current)
    return found


def _check(engine: Engine, tenant_id: str) -> tuple[list[str], bool]:
    """Check one tenant; SQLite lets nobody open a file at the moment in which a server closes it."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(Busy):
            faults = engine.faults_in(tenant_id)
            return faults, bool(faults) or engine.is_current(tenant_id)
        gevent.sleep(_TRY_AGAIN_SECONDS)
    faults = engine.faults_in(tenant_id)
    return faults, bool(faults) or engine.is_current(tenant_id)


def _reason(error: Exception) -> str:
    return f"it can't be read: {str(error) or type(error).__name__}"


@contextlib.contextmanager
def _journal(data_dir: Path, *, resumes: bool) -> Iterator[TextIO]:
    """Open what a run notes, for this process alone; a run that comes to its end removes it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # With PostgreSQL it may not be there.
    path = data_dir / _JOURNAL
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as journal:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckUnderWay(f"Another doctor --all is running on {data_dir.resolve()}.") from None
        if not resumes:
            os.ftruncate(descriptor, 0)
        yield journal
        path.unlink()


def _noted(journal: TextIO) -> Iterator[tuple[str, list[str], bool]]:
    """Read what the run before noted; its last line may be half written."""
    lines = journal.read().splitlines(keepends=True)
    for line in lines:
        with contextlib.suppress(ValueError):
            tenant_id, faults, is_current = json.loads(line)
            yield tenant_id, faults, is_current
    if lines and not lines[-1].endswith("\n"):
        journal.write("\n")
