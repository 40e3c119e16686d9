"""Starting anew: what goes back to a restored server, on what base, and that nobody's later edit is undone by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient
from tests.kit.proxy import Proxy
from tests.kit.server import LocalServer
from tests.kit.truth import Account, register

from syncclient import Offline, SyncClient


class Restored:
    """A server of a test's own with an account, and a backup of it that is put back when the test says so."""

    def __init__(self, server: LocalServer, folder: Path) -> None:
        self.server, self.account = server, register(server.url)
        self._folder = folder

    def back_up(self) -> None:
        self._backup = self.server.backup(self._folder / f"backup-{time.monotonic_ns()}")

    def restore(self) -> None:
        self.server.restore(self._backup, self.account.id)

    def row(self, row_id: str) -> dict[str, Any]:
        return self.account.rows()[0]["end_user", row_id]

    def conflicts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.account.ask("GET", "/api/client/sync/conflicts")["data"]
        return found


@pytest.fixture
def restored(start_server: Callable[..., LocalServer], tmp_path: Path) -> Restored:
    return Restored(start_server(), tmp_path)


def test_restore_makes_no_copy_of_a_device(restored: Restored, make_client: MakeClient) -> None:
    """Places of before say nothing after it, though their numbers are higher."""
    account = restored.account
    account.put("end_user", *({"id": f"u{number}", "name": "x"} for number in range(4)))
    client = make_client(to=account, page_rows=1)
    client.sync()
    restored.back_up()
    for number in range(5):
        account.put("end_user", {"id": f"later-{number}", "name": "x"})
        client.sync()
    device_id = client.status().device_id
    restored.restore()
    account.put("end_user", {"id": "after", "name": "x"})
    for _ in range(3):
        client.put("end_user", {"id": "u1", "phone": "typed"})
        client.sync()
    assert client.status().device_id == device_id
    assert [one["deviceId"] for one in account.ask("GET", "/api/client/devices")["data"]].count(device_id) == 1


def test_push_after_a_restore_never_takes_a_base_of_before_for_one_of_now(
    restored: Restored, make_client: MakeClient
) -> None:
    """Seen to fail when pushes did not name their database: version 2 of before was taken for version 2 of after."""
    account = restored.account
    account.put("end_user", {"id": "a", "name": "first"})
    restored.back_up()
    account.put("end_user", {"id": "a", "name": "second"})
    client = make_client(to=account)
    client.sync()
    client.put("end_user", {"id": "a", "name": "typed before the other"})
    restored.restore()
    account.put("end_user", {"id": "a", "name": "typed after the restore"})
    client.push()
    assert restored.row("a")["name"] == "typed after the restore"
    assert "typed before the other" in {one["fields"]["name"]["client"] for one in restored.conflicts()}


def test_device_gives_back_what_it_holds_and_raises_no_conflict_by_it(
    restored: Restored, make_client: MakeClient
) -> None:
    account = restored.account
    account.put("end_user", *({"id": row_id, "name": "before", "note": "n"} for row_id in "abcd"))
    behind = make_client(to=account)
    behind.sync()
    account.put("end_user", {"id": "a", "name": "seen by one"})
    restored.back_up()
    client = make_client(to=account)
    client.sync()
    client.put("end_user", {"id": "b", "name": "later", "note": None})
    client.delete("end_user", "c")
    client.put("end_user", {"id": "new", "name": "later"})
    client.sync()
    client.put("end_user", {"id": "b", "name": "and not sent"})
    client.put("end_user", {"id": "new", "phone": "not sent either"})
    restored.restore()
    behind.sync()
    client.sync()
    behind.sync()
    assert restored.conflicts() == []
    for device in (client, behind):
        rows = {row["id"]: (row["name"], row.get("note"), row.get("phone")) for row in device.rows("end_user")}
        assert rows == {
            "a": ("seen by one", "n", None),
            "b": ("and not sent", None, None),
            "d": ("before", "n", None),
            "new": ("later", None, "not sent either"),
        }


