"""The kit's README says truly which scenario is played with which client, and when."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from tests.clients.test_js_handlers import DRIVERS, MORE_DRIVERS
from tests.conftest import ROOT
from tests.kit.scenarios import SCENARIOS

KIT = ROOT / "clients" / "js" / "kit"
LIBRARIES = ("indexeddb", "dexie", "rxdb", "watermelondb", "tanstack-db")


def table() -> list[str]:
    """Write the table as it must be."""
    head = ["| scenario | python | " + " | ".join(LIBRARIES) + " |", "|---" * (len(LIBRARIES) + 2) + "|"]
    rows = [[name, cell_of_python(), *(cell(library, name) for library in LIBRARIES)] for name in SCENARIOS]
    return head + [f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows]


def cell_of_python() -> str:
    """Every scenario is a test of the Python client's own."""
    tests = (ROOT / "clients" / "python" / "tests" / "test_kit.py").read_text()
    assert '@pytest.mark.parametrize("name", SCENARIOS)' in tests
    return "P"


def cell(library: str, name: str) -> str:
    """Tell where a scenario is played with a library: a capital for ``make test``, a small letter for JS_KIT=all."""
    found = ""
    for host in ("node", "chromium"):
        driver = f"{host} {library}"
        if driver in DRIVERS | MORE_DRIVERS and can_play(features_of(host, library), SCENARIOS[name]):
            is_always = name in DRIVERS.get(driver, "").split(",")
            found += host[0].upper() if is_always else host[0]
    return found or "-"


def features_of(host: str, library: str) -> set[str]:
    """Read what a driver can do, as it says it itself."""
    said = re.search(r"export const features = \[(.*)\]", (KIT / "devices" / f"{library}.mjs").read_text())
    persists = re.search(r"PERSISTS = new Set\(\[(.*)\]\)", (KIT / "chromium.mjs").read_text())
    assert said and persists
    more = {"persists"} if host == "chromium" and f'"{library}"' in persists[1] else set()
    return set(re.findall(r'"(\w+)"', said[1])) | more


source_of = cache(inspect.getsource)


def can_play(features: set[str], scenario: Callable[[Any], None]) -> bool:
    """Tell whether a scenario is not left out."""
    source = source_of(scenario)
    needed = set(re.findall(r'kit\.needs\("(\w+)"\)', source))
    return needed <= features and ("kit.second(" not in source or bool({"processes", "instances"} & features))


def test_table_of_scenarios_and_clients_is_true() -> None:
    readme = (ROOT / "tests" / "kit" / "README.md").read_text().splitlines()
    start = readme.index(table()[0])
    assert readme[start : start + len(table())] == table(), "\n".join(table())


def test_every_driver_has_a_library_of_the_table() -> None:
    assert {driver.split()[1] for driver in DRIVERS | MORE_DRIVERS} == set(LIBRARIES)
    assert {path.stem for path in (KIT / "devices").glob("*.mjs")} - {"device", "replica"} == set(LIBRARIES)
