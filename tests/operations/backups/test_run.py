"""Runs of backups: what each keeps, what is restored from it, and what is left when one fails."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from operations.backups import catalogue, retention, retrieval
from operations.backups import manifest as manifests
from operations.backups.catalogue import Catalogue
from operations.backups.chains import Chains
from operations.backups.lock import Underway, alone
from operations.backups.manifest import BackupError
from operations.backups.objects import new_key
from storage import backup_runs, increments, main_database
from tenants import Tenants
from tests import inside
from tests.backup_runs import Backups, write
from tests.data_folder import opened, path_of
from tests.server.test_disk_space import can_mount
from tests.storage.test_increments import live, whole

NewTenant = Callable[[], str]


@pytest.fixture
def backups(tenants: Tenants, tmp_path: Path) -> Backups:
    return Backups(tenants, tmp_path)


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_each_backup_has_the_tenant_of_its_time_and_a_change_costs_its_log(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    one, tenants = new_tenant(), backups.tenants
    write(tenants, one, "first", 500)
    expected = {}
    for number in range(4):
        made = backups.run().catalogue
        expected[made.name] = live(tenants, one)
        assert [part.kind for part in made.tenants[one].chain] == ["base"] + ["more"] * number
        write(tenants, one, f"then {number}")
    base, *more = made.tenants[one].chain
    assert all(part.size_bytes < base.size_bytes / 10 for part in more)
    for name, rows in expected.items():
        assert backups.restored(one, tmp_path / "restored.db", name) == rows
        soon = datetime.fromtimestamp(catalogue.time_of(name) + 60, UTC).isoformat()
        assert backups.restored(one, tmp_path / "restored.db", soon) == rows
    with pytest.raises(BackupError, match="No backup is from 2020-01-01 or before"):
        backups.restored(one, tmp_path / "restored.db", "2020-01-01")
    assert backups.faults() == {}
    assert (backups.last.state, backups.last.tenants, backups.last.name) == ("good", 1, made.name)


@pytest.mark.files("of tenants' files that are not touched")
def test_tenant_that_did_not_change_is_neither_read_nor_written(
    backups: Backups, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [new_tenant() for _ in range(7)]
    before = backups.run()
    for one in ids:  # Long ago, for the clock of a file system.
        path = path_of(backups.tenants, one)
        backups.tenants.engine.peek(one, whole)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert backups.run().catalogue.changed == 0
    there = backups.names()
    monkeypatch.setattr(backups.tenants.engine, "peek", lambda *_: pytest.fail("a tenant was read"))
    monkeypatch.setattr(backups.tenants.engine, "copy_to", lambda *_: pytest.fail("a tenant was copied"))
    after = backups.run()
    assert (before.catalogue.changed, after.catalogue.changed, len(after.catalogue.tenants)) == (7, 0, 7)
    assert {name.partition("-")[0] for name in backups.names() - there} == {"main"}


def test_new_epoch_begins_with_a_copy_and_so_does_a_long_chain(
    backups: Backups, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, engine = new_tenant(), backups.tenants.engine
    monkeypatch.setattr("operations.backups.chains.MOST_INCREMENTS", 2)
    lengths = []
    for number in range(5):
        write(backups.tenants, one, str(number), 100 if number == 0 else 1)
        lengths.append(len(backups.run().catalogue.tenants[one].chain))
    assert lengths == [1, 2, 3, 1, 2]
    engine.begin_epoch(one)
    assert len(backups.run().catalogue.tenants[one].chain) == 1


def test_encrypted_backup_opens_with_its_key_alone_and_a_newer_key_may_come_before_it(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    one, old, new = new_tenant(), new_key(), new_key()
    write(backups.tenants, one, "a secret name")
    with_key = partial(Backups, backups.tenants, tmp_path)
    with_key(backup_key=(old,)).run()
    assert all(file.read_bytes()[:21] == b"age-encryption.org/v1" for file in backups.folder.rglob("*.*"))
    for keys in ((), (new,)):
        with pytest.raises(BackupError, match="BACKUP_KEY must have the key"):
            with_key(backup_key=keys).run()
    write(backups.tenants, one, "another")
    kept = with_key(backup_key=(new, old))
    assert len(kept.run().catalogue.tenants[one].chain) == 2
    assert kept.restored(one, tmp_path / "restored.db") == live(backups.tenants, one)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_increment_that_lacks_a_row_is_found_and_a_copy_is_kept_instead(
    backups: Backups, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = new_tenant()
    write(backups.tenants, one, "first", 300)
    backups.run()
    write(backups.tenants, one, "now")
    steps = increments.steps_since
    lacking = lambda before: (step for step in steps(before) if (step.what, step.table) != ("insert", "_changes"))  # noqa: E731
    monkeypatch.setattr(increments, "steps_since", lacking)
    made = backups.run()
    assert [part.kind for part in made.catalogue.tenants[one].chain] == ["base"] and not made.faults
    assert "its changes did not fit" in backups.said[-1]
    assert backups.restored(one, tmp_path / "restored.db") == live(backups.tenants, one)


def test_damaged_object_is_found_by_the_sample_and_made_anew(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    one, other = new_tenant(), new_tenant()
    write(backups.tenants, one, "first", 300)
    backups.run()
    (base,) = backups.folder.glob(f"objects/{uuid.UUID(one).hex}-*.base")
    content = bytearray(base.read_bytes())
    content[len(content) // 2] ^= 1
    base.write_bytes(content)
    assert list(backups.faults()) == [one]
    with retrieval.kept(backups.settings, "latest") as kept:
        assert retrieval.bring_back(kept, tmp_path / "back", None, backups.said.append) == [one]
    assert manifests.read(tmp_path / "back").tenants.keys() == {other}, "the others are not held up"
    made = backups.run()
    assert "is damaged" in made.faults[one] and backups.last.state == "incomplete"
    assert backups.faults() == {} and not backups.run().faults


def test_customer_without_data_keeps_what_was_backed_up(
    backups: Backups, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = new_tenant(), new_tenant()
    write(backups.tenants, one, "first")
    backups.run()
    expected = live(backups.tenants, one)
    write(backups.tenants, one, "lost")
    write(backups.tenants, other, "kept")
    fault_of = backups.tenants.engine.fault_of
    monkeypatch.setattr(
        backups.tenants.engine, "fault_of", lambda it: "its file is missing" if it == one else fault_of(it)
    )
    made = backups.run()
    assert made.faults == {one: "its file is missing"} and backups.last.state == "incomplete"
    assert backups.restored(one, tmp_path / "restored.db") == expected
    assert backups.restored(other, tmp_path / "restored.db") == live(backups.tenants, other)


def test_run_that_is_cut_off_leaves_the_last_backup_and_the_next_goes_on(
    backups: Backups, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ids = sorted(new_tenant() for _ in range(6))
    first = backups.run().catalogue.name
    expected = live(backups.tenants, ids[0])
    for one in ids:
        write(backups.tenants, one, "now")
    keep, kept = Chains.keep, itertools.count()

    def cut_off(*given: Any) -> Any:
        if next(kept) == 4:
            raise KeyboardInterrupt
        return keep(*given)

    with monkeypatch.context() as cut:
        cut.setattr(Chains, "keep", cut_off)
        with pytest.raises(KeyboardInterrupt):
            backups.run()
    assert backups.last.state == "interrupted"
    with retrieval.catalogues(backups.settings) as (found, _):
        assert found.names() == [first]
    assert backups.restored(ids[0], tmp_path / "restored.db") == expected and backups.faults() == {}
    made = backups.run().catalogue
    assert (made.changed, len(made.tenants)) == (2, 6)
    assert backups.faults() == {} and not list(backups.folder.rglob("*.partial"))


def test_full_disk_is_told_and_leaves_the_last_backup(tenants: Tenants, new_tenant: NewTenant, tmp_path: Path) -> None:
    target = tmp_path / "full"
    target.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=96k,mode=0700", "tmpfs", str(target)]
    if not can_mount() or subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("needs root, for a small file system of its own")
    backups = Backups(tenants, tmp_path, backup_to=str(target))
    try:
        one = new_tenant()
        backups.run()
        rows = [{"id": f"r{number}", "note": os.urandom(4_000).hex()} for number in range(40)]
        inside.push(tenants, one, {"changes": {"end_user": rows}})
        with pytest.raises(BackupError, match=f"There is no room in {target} for the backup"):
            backups.run()
        assert backups.last.state == "failed" and "no room" in backups.last.error
        assert backups.faults() == {}
    finally:
        subprocess.run(["umount", "-l", str(target)], check=False)


def test_second_run_at_once_is_refused(backups: Backups, tmp_path: Path) -> None:
    other = opened(tmp_path / "data", is_server=False)
    with alone(other.engine, backups.settings), pytest.raises(Underway, match="Another backup run is at work"):
        backups.run()
    other.close()
    backups.run()
    assert len(backups.tenants.directory.read(lambda: backup_runs.runs(9))) == 1


# --- what is removed -------------------------------------------------------------------------------------------------


def test_newest_of_each_hour_day_and_week_stays() -> None:
    def name(day: int, hour: int, minute: int = 0) -> str:
        return f"202611{day:02}T{hour:02}{minute:02}00Z"

    names = [name(day, hour, minute) for day in range(1, 30) for hour in (3, 15) for minute in (0, 30)]
    assert retention.staying(names, "hourly=3") == {name(29, 15, 30), name(29, 3, 30), name(28, 15, 30)}
    assert retention.staying(names, "daily=2,weekly=3") == {
        *(name(day, 15, 30) for day in (29, 28)),  # 29 is a Sunday.
        *(name(day, 15, 30) for day in (29, 22, 15)),
    }
    assert retention.staying(names, "hourly=0,daily=1") == {name(29, 15, 30)}
    assert retention.staying([], "hourly=3") == set()


def test_backup_that_stays_keeps_what_it_shares_with_removed_ones(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    one, quiet, tenants = new_tenant(), new_tenant(), backups.tenants
    for each in (one, quiet):
        write(tenants, each, "first", 200)
    short = Backups(tenants, tmp_path, backup_keep="hourly=2")
    for number in range(5):
        write(tenants, one, str(number))
        made = short.run()
    assert len(made.removed.names) == 1 and len(list((short.folder / "backups").iterdir())) == 2
    needed = set(made.catalogue.objects())
    assert {f"objects/{name}" for name in short.names()} >= needed
    assert len(short.names()) == len(needed) + 1, "only the main database of the other one beside it"
    assert short.faults() == {}
    for each in (one, quiet):
        assert short.restored(each, tmp_path / "restored.db") == live(tenants, each)


def test_last_backup_of_a_customer_stays_until_the_account_is_closed(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    lost, closed, _, tenants = new_tenant(), new_tenant(), new_tenant(), backups.tenants
    short = Backups(tenants, tmp_path, backup_keep="hourly=1")
    first = short.run().catalogue
    tenants.directory.write(lambda: main_database.Customer.delete().where(main_database.Customer.id == lost).execute())
    tenants.directory.write(lambda: main_database.remove_customer(closed))
    for _ in range(3):
        made = short.run()
    assert lost not in made.catalogue.tenants and closed not in made.catalogue.tenants
    assert any(f"{first.name} stays: no other backup holds {lost}" in line for line in short.said)
    assert short.restored(lost, tmp_path / "restored.db", first.name)["end_user"] == []
    tenants.directory.write(lambda: main_database.Closing.create(tenant_id=lost))
    assert first.name in short.run().removed.names
    assert {name.partition("-")[2].partition(".")[2] for name in short.names()} == {"main", "base"}
    assert len(short.names()) == 2


def test_nothing_is_removed_while_a_catalogue_can_not_be_read(
    tenants: Tenants, new_tenant: NewTenant, tmp_path: Path
) -> None:
    new_tenant()
    short = Backups(tenants, tmp_path, backup_keep="hourly=2")
    made: list[Catalogue] = [short.run().catalogue for _ in range(2)]
    (short.folder / "backups" / f"{made[0].name}.catalogue").write_bytes(b"?")
    after = short.run()
    assert after.removed.names == [] and "can't be read" in after.faults["older backups"]
    assert f"If you can't mend it, remove backups/{made[0].name}.catalogue there" in after.faults["older backups"]
    assert short.last.state == "incomplete"
    assert {f"objects/{name}" for name in short.names()} >= {*made[1].objects()}


@pytest.fixture
def folder_that_is_gone(backups: Backups) -> Iterator[Path]:
    backups.folder.parent.mkdir(exist_ok=True)
    backups.folder.write_text("no folder")
    yield backups.folder
    with contextlib.suppress(FileNotFoundError):
        backups.folder.unlink()


def test_place_that_can_not_be_used_is_told_and_recorded(backups: Backups, folder_that_is_gone: Path) -> None:
    with pytest.raises(BackupError, match=f"{folder_that_is_gone}"):
        backups.run()
    assert backups.last.state == "failed" and str(folder_that_is_gone) in backups.last.error


# --- what somebody did to the place meanwhile ------------------------------------------------------------------------


def test_place_that_was_emptied_is_told_once_also_if_nothing_changed(backups: Backups, new_tenant: NewTenant) -> None:
    ids = {new_tenant() for _ in range(7)}
    backups.run()
    for one in backups.folder.glob("objects/*.base"):
        one.unlink()
    made = backups.run()
    assert made.faults.keys() == ids and "is missing" in min(made.faults.values())
    assert backups.faults() == {} and not backups.run().faults
    shutil.rmtree(backups.folder)
    made = backups.run()
    assert list(made.faults) == ["older backups"] and backups.last.state == "incomplete"
    assert backups.faults() == {} and not backups.run().faults


@pytest.mark.parametrize(
    ("wanted", "until"), [("2026-11-23T14:02", "2026-11-23T14:02:00+00:00"), ("9999-12-31T23:59:59-12:00", "latest")]
)
def test_time_without_a_zone_is_utc_as_backups_are_named(
    backups: Backups, wanted: str, until: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        with retrieval.catalogues(backups.settings) as (found, _):
            there = ["20261123T150000Z", "20261123T140000Z"]
            monkeypatch.setattr(found, "names", lambda: there)
            assert found.chosen(wanted) == found.chosen(until)
    finally:
        monkeypatch.undo()
        time.tzset()
