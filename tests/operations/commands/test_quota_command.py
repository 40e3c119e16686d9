"""Quotas of one customer: what the operator gives holds for it, within a second, and for nobody else.

Seen to fail with: ``Quotas.of`` that gives all the same, a disk quota that is remembered by epoch alone.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.conftest import Listener, Run, Server, Tenant, wait_for
from tests.refusals import refused


def rows(*ids: str, size: int = 10) -> Any:
    return {"changes": {"end_user": [{"id": row_id, "note": "n" * size} for row_id in ids]}}


def limits(server: Server, token: str | None) -> Any:
    return server.call("GET", "/api/limits", token=token).json()["data"]


def policy(tenant: Tenant) -> str:
    return str(tenant.device().pull_raw({"cursor": None}).headers["RateLimit-Policy"])


def test_quotas_hold_for_their_tenant_alone_are_told_and_end(
    server: Server, tenant: Tenant, other_tenant: Tenant, operate: Run
) -> None:
    of_all = limits(server, None)
    operate(
        "tenant",
        "quota",
        tenant.email,
        "--requests",
        "900 per day",
        "--rows",
        "10000 per day",
        "--bytes",
        "20M per day",
    )
    wait_for(lambda: limits(server, tenant.token)["tenantRequests"] == "900 per day", "the quotas")
    assert '"requests";q=900;w=86400' in policy(tenant) and '"requests";q=900' not in policy(other_tenant)
    mine = {"tenantRequests": "900 per day", "tenantRows": "10000 per day", "tenantBytes": "20971520 per day"}
    assert limits(server, tenant.token) == of_all | mine
    assert limits(server, None) == limits(server, other_tenant.token) == limits(server, "no token") == of_all
    many = [str(number) for number in range(6000)]
    assert tenant.device().push_raw(rows(*many)).ok and other_tenant.device().push_raw(rows(*many)).ok
    refused(tenant.device().push_raw(rows(*many)), 429, "rate_limited")
    assert other_tenant.device().push_raw(rows(*many)).ok
    shown = json.loads(operate("tenant", "show", tenant.id, "--json").stdout)["quotas"]
    assert shown == {
        "tenant_requests": "900 per day",
        "tenant_rows": "10000 per day",
        "tenant_bytes": "20971520 per day",
    }
    operate("tenant", "quota", tenant.id, "--default")
    wait_for(lambda: limits(server, tenant.token) == of_all, "the quotas of all")
    assert tenant.device().push_raw(rows(*many)).ok


def test_room_that_is_taken_away_is_gone_though_much_was_left(tenant: Tenant, operate: Run) -> None:
    device = tenant.device()
    for number in range(30):
        assert device.push_raw(rows(str(number), size=50_000)).ok
    operate("tenant", "quota", tenant.id, "--stored-bytes", "1M")
    more = (device.push_raw(rows(f"more-{number}", size=50_000)) for number in itertools.count())
    refused(next(answer for answer in more if not answer.ok), 507, "quota_exceeded")
    assert device.delete(id="0")["is_deleted"] == 1
    operate("tenant", "quota", tenant.id, "--stored-bytes", "1G")
    wait_for(lambda: device.push_raw(rows("new", size=50_000)).ok, "the room")


def test_sockets_beyond_are_refused_and_open_ones_stay(server: Server, tenant: Tenant, operate: Run) -> None:
    open_one = tenant.device().listen()
    operate("tenant", "quota", tenant.id, "--sockets", "1")
    wait_for(lambda: limits(server, tenant.token)["maxTenantSockets"] == 1, "the quota")
    late = Listener(server.url, auth={"token": tenant.token})
    assert late.wait("authentication_error")["code"] == "rate_limited"
    late.close()
    assert not open_one.is_gone.is_set()
    open_one.close()


def test_what_holds_is_shown_and_what_was_given_recorded(tenant: Tenant, operate: Run) -> None:
    operate("tenant", "quota", tenant.id, "--sockets", "7")
    operate("tenant", "quota", tenant.id, "--rows", "20000 per hour")
    found = json.loads(operate("tenant", "quota", tenant.id, "--json").stdout)
    assert found["sockets"] == {"value": 7, "isOwn": True} and found["rows"]["value"] == "20000 per hour"
    assert found["requests"]["isOwn"] is False
    assert "its own" in operate("tenant", "quota", tenant.id).stdout
    assert "max_tenant_sockets 7" in operate("tenant", "show", tenant.id).stdout
    operate("tenant", "quota", tenant.id, "--default", "--sockets", "8")
    done = json.loads(operate("actions", "--tenant", tenant.id, "--json").stdout)
    assert [one["action"] for one in done] == ["quota"] * 3
    assert json.loads(done[0]["about"]) == {"max_tenant_sockets": 8}


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--rows", "10 per minute", 1),
        ("--bytes", "1M per minute", 1),
        ("--stored-bytes", "1K", 2),
        ("--requests", "", 2),
    ],
)
def test_quota_that_would_shut_out_or_is_none_is_refused(
    tenant: Tenant, operate: Run, option: str, value: str, code: int
) -> None:
    assert option in operate("tenant", "quota", tenant.id, option, value, code=code).stderr
    assert '"quotas": null' in operate("tenant", "show", tenant.id, "--json").stdout
