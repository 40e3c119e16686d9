"""The JSON Schemas of bodies, answers, rows and notifications, for HTTP and events alike.

Knows: the form of everything on the wire, taken from the models, limits and settings that enforce it. Must not know:
which address or event carries what (``openapi``, ``asyncapi``), Flask, stored data. A schema accepts whatever the server
accepts, so that a client made from it never refuses a valid call; what a schema can't express, its description says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from accounts.account_fields import EMAIL, NAME_CHARACTERS, OPTIONAL_FIELDS, PROFILE_FIELDS
from accounts.passwords import PASSWORD_BYTES
from api.docs.json_schema import (
    COUNT,
    CURSOR_TEXT,
    FLAG,
    NAME,
    TENANT,
    TEXT,
    TIME,
    UUID,
    Schema,
    edit,
    failure,
    line,
    list_of,
    object_of,
    operation,
    or_null,
    ref,
    row,
    success,
    table_name,
    texts,
)
from api.docs.sync_schemas import pull, push
from api.history import DEVICE_NAME
from api.limits import TENANTS_OWN, announced_limits
from models import TYPES, SyncedTable, synced_tables
from protocol.messages import FieldConflict, Strategy
from protocol.notifications import NOTIFICATION_TYPES, STATUS_TEXTS, TEST_NOTIFICATION_TEXTS
from settings import Settings
from storage.history import Resolution


def components(settings: Settings) -> dict[str, Schema]:
    """Give every named schema."""
    tables = synced_tables()
    return {
        **_customers(),
        **{table.model.__name__: row(table) for table in tables.values()},
        **{f"{table.model.__name__}Edit": edit(table, settings) for table in tables.values()},
        "Operation": {"oneOf": [operation(table) for table in tables.values()]},
        **push(tables, settings),
        **pull(tables, settings),
        **_review(tables),
        **_notifications(),
        "TablesAnswer": _tables(),
        "Error": failure(),
        "Message": success(object_of({"message": TEXT})),
        "Limits": success(object_of({name: _limit(name, value) for name, value in announced_limits(settings).items()})),
    }


def _limit(name: str, value: object) -> Schema:
    """Describe a limit, which is the same for all but where tenants may have their own."""
    if name not in TENANTS_OWN:
        return {"const": value}
    return {"type": "integer" if isinstance(value, int) else "string", "default": value}


# --- customers -------------------------------------------------------------------------------------------------------


def _customers() -> dict[str, Schema]:
    least, most = PASSWORD_BYTES
    one_line, some = line(NAME_CHARACTERS), TEXT | {"minLength": 1}
    optional_line = {"anyOf": [one_line, {"enum": ["", None]}]}
    password = TEXT | {
        "pattern": rf"^([\x00-\x7f]{{{least},{most}}}|[\s\S]*[^\x00-\x7f][\s\S]*)$",
        "maxLength": most,
        "description": f"{least} to {most} bytes as UTF-8, in the normal form NFC.",
    }
    email = TEXT | {
        "pattern": rf"^\s*{EMAIL.pattern}\s*$",
        "description": "Compared in NFC, without case and space around it.",
    }
    profile = {name: optional_line if name in OPTIONAL_FIELDS else one_line for name in PROFILE_FIELDS}
    customer = {"id": UUID, "name": TEXT, "email": TEXT, "companyName": TEXT, "phone": or_null(TEXT)}
    pair = {"token": TEXT | {"description": "Access token, a JWT."}, "refreshToken": TEXT}
    session = {**pair, "customer": ref("Customer"), "message": TEXT}
    return {
        "Registration": object_of({**profile, "email": email, "password": password}, OPTIONAL_FIELDS),
        "Login": object_of({"email": some, "password": some}),
        "Refresh": object_of({"refreshToken": some}),
        "Profile": object_of(profile, profile, additionalProperties=False),
        "PasswordChange": object_of({"oldPassword": some, "newPassword": password}),
        "PasswordProof": object_of({"password": some}),
        "Forgotten": object_of({"email": email}),
        "Reset": object_of({"token": some, "newPassword": password}),
        "Confirmation": object_of({"token": some}),
        "Confirmed": success(object_of({"email": TEXT, "message": TEXT})),
        "EmailChange": object_of({"email": email, "password": some}),
        "Customer": object_of({**customer, "subscriptionPlan": TEXT, "emailVerified": FLAG}),
        "CustomerAnswer": success(object_of({"customer": ref("Customer")})),
        "Session": success(object_of(session, {"message"})),
        "TokenPair": success(object_of(pair)),
        "OpenSession": object_of({"sessionId": TEXT, "current": FLAG, "createdAt": TIME, "expiresAt": TIME}),
        "SessionsAnswer": success(list_of(ref("OpenSession"))),
        "SessionsEnded": success(object_of({"ended": COUNT, "message": TEXT})),
        "Archive": TEXT | {"format": "binary", "description": "A ZIP archive."},
    }


# --- history, conflicts, devices ---------------------------------------------------------------------------------------


def _review(tables: Mapping[str, SyncedTable]) -> dict[str, Schema]:
    return {
        "Version": _version(tables),
        "HistoryAnswer": success(list_of(ref("Version")), hasMore=FLAG),
        "Revert": object_of({"version": {"type": "integer"}}),
        "Conflict": _conflict(),
        "ConflictsAnswer": success(list_of(ref("Conflict")), hasMore=FLAG),
        "Resolve": _resolve(),
        "Device": _device(),
        "DeviceAnswer": success(ref("Device")),
        "DevicesAnswer": success(list_of(ref("Device"))),
        "DeviceName": object_of(texts(DEVICE_NAME, ["name"])),
    }


def _version(tables: Mapping[str, SyncedTable]) -> Schema:
    return object_of(
        {
            "version": COUNT,
            "operation": {"enum": ["create", "update", "delete"]},
            "fields": or_null(list_of(TEXT)),
            "deviceId": or_null(TEXT),
            "editedAt": TIME,
            "committedAt": TIME,
            "row": {"anyOf": [ref(table.model.__name__) for table in tables.values()]},
        }
    )


def _tables() -> Schema:
    kind = {"type": "string", "enum": list(TYPES)}
    column = object_of({"type": kind, "required": FLAG, "default": {}, "enum": or_null(list_of({}, minItems=1))})
    columns = {"type": "object", "additionalProperties": column}
    table = object_of({"columns": columns, "indexes": list_of(list_of(TEXT, minItems=1))})
    tables = {"type": "object", "propertyNames": table_name(), "additionalProperties": table}
    return success(object_of({"tables": tables, "everyRow": columns}))


def _conflict() -> Schema:
    side = object_of({"deviceId": or_null(TEXT), "editedAt": TIME})
    field: dict[str, Schema] = {name: {} for name in FieldConflict.__annotations__}
    field["winner"] = {"enum": ["client", "server"]}
    return object_of(
        {
            "conflictId": COUNT,
            "table": table_name(),
            "id": NAME,
            "state": {"enum": ["open", "resolved"]},
            "strategy": {"enum": list(get_args(Strategy))},
            "baseVersion": or_null(COUNT),
            "version": COUNT,
            "fields": {"type": "object", "additionalProperties": object_of(field)},
            "client": side,
            "server": side,
            "detectedAt": TIME,
            "resolution": {"enum": [*get_args(Resolution), None]},
            "resolvedAt": or_null(TIME),
        }
    )


def _resolve() -> Schema:
    keep = {"enum": [name for name in get_args(Resolution) if name != "row"]}
    row = {"resolution": {"const": "row"}, "row": {"type": "object"}}
    return {
        "oneOf": [object_of({"resolution": keep}, title="Keep, or take the other"), object_of(row, title="Set fields")]
    }


def _device() -> Schema:
    device = {"deviceId": NAME, "name": or_null(TEXT), "cursor": CURSOR_TEXT, "behind": COUNT, "tables": list_of(TEXT)}
    session = {"sessionId": or_null(TEXT | {"description": "The session that it came with last."})}
    return object_of({**device, "firstSeen": TIME, "lastSeen": TIME, "expired": FLAG, **session})


# --- notifications ---------------------------------------------------------------------------------------------------


def _notifications() -> dict[str, Schema]:
    kind: Schema = {"type": "string", "enum": list(NOTIFICATION_TYPES)}
    test = texts(TEST_NOTIFICATION_TEXTS) | {"type": {"enum": [*NOTIFICATION_TYPES, None]}, "tenantId": or_null(TENANT)}
    status = texts(STATUS_TEXTS, ["status"])
    note = {
        "type": kind,
        "entityType": TEXT,
        "message": TEXT,
        "timestamp": TIME,
        "entityId": TEXT,
        "operation": {"enum": ["create", "update", "delete", "batch"]},
        "count": COUNT,
        "cursor": CURSOR_TEXT,
        "previousCursor": CURSOR_TEXT,
        "data": {"type": "object", "description": "The row, the conflict, or `entityIds`, `entityTypes` and `count`."},
    }
    return {
        "TestNotification": object_of(test, test),
        "StatusUpdate": object_of(status, {"entityType"}),
        "Notification": object_of(note, note.keys() - {"type", "entityType", "message", "timestamp"}),
    }
