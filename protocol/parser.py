"""What a push or a pull may say (docs/api.md), and what it means, without I/O.

Knows: the forms of the bodies, whose row a change names, the version it was based on. Must not know: the stored rows and
what becomes of a change (``merge``), Flask, peewee, sockets, files, the clock (it is passed in). What is wrong with one
row is a value, what is wrong with the whole body an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw

from protocol.codec import (
    Row,
    decode_row,
    edit_time,
    has_null,
    has_zone,
    is_exact,
    parse_cursor,
    parse_time,
    whole_number,
)
from protocol.errors import Detail, PayloadTooLarge, ValidationError, invalid
from protocol.messages import SERVER_FIELDS, Change, Limits, Pull, Push, Table
from protocol.row_decoder import Reader, TypedRow
from protocol.seen_rows import NOBODY, Evidence

MAX_ID_CHARACTERS = 64
_ROW_ID = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_ID_CHARACTERS}}}", re.ASCII)
_ROW_ID_SENTENCE = f"must be 1 to {MAX_ID_CHARACTERS} characters from A-Z a-z 0-9 _ . : -"
MAX_UNIQUE_ID_CHARACTERS = 255

NOT_SYNCED = "is not a synced table"

_DELETED = {"is_deleted", "isDeleted"}


def parse_push(
    body: object,
    tables: Mapping[str, Table],
    limits: Limits,
    now: int,
    device_id: str | None = None,
    evidence: Evidence = NOBODY,
) -> Push:
    """Check a push in any of its three forms, its rows while they are read.

    Raises: ValidationError if the body is no push at all, PayloadTooLarge if it has too many rows; InvalidJson while
    rows are read that ``decode_push`` left as bytes. A bad row is no exception but a ``Change`` with ``problems``,
    since a push that is not atomic goes on without it.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    forms = [form for form in ("operations", "changes", "table") if form in body]
    if len(forms) != 1:
        raise invalid("$", 'must have exactly one of "table" (with "operation" and "data"), "changes" or "operations"')
    atomic = body.get("atomic", True)
    if not isinstance(atomic, bool):
        raise invalid("atomic", "must be true or false")
    base = body.get("baseCursor")
    cursor = None if base is None else parse_cursor(base, "baseCursor")
    count = _count(forms[0], body)
    if count > limits.push_rows:
        raise PayloadTooLarge(f"A push may have {limits.push_rows:,} rows. Send it in smaller parts.")
    named: Collection[Any] = body["changes"] if "changes" in body else [body.get("table")]
    parser = _Parser(tables, limits, now, {name for name in named if isinstance(name, str) and name in tables})
    rows = getattr(parser, forms[0])(body)
    for name in named if forms[0] == "changes" else ():
        parser.note_unknown(name, f"changes.{name[:64]}")
    return Push(rows, count, parser.met, atomic, cursor, device_id, parser.unknown, "atomic" in body, evidence)


def _count(form: str, body: Row) -> int:
    """Count the rows of a push."""
    if form == "table":
        return 1
    if form == "operations":
        if not isinstance(body["operations"], list):
            raise invalid("operations", "must be a list")
        return len(body["operations"])
    if not isinstance(body["changes"], dict):
        raise invalid("changes", "must be an object of lists of rows by table")
    for name, rows in body["changes"].items():
        if not isinstance(rows, list):
            raise invalid(f"changes.{name[:64]}", "must be a list of rows")
    return sum(map(len, body["changes"].values()))


