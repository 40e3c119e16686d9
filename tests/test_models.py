"""A synced table is one model class, a column one field: everything else finds them; and nothing pushed is lost.

A model that a test adds lives in a server process of its own, since models are for the whole process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests import forking
from tests.conftest import JSON, Device, Listener, Server, Tenant, needs

VISIT = """
class Visit(SyncedRow):
    place = TextField(null=True)
    rating = IntegerField(null=True, default=3, choices=[(1, "bad"), (3, "fair"), (5, "good")])
    minutes = IntegerField(null=True)
    distance = FloatField(null=True, default=0.5)
    done = BooleanField(null=True, default=False)
    photos = JsonField(null=True, default=[])
"""
NEW_COLUMNS = """
for name, added in {
    "city": TextField(null=True, default="nowhere"),
    "points": IntegerField(null=True, default=7),
    "score": FloatField(null=True),
    "vip": BooleanField(null=True, default=True),
    "tags": JsonField(null=True, default=[]),
}.items():
    EndUser._meta.add_field(name, added)
"""
START = """
import syncapp
from peewee import BooleanField, CharField, DateTimeField, FloatField, IntegerField, TextField
from models import EndUser, JsonField, SyncedRow
{models}
syncapp.main()
"""
StartWith = Callable[..., Server]


@pytest.fixture
def start_with(tmp_path: Path) -> Iterator[StartWith]:
    """Start a server on the test's folder, with models of its own beside ours; one at a time."""
    servers: list[Server] = []

    def start(models: str = "") -> Server:
        if servers:
            assert servers[-1].stop() == 0
        server = Server(tmp_path / "data", command=[sys.executable, "-c", START.format(models=models)])
        servers.append(server.start())
        return server

    yield start
    for server in servers:
        if server.process and server.process.poll() is None:
            server.kill()


def moved(tenant: Tenant, to: Server) -> Device:
    """A device of a tenant whose server was started anew."""
    tenant.server = to
    return tenant.device()


def shell(path: Path, sql: str) -> list[str]:
    """Ask a file in the ``sqlite3`` shell."""
    command = ["sqlite3", "-readonly", str(path), sql]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()


# --- a new table -----------------------------------------------------------------------------------------------------


def test_new_table_is_one_class(start_with: StartWith) -> None:
    server = start_with(VISIT)
    tenant = server.register()
    device, listener = tenant.device(), tenant.device().listen()
    row = device.create("visit", id="v1", place="Pune", minutes=30, photos=["a.jpg"], extra={"x": 1})
    expected = {"place": "Pune", "rating": 3, "minutes": 30, "distance": 0.5, "done": 0, "photos": ["a.jpg"]}
    assert {name: row[name] for name in expected} == expected and row["extra"] == {"x": 1}
    assert device.rows("visit") == [row]
    assert device.pull({"cursor": None})["data"] == {"end_user": [], "interactions": [], "visit": [row]}
    note = listener.wait_note("data_available")
    assert (note["entityType"], note["entityId"], note["data"]) == ("visit", "v1", row)
    assert note["message"] == "New visit data available for sync"
    cleared = device.update("visit", id="v1", done=True, rating=5, distance=12, place=None, photos=None)
    assert [cleared[name] for name in ("done", "rating", "distance", "place")] == [1, 5, 12.0, None]
    device.delete("visit", id="v1")
    assert device.rows("visit") == []
    history = server.call("GET", "/api/client/sync/history/visit/v1", token=tenant.token).json()["data"]
    assert [entry["operation"] for entry in history] == ["delete", "update", "create"]
    listener.close()


@pytest.mark.parametrize("operations", ["create", "update"])
def test_values_of_a_new_table_are_checked_by_its_fields(start_with: StartWith, operations: str) -> None:
    device = start_with(VISIT).register().device()
    bad: list[JSON] = [
        {"place": ["Pune"]}, {"rating": 4}, {"rating": "good"}, {"rating": True}, {"rating": []}, {"minutes": 1.5},
        {"minutes": "30"}, {"minutes": 2**63}, {"minutes": 1e300}, {"minutes": True}, {"distance": "far"},
        {"distance": True}, {"distance": 10**400}, {"done": 2}, {"done": "yes"}, {"": 1},
    ]  # fmt: skip
    rows = [{"table": "visit", "operation": operations, "data": {"id": f"v{n}", **data}} for n, data in enumerate(bad)]
    answer = device.push({"operations": rows, "atomic": False})
    assert [result["status"] for result in answer["results"]] == ["rejected"] * len(bad)
    assert answer["results"][1]["error"].endswith("must be 1, 3 or 5")
    assert device.rows("visit") == []


