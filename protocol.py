"""The rules of push and pull, without I/O.

Knows: what a push or a pull may say (contract sections 4 and 5), whose row a change means, what becomes of it. Must not
know: Flask, peewee, sockets, files, the clock (it is passed in). Parsing is in ``parse_push`` and ``parse_pull``, the
outcome of one change in ``decide``; foreseen outcomes are values, exceptions end the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

from errors import Detail, PayloadTooLarge, ValidationError
from wire import Cursor, Row, edit_time, format_time, parse_cursor, parse_time

Kind = Literal["create", "update", "upsert", "delete"]
Strategy = Literal["merge", "last-write-wins", "server-wins", "client-wins"]
Status = Literal["created", "updated", "deleted", "unchanged", "merged", "conflict", "rejected"]

SERVER_FIELDS = frozenset({"id", "sync_status", "version", "server_synced", "createdAt", "updatedAt"})
"""Fields of every row that the server sets; what a device sends for them is no change."""

EDIT_FIELDS = frozenset({"last_updated", "device_id"})
"""Fields that describe the edit: they follow the later one and are no conflict by themselves."""

MAX_ID_CHARACTERS = 64
_ROW_ID = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_ID_CHARACTERS}}}", re.ASCII)
MAX_UNIQUE_ID_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a synced table: ``check`` gives the value to store or raises ValueError with what is wrong."""

    check: Callable[[Any], Any]
    default: Any = None


