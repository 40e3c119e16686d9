"""A backup of either engine is restored into either, with the customers; a full disk under it is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import connection
from operations.backups import backup as backups
from operations.backups import restore as restoring
from operations.backups.manifest import BackupError
from operations.backups.verification import verify
from storage import main_database
from storage.engine import Engine
from storage.positions import position
from tenants import Tenants
from tests import inside, postgres
from tests.customers import customer
from tests.server.test_disk_space import can_mount
from tests.storage.engine.installations import ENGINES

pytestmark = pytest.mark.server
Opened = Callable[[str], Tenants]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Open an empty installation of an engine."""
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    made: list[tuple[Any, Tenants]] = []

    def open_one(name: str) -> Tenants:
        installation = ENGINES[name](tmp_path / f"{name}-{len(made)}")
        made.append((installation, Tenants(installation.open())))
        return made[-1][1]

    yield open_one
    for installation, tenants in made:
        tenants.close()
        installation.end()


def stored(tenants: Tenants, tenant_id: str) -> list[tuple[Any, ...]]:
    """Read a tenant's log and its position, without what begins with an epoch."""
    sql = "SELECT seq, table_name, row_id, version, previous_seq, committed_at, edited_at, fields, row FROM _changes"
    log = tenants.read(tenant_id, lambda: list(connection().execute(f"{sql} ORDER BY seq")))
    return [*log, (tenants.read(tenant_id, position).sequence,)]


def put(engine: Engine, backup: Path) -> list[str]:
    return restoring.restore(engine, restoring.choose(engine, backup), restoring.Source("a backup"), lambda _: None)


@pytest.mark.parametrize(
    "path", [["sqlite", "postgres", "sqlite"], ["postgres", "sqlite", "postgres"], ["postgres", "postgres"]]
)
def test_backup_goes_from_engine_to_engine_with_every_byte(opened: Opened, tmp_path: Path, path: list[str]) -> None:
    """Also one that nobody ever pushed to, an edit and a deletion."""
    tenants, people = opened(path[0]), [customer(f"{name}@example.com") for name in "abc"]
    for person in people:
        tenants.provision(person)
    for number, person in enumerate(people[:2]):
        rows = [{"id": f"r{n}", "name": f"é\u2028{number}", "x": [1.0, {"b": n}]} for n in range(30)]
        inside.push(tenants, person.id, {"changes": {"end_user": rows, "interactions": [{"id": "i"}]}})
        inside.push(tenants, person.id, {"table": "end_user", "operation": "delete", "data": {"id": "r3"}})
        inside.push(tenants, person.id, {"changes": {"end_user": [{"id": "r4", "phone": "1"}]}})
    before = {person.id: stored(tenants, person.id) for person in people}
    epochs = {tenants.read(person.id, position).epoch for person in people}
    for turn, name in enumerate(path[1:]):
        made = backups.make(tenants.engine, tmp_path / f"backups-{turn}", None, None, lambda _: None)
        assert made.missing == {} and verify(made.path, lambda _: None).is_good
        assert {one.relative_to(made.path).parts[0] for one in made.path.rglob("*")} == {
            "main.db",
            "manifest.json",
            "tenants",
        }
        tenants = opened(name)
        assert put(tenants.engine, made.path) == sorted(before)
        assert {one: stored(tenants, one) for one in before} == before
        epochs |= {tenants.read(one, position).epoch for one in before}
        found = tenants.directory.read(lambda: main_database.customer_by_email("B@example.com"))
        assert found is not None and (found.id, found.passwordHash) == (people[1].id, "-")
    assert len(epochs) == 3 * len(path)
    inside.push(tenants, people[2].id, {"changes": {"end_user": [{"id": "new"}]}})
    assert [row["id"] for row in inside.rows(tenants, people[2].id)] == ["new"]


@pytest.mark.parametrize(
    ("name", "size"),
    [("sqlite", "64k"), ("sqlite", "400k"), ("postgres", "64k"), ("postgres", "400k"), ("postgres", "1200k")],
)
def test_backup_onto_a_full_disk_is_told_and_leaves_nothing(
    opened: Opened, tmp_path: Path, name: str, size: str
) -> None:
    """Within the directory, within a tenant, and as its log is taken in. Fault, at the last: nobody looked whether that
    could be done: a file was taken for a copy, and what it should have was in a log beside it."""
    target = tmp_path / "full"
    target.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(target)]
    if not can_mount() or subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("needs root, for a small file system of its own")
    try:
        tenants = opened(name)
        one = customer()
        tenants.provision(one)
        rows = [{"id": f"r{number}", "note": "x" * 10_000} for number in range(40)]
        inside.push(tenants, one.id, {"changes": {"end_user": rows}})
        with pytest.raises(BackupError, match=f"There is no room in {target} for the backup"):
            backups.make(tenants.engine, target, None, None, lambda _: None)
        assert list(target.iterdir()) == []
        made = backups.make(tenants.engine, tmp_path / "room", None, None, lambda _: None)
        assert made.missing == {} and verify(made.path, lambda _: None).is_good
    finally:
        subprocess.run(["umount", "-l", str(target)], check=False)
