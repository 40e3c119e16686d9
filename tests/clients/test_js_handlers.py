"""The JavaScript client with the libraries that people use, in Node and in Chromium, against a real server.

The scenarios are those of ``kit``, which every client is held to; the client's own tests (``test_js_own_tests``) hold the
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
import random
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import ROOT, needs, needs_js_client
from tests.kit.scenarios import SCENARIOS
from tests.kit.suite import Kit, LeftOut

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
PLAYS = [(driver, name) for driver, names in DRIVERS.items() for name in (SCENARIOS if ALL else names.split(","))]
SEED = int(os.environ.get("SEED", random.randrange(10**9)))

pytestmark = [pytest.mark.slow, needs("chromium"), *needs_js_client]


@pytest.fixture(scope="module")
def kit_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Kit]]:
    """Give the suite with a driver, on a server of its own, until another one is asked for."""
    running: dict[str, Kit] = {}

    def kit_of(driver: str) -> Kit:
        if driver not in running:
            end()
            host, library = driver.split()
            command = ["node", str(CLIENT / "kit" / f"{host}.mjs"), library]
            running[driver] = Kit(command, tmp_path_factory.mktemp("kit"), random.Random(SEED))
        return running[driver]

    def end() -> None:
        while running:
            running.popitem()[1].close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORIES", os.environ.get("STORIES", "1"))
        yield kit_of
        end()


@pytest.mark.parametrize(("driver", "name"), PLAYS)
def test_library_equals_the_server_and_loses_nothing(kit_of: Callable[[str], Kit], driver: str, name: str) -> None:
    print(f"SEED={SEED}")
    kit = kit_of(driver)
    kit.rng = random.Random(f"{SEED} {name}")
    try:
        kit.run(SCENARIOS[name])
    except LeftOut as why:
        if not ALL:
            raise
        pytest.skip(str(why))