def test_edit_under_which_a_later_one_came_does_not_win_over_it_after_a_restore(
    restored: Restored, make_client: MakeClient, tmp_path: Path
) -> None:
    """The device holds another's later edit, and an earlier one of its own waits. Seen to fail when the row went back under
    the device's own name: its edit counted as one that knew of it."""
    account = restored.account
    proxy = Proxy("127.0.0.1", restored.server.port)
    account.put("end_user", {"id": "a", "name": "before", "phone": "1"})
    restored.back_up()
    client = make_client(to=account, url=proxy.url)
    client.sync()
    client.put("end_user", {"id": "a", "name": "typed first", "phone": "typed, of nobody else"})
    time.sleep(0.01)
    account.put("end_user", {"id": "a", "name": "typed last"})
    proxy.fail("refused", "/push", 100)
    with pytest.raises(Offline):
        client.sync()
    restored.restore()
    proxy.fail("none", "", 0)
    client.sync()
    row = restored.row("a")
    assert (row["name"], row["phone"]) == ("typed last", "typed, of nobody else")
    assert [one["fields"]["name"]["client"] for one in restored.conflicts() if "name" in one["fields"]] == [
        "typed first"
    ]
    proxy.close()


def test_edit_that_the_backup_knows_by_its_name_is_no_other_operation(
    restored: Restored, make_client: MakeClient
) -> None:
    """Seen to fail when an edit kept its ``opId`` with another base: refused, though the server had it."""
    account = restored.account
    proxy = Proxy("127.0.0.1", restored.server.port)
    client = make_client(to=account, url=proxy.url)
    account.put("end_user", {"id": "a", "name": "before"})
    client.sync()
    client.put("end_user", {"id": "a", "name": "typed, and taken"})
    proxy.fail("answer_dropped", "/push", 100)
    with pytest.raises(Offline):
        client.sync()
    restored.back_up()
    account.put("end_user", {"id": "a", "note": "after the backup"})
    restored.restore()
    proxy.fail("none", "", 0)
    client.sync()
    assert client.refusals() == [] and client.status().waiting == 0
    assert restored.row("a")["name"] == "typed, and taken"
    proxy.close()


def test_two_restores_in_a_row_lose_nothing_either(restored: Restored, make_client: MakeClient) -> None:
    account = restored.account
    proxy = Proxy("127.0.0.1", restored.server.port)
    account.put("end_user", {"id": "a", "name": "before"}, {"id": "b", "name": "before"})
    restored.back_up()
    client = make_client(to=account, url=proxy.url)
    client.sync()
    client.put("end_user", {"id": "a", "name": "answered"})
    client.put("end_user", {"id": "new", "name": "answered"})
    client.sync()
    client.put("end_user", {"id": "a", "phone": "waits"})
    restored.restore()
    proxy.fail("refused", "/push", 100)
    with pytest.raises(Offline):
        client.sync()
    account.put("end_user", {"id": "b", "name": "between the restores"})
    restored.restore()
    proxy.fail("none", "", 0)
    client.sync()
    assert (restored.row("a")["name"], restored.row("a")["phone"]) == ("answered", "waits")
    assert restored.row("new")["name"] == "answered"
    assert client.status().waiting == 0 and client.refusals() == []
    proxy.close()


def test_row_that_was_read_states_what_its_reader_saw(make_client: MakeClient, account: Account) -> None:
    """Seen to fail when each put was based on the newest version: the stale ``phone`` undid another's edit untold."""
    account.put("end_user", {"id": "a", "name": "before", "phone": "1"})
    client = make_client()
    client.sync()
    read = client.get("end_user", "a")
    assert read is not None
    account.put("end_user", {"id": "a", "phone": "2, of another"})
    client.sync()
    client.put("end_user", read | {"name": "typed into the form"})
    client.sync()
    row = account.rows()[0]["end_user", "a"]
    assert (row["name"], row["phone"]) == ("typed into the form", "2, of another")
    assert client.get("end_user", "a") == row and client.conflicts() == []


def test_refused_create_is_told_whole_with_the_edits_after_it(make_client: MakeClient, account: Account) -> None:
    """Seen to fail when the edit after a refused create went out by itself: a row of one field."""
    client: SyncClient = make_client()
    client.put("end_user", {"id": "never", "name": "whole", "active": "perhaps"})
    client.put("end_user", {"id": "never", "note": "after it"})
    client.put("end_user", {"id": "large", "name": "whole", "note": "x" * 70_000})
    client.put("end_user", {"id": "large", "note": "short"})
    client.put("end_user", {"id": "again", "name": "whole", "active": "perhaps"})
    client.delete("end_user", "again")
    client.put("end_user", {"id": "again", "name": "made again"})
    client.sync()
    rows = {row_id: row["name"] for (_, row_id), row in account.rows()[0].items()}
    assert rows == {"large": "whole", "again": "made again"}
    told = {one.row_id: one.fields for one in client.refusals()}
    assert (told["never"]["name"], told["never"]["note"]) == ("whole", "after it") and told.keys() == {"never", "again"}
    assert {row["id"]: row["note"] for row in client.rows("end_user")} == {"large": "short", "again": None}
