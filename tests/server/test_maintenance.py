"""Maintenance: no change is taken at all, pulls go on, and nothing is lost by it.

Seen to fail with: a ``follow`` that keeps nothing, a start that looks half a second later.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Run, Server, Tenant, wait_for
from tests.refusals import refused

ROW = {"table": "end_user", "operation": "create", "data": {"id": "new", "name": "n"}}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that these tests alone put into maintenance."""
    server = Server(tmp_path_factory.mktemp("maintenance") / "data").start()
    yield server
    assert server.stop() == 0


def first_refusal(tenant: Tenant) -> Any:
    """Push until it is refused."""
    pushes = (tenant.device().push_raw(ROW | {"data": {"id": f"before-{number}"}}) for number in itertools.count())
    return next(answer for answer in pushes if not answer.ok)


def test_changes_are_refused_and_all_else_goes_on_also_after_a_restart(own: Server, operate: Run) -> None:
    tenant = own.register()
    tenant.device().create(id="r1", name="n")
    listener = tenant.device().listen()
    operate("maintenance", "on", "--message", "Back at 14:00 UTC.", data=own.data)
    answer = first_refusal(tenant)
    there = {row["id"] for row in tenant.device().rows()}
    sentence = refused(answer, 503, "maintenance")["error"]
    assert sentence.endswith("again later. Back at 14:00 UTC.") and int(answer.headers["Retry-After"]) > 0
    assert listener.call("sync_push", ROW)["code"] == "maintenance"
    listener.close()
    own.stop()
    own.start()
    refused(tenant.device().push_raw(ROW), 503, "maintenance")
    refused(own.post("/api/client/sync/history/end_user/r1/revert", {"version": 1}, tenant.token), 503, "maintenance")
    body = {"firstName": "A", "lastName": "B", "email": "late@example.com", "password": "password123"}
    refused(own.post("/api/customers/register", body), 503, "maintenance")
    assert own.post("/api/customers/login", {"email": tenant.email, "password": tenant.password}).ok
    assert {row["id"] for row in tenant.device().rows()} == there
    health = own.call("GET", "/health")
    assert health.status_code == 200 and health.json()["maintenance"]["message"] == "Back at 14:00 UTC."
    listener = tenant.device().listen()
    operate("maintenance", "off", data=own.data)
    wait_for(lambda: tenant.device().push_raw(ROW).ok, "the end of the maintenance")
    assert listener.wait_note("data_available")["entityId"] == "new"
    listener.close()
    assert own.post("/api/customers/register", body).status_code == 201
    assert "maintenance" not in own.call("GET", "/health").json()
    assert [line for line in own.log if line["level"] == "error"] == [], "to refuse is no failure"
    said = [line["message"].partition(":")[0] for line in own.log if line["logger"] == "syncapp.maintenance"]
    assert said == ["maintenance", "maintenance", "maintenance has ended"]


def test_status_tells_and_actions_have_it(own: Server, operate: Run) -> None:
    def status() -> Any:
        return json.loads(operate("maintenance", "status", "--json", data=own.data).stdout)

    assert status() == {"isOn": False, "since": None, "message": None}
    operate("maintenance", "on", data=own.data)
    since = status()["since"]
    operate("maintenance", "on", "--message", "Longer", data=own.data)
    assert status() == {"isOn": True, "since": since, "message": "Longer"}
    assert operate("maintenance", "status", data=own.data).stdout.startswith("on since ")
    operate("maintenance", "off", data=own.data)
    assert "no maintenance" in operate("maintenance", "off", data=own.data).stdout
    found = json.loads(operate("actions", "--limit", "3", "--json", data=own.data).stdout)
    assert [(one["action"], one["about"]) for one in found] == [
        ("maintenance-off", None),
        ("maintenance-on", "Longer"),
        ("maintenance-on", None),
    ]


@pytest.mark.parametrize("message", ["x" * 201, "a\nb\x1b[2J"])
def test_message_that_is_no_line_is_refused(own: Server, operate: Run, message: str) -> None:
    assert "one line" in operate("maintenance", "on", "--message", message, data=own.data, code=2).stderr
