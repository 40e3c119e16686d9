"""The table of endpoints from which the API's description is made: what each takes and answers.

Knows: the names of each endpoint's schemas, its own errors, its examples, and which parts of an answer go into which next
request. Must not know: what the schemas say (``schemas``), how a description looks (``openapi``), what an endpoint does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.docs.json_schema import COUNT, Schema
from api.history import MAX_DIGITS, PAGE_ROWS
from api.own_account import ARCHIVE_TYPE
from protocol import errors
from protocol.errors import Problem

_PROOF = (errors.InvalidCredentials, errors.NotFound)


@dataclass(frozen=True, slots=True)
class Call:
    """What one endpoint takes and answers, by the names of schemas.

    ``errors`` are added to those that every endpoint of its kind may give. ``links`` says, by endpoint, which parts of the
    answer go into a request there. ``is_idempotent``: it takes an ``Idempotency-Key``. ``media`` is the type of the answer.
    """

    answer: str
    body: str | None = None
    errors: Sequence[type[Problem]] = ()
    status: int = 200
    needs_token: bool = True
    is_idempotent: bool = False
    names_device: bool = False
    queries: Mapping[str, Schema] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    media: str = "application/json"


_DATA, _FIRST, _CONFLICT = "$response.body#/data", "$response.body#/results/0", "$response.body#/conflicts/0"
_ROW = {"table": f"{_FIRST}/table", "row_id": f"{_FIRST}/id"}
_AFTER_PUSH: Mapping[str, Mapping[str, Any]] = {
    "sync.pull": {"requestBody": {"cursor": "$response.body#/previousCursor"}},
    "review.history": {"parameters": _ROW},
    "review.revert": {"parameters": _ROW, "requestBody": {"version": f"{_FIRST}/version"}},
    "review.resolve": {"parameters": {"number": f"{_CONFLICT}/conflictId"}, "requestBody": {"resolution": "other"}},
}
_PASSWORD, _EMAIL = "password123", "test@example.com"
_LINK_TOKEN = "bG9uZyBhbmQgcmFuZG9t"  # noqa: S105 -- an example
_ROW_EXAMPLE = {"id": "u1", "name": "Asha", "phone": "555-0100"}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": PAGE_ROWS[1], "default": PAGE_ROWS[0]}
_NUMBER = COUNT | {"maximum": 10**MAX_DIGITS - 1}
_STATE = {"type": "string", "enum": ["open", "resolved", "all"], "default": "open"}

CALLS: Mapping[str, Call] = {
    "customers.register": Call(
        "Session",
        "Registration",
        (errors.EmailTaken, errors.RegistrationClosed, errors.UnderMaintenance),
        201,
        needs_token=False,
        examples={
            "business": {"firstName": "Test", "lastName": "User", "email": _EMAIL, "password": _PASSWORD},
        },
        links={
            "customers.login": {
                "requestBody": {"email": "$request.body#/email", "password": "$request.body#/password"}
            },
            "customers.refresh": {"requestBody": {"refreshToken": f"{_DATA}/refreshToken"}},
        },
    ),
    "customers.login": Call(
        "Session",
        "Login",
        (errors.InvalidCredentials, errors.TenantSuspended),
        needs_token=False,
        examples={"business": {"email": _EMAIL, "password": _PASSWORD}},
        links={"customers.refresh": {"requestBody": {"refreshToken": f"{_DATA}/refreshToken"}}},
    ),
    "customers.refresh": Call(
        "TokenPair",
        "Refresh",
        (errors.Unauthorized, errors.TokenExpired, errors.TenantSuspended),
        needs_token=False,
        examples={"token": {"refreshToken": "eyJhbGciOiJIUzI1NiIs"}},
        links={"customers.refresh": {"requestBody": {"refreshToken": f"{_DATA}/refreshToken"}}},
    ),
    "customers.logout": Call("Message"),
    "customers.profile": Call("CustomerAnswer", errors=(errors.NotFound,)),
    "customers.change_profile": Call(
        "CustomerAnswer",
        "Profile",
        (errors.NotFound,),
        examples={"phone": {"phone": "555-0100"}},
    ),
    "customers.change_password": Call(
        "Message",
        "PasswordChange",
        _PROOF,
        examples={"new": {"oldPassword": _PASSWORD, "newPassword": "a better one"}},
    ),
    "lost_passwords.forgotten": Call(
        "Message",
        "Forgotten",
        (errors.NoMail,),
        202,
        needs_token=False,
        examples={"address": {"email": _EMAIL}},
    ),
    "lost_passwords.reset": Call(
        "Message",
        "Reset",
        (errors.LinkInvalid, errors.TenantSuspended),
        needs_token=False,
        examples={"link": {"token": _LINK_TOKEN, "newPassword": "a better one"}},
    ),
    "lost_passwords.confirm_email": Call(
        "Confirmed",
        "Confirmation",
        (errors.LinkInvalid, errors.TenantSuspended, errors.EmailTaken),
        needs_token=False,
        examples={"link": {"token": _LINK_TOKEN}},
    ),
    "lost_passwords.change_email": Call(
        "Message",
        "EmailChange",
        (*_PROOF, errors.EmailTaken, errors.NoMail),
        202,
        examples={"new": {"email": "new@example.com", "password": _PASSWORD}},
    ),
    "lost_passwords.verify_email": Call("Message", errors=(errors.NotFound, errors.NoMail), status=202),
    "customers.close": Call("Message", "PasswordProof", _PROOF, examples={"proof": {"password": _PASSWORD}}),
    "account.sessions": Call(
        "SessionsAnswer", links={"account.end_session": {"parameters": {"session_id": f"{_DATA}/0/sessionId"}}}
    ),
    "account.end_session": Call("Message", errors=(errors.NotFound,)),
    "account.end_other_sessions": Call("SessionsEnded"),
    "account.export": Call(
        "Archive", "PasswordProof", _PROOF, examples={"proof": {"password": _PASSWORD}}, media=ARCHIVE_TYPE
    ),
    "sync.push": Call(
        "PushAnswer",
        "Push",
        (errors.ResyncRequired,),
        is_idempotent=True,
        names_device=True,
        examples={
            "one": {"table": "end_user", "operation": "create", "data": _ROW_EXAMPLE},
            "rows": {"changes": {"end_user": [_ROW_EXAMPLE, {"id": "u2", "isDeleted": True}]}},
            "operations": {
                "operations": [
                    {"table": "end_user", "operation": "update", "data": _ROW_EXAMPLE, "baseVersion": 1, "opId": "o1"}
                ],
                "atomic": False,
            },
        },
        links=_AFTER_PUSH,
    ),
    "sync.pull": Call(
        "PullAnswer",
        "Pull",
        (errors.ResyncRequired,),
        names_device=True,
        examples={
            "page": {"cursor": None, "entityTypes": ["end_user"], "limit": 1000, "digest": True},
            "one": {"table": "end_user", "lastSync": "2025-06-29T23:45:26.002Z"},
            "several": {"lastSyncTimestamp": "2025-06-29T23:45:26.002Z", "entityTypes": ["end_user", "interactions"]},
        },
        links={
            "sync.pull": {"requestBody": {"cursor": "$response.body#/cursor"}},
            "sync.push": {
                "requestBody": {"changes": {"end_user": [_ROW_EXAMPLE]}, "baseCursor": "$response.body#/cursor"}
            },
        },
    ),
    "sync.pull_pending": Call(
        "PullAnswer",
        "PullPending",
        (errors.ResyncRequired,),
        names_device=True,
        examples={"tables": {"entityTypes": ["end_user"]}},
    ),
    "sync.health": Call("SyncHealth", needs_token=False),
    "sync.notify": Call(
        "Message",
        "TestNotification",
        examples={"note": {"type": "sync_complete", "entityType": "end_user", "message": "Hello"}},
    ),
    "sync.limits": Call("Limits", needs_token=False),
    "sync.tables": Call("TablesAnswer", needs_token=False),
    "review.history": Call(
        "HistoryAnswer",
        errors=(errors.ValidationError, errors.NotFound),
        queries={"before": _NUMBER | {"description": "Only versions below this one."}, "limit": _LIMIT},
        links={
            "review.revert": {
                "parameters": {"table": "$request.path.table", "row_id": "$request.path.row_id"},
                "requestBody": {"version": f"{_DATA}/0/version"},
            }
        },
    ),
    "review.revert": Call(
        "PushAnswer",
        "Revert",
        (errors.NotFound,),
        is_idempotent=True,
        names_device=True,
        examples={"first": {"version": 1}},
        links=_AFTER_PUSH,
    ),
    "review.conflicts": Call(
        "ConflictsAnswer",
        errors=(errors.ValidationError,),
        queries={
            "state": _STATE,
            "after": _NUMBER | {"description": "Only conflicts after this one."},
            "limit": _LIMIT,
        },
        links={
            "review.resolve": {
                "parameters": {"number": f"{_DATA}/0/conflictId"},
                "requestBody": {"resolution": "other"},
            }
        },
    ),
    "review.resolve": Call(
        "PushAnswer",
        "Resolve",
        (errors.NotFound,),
        is_idempotent=True,
        names_device=True,
        examples={"other": {"resolution": "other"}, "row": {"resolution": "row", "row": {"name": "Asha"}}},
        links=_AFTER_PUSH,
    ),
    "review.devices": Call(
        "DevicesAnswer",
        errors=(errors.StorageFull,),
        links={
            "review.rename_device": {
                "parameters": {"device_id": f"{_DATA}/0/deviceId"},
                "requestBody": {"name": "Till 1"},
            },
            "review.forget_device": {"parameters": {"device_id": f"{_DATA}/0/deviceId"}},
        },
    ),
    "review.rename_device": Call(
        "DeviceAnswer",
        "DeviceName",
        (errors.NotFound,),
        examples={"till": {"name": "Till 1"}},
        links={"review.forget_device": {"parameters": {"device_id": f"{_DATA}/deviceId"}}},
    ),
    "review.forget_device": Call("Message", errors=(errors.NotFound,)),
    "pages.health": Call("Health", needs_token=False),
    "pages.openapi_document": Call("Document", needs_token=False),
    "pages.asyncapi_document": Call("Document", needs_token=False),
}
