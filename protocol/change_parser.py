"""Parses one change of a push: its fields, which row it means, and the version it was based on.

Knows: what each part of a change may be. What is wrong with a row becomes one of its ``problems``, not an exception.
Must not know: the forms of a push (``push_parser``), stored rows, what becomes of a change (``merge``), Flask, peewee,
sockets, files, the clock (it is passed in).
"""

from __future__ import annotations

from typing import Any

from protocol.codec import NO_NULL, Row, edit_time, has_null, parse_time, whole_number
from protocol.errors import Detail, ValidationError
from protocol.identifiers import IDENTIFIER, IDENTIFIER_ERROR, MAX_UNIQUE_ID_CHARACTERS
from protocol.messages import SERVER_FIELDS, Change, Limits, Table

_DELETED = {"is_deleted", "isDeleted"}


def parse_change(
    path: str,
    row_path: str,
    table: Table,
    kind: Any,
    row: object,
    limits: Limits,
    now: int,
    options: Row,
    options_path: str = "",
) -> Change:
    """Parse one change. ``options`` holds what the body says beside the row, under ``options_path``."""
    change = Change(path, table, kind)
    if not isinstance(row, dict):
        change.problems.append({"path": row_path, "error": "must be an object with the row's fields"})
        return change
    _parse_fields(change, table, row, row_path, limits)
    _parse_identity(change, row, row_path)
    _parse_base(change, row, options, options_path)
    _parse_op_id(change, options, options_path)
    _parse_time(change, now, options, options_path + "timestamp")
    return change


def _parse_fields(change: Change, table: Table, row: Row, path: str, limits: Limits) -> None:
    """Take the fields that a device may write, each checked by its column. A field that the table does not know is kept."""
    columns, unchecked, fields = table.columns, table.unchecked_types, change.fields
    for name, value in row.items():
        if type(value) in unchecked.get(name, ()):
            fields[name] = value
            continue
        try:
            if name in _DELETED:
                said = 0 if value is None else columns["is_deleted"].check(value)
                fields["is_deleted"] = max(said, fields.get("is_deleted", 0))  # Under either name it is a delete.
            elif name in columns:
                fields[name] = None if value is None else columns[name].check(value)
            elif name not in SERVER_FIELDS:
                fields[_checked_name(name, limits.name_characters)] = value
        except ValueError as error:
            shown = name if len(name) <= limits.name_characters else name[: limits.name_characters] + "…"
            change.problems.append({"path": f"{path}.{shown}", "error": str(error)})
    nulls = [name for name, value in fields.items() if has_null(value)]
    change.problems += [{"path": f"{path}.{name}", "error": NO_NULL} for name in nulls]
    if change.kind == "delete":
        fields["is_deleted"] = 1
    elif fields.get("is_deleted"):
        change.kind = "delete"
    if table.required and change.kind != "delete":
        _check_required(change, table, path)


def _check_required(change: Change, table: Table, path: str) -> None:
    """Find required columns: one that is cleared is a problem, one that is left out only if the row is new."""
    details: dict[str, Detail] = {name: {"path": f"{path}.{name}", "error": "is required"} for name in table.required}
    change.problems += [detail for name, detail in details.items() if change.fields.get(name, path) is None]
    change.required_errors = details


def _checked_name(name: str, max_characters: int) -> str:
    if not 1 <= len(name) <= max_characters:
        raise ValueError(f"a field's name must have 1 to {max_characters} characters")
    if has_null(name):
        raise ValueError(NO_NULL)
    return name


def _parse_identity(change: Change, row: Row, path: str) -> None:
    """Find which row is meant: by its id, else by its Unique_id, else it is new (docs/api.md, rules of a push).

    A number, null or an empty text is a device's local key and counts as no id. Any other id that is not well formed
    is allowed only beside a ``Unique_id``: without one, a retry could not find the row that the first try made.
    """
    row_id, unique_id = row.get("id"), change.fields.get("Unique_id")
    if unique_id is not None and len(unique_id) > MAX_UNIQUE_ID_CHARACTERS:
        error = f"must have at most {MAX_UNIQUE_ID_CHARACTERS} characters"
        change.problems.append({"path": f"{path}.Unique_id", "error": error})
    change.unique_id = unique_id or None
    if isinstance(row_id, str) and IDENTIFIER.fullmatch(row_id):
        change.row_id = row_id
    elif type(row_id) in (int, float) and not change.unique_id and -(2**63) < row_id < 2**63:  # type: ignore[operator]
        change.local_id = row_id
    elif isinstance(row_id, bool | list | dict) or (row_id and isinstance(row_id, str) and not change.unique_id):
        change.problems.append({"path": f"{path}.id", "error": IDENTIFIER_ERROR})


def _parse_base(change: Change, row: Row, options: Row, path: str) -> None:
    """Find the version that the change was based on: as stated or, in the older forms, one below the row's own."""
    stated, version = options.get("baseVersion"), row.get("version")
    if stated is None:
        counted = whole_number(version)
        change.is_counted = counted is not None and counted > 0
        if change.kind != "create" and counted is not None and counted > 0:
            change.base_version = counted - 1
    elif (base := whole_number(stated)) is not None and base >= 0:
        change.base_version, change.is_base_stated = base, True
    else:
        change.problems.append({"path": f"{path}baseVersion", "error": "must be a whole number from 0"})


def _parse_op_id(change: Change, options: Row, path: str) -> None:
    """Read the ID that a device gave to this operation, by which a retry is recognised."""
    stated = options.get("opId")
    if stated is None or (isinstance(stated, str) and IDENTIFIER.fullmatch(stated)):
        change.op_id = stated
    else:
        change.problems.append({"path": f"{path}opId", "error": IDENTIFIER_ERROR})


def _parse_time(change: Change, now: int, options: Row, path: str) -> None:
    """Read when the device made the edit; the time of arrival if it does not say, or says a time in the future."""
    stated = options.get("timestamp")
    try:
        edited = edit_time(change.fields.get("last_updated")) if stated is None else parse_time(stated, path)
    except ValidationError as error:
        change.problems += error.details
        edited = None
    change.is_timed = edited is not None
    change.edited_at = now if edited is None else min(edited, now)
