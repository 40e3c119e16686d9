"""A rewind is the same with every engine; ``tests/storage/test_time_machine.py`` tries more histories with one of them."""

from __future__ import annotations

import random
from collections.abc import Callable

from storage.engine import Engine
from tenants import Tenants
from tests.storage.test_time_machine import Past, check, shown, some_operations


def test_every_moment_comes_back_as_it_was(engine: Engine, new_id: Callable[[], str]) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng, tenants = random.Random(seed), Tenants(engine)
    past = Past(tenants, new_id())
    for _ in range(4):
        past.push(*some_operations(rng))
    for moment in [*past.states]:
        check(past, moment, rng)


def test_purge_leaves_what_was_within_the_retention(engine: Engine, new_id: Callable[[], str]) -> None:
    rng, past = random.Random(7), Past(Tenants(engine), new_id())
    for _ in range(6):
        past.push(*some_operations(rng))
        past.now += 4 * 86_400_000
    until, states = past.purge(), dict(past.states)
    for moment in range(until, past.here + 1):
        past.rewind(moment)
        assert shown(past.live()) == shown(states[moment])