@dataclass(frozen=True, slots=True)
class Table:
    """A synced table as the rules see it: its name and the columns that devices may write."""

    name: str
    columns: Mapping[str, Column]

    def new_row(self) -> Row:
        """Give a row with the defaults of the table."""
        return {name: column.default for name, column in self.columns.items()}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one push or pull may ask for."""

    push_rows: int
    pull_rows: int
    row_bytes: int
    name_characters: int


@dataclass(slots=True)
class Change:
    """One change that a device asks for, checked as far as possible without the stored row.

    ``path`` is its place in the body, ``edited_at`` in milliseconds and never in the future. ``problems`` says why it
    cannot be taken at all; then ``table`` may be None.
    """

    path: str
    table: Table | None
    kind: Kind = "upsert"
    row_id: str | None = None
    unique_id: str | None = None
    fields: Row = field(default_factory=dict)
    edited_at: int = 0
    base_version: int | None = None
    op_id: str | None = None
    problems: list[Detail] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Push:
    """A push as parsed; ``base`` is the place up to which its device had seen everything, if it said so."""

    changes: Sequence[Change]
    atomic: bool = True
    base: Cursor | None = None
    device_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pull:
    """A pull as parsed; ``since`` is a cursor, a time in milliseconds or None for a first pull."""

    tables: Sequence[str]
    since: Cursor | int | None
    limit: int | None
    """Rows in the answer; None for all of them, as the forms with a time have it."""
    digest: bool = False


class Stored(NamedTuple):
    """A row as it stands, and where it came from."""

    row: Row
    version: int
    sequence: int
    edited_at: int
    device_id: str | None = None


class Since(NamedTuple):
    """What others did to a row since the version a device knew.

    ``changed`` maps each field to the time of its latest edit. ``base`` is the row as the device knew it, None if that
    version is no longer held: then each field may have been changed by the device.
    """

    changed: Mapping[str, int]
    base: Row | None


class FieldConflict(TypedDict):
    base: Any
    client: Any
    server: Any
    winner: Literal["client", "server"]


class Outcome(NamedTuple):
    """What becomes of one change: ``row`` is None if nothing is to be written."""

    status: Status
    row: Row | None = None
    fields: Sequence[str] = ()
    conflicts: Mapping[str, FieldConflict] | None = None


# --- push: parsing ---------------------------------------------------------------------------------------------------


def parse_push(
    body: object, tables: Mapping[str, Table], limits: Limits, now: int, device_id: str | None = None
) -> Push:
    """Check a push in any of its three forms.

    Raises: ValidationError if the body is no push at all, PayloadTooLarge if it has too many rows. A bad row is no
    exception but a ``Change`` with ``problems``, since a push that is not atomic goes on without it.
    """
    if not isinstance(body, dict):
        raise _invalid("", "must be an object")
    forms = [form for form in ("operations", "changes", "table") if form in body]
    if len(forms) != 1:
        raise _invalid("", 'must have exactly one of "table" (with "operation" and "data"), "changes" or "operations"')
    atomic = body.get("atomic", True)
    if not isinstance(atomic, bool):
        raise _invalid("atomic", "must be true or false")
    base = body.get("baseCursor")
    parse = _Parser(tables, limits, now)
    changes: list[Change] = []
    for change in getattr(parse, forms[0])(body):
        changes.append(change)
        if len(changes) > limits.push_rows:
            raise PayloadTooLarge(f"A push may have {limits.push_rows:,} rows. Send it in smaller parts.")
    return Push(changes, atomic, None if base is None else parse_cursor(base, "baseCursor"), device_id)


@dataclass(frozen=True, slots=True)
class _Parser:
    """What is the same for all rows of one push."""

    tables: Mapping[str, Table]
    limits: Limits
    now: int

    def table(self, body: Row) -> Iterator[Change]:
        """Form A: one row."""
        yield self._operation(body, "")

    def changes(self, body: Row) -> Iterator[Change]:
        """Form B: rows by table, each an upsert or a delete."""
        if not isinstance(body["changes"], dict):
            raise _invalid("changes", "must be an object of lists of rows by table")
        for name, rows in body["changes"].items():
            if not isinstance(rows, list):
                raise _invalid(f"changes.{name[:64]}", "must be a list of rows")
            if not rows and name not in self.tables:
                yield self._change(f"changes.{name[:64]}", "", None, "upsert", {}, {})
            for index, row in enumerate(rows):
                path = f"changes.{name[:64]}[{index}]"
                yield self._change(path, path, self.tables.get(name), "upsert", row, {})

    def operations(self, body: Row) -> Iterator[Change]:
        """Form C: operations in order."""
        if not isinstance(body["operations"], list):
            raise _invalid("operations", "must be a list")
        for index, operation in enumerate(body["operations"]):
            yield self._operation(operation, f"operations[{index}]")

    def _operation(self, body: object, path: str) -> Change:
        if not isinstance(body, dict):
            return Change(path, None, problems=[{"path": path, "error": "must be an object"}])
        inner = f"{path}." if path else ""
        name, kind = body.get("table"), body.get("operation")
        table = self.tables.get(name) if isinstance(name, str) else None
        change = self._change(path or "data", inner + "data", table, kind, body.get("data"), body, inner)
        if table is None:
            change.problems[:] = [{"path": inner + "table", "error": "is not a synced table"}]
        elif kind not in ("create", "update", "delete"):
            change.problems.append({"path": inner + "operation", "error": "must be create, update or delete"})
        return change

    def _change(
        self, path: str, row_path: str, table: Table | None, kind: Any, row: object, about: Row, about_path: str = ""
    ) -> Change:
        """Check one change; ``about`` is what is said of the row beside it, each under ``about_path`` and its name."""
        change = Change(path, table, kind)
        if table is None:
            change.problems.append({"path": path, "error": "is not of a synced table"})
        elif not isinstance(row, dict):
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
        change.edited_at = self.now if edited is None else min(edited, self.now)


def _read_fields(change: Change, table: Table, row: Row, path: str, limits: Limits) -> None:
    """Take the fields a device may write, each checked by its column; a field the table does not know is kept."""
    for name, value in row.items():
        column = table.columns.get(name)
        try:
            if name in ("is_deleted", "isDeleted"):
                change.fields["is_deleted"] = 0 if value is None else table.columns["is_deleted"].check(value)
            elif column is not None:
                change.fields[name] = None if value is None else column.check(value)
            elif name not in SERVER_FIELDS:
                change.fields[_checked_name(name, limits.name_characters)] = value
        except ValueError as error:
            shown = name if len(name) <= limits.name_characters else name[: limits.name_characters] + "…"
            change.problems.append({"path": f"{path}.{shown}", "error": str(error)})
    if change.kind == "delete":
        change.fields["is_deleted"] = 1
    elif change.fields.get("is_deleted"):
        change.kind = "delete"


def _checked_name(name: str, most: int) -> str:
    if not 1 <= len(name) <= most:
        raise ValueError(f"a field's name must have 1 to {most} characters")
    return name


def _read_identity(change: Change, row: Row, path: str) -> None:
    """Find whose row is meant: its id, else its Unique_id, else it is new (contract section 4, identity).

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
    elif isinstance(row_id, bool | list | dict) or (row_id and isinstance(row_id, str) and not change.unique_id):
        sentence = "must be 1 to 64 characters from A-Z a-z 0-9 _ . : -"
        change.problems.append({"path": f"{path}.id", "error": sentence})