@pytest.mark.slow
def test_existing_tenants_get_a_new_table_when_they_are_opened(start_with: StartWith) -> None:
    tenant = start_with().register()
    kept = tenant.device().create(id="a", name="A")
    cursor = tenant.device().pull({"cursor": None})["cursor"]
    device = moved(tenant, start_with(VISIT))
    row = device.create("visit", id="v1")
    assert (device.rows("visit"), device.rows()) == ([row], [kept])
    assert device.pull({"cursor": cursor})["data"] == {"end_user": [], "interactions": [], "visit": [row]}
    device = moved(tenant, start_with())
    assert device.rows() == [kept], "the older version must still read its tables"
    assert device.pull_raw({"table": "visit"}).status_code == 400
    again = moved(tenant, start_with(VISIT)).rows("visit")
    assert again == [row | {"version": 2, "updatedAt": again[0]["updatedAt"]}], "so that devices which passed it see it"


# --- a new column ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs("sqlite3")
def test_new_column_takes_over_what_rows_held_and_else_its_default(start_with: StartWith) -> None:
    """Fault: ``_add_column`` sets the default whatever a row holds: the values were gone."""
    tenant = start_with().register()
    held: JSON = {"city": "Pune", "points": 12, "score": 2.5, "vip": 0, "tags": ["x", {"y": None}]}
    tenant.device().create(id="held", **held, color="red")
    tenant.device().create(id="none", name="N")
    tenant.device().create(id="null", city=None, vip=None, tags=None)
    tenant.device().create(id="gone", city="Goa")
    tenant.device().delete(id="gone")
    before = tenant.device().pull({"cursor": None})
    device = moved(tenant, start_with(NEW_COLUMNS))
    rows = {row["id"]: row for row in device.rows()}
    assert {name: rows["held"][name] for name in held} == held and rows["held"]["color"] == "red"
    assert [rows["none"][name] for name in held] == ["nowhere", 7, None, 1, []]
    assert [rows["null"][name] for name in held] == [None, 7, None, None, None]
    told = {row["id"] for row in device.pull({"cursor": before["cursor"]})["data"]["end_user"]}
    assert told == {"none", "null"}, "a default is told to devices, a column alone is no change"
    assert shell(tenant.path, "SELECT city, points, score, vip, tags, _extra FROM end_user ORDER BY id") == [
        "Goa|7||1|[]|",
        'Pune|12|2.5|0|["x",{"y":null}]|{"color":"red"}',
        "nowhere|7||1|[]|",
        "|7||||",
    ]
    types = (
        "SELECT typeof(city), typeof(points), typeof(score), typeof(vip), typeof(tags) FROM end_user WHERE id = 'held'"
    )
    assert shell(tenant.path, types) == ["text|integer|real|integer|text"]
    assert device.push({"changes": {"end_user": [{"id": "held", **held}]}})["results"][0]["status"] == "unchanged"
    assert device.update(id="none", points=8)["points"] == 8
    assert device.push_raw({"changes": {"end_user": [{"id": "none", "points": "many"}]}}).status_code == 400


@pytest.mark.slow
def test_column_that_an_older_version_does_not_know_is_kept(start_with: StartWith) -> None:
    tenant = start_with(NEW_COLUMNS).register()
    tenant.device().create(id="a", city="Pune", tags=["x"])
    device = moved(tenant, start_with())
    assert device.rows()[0]["city"] == "Pune"
    device.update(id="a", name="A")
    row = moved(tenant, start_with(NEW_COLUMNS)).rows()[0]
    assert (row["city"], row["tags"], row["name"]) == ("Pune", ["x"], "A")


# --- unknown fields --------------------------------------------------------------------------------------------------

ODD: JSON = {
    "nested": {"a": [1, {"b": [None, True, False, []]}, {}], "ä😀": "\u2028\u0001\t"},
    "deep": [[[[[[[[[["x"]]]]]]]]]],
    "big": 123456789012345678901234567890,
    "negative": -(2**64),
    "float": 0.1,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "whole float": 2.0,
    "null": None,
    "text": "",
    "true": True,
    "_seq": 99,
    "_extra": {"x": 1},
    "name'; DROP TABLE end_user --": 1,
    'quo"te': "$.x",
    "😀": "é e\u0301",
    "is_Deleted": 1,
    "n" * 64: "longest",
}


def test_unknown_fields_are_kept_and_returned_exactly(tenant: Tenant, device: Device) -> None:
    """Fault: null values left out of the stored row: the field was gone."""
    device.create(id="a", **ODD)
    device.update(id="a", name="A")
    (row,) = device.rows()
    assert {name: row[name] for name in ODD} == ODD
    assert all(type(row[name]) is type(value) for name, value in ODD.items())
    assert device.push({"changes": {"end_user": [{"id": "a", **ODD}]}})["results"][0]["status"] == "unchanged"
    reply = requests.post(
        f"{tenant.server.url}/api/client/sync/push",
        data=b'{"changes":{"end_user":[{"id":"b","big":123456789012345678901234567890,"float":2.0}]}}',
        headers={"Authorization": f"Bearer {tenant.token}", "Content-Type": "application/json"},
        timeout=20,
    )
    assert b'"big":123456789012345678901234567890' in reply.content and b'"float":2.0' in reply.content


