"""What travels, said as JSON Schema: bodies, answers, rows and notifications, of HTTP and of events alike.

Knows: the shape of everything on the wire, taken from the models, limits and settings that enforce it. Must not know:
which address or event carries what (``openapi``, ``asyncapi``), Flask, stored data. A schema takes whatever the server
takes, so that a client made from it never refuses a valid call; what a schema can't say, its description does.
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
    STATED_TIME,
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
from api.history import DEVICE_NAME
from api.limits import announced_limits
from models import TYPES, SyncedTable, synced_tables
from protocol.messages import FieldConflict, Status, Strategy
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
        **_push(tables, settings),
        **_pull(tables, settings),
        **_looking_back(tables),
        **_notifications(),
        "TablesAnswer": _tables(),
        "Error": failure(),
        "Message": success(object_of({"message": TEXT})),
        "Limits": success(object_of({name: {"const": value} for name, value in announced_limits(settings).items()})),
    }


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
        "Customer": object_of({**customer, "subscriptionPlan": TEXT}),
        "CustomerAnswer": success(object_of({"customer": ref("Customer")})),
        "Session": success(object_of(session, {"message"})),
        "TokenPair": success(object_of(pair)),
    }


# --- push ------------------------------------------------------------------------------------------------------------


def _push(tables: Mapping[str, SyncedTable], settings: Settings) -> dict[str, Schema]:
    options: dict[str, Schema | bool] = {
        "atomic": FLAG
        | {"default": True, "description": "`false`: bad rows are rejected one by one, the rest is stored."},
        "baseCursor": or_null(CURSOR_TEXT | {"description": "“I had seen everything up to here.”"}),
        "tenantId": or_null(TENANT),
    }
    most = settings.max_push_rows
    rows = {name: list_of(ref(f"{table.model.__name__}Edit"), maxItems=most) for name, table in tables.items()}
    others = "A table that is not synced here costs its own rows only, if another is named: see `errors`."
    any_rows = list_of({}, maxItems=most, description=others)
    some = [{"required": [name]} for name in tables]
    changes = object_of(rows, rows, additionalProperties=any_rows, anyOf=[{"maxProperties": 0}, *some])
    other = object_of({"table": TEXT | {"not": {"enum": list(tables)}}}, description=others)
    operations = list_of({"anyOf": [ref("Operation"), other]}, maxItems=most)
    operations["anyOf"] = [{"maxItems": 0}, {"contains": object_of({"table": table_name()})}]
    one = [operation(table, **options, changes=False, operations=False) for table in tables.values()]
    many = {"changes": changes, **options, "table": False, "operations": False}
    ordered = {"operations": operations, **options, "table": False, "changes": False}
    return {
        "PushOne": {"oneOf": one, "title": "One change"},
        "PushChanges": object_of(many, many.keys() - {"changes"}, title="Rows by table"),
        "PushOperations": object_of(ordered, ordered.keys() - {"operations"}, title="Operations in order"),
        "Push": {"oneOf": [ref("PushOne"), ref("PushChanges"), ref("PushOperations")]},
        "PushAnswer": success(
            list_of({"anyOf": [*(ref(table.model.__name__) for table in tables.values()), {"type": "null"}]}),
            ["errors"],
            **_place(),
            previousCursor=CURSOR_TEXT,
            results=list_of(ref("Result")),
            conflicts=list_of(ref("Conflict")),
            errors=_errors(),
        ),
        "Result": _result(),
    }


def _errors() -> Schema:
    """Describe the answer for tables that are named and not synced, each for itself."""
    one = object_of({"code": {"const": "unknown_table"}, "error": TEXT})
    said = "By table that was named and is not synced here: why nothing of it was stored or sent."
    return {"type": "object", "additionalProperties": one, "minProperties": 1, "description": said}


def _place() -> dict[str, Schema]:
    return {"syncTimestamp": TIME, "cursor": CURSOR_TEXT}


def _result() -> Schema:
    properties = {
        "table": or_null(TEXT),
        "id": or_null(NAME),
        "status": {"type": "string", "enum": list(get_args(Status))},
        "version": or_null(COUNT),
        "error": TEXT,
        "replayed": {"const": True},
    }
    return object_of(properties, {"error", "replayed"})


# --- pull ------------------------------------------------------------------------------------------------------------


def _pull(tables: Mapping[str, SyncedTable], settings: Settings) -> dict[str, Schema]:
    one: dict[str, Schema | bool] = {"table": table_name(), "entityTypes": False}
    names = or_null(list_of(TEXT | {"minLength": 1, "maxLength": 64}, minItems=1, contains=table_name()))
    several: dict[str, Schema | bool] = {"entityTypes": names, "table": False}
    forms = _pull_forms(one, several, settings)
    place = {"cursor": or_null(CURSOR_TEXT | {"description": "Of the answer before, for a device that names itself."})}
    pending = [object_of(one | place, {"entityTypes", "cursor"}), object_of(several | place, {*several, "cursor"})]
    return {
        **forms,
        "Pull": {"oneOf": [ref(name) for name in forms]},
        "PullPending": {"oneOf": pending},
        "PullAnswer": _pull_answer(tables),
    }


def _pull_forms(
    one: Mapping[str, Schema | bool], several: Mapping[str, Schema | bool], settings: Settings
) -> dict[str, Schema]:
    """Describe the forms of a pull: of ``one`` table or ``several``, by a time or by a cursor."""
    since: Schema = {"anyOf": [STATED_TIME, {"enum": ["", None]}]}
    limit = {"type": ["integer", "null"], "minimum": 1, "maximum": settings.max_pull_rows}
    page: dict[str, Schema | bool] = {"cursor": or_null(CURSOR_TEXT), "limit": limit}
    forms: dict[str, tuple[str, Mapping[str, Schema | bool], set[str]]] = {
        "PullOne": ("One table, by time", {**one, "lastSync": since, "cursor": False}, {"table"}),
        "PullSeveral": ("Several tables, by time", {**several, "lastSyncTimestamp": since, "cursor": False}, set()),
        "PullPage": ("By cursor, paged", {**several, **page}, {"cursor"}),
        "PullPageOfOne": ("One table, by cursor", {**one, **page}, {"cursor", "table"}),
    }
    options: dict[str, Schema | bool] = {"digest": FLAG, "tenantId": or_null(TENANT)}
    return {
        name: object_of({**properties, **options}, {*properties, *options} - required, title=title)
        for name, (title, properties, required) in forms.items()
    }


def _pull_answer(tables: Mapping[str, SyncedTable]) -> Schema:
    rows = {name: list_of(ref(table.model.__name__)) for name, table in tables.items()}
    digest = object_of({"count": COUNT, "hash": TEXT | {"pattern": "^[0-9a-f]{16}$"}})
    digests = {"type": "object", "additionalProperties": digest}
    none = list_of({}, maxItems=0)  # Of a table that is not synced.
    data = object_of(rows, rows, additionalProperties=none)
    complete = {"const": True, "description": "All there is: the time that was asked from is of no use any more."}
    back = {"const": True, "description": "This device said before that it had more: it is a copy, or an older state."}
    more = {"digest": digests, "errors": _errors(), "complete": complete, "wentBack": back}
    return success(data, tuple(more), **_place(), hasMore=FLAG, **more)


# --- looking back ----------------------------------------------------------------------------------------------------


def _looking_back(tables: Mapping[str, SyncedTable]) -> dict[str, Schema]:
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
    return object_of({**device, "firstSeen": TIME, "lastSeen": TIME, "expired": FLAG})


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
