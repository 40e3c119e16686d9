"""Random stories of apps of the older API: who had not seen an edit does not overwrite it silently.

Four habits of ``version`` by three of ``lastSync``, over a network that loses and cuts answers. STORY_STEPS=150
STORY_SEEDS=4 tells 48 long ones; SEED=… tells the same again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.conftest import Tenant
from tests.kit.proxy import Proxy
from tests.old_apps import COLUMNS, Habits, OldApp, Typed, random_edit
from tests.old_truth import FAULTS, Truth, key_of, settle, values_of

STEPS = int(os.environ.get("STORY_STEPS", "40"))
SEEDS = int(os.environ.get("STORY_SEEDS", "1"))


def lost(tenant: Tenant, apps: list[OldApp]) -> list[Typed]:
    """List what was typed, is in no row and no conflict, and nobody who saw it typed over."""
    truth, held = Truth(tenant), set[Typed]()
    ids = {}
    for table in COLUMNS:
        for row in truth.rows(table):
            ids[table, row["id"]] = key_of(row)
            held |= {Typed(table, key_of(row), *item) for item in values_of(row)}
    for one in truth.conflicts("all"):
        for side in ("base", "client", "server"):
            values = {name: sides[side] for name, sides in one["fields"].items()}
            held |= {Typed(one["table"], ids[one["table"], one["id"]], *item) for item in values_of(values)}
    typed = set[Typed]().union(*(app.typed for app in apps))
    return sorted(typed - held - set[Typed]().union(*(app.replaced for app in apps)))


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(SEEDS))
@pytest.mark.parametrize("last_sync", ["clock", "pull", "push"])
@pytest.mark.parametrize("version", ["counted", "unchanged", "one", "none"])
def test_story_of_older_apps_ends_with_all_equal_and_nothing_lost_silently(
    tenant: Tenant,
    proxies: Callable[..., Proxy],
    version: str,
    last_sync: str,
    turn: int,
) -> None:
    """An app that sends no ``version`` is not checked, by contract: of what it overwrites, the history has it all."""
    seed = int(os.environ.get("SEED", random.randrange(10**9)))
    print(f"SEED={seed}")
    chance = random.Random(f"{seed} {version} {last_sync} {turn}")
    networks = [proxies() for _ in range(3)]
    apps = []
    for number, network in enumerate(networks):
        about = {
            "form": chance.choice("AB"),
            "adopts": chance.random() < 0.5,
            "objects": number == 0,
        }
        ahead = chance.choice((-180, -7, 0, 330)) if last_sync == "clock" else 0
        habits = Habits(version=version, last_sync=last_sync, ahead_minutes=ahead, **about)  # type: ignore[arg-type]
        apps.append(OldApp(tenant, habits, network.url, name=chance.choice((None, f"phone-{number}"))))
    for number in range(STEPS):
        app, network = chance.choice(list(zip(apps, networks, strict=True)))
        if chance.random() < 0.6:
            random_edit(app, chance, number)
        else:
            network.fail(chance.choice(("none", "none", *FAULTS)), "/sync/", chance.choice((1, 2)))
            app.sync()
            network.fail("none", "", 0)
    settle(apps)
    truth = Truth(tenant)
    for app in apps:
        for table in COLUMNS:
            assert app.shown(table) == truth.shown(table), app.habits
    assert truth.missing(set[Typed]().union(*(app.typed for app in apps))) == []
    assert version == "none" or lost(tenant, apps) == []
