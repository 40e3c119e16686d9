"""Lines that carry little, servers under a path, and answers that are none of a sync server's."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from conftest import MakeClient
from test_exchange import equals_server
from tests.kit.proxy import Proxy
from tests.kit.server import wait_for
from tests.kit.truth import Account

from syncclient import Offline, SyncClient, SyncError
from syncclient.pace import Pace


def incompressible(prefix: str, count: int, size: int = 300) -> list[dict[str, str]]:
    rng = random.Random(prefix)
    return [{"id": f"{prefix}{number}", "note": rng.randbytes(size).hex()} for number in range(count)]


def test_page_that_stalls_comes_in_smaller_ones_and_each_is_kept(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    """Seen to fail when a page had one size: no sync ever ended."""
    account.put("end_user", *incompressible("r", 400))
    client = make_client(url=proxy.url, timeout_seconds=1.0, session=account.session())
    proxy.stalls_after_bytes = 20_000
    sizes: list[int] = []
    client._pulling._report = lambda phase, count, changed: sizes.append(count)
    client.sync()
    equals_server(client, account)
    assert sum(sizes) == 400 and max(sizes) < 100, sizes
    assert sizes[1] > sizes[0], "pages do not grow again"


def test_page_that_stalls_at_one_row_is_an_error_and_no_endless_loop(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    account.put("end_user", *incompressible("r", 8, size=3000))
    client = make_client(url=proxy.url, timeout_seconds=1.0, page_rows=8, session=account.session())
    proxy.stalls_after_bytes = 2000
    while client._pulling._pace.rows > 1:  # In one go, unless the server is so slow that nothing at all comes in time.
        with pytest.raises(Offline):
            client.sync()
    proxy.stalls_after_bytes = 0
    client.sync()
    equals_server(client, account)


def test_push_whose_answer_stalls_goes_in_smaller_parts_and_is_done_once(
    make_client: MakeClient, account: Account, proxy: Proxy
) -> None:
    client = make_client(url=proxy.url, timeout_seconds=1.0, session=account.session())
    client.sync()
    client.put_many("end_user", incompressible("p", 100))
    proxy.stalls_after_bytes = 12_000
    client.sync()
    proxy.stalls_after_bytes = 0
    equals_server(client, account)
    assert {row["version"] for row in client.rows("end_user")} == {1}


def test_pace_falls_by_half_and_rises_by_and_by() -> None:
    pace = Pace(1000)
    pace.shrink(1000)
    pace.shrink(40)
    assert pace.rows == 20
    rows = []
    while pace.rows < pace.most:
        pace.grow()
        rows.append(pace.rows)
    assert len(rows) > 10 and rows == sorted(rows) and rows[-1] == 1000
    for _ in range(20):
        pace.shrink(pace.rows)
    assert pace.rows == 1


def test_server_under_a_path_connects_live(make_client: MakeClient, account: Account, proxy: Proxy) -> None:
    """Seen to fail: the library leaves the path of an address out, unless it is told it as the path of Socket.IO."""
    proxy.under = "/deep/sync"
    client = make_client(url=f"{proxy.url}/deep/sync/", session=account.session())
    client.start(every_seconds=3600)
    wait_for(lambda: client.status().cursor and any("/deep/sync/socket.io/" in one for one in proxy.requests), "live")
    account.put("end_user", {"id": "a", "name": "x"})
    wait_for(lambda: client.get("end_user", "a"), "the notification")


class Odd(BaseHTTPRequestHandler):
    """Something that answers in the server's place."""

    body = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


PAGE: dict[str, Any] = {"success": True, "data": {"end_user": []}, "cursor": "a-1", "hasMore": False, "digest": {}}
PUSH: dict[str, Any] = {"success": True, "data": [{"id": "a", "version": 1, "updatedAt": "x"}], "cursor": "a-1",
        "results": [{"status": "created", "version": 1}], "conflicts": [], "previousCursor": "a-0"}  # fmt: skip
ROW = {"id": "a", "version": 1, "updatedAt": "2026-01-01T00:00:00.000Z"}
ODD_ROWS: list[Any] = [None, {}, [None], [{}]]
ANSWERS: list[str] = [
    "", "null", "{}", "[]", "7", '"text"', "true", "NaN", "<html>", '{"success": true}', '{"success": false}', "\ufeff{}",
    "[" * 9000, json.dumps(PAGE)[:40],
    *(json.dumps({**PAGE, name: None}) for name in PAGE),
    *(json.dumps({**PAGE, "data": {"end_user": rows}}) for rows in ODD_ROWS),
    json.dumps({**PAGE, "data": []}),
    *(json.dumps({**PAGE, "data": {"end_user": [{**ROW, name: [1]}]}}) for name in ROW),
    *(json.dumps({**PUSH, name: None}) for name in PUSH),
    json.dumps({**PUSH, "data": [], "results": []}), json.dumps({**PUSH, "data": [None]}),
    json.dumps({**PUSH, "results": [None]}), json.dumps({**PUSH, "results": [{"status": 1}]}),
    json.dumps({**PUSH, "conflicts": [{}]}),
]  # fmt: skip


@pytest.mark.parametrize("body", ANSWERS, ids=lambda body: body[:60])
def test_answer_that_lacks_a_part_is_an_error_of_ours_and_costs_nothing(
    make_client: MakeClient, account: Account, odd: str, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """Seen to fail: ``{}`` was a KeyError of the app's."""
    monkeypatch.setattr(Odd, "body", body.encode())
    client: SyncClient = make_client(url=odd, session=account.session())
    client.put("end_user", {"id": "a", "name": "kept"})
    calls = [client.pull] if body.startswith('{"success": true, "data": [') else [client.push]
    calls = [client.pull, client.push] if len(body) < 50 else calls
    for call in [*calls, lambda: client.login("a@example.com", "password")]:
        with pytest.raises(SyncError):
            call()
    assert client.status().waiting == 1 and client.status().cursor is None and client.refusals() == []
