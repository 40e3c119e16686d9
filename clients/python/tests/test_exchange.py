"""Exchanges with a real server: what goes out, what comes in, what the server refuses, and what is repaired."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
from conftest import MakeClient
from tests.kit.proxy import Proxy
from tests.kit.server import LocalServer, wait_for
from tests.kit.truth import Account, differences, register

from syncclient import Conflict, Hooks, Offline, Progress, Refusal, SyncClient, SyncError, places, transport
from syncclient.wire import format_time


def equals_server(client: SyncClient, account: Account) -> None:
    """Hold that the client has what the server has, and nothing waits."""
    rows, digests = account.rows()
    held = {table: client.rows(table) for table in ("end_user", "interactions")}
    assert differences(rows, digests, held, account.typed) == []
    assert {(table, row["id"]): row for table, got in held.items() for row in got} == rows
    assert client.status().waiting == 0


def test_two_devices_exchange_rows_of_all_tables(make_client: MakeClient, account: Account) -> None:
    first, second = make_client(), make_client()
    first.put("end_user", {"id": "a", "name": "Asha", "phoneModel": {"os": ["x", 1]}, "unknown field": 1.5})
    first.put("interactions", {"id": "i", "type": "call", "client_user_id": "a"})
    first.sync()
    second.sync()
    second.delete("interactions", "i")
    second.put("end_user", {"id": "a", "note": "seen"})
    second.sync()
    first.sync()
    equals_server(first, account)
    equals_server(second, account)
    assert first.rows("interactions") == [] and first.rows("end_user")[0]["note"] == "seen"


def test_push_that_follows_on_needs_no_pull_after_it(make_client: MakeClient, proxy: Proxy) -> None:
    client = make_client(url=proxy.url)
    client.sync()
    client.put("end_user", {"name": "alone"})
    proxy.requests.clear()
    client.sync()
    assert [address.rpartition("/")[2] for address in proxy.requests] == ["pull", "push"]


def test_row_that_another_pushed_between_pull_and_push_is_not_passed_over(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    """Seen to fail when the cursor of a push's answer was always adopted."""
    client = make_client(url=proxy.url)
    client.sync()
    others = iter([{"id": "between", "name": "of another"}])

    def overtake(address: str) -> str:
        for row in others if "push" in address else ():
            account.put("end_user", row)
        return "none"

    proxy.fault_of = overtake
    client.put("end_user", {"id": "a"})
    client.sync()
    equals_server(client, account)


def test_edit_waits_through_a_pull_of_its_row_and_states_what_its_writer_saw(
    make_client: MakeClient, account: Account
) -> None:
    """Seen to fail when a pulled row was not laid under the edits that wait (the edit was gone from the row)."""
    account.put("end_user", {"id": "a", "name": "seen", "phone": "1"})
    client = make_client()
    client.sync()
    client.put("end_user", {"id": "a", "name": "typed offline"})
    account.put("end_user", {"id": "a", "phone": "2"})
    client.pull()
    row = client.get("end_user", "a")
    assert row is not None and (row["name"], row["phone"], row["sync_status"]) == ("typed offline", "2", "pending")
    client.sync()
    equals_server(client, account)
    assert client.conflicts() == []


def test_tables_that_are_not_wanted_stay_away_until_they_are(make_client: MakeClient, account: Account) -> None:
    account.put("end_user", {"id": "a", "name": "A"})
    account.put("interactions", {"id": "i", "title": "I"})
    narrow = make_client("replica.db", tables=["end_user"])
    narrow.sync()
    assert narrow.rows("interactions") == [] and len(narrow.rows("end_user")) == 1
    narrow.close()
    wide = make_client("replica.db", session=None)
    wide.sync()
    equals_server(wide, account)


def test_progress_and_changes_are_told(make_client: MakeClient, account: Account) -> None:
    account.put("end_user", *({"id": f"r{number}", "name": "x"} for number in range(25)))
    told: list[Progress] = []
    changed: dict[str, list[str]] = {}
    hooks = Hooks(on_progress=told.append, on_change=lambda table, ids: changed.setdefault(table, []).extend(ids))
    client = make_client(hooks=hooks, page_rows=10, part_rows=2)
    client.put_many("interactions", [{"id": f"i{number}"} for number in range(5)])
    client.sync()
    assert [one.rows for one in told if one.phase == "pull"] == [10, 20, 25]
    assert [(one.rows, one.waiting) for one in told if one.phase == "push"] == [(2, 3), (4, 1), (5, 0)]
    assert len(changed["end_user"]) == 25 and changed["interactions"] == [f"i{number}" for number in range(5)]


