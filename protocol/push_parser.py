"""Parses the three forms of a push (docs/api.md), without I/O.

Knows: the forms of the body, which rows may take the fast path. What is wrong with one row is a value, what is wrong with
the whole body an exception. Must not know: the stored rows and what becomes of a change (``merge``), Flask, peewee,
sockets, files, the clock (it is passed in).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw

from protocol.change_parser import parse_change
from protocol.codec import Row, decode_row, edit_time, is_exact, parse_cursor, parse_time
from protocol.errors import Detail, PayloadTooLarge, ValidationError, invalid
from protocol.identifiers import IDENTIFIER, MAX_UNIQUE_ID_CHARACTERS
from protocol.messages import Change, Limits, Push, Table
from protocol.row_decoder import RowDecoder, TypedRow
from protocol.seen_rows import NOBODY, Evidence

NOT_SYNCED = "is not a synced table"
_MAX_SHOWN_CHARACTERS = 64
_FORMS = ("operations", "changes", "table")


def parse_push(
    body: object,
    tables: Mapping[str, Table],
    limits: Limits,
    now: int,
    device_id: str | None = None,
    evidence: Evidence = NOBODY,
) -> Push:
    """Parse a push in any of its three forms. Its rows are parsed while they are read.

    Raises: ValidationError if the body is no push at all, PayloadTooLarge if it has too many rows; InvalidJson while
    rows are read that ``decode_push`` left as bytes. A bad row is no exception but a ``Change`` with ``problems``,
    since a push that is not atomic goes on without it.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    form = _form_of(body)
    atomic = body.get("atomic", True)
    if not isinstance(atomic, bool):
        raise invalid("atomic", "must be true or false")
    base = body.get("baseCursor")
    cursor = None if base is None else parse_cursor(base, "baseCursor")
    count = _count(form, body)
    if count > limits.push_rows:
        raise PayloadTooLarge(f"A push may have {limits.push_rows:,} rows. Send it in smaller parts.")
    parser = _PushParser(tables, limits, now)
    parser.note_tables(form, body)
    rows = getattr(parser, form)(body)
    return Push(rows, count, parser.known, atomic, cursor, device_id, parser.unknown, "atomic" in body, evidence)


def takes_more(push: Push) -> bool:
    """Tell whether a push may store more than tombstones. It parses all rows at once, which are read later as before."""
    changes = list(push.changes)
    push.changes = iter(changes)
    return not all(type(change) is Change and (change.problems or change.kind == "delete") for change in changes)


def _form_of(body: Row) -> str:
    forms = [form for form in _FORMS if form in body]
    if len(forms) != 1:
        raise invalid("$", 'must have exactly one of "table" (with "operation" and "data"), "changes" or "operations"')
    return forms[0]


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
            raise invalid(_changes_path(name), "must be a list of rows")
    return sum(map(len, body["changes"].values()))


def _changes_path(name: str) -> str:
    return f"changes.{_shortened(name)}"


def _shortened(name: str) -> str:
    """Shorten the name of a table, which may be any text, for an error."""
    return name[:_MAX_SHOWN_CHARACTERS]


