"""The JavaScript client with the libraries that people use, in Node and in Chromium, against a real server.

The scenarios are those of ``kit``, which every client is held to; the client's own tests (``clients/js/tests``) hold the
core to the wire contract. ``JS_KIT=all`` runs every scenario with every library, both in Node and in Chromium: 15 minutes.

First seen to fail, each on a fault put into the client:

- ``client_killed``: edit and outbox in two transactions; and the cursor kept before the rows of its page.
- ``two_instances``: syncs of two tabs without the lock, with an outbox read before the other tab sent it.
- ``answer_lost``: an edit that leaves the outbox before its push is answered.
- ``delete_against_edit`` (WatermelonDB): deletions handed to ``synchronize``, which takes away records with edits.
- ``purged_past_a_device``: a resync that forgets rows with edits that wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Server, needs

CLIENT = ROOT / "clients" / "js"
ALL = os.environ.get("JS_KIT") == "all"
SHORT = "edits_on_both_sides,conflict,delete_against_edit,answer_lost,restore_from_older_backup,ten_thousand_rows"
NODE = {
    "indexeddb": SHORT,
    "dexie": SHORT,
    "tanstack-db": SHORT,
    "watermelondb": f"{SHORT},server_killed_mid_sync",
    "rxdb": f"{SHORT},token_expired",
}
CHROMIUM = {
    "indexeddb": "two_instances,client_killed,live_edits",
    "dexie": "two_instances,purged_past_a_device",
    "rxdb": "client_killed",
}

pytestmark = [
    pytest.mark.slow,
    needs("node"),
    pytest.mark.skipif(not (CLIENT / "node_modules").is_dir(), reason="needs clients/js/node_modules: make clients/js/node_modules"),
]


def play(driver: str, scenarios: str, tmp_path: Path) -> None:
    """Run scenarios of the suite against a driver, and show what it says if one fails."""
    command = [sys.executable, "-m", "kit", "--driver", driver, *([] if ALL else ["--only", scenarios])]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 passed" not in done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("library", NODE)
def test_library_in_node_equals_the_server_and_loses_nothing(library: str, tmp_path: Path) -> None:
    play(f"node {CLIENT}/kit/node.mjs {library}", NODE[library], tmp_path)


@needs("chromium")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("library", CHROMIUM)
def test_library_in_chromium_survives_kills_and_a_second_tab(library: str, tmp_path: Path) -> None:
    play(f"node {CLIENT}/kit/chromium.mjs {library}", CHROMIUM[library], tmp_path)


def test_core_keeps_to_the_wire_contract(start_server: Callable[..., Server]) -> None:
    environ = {**os.environ, "SYNCAPP_URL": start_server().url}
    command = ["node", "--test", *map(str, sorted((CLIENT / "tests").glob("*.test.mjs")))]
    done = subprocess.run(command, cwd=CLIENT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_client_has_no_type_errors() -> None:
    done = subprocess.run(["node_modules/.bin/tsc", "-p", "."], cwd=CLIENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