def test_refused_edit_is_told_and_kept_and_does_not_hold_up_the_others(
    make_client: MakeClient, account: Account
) -> None:
    told: list[Refusal] = []
    client = make_client(hooks=Hooks(on_refusal=told.append))
    client.put("end_user", {"id": "a", "name": "good"})
    client.put("end_user", {"id": "a", "active": "perhaps"})
    client.put("end_user", {"id": "b", "name": "x" * 70_000})
    client.put("no_such_table", {"id": "c"})
    client.put("end_user", {"id": "d", "name": "good too"})
    client.sync()
    equals_server(client, account)
    assert [row["id"] for row in client.rows("end_user")] == ["a", "d"]
    assert [one.row_id for one in told] == ["b", "c", "a"] and told == client.refusals()
    assert told[2].fields == {"active": "perhaps"} and "must be 0, 1" in told[2].error


def test_conflict_is_told_once_and_the_hook_decides_it(make_client: MakeClient, account: Account) -> None:
    told: list[Conflict] = []

    def take_ours(conflict: Conflict) -> str:
        told.append(conflict)
        return "other" if conflict.fields["name"]["winner"] == "server" else "keep"

    account.put("end_user", {"id": "a", "name": "before"})
    client = make_client(hooks=Hooks(on_conflict=take_ours))
    client.sync()
    client.put("end_user", {"id": "a", "name": "ours, earlier"})
    account.put("end_user", {"id": "a", "name": "theirs, later"})
    client.sync()
    client.sync()
    equals_server(client, account)
    assert [one.row_id for one in told] == ["a"] and [one.is_decided for one in client.conflicts()] == [True]
    row = client.get("end_user", "a")
    assert row is not None and row["name"] == "ours, earlier"
    assert account.ask("GET", "/api/client/sync/conflicts")["data"] == []


