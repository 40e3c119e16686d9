"""What the server holds of a tenant of older apps, as these show it, and whether that is all that was typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.conftest import JSON, Tenant
from tests.old_apps import COLUMNS, Habits, OldApp, Typed, columns, readable

PLAIN = Habits()
EACH_WITH_ITS_HABITS = {
    "a row a request": PLAIN,
    "a row a request, counts versions": Habits(version="counted", ahead_minutes=-7),
    "all at once": Habits(form="B", objects=True, ahead_minutes=-180),
    "all at once, counts and adopts": Habits(form="B", version="counted", adopts=True, objects=True, ahead_minutes=330),
}
FAULTS = ("answer_dropped", "answer_cut", "refused", "unavailable", "bad_gateway")
all_habits = pytest.mark.parametrize("habits", EACH_WITH_ITS_HABITS.values(), ids=EACH_WITH_ITS_HABITS)


@dataclass
class Truth:
    """What the server holds of a tenant: rows with tombstones, their histories, the log of conflicts."""

    tenant: Tenant

    def rows(self, table: str) -> list[JSON]:
        """Give every row, tombstones too: a time in the future gives all."""
        found: list[JSON] = self.tenant.device().pull({"table": table, "lastSync": "2999-01-01T00:00:00"})["data"][
            table
        ]
        return found

    def shown(self, table: str = "end_user") -> dict[str, JSON]:
        """Give the rows as an old app shows them."""
        rows = [row for row in self.rows(table) if not row["is_deleted"]]
        return {key_of(row): seen(table, row) for row in rows}

    def get(self, path: str) -> JSON:
        answer: JSON = self.tenant.server.call("GET", f"/api/client/sync/{path}", token=self.tenant.token).json()
        return answer

    def conflicts(self, state: str = "open") -> list[JSON]:
        """Give the conflicts that were told, or with those that were only kept ``all``."""
        found: list[JSON] = []
        while some := self.get(f"conflicts?state={state}&limit=500&after={found[-1]['conflictId'] if found else 0}"):
            found += some["data"]
            if not some["hasMore"]:
                break
        return found

    def missing(self, typed: set[Typed]) -> list[Typed]:
        """List what was typed and is nowhere."""
        held: set[Typed] = set()
        for table in COLUMNS:
            for row in self.rows(table):
                past = self.get(f"history/{table}/{row['id']}?limit=500")["data"] if row["version"] > 1 else []
                for one in [row, *(entry["row"] for entry in past)]:
                    held |= {Typed(table, key_of(row), *item) for item in values_of(one)}
        for one in self.conflicts("all"):
            (row,) = [row for row in self.rows(one["table"]) if row["id"] == one["id"]]
            for side in ("client", "server"):
                lost = {name: sides[side] for name, sides in one["fields"].items()}
                held |= {Typed(one["table"], key_of(row), *item) for item in values_of(lost)}
        return sorted(typed - held)


def key_of(row: JSON) -> str:
    return str(row.get("Unique_id") or row["id"])


def values_of(row: JSON) -> list[tuple[str, str]]:
    return [(name, json.dumps(value)) for name, value in readable(numbers(row)).items()]


def numbers(row: JSON) -> JSON:
    """Give a row with numbers where the app keeps numbers and the server digits, or true and false as they were sent."""
    row = {name: int(value) if isinstance(value, bool) else value for name, value in row.items()}
    digits = {name: row.get(name) for name in ("phone", "client_user_id")}
    return row | {name: int(value) for name, value in digits.items() if isinstance(value, str) and value.isdigit()}


def seen(table: str, row: JSON) -> JSON:
    """Give what an old app shows of a row of the server's."""
    told = readable(numbers(row))
    return {name: told.get(name) for name in columns(table)}


def settle(apps: list[OldApp], *more: Callable[[], object]) -> None:
    """Let every device sync until all had the chance to fetch what the others sent."""
    for _ in range(3):
        for app in apps:
            assert app.sync(), "an app can't sync over a good network"
        for sync in more:
            sync()


def check(tenant: Tenant, apps: list[OldApp]) -> None:
    """Hold that all apps show what the server holds, and that nothing typed is missing."""
    truth = Truth(tenant)
    for app in apps:
        assert app.pending() == []
        for table in COLUMNS:
            assert app.shown(table) == truth.shown(table), app.habits
    assert truth.missing(set().union(*(app.typed for app in apps))) == []
