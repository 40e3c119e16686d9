"""What schemathesis can't know by itself: whose tenant this is, its password, and the cursors that there are.

``test_api_schema`` gives it to the command as SCHEMATHESIS_HOOKS. What is well formed is made true, so that a request is
accepted; what is meant to be wrong stays wrong.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import uuid
from collections.abc import Mapping
from typing import Any

import requests
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData

TENANT, PASSWORD = os.environ["API_TENANT"], os.environ["API_PASSWORD"]
IS_LEAVER = os.environ.get("API_LEAVER") == "yes"
"""Whether each case is of a customer of its own, since it may end the session or close the account."""

_numbers = itertools.count(1)
_cursors: dict[str, Any] = {}
"""The last cursors that an answer held, by the field of a body in which they can be sent back."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make true what is well formed, before it is sent."""
    headers, body = case.headers or {}, case.body if isinstance(case.body, dict) else {}
    for values, name in ((headers, "X-Tenant-Id"), (body, "tenantId")):
        if _is_well_formed(values, name, "[0-9A-Fa-f-]{32,36}"):
            values[name] = TENANT
    for name, cursor in _cursors.items():
        if _is_well_formed(body, name, "[0-9a-f]{12}-.*"):
            body[name] = cursor
    if _is_well_formed(body, "email", r"[^@\s]+@[^@\s]+") and "firstName" in body:
        body["email"] = f"{uuid.uuid4()}@example.com"
    if _is_well_formed(headers, "Idempotency-Key", r"[\x21\x23-\x7e]{1,200}") and next(_numbers) % 8:
        headers["Idempotency-Key"] += str(next(_numbers))
    if case.meta and case.meta.generation.mode.is_positive:
        body.update(dict.fromkeys(body.keys() & {"oldPassword", "newPassword"}, PASSWORD))
        is_proof = IS_LEAVER or case.operation.path.endswith("/me/email")
        body.update({"password": PASSWORD} if is_proof and "password" in body else {})


def _is_well_formed(values: Mapping[str, Any], name: str, pattern: str) -> bool:
    return isinstance(values.get(name), str) and bool(re.fullmatch(pattern, values[name]))


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Remember cursors that can be sent back."""
    is_json = response.headers.get("content-type", [""])[0] == "application/json"
    body = response.json() if response.status_code == 200 and is_json else None
    if isinstance(body, dict) and "cursor" in body:
        _cursors.update(cursor=body["cursor"], baseCursor=body.get("previousCursor", body["cursor"]))


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Leave out what is a refusal in another way: a 413, or a row ``rejected`` in a push that is not atomic."""
    if not isinstance(failure, AcceptedNegativeData):
        return True
    results = response.json().get("results", ()) if response.status_code == 200 else ()
    return response.status_code < 400 and not any(result["status"] == "rejected" for result in results)


if IS_LEAVER:

    @schemathesis.auth(refresh_interval=None)
    class Newcomer:
        """Registers somebody new for each case."""

        def get(self, case: Any, context: Any) -> str:
            body = {"firstName": "A", "lastName": "B", "email": f"{uuid.uuid4()}@example.com", "password": PASSWORD}
            answer = requests.post(f"{os.environ['API_URL']}/api/customers/register", json=body, timeout=30)
            return str(answer.json()["data"]["token"])

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
            case.headers.pop("X-Tenant-Id", None)
            if "session_id" in (case.path_parameters or {}):
                claims = data.split(".")[1]
                case.path_parameters["session_id"] = json.loads(base64.urlsafe_b64decode(claims + "=="))["sid"]
