"""Whatever comes in over HTTP is answered or refused in the one shape, never with a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from tests.api.bad_input.hostile import SYNC
from tests.api.bad_input.strategies import REQUEST
from tests.conftest import JSON, Tenant
from tests.fuzzing import times_as_many
from tests.refusals import shaped


@pytest.mark.slow
@times_as_many(3)
@given(REQUEST)
def test_any_json_is_answered_or_refused_in_the_one_shape(app: Flask, token: str, request: tuple[str, Any]) -> None:
    path, body = request
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = app.test_client().post(path, data=json.dumps(body), headers=headers, buffered=True)
    _check(answer.status_code, answer.get_json())


@pytest.mark.slow
@times_as_many(0.4)
@given(REQUEST)
def test_any_json_over_http_is_answered_or_refused_in_the_one_shape(victim: Tenant, request: tuple[str, Any]) -> None:
    path, body = request
    answer = victim.server.post(path, body, victim.token)
    _check(answer.status_code, answer.json())


def _check(status: int, body: JSON) -> None:
    assert status < 500, body
    if status >= 400:
        assert shaped(body)["code"] != "internal_error"
    else:
        assert body["success"] is True


@times_as_many(1.5)
@given(st.binary(max_size=60) | st.text('[]{},:"\\0123456789.eE+-truefalsn \n', max_size=30).map(str.encode))
def test_any_bytes_are_json_or_refused(app: Flask, token: str, data: bytes) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = app.test_client().post(f"{SYNC}/push", data=data, headers=headers, buffered=True)
    assert answer.status_code == 400 or json.loads(data).keys() & {"changes", "operations", "table"}
