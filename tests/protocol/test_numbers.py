"""Numbers: ``2`` and ``2.0`` mean the same in every place, none is changed untold, times tell their unit."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import connection, synced_tables
from protocol.codec import decode_push, edit_time, format_time, whole_number
from protocol.errors import Problem, ValidationError
from protocol.row_decoder import RowDecoder
from storage import push_batch
from storage.declarations.compatibility import MigrationRefused
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, Device, Listener
from tests.declaring import Restart, column, provision, put
from tests.fuzzing import times_as_many
from tests.inside import pull, push, rows

NOW = 1_800_000_000_000
JOB = """
[job.columns]
title = "text"
count = "integer"
size = "number"
done = "boolean"
level = { type = "integer", enum = [1, 2, 17] }
data = "json"
"""

# --- the rule --------------------------------------------------------------------------------------------------------


@given(st.integers() | st.floats() | st.booleans() | st.text(max_size=5) | st.none())
def test_whole_number_is_one_however_it_is_written_and_nothing_else_is(value: Any) -> None:
    read = whole_number(value)
    if type(value) is int:
        assert read == value
    elif type(value) is float and abs(value) <= 2**53 and value == value // 1:
        assert read == value and type(read) is int
    else:
        assert read is None


# --- every place -----------------------------------------------------------------------------------------------------

ROW = {"id": "r1", "title": "a", "count": 5}
PLACES: dict[str, list[Any]] = {
    "data.version": [{"table": "job", "operation": "update", "data": {"id": "r1", "title": "stale", "version": 2}}],
    "version of an upsert": [{"changes": {"job": [{"id": "r1", "title": "stale", "version": 2}]}}],
    "version of a delete": [{"table": "job", "operation": "delete", "data": {"id": "r1", "version": 2}}],
    "version in operations": [
        {"operations": [{"table": "job", "operation": "update", "data": {"id": "r1", "title": "stale", "version": 2}}]}
    ],
    "baseVersion": [{"table": "job", "operation": "update", "baseVersion": 1, "data": {"id": "r1", "title": "stale"}}],
    "baseVersion in operations": [
        {"operations": [{"table": "job", "operation": "update", "baseVersion": 1, "opId": "o", "data": ROW}]}
    ],
    "Unique_id": [{"changes": {"job": [{"Unique_id": 17, "title": "a"}]}}, {"changes": {"job": [{"Unique_id": 17}]}}],
    "Unique_id in form A": [{"table": "job", "operation": "create", "data": {"Unique_id": 17}}] * 2,
    "local id": [
        {"changes": {"job": [{"id": 17, "Unique_id": "u"}]}},
        {"changes": {"job": [{"id": 17, "Unique_id": "u"}]}},
    ],
    "text": [{"changes": {"job": [{"id": "r1", "title": 17}]}}],
    "integer": [{"changes": {"job": [{"id": "r1", "count": 17}, {"id": "r9", "count": 17}]}}],
    "number": [{"changes": {"job": [{"id": "r1", "size": 17}, {"id": "r9", "size": 17}]}}],
    "flags": [{"changes": {"job": [{"id": "r1", "done": 1}, {"id": "r9", "done": 0}, {"id": "r2", "is_deleted": 1}]}}],
    "enum": [{"changes": {"job": [{"id": "r1", "level": 17}]}}],
    "isDeleted": [{"changes": {"job": [{"id": "r1", "isDeleted": 1}]}}],
    "last_updated": [{"changes": {"job": [{"id": "r1", "title": "b", "last_updated": 1_700_000_000}]}}],
    "last_updated of a stale edit": [
        {"changes": {"job": [{"id": "r1", "title": "b", "last_updated": 1_700_000_000_000, "version": 2}]}}
    ],
}


def as_floats(value: Any) -> Any:
    """Write each whole number as ``n.0``."""
    if isinstance(value, dict):
        return {name: as_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_floats(inner) for inner in value]
    return float(value) if type(value) is int else value


def outcome(tenants: Tenants, tenant_id: str, bodies: list[JSON], is_short: bool) -> Any:
    """Give all that is answered and stored after a row was edited twice and then these were pushed, as their bytes came."""
    numbers = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push_batch, "new_ids", lambda *_: (f"new-{number}" for number in numbers))
        if not is_short:
            patch.setattr(RowDecoder, "decode", lambda *_: None)
        begin = [{"changes": {"job": [{**ROW, "title": title}, {"id": "r2"}]}} for title in "abc"]
        found: list[Any] = []
        for number, body in enumerate([*begin, *bodies]):
            read = decode_push(json.dumps(body).encode())
            try:
                applied = push(tenants, tenant_id, read, NOW + number)
                found.append((applied.results, [row and json.loads(row) for row in applied.rows], applied.conflicts))
            except Problem as problem:
                found.append((problem.code, problem.details))
    names = ["_changes", "_conflicts", "_digests", *synced_tables()]
    return found, [tenants.read(tenant_id, partial(table_of, name, tenant_id)) for name in names]


def table_of(name: str, tenant_id: str) -> list[Any]:
    """Read a table but for the tenant, whom a row in PostgreSQL names."""
    rows = connection().execute(f'SELECT * FROM "{name}" ORDER BY 1')
    return [[value for value in row if str(value) != tenant_id] for row in rows]


@pytest.mark.parametrize("place", PLACES)
def test_whole_number_written_as_a_float_does_the_same(
    restart: Restart, place: str, new_tenant_in: Callable[[Tenants], str]
) -> None:
    """Faults: ``version: 2.0`` switched the check off; ``baseVersion: 1.0`` was refused; 17 and 17.0 made two rows."""
    tenants = restart(JOB)
    bodies = PLACES[place]
    mixed = [as_floats(body) if number % 2 else body for number, body in enumerate(bodies)]
    ways = itertools.product([bodies, as_floats(bodies), mixed], [True, False])
    first, *others = (outcome(tenants, new_tenant_in(tenants), body, is_short) for body, is_short in ways)
    assert all(other == first for other in others)
    assert not any("validation_error" in str(found) for found in first[0])
    assert "stale" not in str(first[0]) or first[0][-1][2], "a stale value is a conflict"


@pytest.fixture
def new_tenant_in() -> Callable[[Tenants], str]:
    chance = random.Random(7)

    def make(tenants: Tenants) -> str:
        tenant_id = f"{chance.getrandbits(128):032x}"
        tenant_id = f"{tenant_id[:8]}-{tenant_id[8:12]}-{tenant_id[12:16]}-{tenant_id[16:20]}-{tenant_id[20:]}"
        provision(tenants, tenant_id)
        return tenant_id

    return make


def test_limit_and_version_may_be_floats_over_http_and_as_events(
    device: Device, listen: Callable[..., Listener]
) -> None:
    for number in range(3):
        device.push({"changes": {"end_user": [{"id": "u1", "name": f"n{number}"}, {"id": f"v{number}"}]}})
    body = {"cursor": None, "limit": 2.0}
    by_request = device.pull(body)
    assert len(by_request["data"]["end_user"]) == 2 and by_request["hasMore"]
    assert listen().call("sync_pull", body)["data"] == by_request["data"]
    server, token = device.tenant.server, device.tenant.token
    path = "/api/client/sync/history/end_user/u1"
    answer = server.call("GET", f"{path}?before=3.0&limit=1.0", token=token).json()
    assert [entry["version"] for entry in answer["data"]] == [2]
    assert server.call("GET", "/api/client/sync/conflicts?after=0.0&limit=5.00", token=token).status_code == 200
    reverted = server.post(f"{path}/revert", {"version": 1.0}, token).json()
    assert reverted["data"][0]["name"] == "n0"
    stale = {"table": "end_user", "operation": "update", "baseVersion": 1.0, "data": {"id": "u1", "name": "x"}}
    assert listen().call("sync_push", stale)["results"][0]["status"] == "conflict"


@pytest.mark.parametrize("value", [1.5, -1.0, 1e300, "2.0", True, [2.0], 9007199254740994.0])
def test_what_is_no_whole_number_is_refused_with_its_place(device: Device, value: Any) -> None:
    change = {"table": "end_user", "operation": "update", "data": {"id": "u1"}}
    for body, path in (({**change, "baseVersion": value}, "baseVersion"), ({"cursor": None, "limit": value}, "limit")):
        answer = (device.pull_raw if path == "limit" else device.push_raw)(body)
        assert answer.status_code == 400 and answer.json()["details"][0]["path"] == path
    server, token = device.tenant.server, device.tenant.token
    for path in ("history/end_user/u1?limit=", "conflicts?after="):
        if value not in ("2.0", True):
            assert server.call("GET", f"/api/client/sync/{path}{value}", token=token).status_code == 400


# --- none is changed untold ------------------------------------------------------------------------------------------

BIG = [2**53 + 1, -(2**53) - 1, 2**62 + 1, 10**30 + 1]


@pytest.mark.parametrize("value", BIG)
@pytest.mark.parametrize("form", ["A", "B", "C", "create", "edit"])
def test_whole_number_that_no_float_is_never_becomes_another(
    restart: Restart, tenant_id: str, value: int, form: str
) -> None:
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "r1", "size": 1})
    operation = {"table": "job", "operation": "update", "data": {"id": "r1", "size": value}}
    bodies: dict[str, JSON] = {
        "A": operation,
        "B": {"changes": {"job": [{"id": "r1", "size": value}]}},
        "C": {"operations": [operation]},
        "create": {"changes": {"job": [{"id": f"n{number}", "size": value} for number in range(3)]}},
        "edit": {"changes": {"job": [{"id": "r1", "size": value, "title": "x"}]}},
    }
    with pytest.raises(ValidationError) as caught:
        push(tenants, tenant_id, decode_push(json.dumps(bodies[form]).encode()))
    assert caught.value.details[0]["path"].endswith("size") and "send it as text" in caught.value.details[0]["error"]
    (row,) = rows(tenants, tenant_id, "job")
    assert row["size"] == 1.0
    exact = {"id": "r1", "count": value % 2**62, "size": 2.0**60, "data": {"a": value}, "note": value}
    (row,) = put(tenants, tenant_id, exact)
    found = json.loads(
        tenants.read(
            tenant_id, lambda: next(iter(connection().execute("SELECT row FROM _changes WHERE version = 2")))[0]
        )
    )
    for name, kept in exact.items():
        assert row[name] == found[name] == kept


@pytest.mark.parametrize("value", BIG[:3])
def test_integer_that_no_float_is_does_not_become_a_number(restart: Restart, tenant_id: str, value: int) -> None:
    """Fault: 9007199254740993 became …992 in a column that was declared a number since."""
    tenants = provision(restart("[job]\ncolumns.a = 'integer'\n"), tenant_id)
    put(tenants, tenant_id, {"id": "r1", "a": value}, {"id": "r2", "a": 5})
    with pytest.raises(MigrationRefused, match=r"job\.a: type integer becomes number.* 1 row of 1 tenant: row r1"):
        restart("[job]\ncolumns.a = 'number'\n")
    tenants = restart("[job]\ncolumns.a = 'integer'\n")
    put(tenants, tenant_id, {"id": "r1", "a": value, "is_deleted": 1})
    tenants = restart("[job]\ncolumns.a = 'number'\n")
    found = {
        row["id"]: row for row in pull(tenants, tenant_id, {"lastSyncTimestamp": "2999-01-01T00:00:00Z"})["data"]["job"]
    }
    assert found["r2"]["a"] == 5.0 and found["r1"]["a"] is None and found["r1"]["_unfit"] == {"a": value}
    assert column(tenants, tenant_id, "SELECT a FROM job ORDER BY id") == [None, 5.0]


# --- times -----------------------------------------------------------------------------------------------------------


@given(st.integers(-99_999_999_999, 99_999_999_999))
def test_seconds_are_read_as_seconds(seconds: int) -> None:
    assert edit_time(str(seconds)) == edit_time(f"{seconds}.0") == max(seconds * 1000, -62_135_596_800_000)


@times_as_many(3)
@given(st.integers(10**11, 10**14 - 1), st.sampled_from([1, -1]))
def test_milliseconds_and_microseconds_are_read_as_what_they_are(size: int, sign: int) -> None:
    moment = max(size * sign, -62_135_596_800_000)
    assert edit_time(str(size * sign)) == moment
    assert edit_time(str(size * sign * 1000)) == moment


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("1750000000.123", 1_750_000_000_123),
        ("-86400", -86_400_000),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01", -62_135_596_800_000),
        ("1e9", None),
        ("999999999999999999", None),
        ("12-34", None),
        ("", None),
    ],
)
def test_time_in_another_form_is_read_as_its_moment_or_refused(said: str, moment: int | None) -> None:
    assert edit_time(said) == moment


UNITS = [1_750_000_000, 1_750_000_000.5, 1_750_000_000_000, 1_750_000_000_000_000]


@pytest.mark.parametrize("said", [*UNITS, *map(str, UNITS)])
@pytest.mark.parametrize("is_later", [True, False])
def test_edit_of_any_unit_wins_or_loses_by_its_time(
    restart: Restart, tenant_id: str, said: Any, is_later: bool
) -> None:
    """Fault: seconds read as January 1970, so that such a device's edit always lost."""
    tenants = provision(restart(), tenant_id)
    moment = 1_750_000_000_000
    other = format_time(moment - 5000 if is_later else moment + 5000)
    push(tenants, tenant_id, {"changes": {"end_user": [{"id": "u", "name": "a"}]}})
    evidence = inside.seen_all(tenants, tenant_id)
    push(tenants, tenant_id, {"changes": {"end_user": [{"id": "u", "name": "other", "last_updated": other}]}})
    late = {"changes": {"end_user": [{"id": "u", "name": "mine", "last_updated": said, "version": 2}]}}
    applied = push(tenants, tenant_id, late, evidence=evidence)
    assert applied.results[0]["status"] == "conflict"
    assert json.loads(applied.rows[0] or b"")["name"] == ("mine" if is_later else "other")


