"""A table that this server does not sync, or syncs no more, costs itself and no other, over HTTP and as event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import JSON, Device, Listener, Tenant

GONE = "gone_table"
Asked = Callable[[JSON], JSON]


@pytest.fixture(params=["http", "event"])
def asked(
    request: pytest.FixtureRequest, device: Device, listen: Callable[..., Listener]
) -> Callable[[str, JSON], JSON]:
    """Ask by a request or by an event, and give the answer."""

    def by_request(call: str, body: JSON) -> JSON:
        answer: JSON = device.raw(f"sync/{call}", body).json()
        return answer

    def by_event(call: str, body: JSON) -> JSON:
        answer: JSON = listener.call(f"sync_{call}", body)
        return answer

    if request.param == "http":
        return by_request
    listener = listen()
    return by_event


def is_told(answer: JSON) -> bool:
    """See that the table is answered for itself."""
    told: JSON = answer["errors"]
    assert told.keys() == {GONE} and told[GONE]["code"] == "unknown_table" and GONE in told[GONE]["error"]
    return bool(answer["success"])


@pytest.mark.parametrize(
    "since", [{}, {"lastSyncTimestamp": "2020-01-01T00:00:00Z"}, {"cursor": None}, {"cursor": None, "limit": 1}]
)
def test_pull_gives_the_other_tables_their_rows(asked: Any, device: Device, since: JSON) -> None:
    """Fault before: 400, and the device pulled nothing at all."""
    row = device.create(name="Asha")
    answer = asked("pull", {"entityTypes": [GONE, "end_user", "interactions", GONE], **since})
    assert is_told(answer)
    assert answer["data"] == {GONE: [], "end_user": [row], "interactions": []}
    assert asked("pull", {"entityTypes": ["end_user"], "cursor": answer["cursor"]})["data"] == {"end_user": []}


def test_digest_and_pending_rows_come_without_it(device: Device, tenant: Tenant) -> None:
    row = device.create(name="Asha")
    named = {"entityTypes": [GONE, "end_user"]}
    answer = device.pull({"cursor": None, "digest": True, **named})
    assert is_told(answer) and answer["digest"].keys() == {"end_user"}
    for headers in ({}, {"X_Device_Id": "phone"}):
        answer = tenant.device(**headers).raw("sync/pull-pending", named).json()
        assert is_told(answer) and answer["data"] == {GONE: [], "end_user": [row] if headers else []}


@pytest.mark.parametrize(
    "body", [{"table": GONE}, {"entityTypes": [GONE]}, {"entityTypes": [GONE, GONE], "cursor": None}]
)
@pytest.mark.parametrize("call", ["sync/pull", "sync/pull-pending"])
def test_pull_of_it_alone_is_refused(device: Device, call: str, body: JSON) -> None:
    answer = device.raw(call, {name: value for name, value in body.items() if call == "sync/pull" or name != "cursor"})
    assert answer.status_code == 400 and "end_user, interactions" in answer.json()["error"]


def of(table: str, row_id: str, **said: Any) -> JSON:
    return {"table": table, "operation": "create", "data": {"id": row_id, "name": row_id}, **said}


MIXED: list[JSON] = [
    {"changes": {GONE: [{"id": "g1"}, {"id": "g2"}], "end_user": [{"id": "u1", "name": "u1"}]}},
    {"operations": [of(GONE, "g1", opId="1"), of(GONE, "g2", operation="drop", data=None), of("end_user", "u1")]},
]


@pytest.mark.parametrize("body", MIXED)
def test_push_stores_the_other_tables_rows_and_says_which_it_did_not(asked: Any, device: Device, body: JSON) -> None:
    """Fault before: one row of a retired table, and an old app, which is atomic, pushed nothing for ever."""
    for status in ("created", "unchanged"):
        answer = asked("push", body)
        assert is_told(answer)
        assert [one["status"] for one in answer["results"]] == ["rejected", "rejected", status]
        assert [one["table"] for one in answer["results"]] == [GONE, GONE, "end_user"]
        assert answer["data"][:2] == [None, None] and answer["data"][2]["id"] == "u1"
    assert [row["id"] for row in device.rows()] == ["u1"]


@pytest.mark.parametrize("body", MIXED)
def test_push_that_asks_for_all_or_nothing_gets_nothing(asked: Any, device: Device, body: JSON) -> None:
    answer = asked("push", {**body, "atomic": True})
    assert (answer["success"], answer["code"]) == (False, "validation_error") and len(answer["details"]) == 2
    assert device.rows() == []


@pytest.mark.parametrize("body", MIXED)
def test_other_faults_still_fail_an_atomic_push_and_all_are_named(asked: Any, device: Device, body: JSON) -> None:
    bad: JSON = {"id": "u2", "active": 7}
    if "changes" in body:
        body = {"changes": {**body["changes"], "end_user": [*body["changes"]["end_user"], bad]}}
    else:
        body = {"operations": [*body["operations"], {"table": "end_user", "operation": "update", "data": bad}]}
    answer = asked("push", body)
    assert answer["code"] == "validation_error" and len(answer["details"]) == 3
    assert device.rows() == []
    answer = asked("push", {**body, "atomic": False})
    assert [one["status"] for one in answer["results"]] == ["rejected", "rejected", "created", "rejected"]


@pytest.mark.parametrize(
    "body",
    [
        of(GONE, "g1"),
        {"changes": {GONE: [{"id": "g1"}]}},
        {"changes": {GONE: [{"id": "g1"}], "other": []}},
        {"changes": {GONE: []}},
        {"operations": [of(GONE, "g1"), of("other", "g2")]},
    ],
)
def test_push_that_names_no_table_of_this_server_is_refused(asked: Any, body: JSON) -> None:
    answer = asked("push", body)
    assert (answer["success"], answer["code"]) == (False, "validation_error")
    assert "is not a synced table" in answer["details"][0]["error"] and GONE in str(answer["details"]) + str(body)


def test_empty_list_of_it_is_told_and_costs_nothing(asked: Any) -> None:
    answer = asked("push", {"changes": {GONE: [], "end_user": [{"id": "u1"}]}})
    assert is_told(answer) and [one["status"] for one in answer["results"]] == ["created"]


def test_answer_under_an_idempotency_key_says_it_again(tenant: Tenant) -> None:
    device = tenant.device(Idempotency_Key="once")
    first, again = (device.push_raw(MIXED[0]) for _ in range(2))
    assert again.headers["Idempotent-Replayed"] == "true" and is_told(again.json()) and first.json() == again.json()


@pytest.mark.parametrize("name", ["x" * 65, "", 5, None, ["end_user"], {"a": 1}])
def test_what_is_no_name_at_all_is_refused(device: Device, name: Any) -> None:
    assert device.pull_raw({"entityTypes": ["end_user", name]}).status_code == 400
    good = of("end_user", "u1")
    is_name = isinstance(name, str)
    answer = device.push_raw({"operations": [good, {**good, "table": name}]})
    assert answer.status_code == (200 if is_name else 400)
