"""What somebody else put where backups are kept, or lost there, is told and never taken for a backup of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from operations.backups import retrieval
from operations.backups.catalogue import NotEncrypted
from operations.backups.manifest import BackupError
from operations.backups.objects import Packing, new_key
from operations.backups.places import Folder
from storage import main_database
from tenants import Tenants
from tests.backup_runs import Backups, write
from tests.data_folder import opened
from tests.storage.test_increments import live

NewTenant = Callable[[], str]


@pytest.fixture
def backups(tenants: Tenants, tmp_path: Path) -> Backups:
    return Backups(tenants, tmp_path)


def rewritten(backups: Backups, change: Callable[[Any], object], tmp_path: Path) -> str:
    """Write the catalogue of the latest backup otherwise, as somebody could without a key; give its name."""
    with retrieval.catalogues(backups.settings) as (found, _):
        made = found.read(found.chosen("latest"), also_plain=True)
    content = msgspec.msgpack.decode(msgspec.msgpack.encode(made))
    name = content["name"]
    change(content)
    encoded, packed = msgspec.msgpack.encode(content), tmp_path / "packed"
    Packing((), tmp_path).pack(lambda file: file.write(encoded), packed)
    Folder(backups.folder).put(f"backups/{name}.catalogue", packed)
    return str(name)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_key_that_is_set_later_has_all_of_it_kept_anew_and_refuses_what_is_plain(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    """Else a tenant that does not change would stay there in clear for ever."""
    one = new_tenant()
    write(backups.tenants, one, "a secret name", 50)
    plain = backups.run().catalogue.name
    with_key = Backups(backups.tenants, tmp_path, backup_key=(new_key(),), backup_keep="hourly=1")
    with pytest.raises(NotEncrypted, match=f"{plain} is not encrypted, although BACKUP_KEY is set"):
        with_key.restored(one, tmp_path / "restored.db")
    made = with_key.run()
    assert [part.kind for part in made.catalogue.tenants[one].chain] == ["base"] and not made.faults
    assert made.removed.names == [plain] and with_key.restored(one, tmp_path / "restored.db") == live(
        backups.tenants, one
    )
    assert all(file.read_bytes().startswith(b"age-encryption.org/v1") for file in with_key.folder.rglob("*.*"))
    assert with_key.run().catalogue.changed == 0


def test_plain_backup_put_beside_encrypted_ones_is_a_fault_and_is_not_gone_on_from(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    one = new_tenant()
    with_key = Backups(backups.tenants, tmp_path, backup_key=(new_key(),))
    with_key.run()
    write(backups.tenants, one, "now")
    forged = Backups(backups.tenants, tmp_path, backup_to=str(tmp_path / "forged")).run().catalogue.name
    (tmp_path / "forged" / "backups" / f"{forged}.catalogue").rename(
        with_key.folder / "backups" / f"{forged}.catalogue"
    )
    made = with_key.run()
    assert f"{forged} is not encrypted" in made.faults["older backups"] and with_key.last.state == "incomplete"
    assert [part.kind for part in made.catalogue.tenants[one].chain] == ["base", "more"]
    assert with_key.faults() == {}


# --- catalogues of somebody ------------------------------------------------------------------------------------------


def test_main_database_that_is_damaged_there_is_named_by_verify(backups: Backups, new_tenant: NewTenant) -> None:
    new_tenant()
    backups.run()
    (main,) = backups.folder.glob("objects/main-*")
    main.write_bytes(main.read_bytes()[:-8])
    said: list[str] = []
    with retrieval.kept(backups.settings, "latest") as kept:
        assert kept.faults(said.append).keys() == {"main.db"}
    assert "main.db" in said[0] and "is damaged" in said[0]


def _other_run(content: Any) -> None:
    content["main"][0] = "../../x"


def _other_tenant(content: Any) -> None:
    content["tenants"]["../../x"] = next(iter(content["tenants"].values()))


def _other_kind(content: Any) -> None:
    content["main"][1] = "/x"


def _other_name(content: Any) -> None:
    content["name"] = "20200101T000000Z"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_other_run, "'../../x' is no name of a run"),
        (_other_tenant, "'../../x' is no tenant's ID"),
        (_other_kind, "can't be read: Invalid enum value"),
        (_other_name, "is that of '20200101T000000Z', under another name"),
    ],
)
def test_catalogue_that_leads_elsewhere_is_refused(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path, change: Callable[[Any], object], sentence: str
) -> None:
    one = new_tenant()
    backups.run()
    rewritten(backups, change, tmp_path)
    folder = tmp_path / "back"
    with pytest.raises(BackupError, match=sentence), retrieval.kept(backups.settings, "latest") as kept:
        retrieval.bring_back(kept, folder, None, lambda _: None)
    assert not (tmp_path / "x").exists()
    made = backups.run()
    assert made.faults and backups.faults() == {} and one in made.catalogue.tenants


def test_damaged_catalogue_is_told_also_while_nothing_is_too_old(backups: Backups, new_tenant: NewTenant) -> None:
    new_tenant()
    first, second = (backups.run().catalogue for _ in range(2))
    (backups.folder / "backups" / f"{second.name}.catalogue").write_bytes(b"\x1f\x8b?")
    made = backups.run()
    assert f"{second.name} can't be read" in made.faults["older backups"]
    assert made.catalogue.tenants.keys() == first.tenants.keys() and not backups.run().faults


# --- customers who are no more ---------------------------------------------------------------------------------------


def _forget(tenants: Tenants, *ids: str) -> None:
    customer = main_database.Customer
    tenants.directory.write(lambda: customer.delete().where(customer.id.in_(ids)).execute())


def test_customer_who_vanished_is_told_once_and_one_who_left_is_not(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    one, gone, closed, tenants = new_tenant(), new_tenant(), new_tenant(), backups.tenants
    first = backups.run().catalogue.name
    _forget(tenants, gone)
    tenants.directory.write(lambda: main_database.remove_customer(closed))
    made = backups.run()
    assert made.faults.keys() == {gone} and f"{first} has its data" in made.faults[gone]
    assert made.catalogue.tenants.keys() == {one} and not backups.run().faults


def test_installation_without_customers_makes_no_backup_beside_those_of_one_with_some(
    backups: Backups, new_tenant: NewTenant, tmp_path: Path
) -> None:
    """As a disk that came up empty: ``latest`` would be a backup of nothing."""
    new_tenant()
    made = backups.run().catalogue.name
    empty = opened(tmp_path / "empty")
    there = sorted(backups.folder.rglob("*"))
    try:
        with pytest.raises(BackupError, match=f"no customer in .*, and 1 in the backup {made}: none was made"):
            Backups(empty, tmp_path, data_dir=tmp_path / "empty").run()
        assert empty.directory.read(main_database.count_customers) == 0
    finally:
        empty.close()
    assert sorted(backups.folder.rglob("*")) == there


# --- what comes back ---------------------------------------------------------------------------------------------------


def test_main_database_that_does_not_come_back_is_no_backup(
    backups: Backups, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: what was written of it was never read again."""
    new_tenant()
    put = Folder.put

    def cut(place: Folder, name: str, file: Path) -> None:
        if "main-" in name:
            file.write_bytes(file.read_bytes()[:-8])
        put(place, name, file)

    with monkeypatch.context() as cutting:
        cutting.setattr(Folder, "put", cut)
        with pytest.raises(BackupError, match="damaged"):
            backups.run()
    assert backups.last.state == "failed" and not list(backups.folder.glob("backups/*"))
