"""Runs of backups in this process, of some tenants into a folder; each is an hour after the last."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from operations.backups import catalogue, retrieval, run
from operations.backups.run import RunResult
from settings import Settings
from storage import backup_runs
from storage.sqlite.files import look_into
from tenants import Tenants
from tests import inside
from tests.storage.test_increments import whole

_hours = itertools.count()
_new_name, _begun = catalogue.new_name, datetime.now(UTC) - timedelta(days=100)


class Backups:
    """The backups of some tenants in a folder."""

    def __init__(self, tenants: Tenants, folder: Path, **more: Any) -> None:
        self.tenants, self.folder = tenants, folder / "kept"
        given = {"data_dir": folder / "data", "backup_to": str(self.folder), "backup_keep": "hourly=48"}
        self.settings = Settings(**{**given, **more})
        self.said: list[str] = []

    def run(self) -> RunResult:
        with pytest.MonkeyPatch.context() as later:
            later.setattr(run, "new_name", lambda _, last: _new_name(_begun + timedelta(hours=next(_hours)), last))
            return run.run(self.tenants.engine, self.settings, self.said.append)

    def names(self) -> set[str]:
        return {one.name for one in (self.folder / "objects").iterdir()}

    def restored(self, tenant_id: str, target: Path, wanted: str = "latest") -> dict[str, list[Any]]:
        """Read all rows of a tenant in a backup."""
        target.unlink(missing_ok=True)
        with retrieval.kept(self.settings, wanted) as kept:
            kept.tenant(tenant_id, target)
        return look_into(target, whole)

    def faults(self) -> dict[str, str]:
        with retrieval.kept(self.settings, "latest") as kept:
            return kept.faults(lambda _: None)

    @property
    def last(self) -> Any:
        return self.tenants.directory.read(backup_runs.latest)


def write(tenants: Tenants, tenant_id: str, name: str, count: int = 1) -> None:
    """Give some rows of a tenant a name."""
    rows = [{"id": f"r{number}", "name": name} for number in range(count)]
    inside.push(tenants, tenant_id, {"changes": {"end_user": rows}})
