"""A place for each table, files of the format before, and copies of a file."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeClient
from test_exchange import equals_server
from tests.kit.truth import Account

from syncclient import SyncClient, SyncError
from syncclient.replica import set_meta


def test_table_that_is_wanted_later_does_not_fetch_the_others_again(make_client: MakeClient, account: Account) -> None:
    """Seen to fail when there was one place: everything was fetched again."""
    account.put("end_user", *({"id": f"u{number}", "name": "x"} for number in range(20)))
    account.put("interactions", {"id": "i", "title": "made long ago"})
    make_client("replica.db", tables=["end_user"]).sync()
    rows: list[int] = []
    client = make_client("replica.db", session=None, tables=["end_user", "interactions"])
    client._pulling._report = lambda phase, count, changed: rows.append(count)
    account.put("end_user", {"id": "u3", "name": "y"})
    client.sync()
    equals_server(client, account)
    assert sum(rows) <= 3


def test_table_that_was_not_wanted_for_a_while_goes_on_from_its_place(
    make_client: MakeClient, account: Account
) -> None:
    """Also what was deleted and what was typed meanwhile."""
    account.put("interactions", *({"id": f"i{number}", "title": "x"} for number in range(4)))
    wide = make_client("replica.db")
    wide.sync()
    wide.put("interactions", {"id": "i1", "title": "typed"})
    wide.close()
    make_client("replica.db", session=None, tables=["end_user"]).pull()
    account.delete("interactions", "i2")
    account.put("interactions", {"id": "i3", "description": "later"}, {"id": "i4", "title": "made later"})
    account.put("end_user", {"id": "a", "name": "x"})
    again = make_client("replica.db", session=None)
    again.sync()
    equals_server(again, account)
    assert len(again.rows("interactions")) == 4 and again.rows("interactions", id="i1")[0]["title"] == "typed"


def test_widening_that_is_cut_off_goes_on(make_client: MakeClient, account: Account) -> None:
    account.put("end_user", {"id": "a", "name": "x"})
    account.put("interactions", *({"id": f"i{number}", "title": "x"} for number in range(9)))
    make_client("replica.db", tables=["end_user"]).sync()
    client = make_client("replica.db", session=None, page_rows=2)
    taken: list[int] = []

    def stumble(phase: object, count: int, changed: object) -> None:
        taken.append(count)
        if len(taken) == 3:
            raise RuntimeError("a fault of the app")

    client._pulling._report = stumble
    with pytest.raises(RuntimeError):
        client.sync()
    account.delete("interactions", "i1")
    client.sync()
    equals_server(client, account)


@pytest.mark.parametrize("first", [["end_user"], ["end_user", "visit"], None])
def test_table_that_the_server_does_not_sync_costs_itself_alone(
    make_client: MakeClient, account: Account, first: list[str] | None
) -> None:
    account.put("end_user", {"id": "a", "name": "A"})
    make_client("replica.db", tables=first).sync()
    account.put("end_user", {"id": "b", "name": "B"})
    client = make_client("replica.db", session=None, tables=["end_user", "visit", "visit_too"])
    client.put("visit", {"id": "v"})
    client.put("end_user", {"id": "c", "name": "C"})
    client.sync()
    client.sync()
    assert [row["id"] for row in client.rows("end_user")] == ["a", "b", "c"]
    assert [one.table for one in client.refusals()] == ["visit"] and client.status().waiting == 0
    with pytest.raises(SyncError, match="must name synced tables"):
        make_client("none.db", tables=["visit"]).sync()


@pytest.mark.parametrize("reason", [None, "missed", "restored"])
def test_file_of_the_format_before_is_taken_over(
    make_client: MakeClient, account: Account, tmp_path: Path, reason: str | None
) -> None:
    account.put("end_user", {"id": "a", "name": "A"})
    client = make_client("replica.db")
    client.sync()
    device_id, cursor = client.status().device_id, client.status().cursor
    client.put("end_user", {"id": "b", "name": "waits"})
    client.close()
    with sqlite3.connect(tmp_path / "replica.db") as before:
        before.execute("DELETE FROM meta WHERE name IN ('places', 'left', 'generations', 'file', 'epoch')")
        set_meta(before, cursor=None if reason else cursor, tables=None, generation=int(bool(reason)), resync=reason)
        before.execute("PRAGMA user_version = 1")
    before.close()
    account.put("interactions", {"id": "i", "title": "later"})
    again = make_client("replica.db", session=None)
    again.sync()
    equals_server(again, account)
    assert again.status().device_id == device_id and len(again.rows("end_user")) == 2


def test_copy_of_a_file_is_another_device_and_a_moved_file_the_same(
    make_client: MakeClient, account: Account, tmp_path: Path
) -> None:
    """Seen to fail when a copy kept the name: what the other copy typed counted as seen, and was overwritten untold."""
    account.put("end_user", {"id": "a", "name": "before"})
    first = make_client("replica.db")
    first.sync()
    device_id = first.status().device_id
    first.close()
    shutil.copy(tmp_path / "replica.db", tmp_path / "copy.db")
    (tmp_path / "replica.db").rename(tmp_path / "moved.db")
    moved, copy = make_client("moved.db"), make_client("copy.db")
    assert moved.status().device_id == device_id != copy.status().device_id
    moved.put("end_user", {"id": "a", "name": "typed in the one"})
    copy.put("end_user", {"id": "a", "name": "typed in the other"})
    moved.sync()
    copy.sync()
    assert [one.row_id for one in copy.conflicts()] == ["a"]
    copy.close()
    name = copy._transport.device_id
    with SyncClient(tmp_path / "copy.db", account.url) as again:
        assert again.status().device_id == name


def test_table_that_catches_up_beyond_the_others_is_no_copy(make_client: MakeClient, account: Account) -> None:
    """It goes back to the place of the others, from where all go on together. Seen to fail: with another name."""
    make_client("replica.db", tables=["end_user"]).sync()
    client = make_client("replica.db", session=None, tables=["end_user", "interactions"], page_rows=1)
    device_id = client.status().device_id
    account.put("interactions", {"id": "i", "title": "x"}, {"id": "j", "title": "x"})

    def write(phase: object, count: int, changed: dict[str, list[str]]) -> None:
        if "i" in changed.get("interactions", []):
            for number in range(3):
                account.put("interactions", {"id": f"later-{number}", "title": "while it catches up"})

    client._pulling._report = write
    for _ in range(2):
        client.sync()
    equals_server(client, account)
    assert len(client.rows("interactions")) == 5 and client.status().device_id == device_id


@pytest.mark.parametrize("exchange", [SyncClient.sync, SyncClient.push])
def test_file_that_was_put_back_to_an_older_state_is_another_device(
    make_client: MakeClient, account: Account, tmp_path: Path, exchange: Callable[[SyncClient], None]
) -> None:
    """As a snapshot of a machine does, or a backup of a phone: it is the same file in the same place.

    Seen to fail: what was typed after the old state counted as seen, and was overwritten untold.
    """
    account.put("end_user", {"id": "a", "name": "before"})
    first = make_client("replica.db")
    first.sync()
    device_id = first.status().device_id
    first.close()
    kept = (tmp_path / "replica.db").read_bytes()
    gone_on = make_client("replica.db", session=None)
    gone_on.put("end_user", {"id": "a", "name": "typed and forgotten"})
    for _ in range(3):
        gone_on.sync()
    assert gone_on.status().device_id == device_id
    gone_on.close()
    (tmp_path / "replica.db").write_bytes(kept)
    back = make_client("replica.db")
    beside = make_client("replica.db", session=None)
    back.put("end_user", {"id": "a", "name": "typed after it was put back"})
    exchange(back)
    assert back.status().device_id != device_id
    assert [one.row_id for one in back.conflicts()] == ["a"]
    back.sync()
    equals_server(back, account)
    named = back.status().device_id
    beside.sync()
    assert beside.status().device_id == named, "another process on the file goes by the old name"
    back.close()
    assert make_client("replica.db", session=None).status().device_id == named
