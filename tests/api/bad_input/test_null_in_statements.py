"""No text with U+0000 reaches a statement, whatever has it: the application runs on a database that refuses it."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.api.bad_input.hostile import CUSTOMERS, REGISTRATION, SYNC

NULL = "a\0b"
PLACES: list[tuple[str, str, Any]] = [
    *(("POST", f"{CUSTOMERS}/register", REGISTRATION | {field: NULL}) for field in (*REGISTRATION, "phone")),
    ("POST", f"{CUSTOMERS}/login", REGISTRATION | {"email": "a\0@example.com"}),
    ("POST", f"{CUSTOMERS}/login", REGISTRATION | {"password": "password\0"}),
    ("POST", f"{CUSTOMERS}/refresh", {"refreshToken": NULL}),
    ("PATCH", f"{CUSTOMERS}/me", {"companyName": NULL}),
    ("DELETE", f"{CUSTOMERS}/me", {"password": NULL}),
    ("GET", f"{SYNC}/history/end_user/a%00b", None),
    ("GET", f"{SYNC}/history/a%00b/a", None),
    ("POST", f"{SYNC}/history/end_user/a%00b/revert", {"version": 1}),
    ("GET", f"{SYNC}/conflicts?state=a%00b", None),
    ("PATCH", "/api/client/devices/a%00b", {"name": "x"}),
    ("PATCH", "/api/client/devices/a", {"name": NULL}),
    ("DELETE", "/api/client/devices/a%00b", None),
    ("POST", f"{SYNC}/pull", {"cursor": NULL}),
    ("POST", f"{SYNC}/pull", {"cursor": None, "entityTypes": [NULL]}),
    ("POST", f"{SYNC}/pull", {"table": "end_user", "lastSync": NULL}),
    ("POST", f"{SYNC}/push", {"changes": {NULL: [{"id": "a"}]}}),
    ("POST", f"{SYNC}/push", {"changes": {"end_user": [{"id": NULL}]}}),
    ("POST", f"{SYNC}/push", {"changes": {"end_user": [{"id": "b"}]}, "baseCursor": NULL}),
    *(
        (
            "POST",
            f"{SYNC}/push",
            {"operations": [{"table": "end_user", "operation": "update", "data": {"id": "a"}} | one]},
        )
        for one in ({"table": NULL}, {"operation": NULL}, {"timestamp": NULL}, {"opId": NULL}, {"baseVersion": NULL})
    ),
]


@pytest.mark.parametrize(("method", "path", "body"), PLACES)
def test_text_with_u_0000_is_refused_before_any_statement_has_it(
    app: Flask, token: str, method: str, path: str, body: Any
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    answer = app.test_client().open(path, method=method, json=body, headers=headers, buffered=True)
    assert 400 <= answer.status_code < 500, answer.get_json()


def test_answers_that_name_it_are_kept_and_given_again(app: Flask, token: str) -> None:
    """They are kept as bytes, and receipts as JSON, in which it is an escape."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "null"}
    good = {"table": "end_user", "operation": "create", "data": {"id": "good"}, "opId": "op-1"}
    bad = {"table": NULL, "operation": "create", "data": {"id": "bad"}, "opId": "op-2"}
    body = {"operations": [good, bad], "atomic": False}
    first, again = (app.test_client().post(f"{SYNC}/push", json=body, headers=headers, buffered=True) for _ in range(2))
    assert first.status_code == 200 and first.data == again.data
    assert [one["status"] for one in first.get_json()["results"]] == ["created", "rejected"]