@pytest.mark.parametrize("said", ["1960-05-05T00:00:00Z", "-304300800", -304_300_800, "1969-12-31T23:59:59.999Z"])
def test_time_before_1970_is_kept_alike_by_all_forms_and_ways(restart: Restart, said: Any, new_tenant_in: Any) -> None:
    """Fault: what one form kept as 1960 another made 1970."""
    tenants = restart(JOB)
    iso = said if isinstance(said, str) and "T" in said else format_time(edit_time(str(said)) or 0)
    data = {"id": "r1", "title": "a"}
    change: JSON = {"table": "job", "operation": "create", "data": data}
    dated: JSON = {**change, "data": {**data, "last_updated": said}}
    bodies: list[JSON] = [dated, {"changes": {"job": [dated["data"]]}}, {"operations": [dated]}]
    stated: list[JSON] = [{**change, "timestamp": iso}, {"operations": [{**change, "timestamp": iso}]}]
    for some, shown in ((bodies, str(said)), (stated, format_time(edit_time(iso) or 0))):
        for body, is_short in itertools.product(some, [True, False]):
            tenant_id = new_tenant_in(tenants)
            with pytest.MonkeyPatch.context() as patch:
                if not is_short:
                    patch.setattr(RowDecoder, "decode", lambda *_: None)
                push(tenants, tenant_id, decode_push(json.dumps(body).encode()), NOW)
            (row,) = rows(tenants, tenant_id, "job")
            assert row["last_updated"] == shown
            assert column(tenants, tenant_id, "SELECT edited_at FROM _changes") == [edit_time(iso)]