@pytest.mark.parametrize("name", ["", "n" * 65])
def test_field_without_a_proper_name_is_refused(device: Device, name: str) -> None:
    answer = device.push_raw({"changes": {"end_user": [{"id": "a", name: 1}]}})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert device.rows() == []


def test_json_columns_take_any_json(device: Device) -> None:
    for number, value in enumerate([{}, [], "text", 5, 0.5, True, False, [None], ODD]):
        assert device.create(id=f"r{number}", phoneModel=value)["phoneModel"] == value
        assert device.rows()[-1]["phoneModel"] == value


# --- in a shell ------------------------------------------------------------------------------------------------------


@needs("sqlite3")
def test_tables_read_well_in_the_sqlite3_shell(tenant: Tenant, device: Device) -> None:
    device.create(id="a", name="Asha", phone=9820011223, phoneModel={"os": "Android", "api": 34}, color="red")
    device.create(id="b", name="Bela", active=False, bankList=[])
    device.create("interactions", id="i", type="call", metadata={"n": [1, 2]}, client_user_id="a")
    device.delete(id="b")
    assert shell(tenant.path, "SELECT name, active FROM end_user") == ["Asha|1", "Bela|0"]
    columns = (
        "phone, phoneModel, typeof(phoneModel), phoneModel ->> 'api', bankList, active, typeof(active), is_deleted"
    )
    assert shell(tenant.path, f"SELECT {columns} FROM end_user") == [
        '9820011223|{"os":"Android","api":34}|text|34||1|integer|0',
        "||null||[]|0|integer|1",
    ]
    assert shell(tenant.path, "SELECT _extra, version, sync_status, server_synced FROM end_user") == [
        '{"color":"red"}|1|synced|1',
        "|2|synced|1",
    ]
    interactions = "SELECT type, status, metadata, client_user_id FROM interactions"
    assert shell(tenant.path, interactions) == ['call|pending|{"n":[1,2]}|a']
    info = {line.split("|")[1]: line.split("|")[2] for line in shell(tenant.path, "PRAGMA table_info(end_user)")}
    assert info["active"] == "INTEGER" and info["phoneModel"] == "TEXT" and info["name"] == "TEXT"
    assert shell(tenant.path, "PRAGMA integrity_check") == ["ok"]
    names = "SELECT id, name, email, companyName FROM customers WHERE email = '" + tenant.email + "'"
    (line,) = shell(tenant.server.data / "main.db", names)
    assert line.split("|")[0] == tenant.id and line.endswith("|Individual Customer")


@needs("sqlite3")
def test_row_in_the_table_is_the_row_in_the_log(tenant: Tenant, device: Device) -> None:
    for number in range(20):
        device.update(id=f"r{number % 7}", name=f"N{number}", active=number % 2, stateCode={"n": number})
    sql = "SELECT count(*), sum(c.row ->> 'name' = e.name AND c.row ->> 'active' = e.active AND c.row -> 'stateCode' = "
    sql += "e.stateCode AND c.version = e.version) FROM end_user AS e JOIN _changes AS c ON c.seq = e._seq"
    assert shell(tenant.path, sql) == ["7|7"]


# --- what can't be a column ------------------------------------------------------------------------------------------


ONE_OF_THESE = (
    "Visit.at: a synced column is one of TextField, IntegerField, FloatField, BooleanField, JsonField, DateText, TimeText,"
    " TimestampText"
)


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ("DateTimeField(null=True)", ONE_OF_THESE),
        ("CharField(null=True)", ONE_OF_THESE),
        ("TextField(null=True, default=str)", ONE_OF_THESE),
        ("TextField()", "Visit.at: a synced column must be null=True"),
        ("BooleanField(default=True)", "Visit.at: a synced column must be null=True"),
    ],
)
def test_field_that_can_not_be_synced_is_refused_at_the_start(tmp_path: Path, declared: str, sentence: str) -> None:
    code = START.format(models=f"class Visit(SyncedRow):\n    at = {declared}\n")
    ended = forking.run(["-c", code], {**os.environ, "DATA_DIR": str(tmp_path), "PORT": "0"})
    assert ended.returncode != 0 and sentence in ended.stderr.splitlines()[-1]


def test_listener_hears_of_a_pushed_row_what_pulls_give(device: Device, listen: Callable[..., Listener]) -> None:
    listener = listen()
    device.create(id="a", **ODD)
    assert json.loads(json.dumps(listener.wait_note("data_available")["data"])) == device.rows()[0]
