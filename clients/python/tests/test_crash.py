"""The client is killed before any of its SQL statements: what was kept is there, and in the end all is equal.

A forked child writes and exchanges; SQLite tells it of each statement before it runs, and before the n-th it ends itself
with SIGKILL. By default some n are tried, ``CRASH_POINTS=all`` tries every one. Between two statements the network is
used too, so that this covers answers that were heard by nobody.

Seen to fail on three faults in a copy of the client, each with every point tried: a row laid over in another transaction
than its edit is queued (before statement 29), an edit out of the outbox in another than its answer is stored (100), a
cursor stored in another than its page (58).
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kit.truth import Account, differences, register

from syncclient import SyncClient, places, replica

_SOME = 10

pytestmark = pytest.mark.timeout(1200)


def session(path: Path, account: Account, tokens: tuple[str, str], kept: Callable[[str], None]) -> None:
    """Do all that a client does; ``kept`` is told each value when it is said to be kept."""
    with SyncClient(path, account.url, page_rows=2) as client:
        client.adopt(*tokens)
        for number in range(3):
            client.put("end_user", {"id": f"mine-{number}", "name": f"first {number}"})
            kept(f"first {number}")
        client.sync()
        client.put("end_user", {"id": "theirs-1", "name": "changed here"})
        kept("changed here")
        account.put("end_user", {"id": "theirs-1", "name": "changed there"})
        client.put("end_user", {"id": "theirs-1", "phone": "and again here"})
        kept("and again here")
        client.delete("end_user", "mine-2")
        client.sync()
        with client._replica.transaction() as connection:
            places.move(
                connection, places.wanted(connection), "000000000000-1"
            )  # Of another database, as after a restore.
        client.put("end_user", {"id": "mine-1", "note": "typed before starting anew"})
        kept("typed before starting anew")
        client.sync()


def run_until(point: int, path: Path, account: Account, tokens: tuple[str, str]) -> tuple[bool, list[str]]:
    """Run the session in a child that dies before its n-th statement; give whether it died, and what it said was kept."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _die_before(point)
            session(path, account, tokens, lambda value: _say(writing, value))
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        kept = told.read().splitlines()
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with {status}"
    return status != 0, kept


def _say(writing: int, value: str) -> None:
    os.write(writing, f"{value}\n".encode())


def _die_before(point: int) -> None:
    """Count the statements on the replica from now on, and end this process before the n-th."""
    left, opening = [point], replica._open

    def count(_: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def open_counted(path: Path) -> sqlite3.Connection:
        connection = opening(path)
        connection.set_trace_callback(count)
        return connection

    replica._open = open_counted


def check(path: Path, account: Account, tokens: tuple[str, str], kept: list[str]) -> None:
    """Open the replica that a killed client left, sync, and hold it against what was said and against the server."""
    with SyncClient(path, account.url, email=account.email, password=account.password) as client:
        if not client.status().is_logged_in:
            client.adopt(*tokens)
        client._pulling._is_verified = True  # What a crash broke must not need the digest to be found.
        client.sync()
        rows, digests = account.rows()
        held = {table: client.rows(table) for table in digests}
        assert differences(rows, digests, held, account.typed) == []
        assert client.status().waiting == 0 and client.refusals() == []
    missing = account.missing()
    assert missing == []
    known = {value for one in account.typed for value in [one.value]}
    assert set(kept) <= known | _everything(account)


def _everything(account: Account) -> set[str]:
    """Collect every value that the server has or ever had."""
    found: set[str] = set()
    for (table, row_id), row in account.rows()[0].items():
        found |= {
            value for one in [row, *account._history(table, row_id)] for value in one.values() if type(value) is str
        }
    for table, row_id in (("end_user", f"mine-{number}") for number in range(3)):
        found |= {value for one in account._history(table, row_id) for value in one.values() if type(value) is str}
    return found | {str(one.value) for one in account._losses()}


def statements(tmp_path: Path, url: str) -> int:
    """Count the statements of a whole session."""
    low, high = 1, 4096
    account = register(url)
    while low < high:  # A child that dies at n has at least n of them.
        middle = (low + high) // 2
        died, _ = run_until(middle, tmp_path / f"count-{middle}.db", account, account.session())
        low, high = (middle + 1, high) if died else (low, middle)
    return low


def test_client_killed_before_any_statement_keeps_what_it_said_and_ends_equal(tmp_path: Path, account: Account) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**9)))
    count = statements(tmp_path, account.url)
    points = list(range(1, count + 1))
    if os.environ.get("CRASH_POINTS") != "all":
        points = sorted(random.Random(seed).sample(points, _SOME))
    print("SEED", seed, "of", count, "statements", points)
    for point in points:
        own = register(account.url)
        own.put("end_user", *({"id": f"theirs-{number}", "name": f"there {number}"} for number in range(5)))
        tokens = own.session()
        _, kept = run_until(point, tmp_path / f"{point}.db", own, tokens)
        try:
            check(tmp_path / f"{point}.db", own, tokens, kept)
        except AssertionError as error:
            raise AssertionError(f"killed before statement {point}: {error}") from error
