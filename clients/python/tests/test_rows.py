"""Reading and writing without a server: rows, edits that wait, and the file that holds them."""

from __future__ import annotations

import math
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncclient import SyncClient


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[SyncClient]:
    """A client that never had a server."""
    with SyncClient(tmp_path / "replica.db", "http://127.0.0.1:9") as client:
        yield client


def test_new_row_gets_an_id_and_waits(offline: SyncClient) -> None:
    row = offline.put("end_user", {"name": "Asha"})
    assert offline.get("end_user", row["id"]) == row
    assert (row["name"], row["sync_status"], row["version"]) == ("Asha", "pending", 0)
    assert offline.status().waiting == 1


def test_put_changes_the_fields_given_and_leaves_the_others(offline: SyncClient) -> None:
    offline.put("end_user", {"id": "a", "name": "Asha", "phone": "1"})
    offline.put("end_user", {"id": "a", "phone": None})
    row = offline.get("end_user", "a")
    assert row is not None and (row["name"], row["phone"]) == ("Asha", None)


def test_put_that_changes_nothing_is_no_edit(offline: SyncClient) -> None:
    offline.put("end_user", {"id": "a", "name": "Asha", "bankList": [1, {"b": None}]})
    offline.put("end_user", {"id": "a", "name": "Asha", "bankList": [1, {"b": None}], "version": 7})
    assert offline.status().waiting == 1


@pytest.mark.parametrize("value", [{"a": True}, {"a": 1.0}, {"a": "1"}, {"a": None}, {}, [1], None])
def test_put_of_other_json_is_an_edit(offline: SyncClient, value: object) -> None:
    offline.put("end_user", {"id": "a", "phoneModel": {"a": 1}})
    offline.put("end_user", {"id": "a", "phoneModel": value})
    row = offline.get("end_user", "a")
    assert row is not None and repr(row["phoneModel"]) == repr(value)
    assert offline.status().waiting == 2


class FullDisk:
    """A connection whose next commit finds the disk full."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._is_full = connection, True

    def execute(self, sql: str, *values: Any) -> object:
        if sql == "COMMIT" and self._is_full:
            self._is_full = False
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def test_commit_that_fails_keeps_nothing_and_the_next_put_works(
    offline: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = offline._replica
    monkeypatch.setattr(replica, "_connection", FullDisk(replica._connection))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        offline.put("end_user", {"id": "a", "name": "not kept"})
    assert offline.get("end_user", "a") is None
    offline.put("end_user", {"id": "a", "name": "kept"})
    assert offline.status().waiting == 1


def test_deleted_row_is_gone_and_can_be_made_again(offline: SyncClient) -> None:
    offline.put("end_user", {"id": "a", "name": "Asha"})
    offline.delete("end_user", "a")
    offline.delete("end_user", "a")
    assert offline.get("end_user", "a") is None and offline.rows("end_user") == []
    assert offline.put("end_user", {"id": "a", "name": "again"})["name"] == "again"
    assert offline.status().waiting == 3


def test_rows_are_found_by_their_fields(offline: SyncClient) -> None:
    offline.put_many("end_user", [{"id": str(number), "status": "xy"[number % 2], 'q"': number} for number in range(4)])
    assert [row["id"] for row in offline.rows("end_user", status="x")] == ["0", "2"]
    assert [row["id"] for row in offline.rows("end_user", name=None, status="y")] == ["1", "3"]
    assert offline.rows("interactions") == []


@pytest.mark.parametrize(
    "row", [{"x": math.nan}, {"x": "\ud800"}, {"x": {1, 2}}, {"id": 7}, {"id": "a b"}, {"id": "x" * 65}]
)
def test_what_can_not_be_sent_is_refused_at_once_and_nothing_of_its_batch_is_kept(
    offline: SyncClient, row: dict[str, object]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        offline.put_many("end_user", [{"name": "good"}, row])
    assert offline.rows("end_user") == [] and offline.status().waiting == 0


def test_file_is_readable_by_its_owner_only_and_its_device_id_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    with SyncClient(path, "http://127.0.0.1:9") as client:
        first = client.status().device_id
    with SyncClient(path, "http://127.0.0.1:9") as client:
        assert client.status().device_id == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_of_a_later_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    SyncClient(path, "http://127.0.0.1:9").close()
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(ValueError, match="format 99"):
        SyncClient(path, "http://127.0.0.1:9")


def test_threads_write_at_once_and_each_edit_is_there(offline: SyncClient) -> None:
    def write(name: str) -> None:
        for number in range(25):
            offline.put("end_user", {"id": f"{name}-{number}"})
            offline.put("end_user", {"id": "of-all", name: number})

    threads = [threading.Thread(target=write, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = offline.get("end_user", "of-all")
    assert row is not None and [row[f"t{number}"] for number in range(4)] == [24] * 4
    assert len(offline.rows("end_user")) == 101 and offline.status().waiting == 200