@dataclass(slots=True)
class _PushParser:
    """Parses the rows of one push; each form of a push has a method of its name."""

    tables: Mapping[str, Table]
    limits: Limits
    now: int
    known: set[str] = field(default_factory=set)
    """Synced tables that the rows belong to, as far as they were read."""
    unknown: dict[str, Detail] = field(default_factory=dict)
    """Tables that are named but not synced, as far as they were read, each with its first error."""

    def note_tables(self, form: str, body: Row) -> None:
        """Note the tables that the body names outside its rows."""
        named: Collection[Any] = body["changes"] if form == "changes" else [body.get("table")]
        self.known |= {name for name in named if isinstance(name, str) and name in self.tables}
        for name in named if form == "changes" else ():
            self.note_unknown(name, _changes_path(name))

    def note_unknown(self, name: object, path: str) -> str | None:
        """Note a table that is named at ``path`` if it is not synced, and give its name then."""
        if not isinstance(name, str) or name in self.tables:
            return None
        self.unknown.setdefault(_shortened(name), {"path": path, "error": NOT_SYNCED})
        return _shortened(name)

    # --- the three forms ---------------------------------------------------------------------------------------------

    def table(self, body: Row) -> Iterator[Change | TypedRow]:
        """Form A: one row."""
        name, kind = body["table"], body.get("operation")
        is_plain = kind in ("create", "update") and "baseVersion" not in body and "opId" not in body
        table = self.tables.get(name) if is_plain and type(name) is str else None

        def parse(_: int) -> Change:
            """Parse the one row for the general path."""
            return self._operation({**body, "data": decode_row(body.get("data"), 1)}, "")

        if table is None or type(body.get("data")) is not Raw:
            yield parse(0)
        else:
            decoder = RowDecoder(table, parse, "create" if kind == "create" else "update")
            yield self._row(decoder, body["data"], 0, body.get("timestamp"))

    def changes(self, body: Row) -> Iterator[Change | TypedRow]:
        """Form B: rows by table, each an upsert or a delete."""
        for name, rows in body["changes"].items():
            table, path = self.tables.get(name), _changes_path(name)
            if table is None:
                yield from _unknown_rows(name, path, len(rows))
            else:
                yield from self._rows(table, rows, path)

    def operations(self, body: Row) -> Iterator[Change]:
        """Form C: operations in order."""
        for index, operation in enumerate(body["operations"]):
            yield self._operation(decode_row(operation, 2), f"operations[{index}]")

    # --- one row -----------------------------------------------------------------------------------------------------

    def _rows(self, table: Table, rows: Sequence[object], path: str) -> Iterator[Change | TypedRow]:
        def parse(index: int) -> Change:
            """Parse the row at an index for the general path."""
            row_path = f"{path}[{index}]"
            row = decode_row(rows[index], 3)
            return parse_change(row_path, row_path, table, "upsert", row, self.limits, self.now, {})

        decoder = RowDecoder(table, parse)
        for index, raw in enumerate(rows):
            yield self._row(decoder, raw, index) if type(raw) is Raw else parse(index)

    def _row(self, decoder: RowDecoder, raw: Raw, index: int, timestamp: object = None) -> Change | TypedRow:
        """Decode a row for the fast path, or parse it for the general one. The decoder learns from the latter."""
        row = self._decode(decoder, raw, index, timestamp)
        if row is None:
            change = decoder.parse(index)
            decoder.learn(change.fields)
            return change
        return row

    def _decode(self, decoder: RowDecoder, raw: Raw, index: int, timestamp: object) -> TypedRow | None:
        """Decode a row for the fast path; None if it may have problems or rules of its own."""
        row = decoder.decode(raw)
        if row is None or row.is_deleted == 1:
            return None
        row_id, unique_id = row.id, row.Unique_id
        if unique_id and len(unique_id) > MAX_UNIQUE_ID_CHARACTERS:
            return None
        if type(row_id) is not str or not IDENTIFIER.fullmatch(row_id):
            if _has_odd_id(row):
                return None
            row_id = None
        try:
            edited = edit_time(row.last_updated) if timestamp is None else parse_time(timestamp, "timestamp")
        except ValidationError:
            return None
        edited_at = self.now if edited is None or edited > self.now else edited
        return TypedRow(decoder, decoder.row_type, raw, row, decoder.expects_new, row_id, edited_at, index)

    def _operation(self, body: object, path: str) -> Change:
        """Parse an operation of form C, or the whole body of form A, for the general path."""
        if not isinstance(body, dict):
            return Change(path, None, problems=[{"path": path, "error": "must be an object"}])
        inner = f"{path}." if path else ""
        name, kind = body.get("table"), body.get("operation")
        table = self.tables.get(name) if isinstance(name, str) else None
        if table is None:
            problem: Detail = {"path": inner + "table", "error": NOT_SYNCED}
            unknown = self.note_unknown(name, inner + "table")
            return Change(path or "data", None, problems=[problem], unknown_table=unknown)
        self.known.add(table.name)
        change_path, row = path or "data", body.get("data")
        change = parse_change(change_path, inner + "data", table, kind, row, self.limits, self.now, body, inner)
        if kind not in ("create", "update", "delete"):
            change.problems.append({"path": inner + "operation", "error": "must be create, update or delete"})
        return change


def _has_odd_id(row: Any) -> bool:
    """Tell whether an id that is not well formed, or none, has rules of its own: see ``change_parser``, ``idempotency``."""
    row_id = row.id
    if type(row_id) is bool or row.Unique_id:
        return type(row_id) is bool
    return bool(row_id) if type(row_id) is str else type(row_id) in (int, float) and is_exact(row.last_updated)


def _unknown_rows(name: str, path: str, count: int) -> Iterator[Change]:
    """Give the rows of a table that is not synced, each with that problem."""
    for row_path in (f"{path}[{index}]" for index in range(count)):
        problem: Detail = {"path": row_path, "error": NOT_SYNCED}
        yield Change(row_path, None, problems=[problem], unknown_table=_shortened(name))