@dataclass(slots=True)
class _Parser:
    """What is the same for all rows of one push."""

    tables: Mapping[str, Table]
    limits: Limits
    now: int
    met: set[str]
    """Tables that rows are of, as far as is known."""
    unknown: dict[str, Detail] = field(default_factory=dict)
    """Tables that are named and not synced, as far as is known, with what is wrong at the first place."""

    def note_unknown(self, name: object, path: str) -> str | None:
        """Note a table that is named at ``path``, and give it if it is one of those."""
        if not isinstance(name, str) or name in self.tables:
            return None
        self.unknown.setdefault(_shown_table(name), {"path": path, "error": NOT_SYNCED})
        return _shown_table(name)

    def table(self, body: Row) -> Iterator[Change | TypedRow]:
        """Form A: one row."""
        name, kind = body["table"], body.get("operation")
        is_plain = kind in ("create", "update") and "baseVersion" not in body and "opId" not in body
        table = self.tables.get(name) if is_plain and type(name) is str else None
        reader = None if table is None else Reader(table, "create" if kind == "create" else "update")
        yield self._row(reader, body.get("data"), 0, lambda _: self._one(body), body.get("timestamp"))

    def _one(self, body: Row) -> Change:
        return self._operation({**body, "data": decode_row(body.get("data"), 1)}, "")

    def changes(self, body: Row) -> Iterator[Change | TypedRow]:
        """Form B: rows by table, each an upsert or a delete."""
        for name, rows in body["changes"].items():
            table, path = self.tables.get(name), f"changes.{name[:64]}"
            if table is None:
                for place in (f"{path}[{index}]" for index in range(len(rows))):
                    problem: Detail = {"path": place, "error": NOT_SYNCED}
                    yield Change(place, None, problems=[problem], unknown_table=_shown_table(name))
            else:
                yield from self._rows(table, rows, path)

    def _rows(self, table: Table, rows: Sequence[object], path: str) -> Iterator[Change | TypedRow]:
        def again(index: int) -> Change:
            own = f"{path}[{index}]"
            return self._change(own, own, table, "upsert", decode_row(rows[index], 3), {})

        reader = Reader(table)
        for index, raw in enumerate(rows):
            yield self._row(reader, raw, index, again)

    def operations(self, body: Row) -> Iterator[Change]:
        """Form C: operations in order."""
        for index, operation in enumerate(body["operations"]):
            yield self._operation(decode_row(operation, 2), f"operations[{index}]")

    def _row(
        self, reader: Reader | None, raw: object, index: int, again: Callable[[int], Change], timestamp: object = None
    ) -> Change | TypedRow:
        """Read a row by the fast path, or ``again`` by the general one, which teaches the reader about others like it."""
        if reader is None or type(raw) is not Raw:
            return again(index)
        row = self._typed(reader, raw, index, again, timestamp)
        if row is None:
            change = again(index)
            reader.learn(change.fields)
            return change
        return row

    def _typed(
        self, reader: Reader, raw: Raw, index: int, again: Callable[[int], Change], timestamp: object
    ) -> TypedRow | None:
        """Read a row by the fast path, unless there is anything to say of it."""
        row = reader.read(raw)
        if row is None or row.is_deleted == 1 or (row.Unique_id and len(row.Unique_id) > MAX_UNIQUE_ID_CHARACTERS):
            return None
        row_id = row.id if type(row.id) is str and _ROW_ID.fullmatch(row.id) else None
        if row_id is None and (type(row.id) is bool or (row.id and type(row.id) is str and not row.Unique_id)):
            return None
        try:
            if type(row.id) in (int, float) and not row.Unique_id and is_exact(row.last_updated):
                return None
            edited = edit_time(row.last_updated) if timestamp is None else parse_time(timestamp, "timestamp")
        except ValidationError:
            return None
        at = self.now if edited is None or edited > self.now else edited
        return TypedRow(reader, reader.form, raw, row, reader.expects_new, row_id, at, index, again)

    def _operation(self, body: object, path: str) -> Change:
        if not isinstance(body, dict):
            return Change(path, None, problems=[{"path": path, "error": "must be an object"}])
        inner = f"{path}." if path else ""
        name, kind = body.get("table"), body.get("operation")
        table = self.tables.get(name) if isinstance(name, str) else None
        if table is None:
            problem: Detail = {"path": inner + "table", "error": NOT_SYNCED}
            unknown = self.note_unknown(name, inner + "table")
            return Change(path or "data", None, problems=[problem], unknown_table=unknown)
        self.met.add(table.name)
        change = self._change(path or "data", inner + "data", table, kind, body.get("data"), body, inner)
        if kind not in ("create", "update", "delete"):
            change.problems.append({"path": inner + "operation", "error": "must be create, update or delete"})
        return change

    def _change(
        self, path: str, row_path: str, table: Table, kind: Any, row: object, about: Row, about_path: str = ""
    ) -> Change:
        """Check one change; ``about`` is what is said of the row beside it, each under ``about_path`` and its name."""
        change = Change(path, table, kind)
        if not isinstance(row, dict):
            change.problems.append({"path": row_path, "error": "must be an object with the row's fields"})
        else:
            _read_fields(change, table, row, row_path, self.limits)
            _read_identity(change, row, row_path)
            _read_base(change, row, about, about_path)
            _read_op_id(change, about, about_path)
            self._read_time(change, about, about_path + "timestamp")
        return change

    def _read_time(self, change: Change, about: Row, path: str) -> None:
        stated = about.get("timestamp")
        try:
            edited = edit_time(change.fields.get("last_updated")) if stated is None else parse_time(stated, path)
        except ValidationError as error:
            change.problems += error.details
            edited = None
        change.is_timed = edited is not None
        change.edited_at = self.now if edited is None else min(edited, self.now)


