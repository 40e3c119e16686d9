"""Retries are harmless: a request under its key and an operation under its name are done once."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import requests

from protocol.codec import encode
from protocol.errors import IdempotencyMismatch
from storage import idempotency
from storage.positions import now_ms
from tenants import Tenants
from tests.conftest import JSON, Device, Listener, Server, Tenant
from tests.inside import push

NAMELESS: JSON = {"table": "end_user", "operation": "create", "data": {"name": "no id: a retry would make another"}}


def operation(op_id: str, kind: str = "update", base: int | None = None, **data: Any) -> JSON:
    said = {"table": "end_user", "operation": kind, "data": data, "opId": op_id}
    return said if base is None else said | {"baseVersion": base}


FIRST: JSON = {"id": "local_1", "Unique_id": "first phone", "name": "Asha"}
SECOND: JSON = {"id": "local_1", "Unique_id": "second phone", "name": "Ravi"}


def statuses(answer: JSON) -> list[str]:
    return [result["status"] for result in answer["results"]]


# --- Idempotency-Key -------------------------------------------------------------------------------------------------


def test_same_key_and_body_get_the_stored_answer_and_one_row(tenant: Tenant) -> None:
    device = tenant.device(Idempotency_Key="k-1")
    first, again = device.push_raw(NAMELESS), device.push_raw(NAMELESS)
    assert (first.status_code, first.content) == (again.status_code, again.content) == (200, first.content)
    assert "Idempotent-Replayed" not in first.headers and again.headers["Idempotent-Replayed"] == "true"
    assert len(tenant.device().rows()) == 1


def test_key_means_the_same_with_and_without_the_drafts_quotes(tenant: Tenant) -> None:
    first = tenant.device(Idempotency_Key='"k-2"').push(NAMELESS)
    assert tenant.device(Idempotency_Key="k-2").push(NAMELESS) == first


def test_same_key_with_another_body_is_refused(tenant: Tenant) -> None:
    device = tenant.device(Idempotency_Key="k-3")
    device.push(NAMELESS)
    answer = device.push_raw({**NAMELESS, "data": {"name": "other"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert len(tenant.device().rows()) == 1


def test_key_of_one_tenant_means_nothing_to_another(tenant: Tenant, other_tenant: Tenant) -> None:
    mine = tenant.device(Idempotency_Key="k-4").push(NAMELESS)
    assert other_tenant.device(Idempotency_Key="k-4").push(NAMELESS)["data"] != mine["data"]


def test_request_that_failed_may_be_sent_again_under_its_key(tenant: Tenant) -> None:
    device = tenant.device(Idempotency_Key="k-5")
    assert device.push_raw({**NAMELESS, "data": {"active": 7}}).status_code == 400
    assert device.push_raw(NAMELESS).status_code == 200


def test_retry_while_the_first_still_runs_is_told_so(tenant: Tenant) -> None:
    device = tenant.device(Idempotency_Key="k-6")
    answers: list[int] = []
    with closing(sqlite3.connect(tenant.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # Another process holds the file, so that the first has to wait.
        first = threading.Thread(target=lambda: answers.append(device.push_raw(NAMELESS).status_code))
        first.start()
        time.sleep(0.3)
        retry = device.push_raw(NAMELESS)
        other.execute("ROLLBACK")
    first.join()
    assert (retry.status_code, retry.json()["code"], answers) == (409, "busy", [200])
    assert device.push_raw(NAMELESS).headers["Idempotent-Replayed"] == "true"


def test_key_that_another_process_answers_meanwhile_gets_that_answer(tenant: Tenant) -> None:
    """Fault: the key looked up before the transaction only: 500, after the rows had been written for nothing."""
    path, raw, answers = "/api/client/sync/push", json.dumps(NAMELESS).encode(), list[requests.Response]()
    first = tenant.device().push_raw(NAMELESS).content
    headers = {"Authorization": f"Bearer {tenant.token}", "Content-Type": "application/json", "Idempotency-Key": "k-9"}

    def send() -> None:
        answers.append(tenant.server.checked(requests.post(tenant.server.url + path, raw, headers=headers, timeout=60)))

    with closing(sqlite3.connect(tenant.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # The request finds no answer, and waits for the file.
        second = threading.Thread(target=send)
        second.start()
        time.sleep(0.3)
        kept = ("k-9", idempotency.mark_of_request(path, raw), zlib.compress(first), now_ms())
        other.execute("INSERT INTO _answers (key, mark, answer, answered_at) VALUES (?, ?, ?, ?)", kept)
        other.execute("COMMIT")
    second.join()
    (answer,) = answers
    assert (answer.status_code, answer.content) == (200, first)
    assert answer.headers["Idempotent-Replayed"] == "true" and len(tenant.device().rows()) == 1


def test_stored_answer_outlives_the_server(start_server: Callable[..., Server]) -> None:
    server = start_server()
    device = server.register().device(Idempotency_Key="k-7")
    first = device.push_raw(NAMELESS).content
    server.kill()
    server.start()
    assert device.push_raw(NAMELESS).content == first


@pytest.mark.parametrize("key", ["", "k" * 256, 'a"b', "ä", "two words"])
def test_key_that_is_none_is_refused(tenant: Tenant, key: str) -> None:
    headers = {"Idempotency-Key": key}
    answer = tenant.server.call("POST", "/api/client/sync/push", NAMELESS, tenant.token, **headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


def test_answer_is_kept_for_24_hours(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id = new_tenant()
    day = idempotency.ANSWERS_KEPT_MS
    tenants.write(tenant_id, lambda: idempotency.keep_answer("k", "m", b"answer", 1000))
    assert tenants.read(tenant_id, lambda: idempotency.kept_answer("k", "m", 999 + day)) == b"answer"
    assert tenants.read(tenant_id, lambda: idempotency.kept_answer("k", "m", 1000 + day)) is None
    with pytest.raises(IdempotencyMismatch):
        tenants.read(tenant_id, lambda: idempotency.kept_answer("k", "other", 2000))
    tenants.write(tenant_id, lambda: idempotency.keep_answer("k", "m", b"new", 1000 + day))


def test_retry_finds_the_row_that_got_another_id_than_it_was_sent_with(
    tenant: Tenant, listen: Callable[..., Listener]
) -> None:
    """Two phones' ``local_1``: by the key of the request, by the operation's name, by ``Unique_id``, also as an event."""
    tenant.device().create(**FIRST)
    plain = {"table": "end_user", "operation": "create", "data": SECOND}
    bodies = [plain, {"operations": [operation("op-1", "create", **SECOND)]}, {"changes": {"end_user": [SECOND]}}]
    answers = [tenant.device(Idempotency_Key="k-8").push(plain) for _ in range(2)]
    answers += [device.push(body) for body in bodies * 2 for device in (tenant.device(),)]
    answers += [listen().call("sync_push", body) for body in bodies]
    (second,) = {answer["results"][0]["id"] for answer in answers}
    assert second != "local_1" and [row["name"] for row in tenant.device().rows()] == ["Asha", "Ravi"]


# --- neither ---


LOCAL: JSON = {"id": 17, "name": "Tea", "last_updated": "2026-03-01T10:00:00.123"}


def forms(row: JSON) -> list[JSON]:
    """As all forms say a row that their device has only a number for."""
    create = {"table": "end_user", "operation": "create", "data": row}
    update = create | {"operation": "update", "timestamp": "2026-03-02T10:00:00.456Z"}
    return [create, update, {"changes": {"end_user": [row]}}, {"operations": [create]}]


@pytest.mark.parametrize("form", range(4))
def test_row_with_its_devices_number_and_time_sent_again_makes_no_other(
    tenant: Tenant, listen: Callable[..., Listener], form: int
) -> None:
    """Its answer was lost. Fault: a row more with each try. Its fields may come in another order, its number as 17.0."""
    device = tenant.device(X_Device_Id="till")
    first = device.push(forms(LOCAL)[form])["results"][0]
    again = device.push(forms(dict(reversed((LOCAL | {"id": 17.0}).items())))[form])["results"][0]
    assert again == first | {"replayed": True}
    assert "replayed" not in listen().call("sync_push", forms(LOCAL)[form])["results"][0], "a device without a name"
    assert len(device.rows()) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"id": 18},
        {"name": "Coffee"},
        {"last_updated": "2026-03-01T10:00:00.124"},
        {"device_id": "another"},
        {"unknown": 1},
        {"Unique_id": "u"},
    ],
)
def test_row_that_differs_in_anything_is_another(device: Device, other: JSON) -> None:
    device.create(**LOCAL)
    device.create(**LOCAL | other)
    assert len(device.rows()) == 2


@pytest.mark.parametrize("row_id", [10**400, -(2**63), 2**64, 1e300, 0, -0.5])
def test_number_of_any_size_is_a_local_key(device: Device, row_id: Any) -> None:
    """Fault: a number beyond what a float holds: an error of the server."""
    for _ in range(2):
        assert device.create(**LOCAL | {"id": row_id})["name"] == "Tea"


@pytest.mark.parametrize("time", [None, "2026-03-01", "2026-03-01T10:00:00", "2026-03-01T10:00:00.000Z", ""])
@pytest.mark.parametrize("row_id", [17, None])
def test_equal_rows_that_may_be_meant_are_two(device: Device, time: str | None, row_id: int | None) -> None:
    """Two teas, of one import or by a clock of whole seconds; and rows without any number, at any time."""
    times = [time] if row_id else [time, LOCAL["last_updated"]]
    for one in times:
        for _ in range(2):
            device.create(id=row_id, name="Tea", last_updated=one)
    assert len(device.rows()) == 2 * len(times)


# --- opId ------------------------------------------------------------------------------------------------------------


def test_operations_sent_again_in_other_chunks_double_nothing(
    tenant: Tenant, device: Device, listen: Callable[..., Listener]
) -> None:
    listener = listen()
    operations = [operation(f"op-{number}", "create", name=f"row {number}") for number in range(10)]
    device.push({"operations": operations[:6]})  # Its answer is lost.
    again = device.push({"operations": operations[4:]})
    assert [result.get("replayed", False) for result in again["results"]] == [True, True, *[False] * 4]
    device.push({"operations": operations})
    assert sorted(row["name"] for row in device.rows()) == [f"row {number}" for number in range(10)]
    listener.wait_note("sync_complete", 2)
    assert sum(note["count"] for note in listener.notes("sync_complete")) == 10


def test_retry_does_not_undo_what_others_did_since(device: Device) -> None:
    first = device.push({"operations": [operation("op-1", "create", id="a", name="A")]})
    device.update(id="a", name="B")
    again = device.push({"operations": [operation("op-1", "create", id="a", name="A")]})
    assert again["results"] == [{**first["results"][0], "replayed": True}]
    assert again["data"][0]["name"] == "B" == device.rows()[0]["name"]


def test_retry_of_an_update_that_changed_nothing_then_changes_nothing_now(device: Device) -> None:
    device.create(id="a", name="A")
    assert statuses(device.push({"operations": [operation("op-1", id="a", name="A")]})) == ["unchanged"]
    device.update(id="a", name="B")
    assert statuses(device.push({"operations": [operation("op-1", id="a", name="A")]})) == ["unchanged"]
    assert device.rows()[0]["name"] == "B"


def test_retry_of_a_conflict_names_it_again_but_is_logged_and_told_once(
    tenant: Tenant, device: Device, listen: Callable[..., Listener]
) -> None:
    """Fault: the answer to a retry without it: who lost the first answer, and with it the conflict, never heard of it."""
    listener = listen()
    device.create(id="a", name="A")
    device.update(id="a", name="B")
    lost = operation("op-1", base=1, id="a", name="C")
    answers = [device.push({"operations": [lost, lost]}), device.push({"operations": [lost]})]
    assert [statuses(answer) for answer in answers] == [["conflict"] * 2, ["conflict"]]
    assert answers[0]["conflicts"] == answers[1]["conflicts"] and len(answers[0]["conflicts"]) == 1
    found = tenant.server.call("GET", "/api/client/sync/conflicts?state=all", token=tenant.token).json()["data"]
    assert found == answers[0]["conflicts"]
    device.update(id="a", name="D")
    listener.wait_note("sync_complete", 3)
    assert len(listener.notes("conflict_detected")) == 1


def test_same_name_for_another_operation_is_refused(device: Device) -> None:
    device.push({"operations": [operation("op-1", "create", id="a", name="A")]})
    answer = device.push_raw({"operations": [operation("op-1", "create", id="b", name="B")]})
    assert answer.status_code == 400
    assert answer.json()["details"] == [{"path": "operations[0].opId", "error": "was used for another operation"}]


ORDERED: JSON = {
    "id": "a",
    "name": "A",
    "phoneModel": {"b": 1, "a": [{"d": 1, "c": 2}]},
    "unknown": {"y": 1, "x": None},
}


@pytest.mark.parametrize("is_one_push", [True, False])
def test_operation_whose_fields_come_in_another_order_is_the_same(device: Device, is_one_push: bool) -> None:
    """Also within its JSON. Fault: refused as another operation: the device's outbox stood still."""
    other = json.loads(json.dumps(ORDERED, sort_keys=True))
    assert list(other["phoneModel"]) != list(ORDERED["phoneModel"])
    said = [operation("op-1", "create", **row) for row in (ORDERED, other, dict(reversed(ORDERED.items())))]
    bodies = [said] if is_one_push else [[one] for one in said]
    results = [result for body in bodies for result in device.push({"operations": body})["results"]]
    assert [result.get("replayed", False) for result in results] == [False, True, True]
    lists = operation("op-1", "create", **ORDERED | {"phoneModel": {"b": 1, "a": [{"c": 1, "d": 2}]}})
    assert device.push_raw({"operations": [lists]}).status_code == 400


