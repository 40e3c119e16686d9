"""Edits of rows that only their own device has changed since it pulled: others may have pushed meanwhile.

Devices here count versions by themselves. Such edits take the fast path, and the general path makes the same of them.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import synced_tables
from protocol.codec import decode_push
from protocol.row_decoder import RowDecoder
from storage import positions, push_batch, push_writer
from storage.pull_reader import Page
from storage.seen_rows import Evidences
from tenants import Tenants
from tests import inside
from tests.conftest import JSON
from tests.storage.test_push_fast_path import meant, stored

NOW = 1_800_000_000_000
TIMES = [f"2026-01-0{day}T00:00:00.000Z" for day in range(1, 8)]


class Phones:
    """Phones of one tenant, each with a session or a name, and what the server knows of them."""

    def __init__(self, tenants: Tenants, tenant_id: str) -> None:
        self.tenants, self.tenant_id, self.evidences = tenants, tenant_id, Evidences()
        self.now = itertools.count(NOW)

    def find(self, phone: str) -> tuple[str | None, Any]:
        name = phone if phone.startswith("named") else None
        return name, self.evidences.find(self.tenant_id, name, f"{phone:0<36}", self.tenants.read)

    def push(self, phone: str, *rows: JSON) -> Any:
        """Push rows as the server does, and give what became of them."""
        name, evidence = self.find(phone)
        body = decode_push(json.dumps({"changes": {"end_user": rows}, "atomic": False}).encode())
        applied = inside.push(self.tenants, self.tenant_id, body, next(self.now), device_id=name, evidence=evidence)
        self.evidences.pushed(self.tenant_id, evidence, applied)
        return applied

    def pull(self, phone: str, is_from_start: bool = False) -> None:
        """Pull all there is, saying that it has what it was sent before, or nothing."""
        _, evidence = self.find(phone)
        here = self.tenants.read(self.tenant_id, positions.position)
        starts = {name: 0 if is_from_start else evidence.sent.get(name, 0) for name in synced_tables()}
        page = Page(starts, here.sequence, 0, here.cursor, "", False, here.epoch, claimed=max(starts.values()))
        self.evidences.pulled(self.tenant_id, evidence, page, NOW)


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each chunk had that took the general path."""
    counts: list[int] = []
    take = push_writer._GeneralPath.take

    def counting(self: Any, some: Any, *about: Any) -> None:
        counts.append(len(some))
        take(self, some, *about)

    monkeypatch.setattr(push_writer._GeneralPath, "take", counting)
    return counts


@pytest.fixture
def phones(tenants: Tenants, new_tenant: Callable[[], str]) -> Phones:
    return Phones(tenants, new_tenant())


def rows(version: int, count: int = 3) -> list[JSON]:
    """Rows that an app has edited until they were of a version, by its own count; each time a day later."""
    made: list[JSON] = []
    for number in range(count):
        row: JSON = {"id": f"r{number}", "version": version, "note": f"v{version}"}
        made.append(row | {"last_updated": TIMES[version]})
    return made


@pytest.mark.parametrize("phone", ["one", "named"])
def test_rows_that_nobody_else_edited_take_the_fast_path_though_others_have_pushed(
    phones: Phones, general: list[int], phone: str
) -> None:
    """Fault: ``own`` not kept: all edits from the second on took the general path, which walked their history back."""
    phones.push(phone, *rows(1))
    for version in range(2, 6):
        phones.push("other", {"id": f"theirs-{version}"})
        applied = phones.push(phone, *rows(version))
        assert [result["status"] for result in applied.results] == ["updated"] * 3
    assert general == []


def test_earlier_edit_that_is_sent_again_does_not_replace_a_later_one(phones: Phones) -> None:
    """Fault: its time not compared with that of the row, since its version was counted on: the later note was lost."""
    first, second = ({"id": "r0", "note": f"v{day}", "last_updated": TIMES[day]} for day in (2, 3))
    phones.push("one", {"id": "r0", "version": 1})
    phones.push("other", {"id": "theirs"})
    for version, row in enumerate((first, second, first), 2):
        applied = phones.push("one", row | {"version": version + 3})
    assert json.loads(applied.rows[0])["note"] == "v3"


def test_own_edit_of_a_row_that_another_edited_in_between_is_a_conflict(phones: Phones) -> None:
    """Fault: any push of its own taken for one that had seen all, also the one that overwrote the other's edit."""
    phones.push("one", *rows(1))
    phones.pull("two")
    phones.pull("two")
    phones.push("two", {"id": "r0", "note": "theirs", "version": 2, "last_updated": TIMES[4]})
    phones.push("one", {"id": "r0", "name": "n", "last_updated": TIMES[5]})  # Says nothing of what it knew.
    applied = phones.push("one", {"id": "r0", "note": "mine", "version": 9, "last_updated": TIMES[6]})
    assert [result["status"] for result in applied.results] == ["conflict"]


def test_phone_that_begins_anew_has_not_seen_what_it_made_before(phones: Phones, general: list[int]) -> None:
    phones.push("one", *rows(1))
    for _ in range(2):
        phones.pull("one")
    phones.push("other", {"id": "theirs"})
    phones.push("one", *rows(2))
    phones.pull("one", is_from_start=True)
    phones.push("one", *rows(3))
    assert general == [3]


NAMES = ["one", "two", "named"]
ROW = st.fixed_dictionaries(
    {"id": st.sampled_from("abc")},
    optional={
        "version": st.integers(1, 6),
        "note": st.sampled_from("xyz"),
        "name": st.sampled_from("xyz"),
        "last_updated": st.sampled_from(TIMES),
        "device_id": st.sampled_from(["d1", "d1", "d2", None]),
        "is_deleted": st.sampled_from([0, 0, 0, 1]),
    },
)
COUNTED = st.tuples(st.sampled_from(NAMES), st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 5))
"""A phone's edit of a row, of which it counts the version on from what it last pushed of it."""
STEPS = st.lists(
    COUNTED
    | st.tuples(st.sampled_from(NAMES), st.lists(ROW, min_size=1, max_size=3, unique_by=lambda row: row["id"]))
    | st.tuples(st.sampled_from(NAMES), st.booleans()),
    min_size=3,
    max_size=14,
)


def play(phones: Phones, steps: list[Any]) -> Any:
    """Give all that is left and answered: of pushes of given rows, of counted edits, and of pulls."""
    answers, versions, numbers = [], Counter[tuple[str, str]](), itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push_batch, "new_ids", lambda *_: (f"new-{number}" for number in numbers))
        for number, (phone, *what) in enumerate(steps):
            if isinstance(what[0], bool):
                phones.pull(phone, *what)
                continue
            rows = what[0]
            if isinstance(rows, str):
                row_id, note, count = what
                versions[phone, row_id] += count
                time = f"2026-02-{1 + number:02d}T00:00:00.000Z"
                rows = [{"id": row_id, "note": note, "version": versions[phone, row_id], "last_updated": time}]
            applied = phones.push(phone, *rows)
            answers.append((meant(applied.rows), applied.results, applied.conflicts, meant(applied.touched)))
    return answers, phones.tenants.read(phones.tenant_id, stored)


@pytest.mark.slow
@given(STEPS)
def test_fast_path_and_general_path_make_the_same_of_own_edits(
    tenants: Tenants, new_tenant: Callable[[], str], steps: list[Any]
) -> None:
    """Faults: an edit of which nothing is known taken for one that had seen all; an earlier edit that is sent again."""
    fast = play(Phones(tenants, new_tenant()), steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowDecoder, "decode", lambda *_: None)
        assert fast == play(Phones(tenants, new_tenant()), steps)