def _read_fields(change: Change, table: Table, row: Row, path: str, limits: Limits) -> None:
    """Take the fields a device may write, each checked by its column; a field the table does not know is kept."""
    columns, plain, fields = table.columns, table.plain, change.fields
    for name, value in row.items():
        if type(value) in plain.get(name, ()):
            fields[name] = value
            continue
        try:
            if name in _DELETED:
                fields["is_deleted"] = 0 if value is None else columns["is_deleted"].check(value)
            elif name in columns:
                fields[name] = None if value is None else columns[name].check(value)
            elif name not in SERVER_FIELDS:
                fields[_checked_name(name, limits.name_characters)] = value
        except ValueError as error:
            shown = name if len(name) <= limits.name_characters else name[: limits.name_characters] + "…"
            change.problems.append({"path": f"{path}.{shown}", "error": str(error)})
    nulls = [name for name, value in fields.items() if has_null(value)]
    change.problems += [{"path": f"{path}.{name}", "error": _NO_NULL} for name in nulls]
    if change.kind == "delete":
        fields["is_deleted"] = 1
    elif fields.get("is_deleted"):
        change.kind = "delete"
    if table.required and change.kind != "delete":
        _read_required(change, table, path)


def _read_required(change: Change, table: Table, path: str) -> None:
    """Find required columns that are cleared, a problem at once, and those left out, one only of a row that is new."""
    details: dict[str, Detail] = {name: {"path": f"{path}.{name}", "error": "is required"} for name in table.required}
    change.problems += [detail for name, detail in details.items() if change.fields.get(name, path) is None]
    change.lacking = details


def _shown_table(name: str) -> str:
    """Give what is said again of a name for a table, which may be any text."""
    return name[:64]


def _checked_name(name: str, most: int) -> str:
    if not 1 <= len(name) <= most:
        raise ValueError(f"a field's name must have 1 to {most} characters")
    if has_null(name):
        raise ValueError(_NO_NULL)
    return name


_NO_NULL = "must have no U+0000"


def _read_identity(change: Change, row: Row, path: str) -> None:
    """Find whose row is meant: its id, else its Unique_id, else it is new (docs/api.md, rules of a push).

    A number, null or an empty text is a device's local key and counts as no id. Any other id that is not well formed
    may only stand beside a ``Unique_id``: without one, a retry could not find the row that the first try made.
    """
    row_id, unique_id = row.get("id"), change.fields.get("Unique_id")
    if unique_id is not None and len(unique_id) > MAX_UNIQUE_ID_CHARACTERS:
        sentence = f"must have at most {MAX_UNIQUE_ID_CHARACTERS} characters"
        change.problems.append({"path": f"{path}.Unique_id", "error": sentence})
    change.unique_id = unique_id or None
    if isinstance(row_id, str) and _ROW_ID.fullmatch(row_id):
        change.row_id = row_id
    elif type(row_id) in (int, float) and not change.unique_id and -(2**63) < row_id < 2**63:  # type: ignore[operator]
        change.local_id = row_id
    elif isinstance(row_id, bool | list | dict) or (row_id and isinstance(row_id, str) and not change.unique_id):
        change.problems.append({"path": f"{path}.id", "error": _ROW_ID_SENTENCE})