def _read_base(change: Change, row: Row, about: Row, path: str) -> None:
    """Find the version that the change was based on, as stated or, in the older forms, one below the row's own."""
    stated, version = about.get("baseVersion"), row.get("version")
    if stated is None:
        if change.kind != "create" and isinstance(version, int) and not isinstance(version, bool) and version > 0:
            change.base_version = version - 1
    elif isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0:
        change.base_version = stated
    else:
        change.problems.append({"path": f"{path}baseVersion", "error": "must be a whole number from 0"})


def _read_op_id(change: Change, about: Row, path: str) -> None:
    """Read the name that a device gave to this very operation, by which a retry is known."""
    stated = about.get("opId")
    if stated is None or (isinstance(stated, str) and _ROW_ID.fullmatch(stated)):
        change.op_id = stated
    else:
        sentence = "must be 1 to 64 characters from A-Z a-z 0-9 _ . : -"
        change.problems.append({"path": f"{path}opId", "error": sentence})


def checked_device(device_id: object, path: str) -> str | None:
    """Read which device a client says it is, None if it says nothing.

    Raises: ValidationError.
    """
    if device_id is None or (isinstance(device_id, str) and _ROW_ID.fullmatch(device_id)):
        return device_id
    raise _invalid(path, "must be 1 to 64 characters from A-Z a-z 0-9 _ . : -")


# --- push: deciding --------------------------------------------------------------------------------------------------


def decide(
    change: Change,
    stored: Stored | None,
    is_stale: bool,
    since: Callable[[], Since],
    strategy: Strategy = "merge",
) -> Outcome:
    """Decide what becomes of a well-formed change, given the row as it stands.

    ``is_stale``: the change was based on an older version; only then ``since`` is called and ``strategy`` counts.
    """
    assert change.table is not None
    if stored is None:
        if change.kind == "delete":
            return Outcome("unchanged")
        return Outcome("created", _edited(change.table.new_row(), change, change.fields, 0), ())
    different = _different(change, stored.row)
    if not different:
        return Outcome("unchanged")
    if not is_stale:
        row = _edited(stored.row, change, different, stored.edited_at)
        return Outcome("deleted" if change.kind == "delete" else "updated", row, tuple(different))
    return _settle(change, stored, different, since(), strategy)


def _different(change: Change, row: Row) -> Row:
    """Give the fields that would change; a real create of a deleted row, unlike its retry, also brings it back."""
    different = {name: value for name, value in change.fields.items() if not same(row.get(name), value)}
    if different and change.kind == "create" and row["is_deleted"] and "is_deleted" not in change.fields:
        different["is_deleted"] = 0
    return different


