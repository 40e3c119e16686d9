"""On a new machine the records of the old one come back with its customers, and what was done there stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from operations.backups import backup, restore
from operations.backups.restore import Source
from storage import main_database, operator_actions
from storage.main_database import Customer
from storage.usage import ORDERS, DailyUsage
from tenants import Tenants
from tests.data_folder import opened

NewTenant = Callable[[], str]


@pytest.fixture
def new_machine(tmp_path: Path) -> Iterator[Tenants]:
    found = opened(tmp_path / "new")
    yield found
    found.close()


@pytest.fixture
def made(tenants: Tenants, new_tenant: NewTenant, tmp_path: Path) -> Path:
    """A backup of an installation with one customer, another who left, and what operators did."""
    one, closed = new_tenant(), new_tenant()

    def happen() -> None:
        main_database.remove_customer(closed)
        for number in range(3):
            operator_actions.record("suspended", one, number)
        DailyUsage.create(key=f"20000{one}", sockets={}, **dict.fromkeys(ORDERS, 7))
        main_database.change_customer(one, state="suspended", quotas={"TENANT_ROWS": "5"})

    tenants.directory.write(happen)
    return backup.make(tenants.engine, tmp_path / "backups", None, None, lambda _: None).path


def actions(tenants: Tenants) -> list[tuple[int, str, str | None, str | None]]:
    found = tenants.directory.read(lambda: operator_actions.actions(None, 99))
    return [(one.number, one.action, one.about, one.made_by) for one in found]


def test_records_and_accounts_come_back_before_what_was_done_here(made: Path, new_machine: Tenants) -> None:
    directory, engine = new_machine.directory, new_machine.engine
    directory.write(lambda: operator_actions.record("admin-link", "", 9))
    restore._bring_records(engine, made)  # As of a restore that was cut off.
    choice = restore.choose(engine, made)
    restore.restore(engine, choice, Source("it", "session"), lambda _: None)
    assert actions(new_machine) == [
        (5, "restore", "from it", "session"),
        (4, "admin-link", None, None),
        *((number, "suspended", None, None) for number in (3, 2, 1)),
    ]
    assert len(directory.read(main_database.closed_ids)) == 1
    assert directory.read(lambda: [one.requests for one in DailyUsage.select()]) == [7]
    (customer,) = directory.read(lambda: [*Customer.select()])
    assert (customer.state, customer.quotas) == ("suspended", {"TENANT_ROWS": "5"})
    restore.restore(engine, choice, Source("it"), lambda _: None)
    assert len(actions(new_machine)) == 6, "records come once"


def test_restore_that_the_server_does_not_take_over_is_recorded(
    made: Path, new_machine: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: recorded when all was done, so that tenants were restored, and nothing said so."""

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restore, "_wait_until_taken", fail)
    with pytest.raises(KeyboardInterrupt):
        restore.restore(new_machine.engine, restore.choose(new_machine.engine, made), Source("it"), lambda _: None)
    assert actions(new_machine)[0][1:3] == ("restore", "from it")
