"""The JSON Schemas of pushes and pulls, and of their answers.

Knows: the forms of a push and a pull on the wire. Must not know: which address or event carries them, the schemas of
anything else, Flask, stored data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from api.docs.json_schema import (
    COUNT,
    CURSOR_TEXT,
    FLAG,
    NAME,
    STATED_TIME,
    TENANT,
    TEXT,
    TIME,
    Schema,
    list_of,
    object_of,
    operation,
    or_null,
    ref,
    success,
    table_name,
)
from models import SyncedTable
from protocol.messages import Status
from settings import Settings

# --- push ------------------------------------------------------------------------------------------------------------


def push(tables: Mapping[str, SyncedTable], settings: Settings) -> dict[str, Schema]:
    """Describe the forms of a push, and its answer."""
    options: dict[str, Schema | bool] = {
        "atomic": FLAG
        | {"default": True, "description": "`false`: bad rows are rejected one by one, the rest is stored."},
        "baseCursor": or_null(CURSOR_TEXT | {"description": "“I had seen everything up to here.”"}),
        "tenantId": or_null(TENANT),
    }
    one = [operation(table, **options, changes=False, operations=False) for table in tables.values()]
    many = {"changes": _changes(tables, settings.max_push_rows), **options, "table": False, "operations": False}
    ordered = {"operations": _operations(tables, settings.max_push_rows), **options, "table": False, "changes": False}
    return {
        "PushOne": {"oneOf": one, "title": "One change"},
        "PushChanges": object_of(many, many.keys() - {"changes"}, title="Rows by table"),
        "PushOperations": object_of(ordered, ordered.keys() - {"operations"}, title="Operations in order"),
        "Push": {"oneOf": [ref("PushOne"), ref("PushChanges"), ref("PushOperations")]},
        "PushAnswer": _push_answer(tables),
        "Result": _result(),
    }


_UNKNOWN_TABLE = "A table that is not synced here costs its own rows only, if another is named: see `errors`."


def _changes(tables: Mapping[str, SyncedTable], max_rows: int) -> Schema:
    rows = {name: list_of(ref(f"{table.model.__name__}Edit"), maxItems=max_rows) for name, table in tables.items()}
    any_rows = list_of({}, maxItems=max_rows, description=_UNKNOWN_TABLE)
    known = [{"required": [name]} for name in tables]
    return object_of(rows, rows, additionalProperties=any_rows, anyOf=[{"maxProperties": 0}, *known])


def _operations(tables: Mapping[str, SyncedTable], max_rows: int) -> Schema:
    other = object_of({"table": TEXT | {"not": {"enum": list(tables)}}}, description=_UNKNOWN_TABLE)
    known = [{"maxItems": 0}, {"contains": object_of({"table": table_name()})}]
    return list_of({"anyOf": [ref("Operation"), other]}, maxItems=max_rows) | {"anyOf": known}


def _push_answer(tables: Mapping[str, SyncedTable]) -> Schema:
    rows = [ref(table.model.__name__) for table in tables.values()]
    return success(
        list_of({"anyOf": [*rows, {"type": "null"}]}),
        ["errors"],
        **_cursors(),
        previousCursor=CURSOR_TEXT,
        results=list_of(ref("Result")),
        conflicts=list_of(ref("Conflict")),
        errors=_errors(),
    )


def _errors() -> Schema:
    """Describe the answer for tables that are named and not synced, each for itself."""
    one = object_of({"code": {"const": "unknown_table"}, "error": TEXT})
    description = "By table that was named and is not synced here: why nothing of it was stored or sent."
    return {"type": "object", "additionalProperties": one, "minProperties": 1, "description": description}


def _cursors() -> dict[str, Schema]:
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


def pull(tables: Mapping[str, SyncedTable], settings: Settings) -> dict[str, Schema]:
    """Describe the forms of a pull, and its answer."""
    one: dict[str, Schema | bool] = {"table": table_name(), "entityTypes": False}
    names = or_null(list_of(TEXT | {"minLength": 1, "maxLength": 64}, minItems=1, contains=table_name()))
    several: dict[str, Schema | bool] = {"entityTypes": names, "table": False}
    forms = _pull_forms(one, several, settings)
    cursor = {"cursor": or_null(CURSOR_TEXT | {"description": "Of the answer before, for a device that names itself."})}
    pending = [object_of(one | cursor, {"entityTypes", "cursor"}), object_of(several | cursor, {*several, "cursor"})]
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
    deleted = FLAG | {"description": "A first pull, with the cursor null, has deleted rows too."}
    page: dict[str, Schema | bool] = {"cursor": or_null(CURSOR_TEXT), "limit": limit, "deleted": deleted}
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
    return success(data, tuple(more), **_cursors(), hasMore=FLAG, **more)
