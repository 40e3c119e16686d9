"""Headers, methods and addresses that are wrong: the right refusal in the one shape, and no file given away."""

from __future__ import annotations

import json
import re

import pytest
from flask import Flask

from tests.api.bad_input.hostile import SYNC, TAKING_BODIES, WITHOUT_BODIES, send
from tests.conftest import ROOT, Device, Server, Tenant
from tests.refusals import (
    nothing_changes,
    refused,
    say,
    shaped,
)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X_Tenant_Id": "1030070f-9824-49b3-b53b-8013e2eb363e"}, 403, "tenant_mismatch"),
        ({"X_Tenant_Id": "../../etc/passwd"}, 400, "invalid_tenant_id"),
        ({"X_Tenant_Id": "x" * 5000}, 400, "invalid_tenant_id"),
        ({"X_Tenant_Id": "{1030070f-9824-49b3-b53b-8013e2eb363e}"}, 400, "invalid_tenant_id"),
        ({"X_Device_Id": "x" * 65}, 400, "validation_error"),
        ({"X_Device_Id": "../../etc/passwd"}, 400, "validation_error"),
        ({"X_Device_Id": "\xe9"}, 400, "validation_error"),
        ({"Idempotency_Key": "x" * 256}, 400, "validation_error"),
        ({"Idempotency_Key": "a b"}, 400, "validation_error"),
        ({"Idempotency_Key": "\xe9"}, 400, "validation_error"),
        ({"Authorization": ""}, 401, "unauthorized"),
        ({"Authorization": "Bearer"}, 401, "unauthorized"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, 401, "unauthorized"),
        ({"Authorization": "Bearer \xff\xfe"}, 401, "unauthorized"),
        ({"Authorization": "Bearer a.b.c"}, 401, "unauthorized"),
        ({"Authorization": "Bearer " + "x" * 7000}, 401, "unauthorized"),
        ({"Authorization": "Bearer null"}, 401, "unauthorized"),
    ],
)
def test_bad_header_is_refused(victim: Tenant, headers: dict[str, str], status: int, code: str) -> None:
    data = json.dumps({"changes": {"end_user": [{"id": "kept", "name": "hostile"}]}}).encode()
    with nothing_changes(victim):
        body = refused(send(victim, "POST", f"{SYNC}/push", data, **headers), status, code)
    assert "etc/passwd" not in str(body)


@pytest.mark.parametrize("field", ["X_Tenant_Id", "tenantId"])
def test_own_tenant_id_is_taken_in_every_form_of_a_uuid(device: Device, field: str) -> None:
    own = device.tenant.id
    for stated in (own, own.upper(), own.replace("-", "")):
        body, headers = ({field: stated}, {}) if field == "tenantId" else ({}, {field: stated})
        assert device.tenant.device(**headers).pull_raw(body).status_code == 200


def addresses(app: Flask) -> dict[str, set[str]]:
    """Give the methods of each address, with examples for its variables; but for the console, which has its own tests."""
    examples = {
        "table": "end_user",
        "row_id": "kept",
        "number": "1",
        "device_id": "kept",
        "session_id": "kept",
        "rest": "nope",
        "name": "nope.css",
    }
    found: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/admin"):
            continue
        path = re.sub(r"<(?:[^:<>]*:)?(\w+)>", lambda variable: examples[variable[1]], rule.rule)
        found.setdefault(path, set()).update(rule.methods or ())
    return found


def test_tables_above_name_every_address_that_takes_a_body(app: Flask) -> None:
    changing = {(method, path) for path, methods in addresses(app).items() for method in methods}
    changing = {(method, path) for method, path in changing if method not in ("GET", "HEAD", "OPTIONS")}
    assert changing == set(TAKING_BODIES) | WITHOUT_BODIES


def test_method_that_an_address_does_not_take_is_405_and_told_what_it_takes(app: Flask, victim: Tenant) -> None:
    for path, taken in addresses(app).items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "X"} - taken:
            answer = victim.server.call(method, path, {}, victim.token)
            refused(answer, 405, "method_not_allowed")
            assert set(answer.headers["Allow"].split(", ")) == taken, (method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/health/",
        "/api",
        "/api/client/sync",
        "/api/client/sync/push/x",
        "/API/limits",
        "/static/",
        "/static/nope.js",
        "/static/../settings.py",
        "/static/..%2fsettings.py",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/static/%2e%2e/settings.py",
        "/static/....//settings.py",
        "/static/..%5csettings.py",
        "/static/%00",
        "/static/client/nope.js",
        "/static/client/../settings.py",
        "/static/client/..%2fpackage.json",
        "/static/client/%2e%2e/package.json",
        "/static/x%0d%0aSet-Cookie:a=b",
        "/..%2fsettings.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/data/main.db",
        "/settings.py",
        "/.git/config",
        "/%ff%fe",
        "/%00",
        "/' OR 1=1 --",
        "/<script>alert(1)</script>",
        "/" + "a" * 5000,
    ],
)
def test_address_of_nothing_is_404_and_gives_no_file(server: Server, path: str) -> None:
    answer = say(server, f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404"), answer[:300]
    body = shaped(json.loads(text))
    assert body["code"] == "not_found" and b"Set-Cookie:" not in head


def test_address_of_the_project_itself_is_not_served(server: Server) -> None:
    for path in ("syncapp.py", "README.md", "requirements.txt", "templates/index.html"):
        assert (ROOT / path).exists()
        refused(server.call("GET", f"/{path}"), 404, "not_found")