def test_receipt_of_a_version_that_kept_the_order_still_counts(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """An update of the server lies between an operation and its retry."""
    tenant_id, body = new_tenant(), {"operations": [operation("op-1", "create", **ORDERED)]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idempotency, "encode_sorted", encode)
        push(tenants, tenant_id, body)
    assert push(tenants, tenant_id, body).results[0]["replayed"] is True


def test_same_operation_twice_in_one_push_is_done_once(device: Device) -> None:
    answer = device.push({"operations": [operation("op-1", "create", name="A")] * 2})
    assert answer["results"][1] == {**answer["results"][0], "replayed": True}
    assert len(device.rows()) == 1


def test_push_that_was_refused_leaves_no_receipt(device: Device) -> None:
    good, bad = operation("op-1", "create", id="a"), operation("op-2", "create", id="b", active=7)
    assert device.push_raw({"operations": [good, bad]}).status_code == 400
    assert statuses(device.push({"operations": [good]})) == ["created"]


def test_rejected_row_of_a_push_that_goes_on_may_be_corrected_under_its_name(device: Device) -> None:
    bad = operation("op-2", "create", id="b", active=7)
    assert statuses(device.push({"atomic": False, "operations": [bad]})) == ["rejected"]
    assert statuses(device.push({"operations": [operation("op-2", "create", id="b", active=1)]})) == ["created"]


@pytest.mark.parametrize("op_id", ["", "x" * 65, "a b", 5, [], True])
def test_name_of_an_operation_that_is_none_is_refused(device: Device, op_id: Any) -> None:
    answer = device.push_raw({"operations": [operation(op_id, "create", id="a")]})
    assert answer.status_code == 400 and answer.json()["details"][0]["path"] == "operations[0].opId"
    assert device.rows() == []


def test_receipt_is_stored_with_its_change_or_not_at_all(start_server: Callable[..., Server]) -> None:
    """The server dies at random moments of a stream of operations; each is then there exactly once."""
    server = start_server()
    device = server.register().device()
    operations = [operation(f"op-{number}", "create", name=f"row {number}") for number in range(300)]
    for kill_after_seconds in (0.05, 0.11, 0.17):
        done = threading.Event()

        def push_until_it_dies(done: threading.Event = done) -> None:
            try:
                for start in range(0, 300, 3):
                    device.push({"operations": operations[start : start + 5]})
            except (OSError, AssertionError):
                pass
            done.set()

        threading.Thread(target=push_until_it_dies).start()
        time.sleep(kill_after_seconds)
        server.kill()
        done.wait(20)
        server.start()
    for start in range(0, 300, 7):
        device.push({"operations": operations[start : start + 7]})
    assert sorted(row["name"] for row in device.rows()) == sorted(f"row {number}" for number in range(300))
