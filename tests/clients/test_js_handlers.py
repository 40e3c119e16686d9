"""The JavaScript client with the libraries that people use, in Node and in Chromium, against a real server.

The scenarios are those of ``kit``, which every client is held to; the client's own tests (``clients/js/tests``) hold the
core to the wire contract. ``JS_KIT=all`` runs every scenario with every library, both in Node and in Chromium: 15 minutes.

First seen to fail, each on a fault put into the client:

- ``answer_lost``: an edit that leaves the outbox before its push is answered.
- ``client_killed``: an edit whose outbox entry is written after it, in another transaction.
- ``restore_from_older_backup``: a resync that drops the outbox.
- ``delete_against_edit`` (WatermelonDB): deletions handed to ``synchronize``, which takes away records with edits.
- ``conflict`` (WatermelonDB): a cursor that advances also when something was pushed.

The faults that the client's own tests were seen to find stand in their files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server, needs, needs_js_client

CLIENT = ROOT / "clients" / "js"
ALL = os.environ.get("JS_KIT") == "all"
SHORT = "conflict,delete_against_edit,answer_lost,restore_from_older_backup"
REPLICA = "edits_around_a_restore,account_change,new_table,refused_create,id_taken,clock_off"
DRIVERS = {
    "node indexeddb": f"{SHORT},{REPLICA},ten_thousand_rows,purged_past_a_device,random_interleavings",
    "node dexie": f"{REPLICA},edits_on_both_sides,offline_for_long",
    "node tanstack-db": REPLICA,
    "node watermelondb": f"{SHORT},{REPLICA},ten_thousand_rows,server_killed_mid_sync",
    "node rxdb": SHORT,
    "chromium indexeddb": "client_killed",
    "chromium rxdb": "edits_on_both_sides",
}
"""Driver and library to the scenarios that `make test` plays; with JS_KIT=all each plays every one, and so do these:"""
MORE_DRIVERS = {"chromium dexie": "", "chromium tanstack-db": "", "chromium watermelondb": ""}
if ALL:
    DRIVERS |= MORE_DRIVERS

pytestmark = [pytest.mark.slow, *needs_js_client]


Play = Future[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def plays(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Play]]:
    """Play all drivers' scenarios and the client's own tests, two at a time: much of them is waiting."""
    with ThreadPoolExecutor(2) as pool:
        own = {"own tests": pool.submit(play_own, server.url)}
        yield own | {driver: pool.submit(play, driver, tmp_path_factory.mktemp("kit")) for driver in DRIVERS}


def play_own(url: str) -> subprocess.CompletedProcess[str]:
    """Run the client's own tests against a server."""
    command = ["node", "--test", "--test-force-exit", *map(str, sorted((CLIENT / "tests").glob("*.test.mjs")))]
    environ = {**os.environ, "SYNCAPP_URL": url}
    return subprocess.run(command, cwd=CLIENT, env=environ, capture_output=True, text=True, check=False)


def play(driver: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run scenarios of the suite against a driver."""
    host, library = driver.split()
    command = [sys.executable, "-m", "tests.kit", "--driver", f"node {CLIENT}/kit/{host}.mjs {library}"]
    command += [] if ALL else ["--only", DRIVERS[driver]]
    environ = {"STORIES": "1", **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)


@needs("chromium")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("driver", DRIVERS)
def test_library_equals_the_server_and_loses_nothing(driver: str, plays: dict[str, Play]) -> None:
    done = plays[driver].result()
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 0, done.stdout


@pytest.mark.timeout(600)
def test_client_keeps_to_the_wire_contract_and_to_the_libraries(plays: dict[str, Play]) -> None:
    done = plays["own tests"].result()
    assert done.returncode == 0, done.stdout + done.stderr


def test_client_has_no_type_errors() -> None:
    done = subprocess.run(["node_modules/.bin/tsc", "-p", "."], cwd=CLIENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
