"""kill -9 at random moments under load: what was answered is there, what was not is there whole or not at all.

CI runs a few rounds; ``make crash ROUNDS=100`` runs many. The seed is printed; SEED=… runs the same kill moments again.
Seen to fail on two faults: answers given before COMMIT (``an answered push is not all there``, in round 1), and a commit
between the tables of one push (a table's digest did not fit its rows, in round 1).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import requests

from tests.conftest import JSON, Device, Server, Tenant

ROUNDS = int(os.environ.get("ROUNDS", "6"))
TABLES = ("end_user", "interactions")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + ROUNDS * 20)]


@dataclass
class Load:
    """A device that pushes batches until the server is gone, and keeps a replica by its cursor."""

    name: str
    device: Device
    rng: random.Random
    number: int = 0
    answered: dict[str, int] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    replica: dict[tuple[str, str], JSON] = field(default_factory=dict)

    def run(self) -> None:
        try:
            while True:
                self.push()
                if self.rng.random() < 0.3:
                    self.pull()
        except requests.RequestException:
            return

    def push(self) -> None:
        self.number += 1
        batch, size = f"{self.name}-{self.number}", self.rng.randrange(1, 8)
        rows = [{"id": f"{batch}-{index}", "batch": batch, "size": size} for index in range(size)]
        shared = {"id": "shared", "note": batch}
        changes = {TABLES[0]: rows[: size // 2], TABLES[1]: [*rows[size // 2 :], shared]}
        answer = self.device.push({"changes": changes})
        self.answered[batch] = size
        self.spans.append((sequence(answer["previousCursor"]), sequence(answer["cursor"])))

    def pull(self) -> None:
        while True:
            page = self.device.pull({"cursor": self.device.cursor, "limit": self.rng.randrange(1, 200)})
            self.replica |= {(table, row["id"]): row for table, rows in page["data"].items() for row in rows}
            self.device.cursor = page["cursor"]
            if not page["hasMore"]:
                return


def sequence(cursor: str) -> int:
    return int(cursor.split("-")[1])


def check(tenant: Tenant, loads: list[Load]) -> None:
    """Hold a tenant against what its devices were told."""
    page = tenant.device().pull({"cursor": None, "limit": 10_000, "digest": True})
    assert not page["hasMore"]
    rows = {(table, row["id"]): row for table in TABLES for row in page["data"][table]}
    there = Counter(row["batch"] for row in rows.values() if "batch" in row)
    sizes = {row["batch"]: row["size"] for row in rows.values() if "batch" in row}
    answered = {batch: size for load in loads for batch, size in load.answered.items()}
    assert {batch: there[batch] for batch in answered} == answered, "an answered push is not all there"
    assert there == sizes, "a push that was not answered is half there"
    spans = sorted(span for load in loads for span in load.spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans)), "a sequence was used twice"
    for load in loads:
        load.pull()
        assert load.replica == rows, f"{load.name} has not converged"
    for table in TABLES:
        assert page["digest"][table] == digest_of([row for key, row in rows.items() if key[0] == table])


def digest_of(rows: list[JSON]) -> JSON:
    whole = 0
    for row in rows:
        whole ^= int.from_bytes(hashlib.sha256(f"{row['id']}:{row['version']}".encode()).digest()[:8], "big")
    return {"count": len(rows), "hash": f"{whole:016x}"}


def test_server_killed_at_random_moments_loses_nothing_it_answered(start_server: Callable[..., Server]) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**9)))
    print("SEED", seed)
    rng = random.Random(seed)
    server = start_server(MAX_PULL_ROWS="10000")
    pushes = 0
    for round_ in range(ROUNDS):
        tenants = [server.register() for _ in range(2)]
        loads = {tenant.id: [Load(f"{round_}.{n}", tenant.device(), rng) for n in range(2)] for tenant in tenants}
        threads = [threading.Thread(target=load.run) for group in loads.values() for load in group]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.02, 0.8))
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
        for tenant in tenants:
            check(tenant, loads[tenant.id])
        pushes += sum(len(load.answered) for group in loads.values() for load in group)
    print("rounds", ROUNDS, "answered pushes", pushes)
