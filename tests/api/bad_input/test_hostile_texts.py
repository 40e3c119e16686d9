"""Texts that mean something to SQL, HTML, paths or logs, in ids and in every field: refused, or kept exactly."""

from __future__ import annotations

import re
from typing import Any

import pytest

from models import synced_tables
from tests import postgres
from tests.api.bad_input.hostile import CUSTOMERS, HOSTILE_TEXTS
from tests.conftest import JSON, Device, Tenant
from tests.refusals import (
    dump_of,
    nothing_changes,
    paths,
    refused,
)

STORED_TEXTS = [text for text in HOSTILE_TEXTS if "\0" not in text]
ILL_FORMED_IDS = [text for text in HOSTILE_TEXTS if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text)]


@pytest.mark.parametrize("row_id", [*ILL_FORMED_IDS, "x" * 65, "x" * 10_000, "a b", "é", True, False, [], {}, ["a"]])
def test_ill_formed_id_is_refused(device: Device, row_id: Any) -> None:
    with nothing_changes(device.tenant):
        for operation in ("create", "update", "delete"):
            body = {"table": "end_user", "operation": operation, "data": {"id": row_id, "name": "A"}}
            assert paths(refused(device.push_raw(body), 400, "validation_error")) == ["data.id"]


@pytest.mark.parametrize("row_id", ["", None, 0, 17, -1, 1.5, 10**40])
def test_local_id_is_replaced_by_one_of_the_server(device: Device, row_id: Any) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", device.create(id=row_id)["id"])


@pytest.mark.parametrize("row_id", [".", "..", "a" * 64, "-", "A:b.c_d-9", "NULL", "0"])
def test_odd_but_well_formed_id_is_kept(device: Device, row_id: str) -> None:
    assert device.create(id=row_id)["id"] == row_id
    assert row_id in {row["id"] for row in device.rows()}


def test_hostile_unique_ids_are_told_apart_and_found_again(tenant: Tenant) -> None:
    device, texts = tenant.device(), [*STORED_TEXTS, "a", "A", "u" * 255]
    rows = [{"Unique_id": text, "name": text} for text in texts]
    first = device.push({"changes": {"end_user": rows}})
    again = device.push({"changes": {"end_user": rows}})
    assert {result["status"] for result in first["results"]} == {"created"}
    assert {result["status"] for result in again["results"]} == {"unchanged"}
    assert [row["Unique_id"] for row in device.rows()] == [row["Unique_id"] for row in again["data"]] == texts


def test_unique_id_of_256_characters_is_refused(device: Device) -> None:
    refused(device.push_raw({"changes": {"end_user": [{"Unique_id": "u" * 256}]}}), 400, "validation_error")


def test_hostile_texts_in_every_field_come_back_exactly_and_harm_nothing(tenant: Tenant) -> None:
    server, device = tenant.server, tenant.device()
    around, tables = sorted(server.data.parent.iterdir()), dump_of(tenant).keys()
    rows = []
    for index, text in enumerate([*STORED_TEXTS, "x" * 255]):
        columns = synced_tables()["end_user"].rules.columns.items()
        row: JSON = {name: text for name, column in columns if not isinstance(column.default, int)}
        nested = {text: [text, {text: text}]}
        row |= {"id": f"row-{index}", "phoneModel": nested, f"x{text}"[:64]: nested, "unknown": text}
        rows.append(row)
    answer = device.push({"changes": {"end_user": rows}})
    assert {result["status"] for result in answer["results"]} == {"created"}
    for stored in (answer["data"], device.rows(), device.catch_up()["end_user"]):
        assert [{name: row[name] for name in sent} for row, sent in zip(stored, rows, strict=True)] == rows
    assert sorted(server.data.parent.iterdir()) == around
    assert dump_of(tenant).keys() == tables
    if not postgres.IS_UNDER_TEST:
        assert all(
            re.fullmatch(r"tenant_[0-9a-f]{32}\.db(-wal|-shm)?", path.name) for path in tenant.path.parent.iterdir()
        )


def test_hostile_texts_in_a_profile_come_back_exactly(tenant: Tenant) -> None:
    for text in (text for text in HOSTILE_TEXTS if text.isprintable()):
        fields = dict.fromkeys(("firstName", "lastName", "companyName", "phone"), text)
        answer = tenant.server.call("PATCH", f"{CUSTOMERS}/me", fields, tenant.token).json()
        shown, stripped = answer["data"]["customer"], text.strip()
        assert (shown["name"], shown["companyName"], shown["phone"]) == (f"{stripped} {stripped}", stripped, stripped)


def test_field_named_like_a_column_of_the_server_changes_nothing_of_the_server(tenant: Tenant) -> None:
    device = tenant.device()
    names: JSON = {"_seq": 99, "_extra": {"a": 1}, "sequence": 7, "unknown_fields": 8, "rowid": 9, "oid": "x"}
    row = device.create(id="a", version=77, createdAt="1999", updatedAt="1999", sync_status="pending", **names)
    assert {name: row[name] for name in names} == names
    assert (row["version"], row["sync_status"]) == (1, "synced") and row["createdAt"] == row["updatedAt"] > "2020"
    assert device.rows() == [row]