def test_conflict_whose_answer_was_lost_is_known_all_the_same(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    """Seen to fail without ``_lost_conflicts``: a replayed operation's answer does not repeat its conflicts."""
    account.put("end_user", {"id": "a", "name": "before"})
    client = make_client(url=proxy.url)
    client.sync()
    client.put("end_user", {"id": "a", "name": "ours"})
    account.put("end_user", {"id": "a", "name": "theirs"})
    proxy.fail("answer_dropped", "/push", 1)
    client.sync()
    assert [(one.table, one.row_id) for one in client.conflicts()] == [("end_user", "a")]
    client.decide(client.conflicts()[0].number, {"name": "of both"})
    with pytest.raises(LookupError):
        client.decide(client.conflicts()[0].number, "keep")
    client.sync()
    row = client.get("end_user", "a")
    assert row is not None and row["name"] == "of both"
    equals_server(client, account)


def test_decision_that_the_server_refuses_is_told_and_kept(make_client: MakeClient, account: Account) -> None:
    told: list[Refusal] = []
    client = make_client(hooks=Hooks(on_refusal=told.append))
    clash(client, account, "a")
    client.decide(client.conflicts()[0].number, {"active": "perhaps"})
    client.sync()
    assert [(one.operation, one.row_id) for one in told] == [("decide", "a")] and "must be 0, 1" in told[0].error
    equals_server(client, account)


def test_conflict_of_a_database_that_was_restored_is_kept_and_never_taken_for_another(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    """Numbers of conflicts begin again in a restored database."""
    client = make_client(url=proxy.url)
    clash(client, account, "a")
    before = client.conflicts()[0]
    client.decide(before.number, "other")
    with client._replica.transaction() as connection:
        places.move(connection, places.wanted(connection), "000000000000-1")
        connection.execute("UPDATE conflicts SET conflict_id = 999")
    client.sync()
    assert [(one.number, one.is_decided) for one in client.conflicts()] == [(before.number, True)]
    clash(client, account, "b", lambda: proxy.fail("answer_dropped", "/push", 1))
    assert [one.row_id for one in client.conflicts() if not one.is_decided] == ["b"]
    equals_server(client, account)


def clash(client: SyncClient, account: Account, row_id: str, before_sync: Callable[[], None] = lambda: None) -> None:
    """Let the client and another device change the same field of a new row."""
    account.put("end_user", {"id": row_id, "name": "before"})
    client.sync()
    client.put("end_user", {"id": row_id, "name": "ours"})
    account.put("end_user", {"id": row_id, "name": "theirs"})
    before_sync()
    client.sync()


def test_lost_answer_does_each_edit_once(make_client: MakeClient, account: Account, proxy: Proxy) -> None:
    """Seen to fail when each sending made new names (``opId``): version 5 instead of 3."""
    client = make_client(url=proxy.url)
    client.put("end_user", {"id": "a", "name": "1"})
    client.put("end_user", {"id": "a", "name": "2"})
    client.put("end_user", {"id": "a", "name": "1"})
    proxy.fail("answer_dropped", "/push", 2)
    client.sync()
    equals_server(client, account)
    assert [(row["name"], row["version"]) for row in client.rows("end_user")] == [("1", 3)]


def test_offline_is_an_error_that_leaves_everything_as_it_is(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    client = make_client(url=proxy.url)
    client.put("end_user", {"id": "a"})
    proxy.fail("refused", "/", 100)
    with pytest.raises(Offline):
        client.sync()
    assert client.status().waiting == 1
    proxy.fail("none", "/", 0)
    client.sync()
    equals_server(client, account)


# --- what the server says about size and pace ------------------------------------------------------------------------


def test_parts_shrink_until_the_server_takes_them(
    start_server: Callable[..., LocalServer], make_client: MakeClient
) -> None:
    server = start_server(MAX_PUSH_ROWS="7", MAX_BODY_BYTES="4096", MAX_PULL_ROWS="5")
    account = register(server.url)
    client = make_client(to=account)
    client.put_many("end_user", [{"id": f"r{number}", "note": "x" * 300} for number in range(40)])
    client.put("end_user", {"id": "too-large", "note": "x" * 5000})
    client.sync()
    equals_server(client, account)
    assert len(client.rows("end_user")) == 40 and [one.row_id for one in client.refusals()] == ["too-large"]


def test_busy_server_is_asked_again_when_it_says(
    start_server: Callable[..., LocalServer], make_client: MakeClient
) -> None:
    server = start_server(TENANT_REQUESTS="4 per second")
    account = register(server.url)
    client = make_client(to=account)
    for number in range(4):
        client.put("end_user", {"id": f"r{number}"})
        client.sync()
    impatient = make_client(to=account, patience_seconds=0.0)
    with pytest.raises(SyncError) as caught:
        for _ in range(8):
            impatient.sync()
    assert (caught.value.code, caught.value.status) == ("rate_limited", 429)
    equals_server(client, account)


def test_server_with_too_many_requests_at_once_is_asked_again(
    start_server: Callable[..., LocalServer], make_client: MakeClient
) -> None:
    server = start_server(MAX_TENANT_REQUESTS="1")
    account = register(server.url)
    client = make_client(to=account)
    client.put("end_user", {"id": "a"})
    syncing = threading.Thread(target=client.sync)
    with socket.create_connection(("127.0.0.1", server.port)) as other:  # One request is under way, and stays so.
        head = f"POST /api/client/sync/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.token}\r\n"
        other.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode())
        wait_for(lambda: ask_plainly(account).status_code == 503, "the server to have too much")
        syncing.start()
        log = server.folder / "server.log"
        wait_for(lambda: "sync/pull" in log.read_text(), "the client to be refused")
        assert syncing.is_alive()
    syncing.join()
    equals_server(client, account)


def ask_plainly(account: Account) -> requests.Response:
    headers = {"Authorization": f"Bearer {account.token}"}
    return requests.get(f"{account.url}/api/customers/me", headers=headers, timeout=20)


class Portal(BaseHTTPRequestHandler):
    """Something between device and server, which answers for itself."""

    status, headers_said = 200, {"Content-Type": "text/html"}

    def do_POST(self) -> None:
        self.send_response(self.status)
        for name, value in self.headers_said.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"<html>Welcome to the Wi-Fi of the hotel</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (200, {"Content-Type": "text/html"}, "offline"),
        (302, {"Location": "https://login.hotel.example"}, "moved"),
        (400, {"Content-Type": "text/html"}, "http_400"),
        (404, {"Content-Type": "text/html"}, "http_404"),
        (410, {"Content-Type": "text/html"}, "http_410"),
        (502, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "http_502"),
    ],
)
def test_what_answers_in_the_servers_place_is_an_error_and_costs_nothing(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], code: str
) -> None:
    monkeypatch.setattr(Portal, "status", status)
    monkeypatch.setattr(Portal, "headers_said", headers)
    with HTTPServer(("127.0.0.1", 0), Portal) as portal:
        serving = threading.Thread(target=portal.serve_forever)
        serving.start()
        client = make_client(url=f"http://127.0.0.1:{portal.server_port}", patience_seconds=0.0)
        client.put("end_user", {"id": "a"})
        for exchange in (client.sync, client.push):
            with pytest.raises(SyncError) as caught:
                exchange()
            assert caught.value.code == code and client.status().waiting == 1
        portal.shutdown()
        serving.join()
    assert client.refusals() == []