def _read_base(change: Change, row: Row, about: Row, path: str) -> None:
    """Find the version that the change was based on, as stated or, in the older forms, one below the row's own."""
    stated, version = about.get("baseVersion"), row.get("version")
    if stated is None:
        counted = whole_number(version)
        change.is_counted = counted is not None and counted > 0
        if change.kind != "create" and counted is not None and counted > 0:
            change.base_version = counted - 1
    elif (base := whole_number(stated)) is not None and base >= 0:
        change.base_version, change.is_base_stated = base, True
    else:
        change.problems.append({"path": f"{path}baseVersion", "error": "must be a whole number from 0"})


def _read_op_id(change: Change, about: Row, path: str) -> None:
    """Read the name that a device gave to this very operation, by which a retry is known."""
    stated = about.get("opId")
    if stated is None or (isinstance(stated, str) and _ROW_ID.fullmatch(stated)):
        change.op_id = stated
    else:
        change.problems.append({"path": f"{path}opId", "error": _ROW_ID_SENTENCE})


def checked_device(device_id: object, path: str) -> str | None:
    """Read which device a client says it is, None if it says nothing.

    Raises: ValidationError.
    """
    if device_id is None or (isinstance(device_id, str) and _ROW_ID.fullmatch(device_id)):
        return device_id
    raise invalid(path, _ROW_ID_SENTENCE)


def parse_pull(body: object, tables: Mapping[str, Table], limits: Limits) -> Pull:
    """Check a pull in any of its three forms.

    Raises: ValidationError.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    (names, unknown), digest = tables_of(body, tables), body.get("digest", False)
    if not isinstance(digest, bool):
        raise invalid("digest", "must be true or false")
    if "cursor" in body:
        since = None if body["cursor"] is None else parse_cursor(body["cursor"])
        return Pull(names, since, _limit(body.get("limit"), limits.pull_rows), digest, unknown_tables=unknown)
    form = "lastSync" if "table" in body else "lastSyncTimestamp"
    since_text = body.get(form)
    since_time = None if since_text in (None, "") else parse_time(since_text, form)
    if since_time is None or since_time <= 0:
        return Pull(names, None, None, digest, unknown_tables=unknown)
    return Pull(names, since_time, None, digest, not has_zone(str(since_text)), unknown)


def tables_of(body: object, tables: Mapping[str, Table]) -> tuple[list[str], list[str]]:
    """Read which tables a body names with ``table`` or ``entityTypes``: all of them if it names none.

    Gives those that are synced and those that are not, which cost nobody the others' rows.
    Raises: ValidationError if none is synced, or if the body is no object.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    if "table" in body and "entityTypes" in body:
        raise invalid("table", 'must not stand beside "entityTypes"')
    path = "table" if "table" in body else "entityTypes"
    names = [body["table"]] if "table" in body else body.get("entityTypes")
    if names is None:
        return list(tables), []
    if not isinstance(names, list) or not names:
        raise invalid(path, "must be a list of at least one table")
    known = [name for name in names if isinstance(name, str) and name in tables]
    unknown = [name for name in names if isinstance(name, str) and name not in tables and 0 < len(name) <= 64]
    if not known or len(known) + len(unknown) < len(names):
        raise invalid(path, _MUST_NAME + ", ".join(tables))
    return list(dict.fromkeys(known)), list(dict.fromkeys(unknown))


_MUST_NAME = "must name synced tables: "


def parse_pending(body: object, tables: Mapping[str, Table]) -> tuple[list[str], list[str]]:
    """Check a call for what is pending: which tables, and the cursor that may stand beside them.

    Raises: ValidationError.
    """
    named = tables_of(body, tables)
    if isinstance(body, dict) and body.get("cursor") is not None:
        parse_cursor(body["cursor"])
    return named


def table_named(name: object, tables: Collection[str], path: str = "table") -> str:
    """Read the name of a synced table.

    Raises: ValidationError, which names those there are.
    """
    if not isinstance(name, str) or name not in tables:
        raise invalid(path, _MUST_NAME + ", ".join(tables))
    return name


def _limit(value: object, most: int) -> int:
    if value is None:
        return min(1000, most)
    rows = whole_number(value)
    if rows is None or not 1 <= rows <= most:
        raise invalid("limit", f"must be a whole number from 1 to {most}")
    return rows
