"""Builds JSON Schemas: of basic types and envelopes, and of the rows of the synced tables.

Knows: how JSON Schema describes a text, a time, an object, the envelopes; how a model's columns look to clients and what
each accepts. Must not know: bodies and answers (``schemas``), Flask, stored data. The keywords are those that JSON Schema
draft 7 and 2020-12 have in common, since AsyncAPI uses the one and OpenAPI the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peewee import BooleanField, Field, FloatField, IntegerField

from models import (
    DateText,
    JsonField,
    SyncedTable,
    TimestampText,
    TimeText,
    synced_tables,
)
from protocol.codec import CURSOR
from protocol.column_checks import CLOCK, DATE, TIMESTAMP
from protocol.errors import Problem
from protocol.identifiers import MAX_ID_CHARACTERS, MAX_UNIQUE_ID_CHARACTERS
from settings import Settings

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
STORABLE: Schema = TEXT | {"pattern": r"^[^\x00]*$"}
"""A text without U+0000, which not every database can store."""

FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
UUID: Schema = {"type": "string", "format": "uuid"}
TIME: Schema = {"type": "string", "format": "date-time", "examples": ["2025-06-29T23:45:26.002Z"]}
STATED_TIME: Schema = TIME | {"description": "ISO 8601; without a zone it is UTC.", "maxLength": 40}
CURSOR_TEXT: Schema = {"type": "string", "pattern": f"^{CURSOR.pattern}$", "examples": ["00102cf0e16f-1"]}
NAME: Schema = {"type": "string", "pattern": rf"^[A-Za-z0-9_.:-]{{1,{MAX_ID_CHARACTERS}}}$"}
"""An ID of a row, a device or an operation."""

TENANT: Schema = {
    "type": "string",
    "pattern": "^[0-9A-Fa-f-]{32,36}$",
    "description": "If given, it must be the token's.",
}


def ref(name: str) -> Schema:
    """Refer to one of ``components``, which has the same path in both documents."""
    return {"$ref": f"#/components/schemas/{name}"}


def success(data: Schema, optional: Iterable[str] = (), **beside: Schema) -> Schema:
    """Describe the envelope of a successful answer around ``data``."""
    return object_of({"success": {"const": True}, "data": data, **beside}, optional)


def error_codes() -> list[str]:
    """List every error code."""
    problems: list[type[Problem]] = [Problem, *Problem.__subclasses__()]
    return sorted({problem.code for problem in problems if problem.__module__ == Problem.__module__})


def failure() -> Schema:
    """Describe the body of every error."""
    detail = object_of({"path": TEXT, "error": TEXT}, additionalProperties=False)
    properties = {
        "success": {"const": False},
        "error": TEXT,
        "message": TEXT | {"description": "The same sentence as in `error`."},
        "code": {"type": "string", "enum": error_codes()},
        "details": list_of(detail, minItems=1),
        "requestId": TEXT,
        "retryAfterSeconds": {"type": "integer", "minimum": 1},
    }
    return object_of(properties, {"details", "requestId", "retryAfterSeconds"}, additionalProperties=False)


def table_name() -> Schema:
    """Describe the name of a synced table."""
    return {"type": "string", "enum": list(synced_tables())}


def or_null(schema: Schema) -> Schema:
    """Let a schema accept null too."""
    if "type" in schema and "enum" not in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return schema | {"type": [*kinds, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def object_of(properties: Mapping[str, Schema | bool], optional: Iterable[str] = (), **more: Any) -> Schema:
    """Describe an object: all ``properties`` are required but the ``optional`` ones, and others are allowed."""
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "properties": dict(properties), **({"required": required} if required else {}), **more}


def list_of(items: Schema, **more: Any) -> Schema:
    """Describe a list of ``items``."""
    return {"type": "array", "items": items, **more}


def line(max_characters: int) -> Schema:
    """Describe a text of one line that is stored without the space around it (``account_fields``)."""
    inside, end = r"[^\x00-\x1f\x7f-\x9f]", r"[^\s\x00-\x1f\x7f-\x9f]"
    description = f"1 to {max_characters} characters without control characters; space around it is not kept."
    return {
        "type": "string",
        "pattern": rf"^\s*{end}({inside}{{0,{max_characters - 2}}}{end})?\s*$",
        "description": description,
    }


def texts(lengths: Mapping[str, int], required: Sequence[str] = ()) -> dict[str, Schema]:
    """Describe what ``notifications.parse_texts`` accepts."""
    found = {name: STORABLE | {"minLength": 1, "maxLength": most} for name, most in lengths.items()}
    return {name: text if name in required else or_null(text) for name, text in found.items()}


# --- rows ------------------------------------------------------------------------------------------------------------


def _shown(field: Field) -> Schema:
    """Describe a column as answers have it."""
    if isinstance(field, JsonField):
        return {"description": "Any JSON."}
    if field.choices:
        schema: Schema = {"enum": [choice for choice, _ in field.choices]}
    elif isinstance(field, BooleanField):
        schema = {"type": "integer", "minimum": 0, "maximum": 1}
    else:
        schema = {"type": "integer" if isinstance(field, IntegerField) else "string"}
        schema = {"type": "number"} if isinstance(field, FloatField) else schema | _form(field)
    return or_null(schema) if field.null else schema


def _form(field: Field) -> Schema:
    """Describe how a date or a time is written."""
    form = {DateText: DATE, TimeText: CLOCK, TimestampText: TIMESTAMP}.get(type(field))
    return {"pattern": f"^{form}$"} if form else {}


def _sent(field: Field) -> Schema:
    """Describe a column as devices may send it: a number for a text, any flag, null for nothing."""
    if isinstance(field, JsonField):
        return {"description": "Any JSON."}
    if isinstance(field, BooleanField):
        return {"enum": [0, 1, True, False, None]}
    if field.choices:
        return {"enum": [*(choice for choice, _ in field.choices), None]}
    if isinstance(field, FloatField):
        return {"type": ["number", "null"]}
    if _form(field):
        return or_null(TEXT | _form(field))
    is_whole = isinstance(field, IntegerField)
    return {"type": ["integer", "null"]} if is_whole else STORABLE | {"type": ["string", "number", "null"]}


def _fields(table: SyncedTable) -> list[Field]:
    """List the columns that clients see."""
    return [field for field in table.model._meta.sorted_fields if not field.column_name.startswith("_")]


def row(table: SyncedTable) -> Schema:
    """Describe a row as answers have it."""
    properties = {field.column_name: _shown(field) for field in _fields(table)}
    properties |= {"id": NAME, "version": COUNT, "createdAt": TIME, "updatedAt": TIME}
    always = {"id", "is_deleted", "version", "sync_status"}
    description = f"A row of `{table.name}` as stored; fields that the table does not know are kept beside these."
    return object_of(properties, properties.keys() - always, description=description)


def edit(table: SyncedTable, settings: Settings) -> Schema:
    """Describe a row as devices push it; an id of another form is allowed beside a ``Unique_id`` only."""
    rules = table.rules.columns
    properties = {field.column_name: _sent(field) for field in _fields(table) if field.column_name in rules}
    properties["isDeleted"] = properties["is_deleted"]
    properties["Unique_id"] = properties["Unique_id"] | {"maxLength": MAX_UNIQUE_ID_CHARACTERS}
    any_id = {"type": ["string", "number", "null"]}
    found = {
        "required": ["Unique_id"],
        "properties": {"id": any_id, "Unique_id": {"minLength": 1, "not": {"type": "null"}}},
    }
    local = {"type": ["number", "null"]}
    known = {"properties": {"id": {"anyOf": [NAME, {"const": ""}, local]}}}
    description = (
        f"Fields of a row of `{table.name}`: those present are changed, `null` clears one, unknown ones are kept."
    )
    if table.rules.required:
        description += (
            f" A new row has {', '.join(f'`{name}`' for name in table.rules.required)}, which `null` does not clear."
        )
    names = {"minLength": 1, "maxLength": settings.max_name_characters, "pattern": STORABLE["pattern"]}
    return object_of(
        {"id": any_id, **properties},
        properties.keys() | {"id"},
        propertyNames=names,
        anyOf=[known, found],
        description=description,
    )


def operation(table: SyncedTable, **beside: Schema | bool) -> Schema:
    """Describe one change of a row, in forms A and C of a push; ``beside``: what else may be there."""
    properties: dict[str, Schema | bool] = {
        "table": {"const": table.name},
        "operation": {"type": "string", "enum": ["create", "update", "delete"]},
        "data": ref(f"{table.model.__name__}Edit"),
        "timestamp": or_null(STATED_TIME),
        "baseVersion": or_null(COUNT | {"description": "The version that this change was based on."}),
        "opId": or_null(NAME | {"description": "A name by which a retry of this operation is known."}),
        **beside,
    }
    return object_of(properties, properties.keys() - {"table", "operation", "data"}, title=table.name)