def test_refusal_that_is_about_no_edit_rejects_none(
    make_client: MakeClient, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()
    client.put("end_user", {"id": "a"})
    with monkeypatch.context() as patch:
        patch.setattr(client._transport, "device_id", "no name of a device")
        with pytest.raises(SyncError, match="Device"):
            client.push()
    assert client.status().waiting == 1 and client.refusals() == []
    client.sync()
    equals_server(client, account)


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_by_hours", [-30, 30])
def test_clock_that_is_wrong_does_not_decide_conflicts(
    make_client: MakeClient, account: Account, monkeypatch: pytest.MonkeyPatch, off_by_hours: int
) -> None:
    """Seen to fail when edits had the device's own time: a slow clock lost ``a``, a fast one won ``b``."""
    account.put("end_user", {"id": "a", "name": "before"}, {"id": "b", "name": "before"})
    real, ago_ms = transport._now_ms, 0
    monkeypatch.setattr(transport, "_now_ms", lambda: real() - ago_ms + off_by_hours * 3_600_000)
    client = make_client()
    client.sync()
    theirs = {"id": "a", "name": "theirs, earlier", "last_updated": format_time(real() - 10_000)}
    account.put("end_user", theirs, {"id": "b", "name": "theirs, later"})
    client.put("end_user", {"id": "a", "name": "ours, later"})
    ago_ms = 10_000
    client.put("end_user", {"id": "b", "name": "ours, earlier"})
    client.sync()
    assert {row["id"]: row["name"] for row in client.rows("end_user")} == {"a": "ours, later", "b": "theirs, later"}


# --- what is repaired ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM rows WHERE id = 'r3'",
        "UPDATE rows SET version = 9 WHERE id = 'r3'",
        "UPDATE rows SET server = NULL, version = 0, local = server WHERE id = 'r3'",
        "INSERT INTO rows (table_name, id, server, version) SELECT table_name, 'no', server, 1 FROM rows WHERE id = 'r3'",
    ],
)
def test_replica_that_differs_is_found_out_by_the_digest_and_repaired(
    make_client: MakeClient, account: Account, damage: str
) -> None:
    account.put("end_user", *({"id": f"r{number}", "name": "x"} for number in range(9)))
    client = make_client()
    client.put("end_user", {"id": "r5", "note": "kept through it"})
    client.sync()
    client.put("end_user", {"id": "r6", "note": "typed before the repair"})
    with client._replica.transaction() as connection:
        assert connection.execute(damage).rowcount == 1
    client.sync(verify=True)
    equals_server(client, account)
    assert len(client.rows("end_user")) == 9
    assert client.rows("end_user", id="r6")[0]["note"] == "typed before the repair"


def test_edit_of_a_row_that_a_repair_finds_gone_makes_it_again_whole(make_client: MakeClient, account: Account) -> None:
    """What the server lost without a word is given back with what was typed into it, not the typed field alone."""
    client = make_client()
    client.put("end_user", {"id": "a", "name": "whole"})
    client.sync()
    client.put("end_user", {"id": "a", "note": "typed"})
    with client._replica.transaction() as connection:  # A row that only this replica has, in another database.
        connection.execute("UPDATE rows SET id = 'b'")
        connection.execute("UPDATE outbox SET row_id = 'b'")
        connection.execute(
            "UPDATE rows SET server = json_set(server, '$.id', 'b'), local = json_set(local, '$.id', 'b')"
        )
    client.sync(verify=True)
    found: dict[str, Any] = client.rows("end_user", id="b")[0]
    assert (found["name"], found["note"]) == ("whole", "typed")
    equals_server(client, account)


def test_two_processes_may_not_exchange_at_once(make_client: MakeClient, account: Account, tmp_path: Any) -> None:
    client = make_client("replica.db")
    lock = sqlite3.connect(tmp_path / "replica.db-turn", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    client._replica.turn_seconds = 0.2
    with pytest.raises(SyncError, match="Another process"):
        client.sync()
    lock.execute("ROLLBACK")
    lock.close()
    client.sync()