def _settle(change: Change, stored: Stored, different: Row, since: Since, strategy: Strategy) -> Outcome:
    """Settle a change that did not know the row as it stands, and note each field by which a side loses an edit."""
    taken: Row = {}
    conflicts: dict[str, FieldConflict] = {}
    for name, value in different.items():
        repeated = since.base is not None and same(since.base.get(name), value)
        wins = _wins(name, change, stored, since, strategy, repeated)
        if wins:
            taken[name] = value
        if name not in EDIT_FIELDS and (name in since.changed if wins else not repeated):
            base = since.base.get(name) if since.base else None
            winner: Literal["client", "server"] = "client" if wins else "server"
            conflicts[name] = FieldConflict(base=base, client=value, server=stored.row.get(name), winner=winner)
    if not taken.keys() - EDIT_FIELDS:
        return Outcome("conflict" if conflicts else "unchanged", conflicts=conflicts or None)
    row = _edited(stored.row, change, taken, stored.edited_at)
    return Outcome("conflict" if conflicts else "merged", row, tuple(taken), conflicts or None)


def _wins(name: str, change: Change, stored: Stored, since: Since, strategy: Strategy, repeated: bool) -> bool:
    """Tell whether the device's value of a field is taken.

    ``merge`` looks at each field: one side's change is kept, both sides' goes to the later edit, and a value that the
    device only repeats is no change of it. The others take or refuse the change as a whole.
    """
    if strategy == "merge":
        return not repeated and (name not in since.changed or change.edited_at >= since.changed[name])
    return strategy == "client-wins" or (strategy == "last-write-wins" and change.edited_at >= stored.edited_at)


def _edited(row: Row, change: Change, fields: Row, before: int) -> Row:
    """Give the row with its new fields; when it was last edited is the later of this edit and the one ``before``."""
    edited = {**row, **fields}
    if "last_updated" not in change.fields:
        edited["last_updated"] = format_time(max(change.edited_at, before))
    return edited


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same, without Python's ``1 == True == 1.0``."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# --- pull ------------------------------------------------------------------------------------------------------------


def parse_pull(body: object, tables: Mapping[str, Table], limits: Limits) -> Pull:
    """Check a pull in any of its three forms.

    Raises: ValidationError.
    """
    if not isinstance(body, dict):
        raise _invalid("", "must be an object")
    names, digest = tables_of(body, tables), body.get("digest", False)
    if not isinstance(digest, bool):
        raise _invalid("digest", "must be true or false")
    if "cursor" in body:
        since = None if body["cursor"] is None else parse_cursor(body["cursor"])
        return Pull(names, since, _limit(body.get("limit"), limits.pull_rows), digest)
    form = "lastSync" if "table" in body else "lastSyncTimestamp"
    since_text = body.get(form)
    since_time = None if since_text in (None, "") else parse_time(since_text, form)
    return Pull(names, since_time if since_time is not None and since_time > 0 else None, None, digest)


def tables_of(body: object, tables: Mapping[str, Table]) -> list[str]:
    """Read which tables a body names with ``table`` or ``entityTypes``: all of them if it names none.

    Raises: ValidationError for one that is not synced, or if the body is no object.
    """
    if not isinstance(body, dict):
        raise _invalid("", "must be an object")
    if "table" in body and "entityTypes" in body:
        raise _invalid("table", 'must not stand beside "entityTypes"')
    path = "table" if "table" in body else "entityTypes"
    names = [body["table"]] if "table" in body else body.get("entityTypes")
    if names is None:
        return list(tables)
    if not isinstance(names, list) or not names:
        raise _invalid(path, "must be a list of at least one table")
    return list(dict.fromkeys(table_named(name, tables, path) for name in names))


def table_named(name: object, tables: Collection[str], path: str = "table") -> str:
    """Read the name of a synced table.

    Raises: ValidationError, which names those there are.
    """
    if not isinstance(name, str) or name not in tables:
        raise _invalid(path, "must name synced tables: " + ", ".join(tables))
    return name


def _limit(value: object, most: int) -> int:
    if value is None:
        return min(1000, most)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _invalid("limit", f"must be a whole number from 1 to {most}")
    return value


def _invalid(path: str, sentence: str) -> ValidationError:
    return ValidationError(f"{path or 'The body'} {sentence}.", details=[{"path": path or "$", "error": sentence}])
