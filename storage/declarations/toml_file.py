"""The file that declares tables of one's own: how it is read, and what may be wrong with it.

Knows: the words of the file and what each may say. Must not know: Flask, sockets, engines, stored data, what was declared
before (``compatibility``). Every mistake is found, not just the first, each with its line and column.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import models
from models import TYPES, SyncedRow, column_of
from protocol.codec import NO_NULL, has_null
from settings import DEFAULT_TABLES_FILE
from storage.declarations import toml_positions
from storage.declarations.table import Column, Table, field_of, model_of
from storage.declarations.toml_positions import Place, Places

MOST_TABLES = 100  # A pull reads all tables in one statement, and SQLite joins 500 in one at the most.
MOST_COLUMNS = 200
MOST_INDEXES = 16  # Each is written with every row.
MOST_WORDS = 200
MOST_DEFAULT_BYTES = 4_096

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_NAME_SENTENCE = "must be 1 to 64 characters from A-Z a-z 0-9 _, the first of them a letter"
_TABLE_KEYS = ("columns", "indexes")
_COLUMN_KEYS = ("type", "required", "default", "enum", "index")
_ENUM_TYPES = ("text", "integer", "number")
_UNIQUE = (
    "can't be promised: two devices may choose the same value while offline, and neither edit may be lost. Use a row's id,"
    " or Unique_id, by which a second create finds the row of the first"
)
_JSON_TYPES: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "boolean": (bool,)}
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
_TAKEN_TABLES = {
    "batch": "is what notifications of several tables call themselves",
    "json_each": "is a function that the server's own SQL reads like a table, which a table of that name would hide",
}


class Mistake(NamedTuple):
    """What is wrong at one place of the file."""

    place: Place
    sentence: str


class DeclarationError(ValueError):
    """The file can't be used; as text it is all its mistakes, a line each."""

    def __init__(self, path: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = sorted(mistakes)
        lines = [f"{path}:{place.line}:{place.column}: {sentence}." for place, sentence in self.mistakes]
        super().__init__("\n".join(lines))


def declare(path: Path) -> None:
    """Make the tables of a file known to all that asks for synced tables; to be called once, before anyone asked.

    Raises: DeclarationError, OSError.
    """
    models.declare([model_of(table) for table in check(path)])


def check(path: Path) -> list[Table]:
    """Read the tables of a file; no file at the default path declares none.

    Raises: DeclarationError, OSError.
    """
    if path == DEFAULT_TABLES_FILE and not path.exists():
        return []
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        place = Place(line, error.start - raw.rfind(b"\n", 0, error.start))
        raise DeclarationError(str(path), [Mistake(place, "is not UTF-8")]) from None
    return read(text, str(path))


def read(text: str, path: str = "tables.toml") -> list[Table]:
    """Read the tables that a text declares.

    Raises: DeclarationError with every mistake.
    """
    try:
        document = tomllib.loads(text)
        reader = _Reader(Places(text))
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(path, [_syntax_mistake(error, text)]) from None
    except ValueError:  # Of Python's own, which reads no number of more than 4,300 digits.
        raise DeclarationError(path, [_long_number(text)]) from None
    except RecursionError:
        raise DeclarationError(path, [Mistake(Place(1, 1), "is nested too deep")]) from None
    tables = reader.tables(document)
    if reader.mistakes:
        raise DeclarationError(path, reader.mistakes)
    return tables


def _long_number(text: str) -> Mistake:
    found = re.search("[0-9](?:_?[0-9]){4300}", text)
    before = text[: found.start() if found else 0]
    return Mistake(Place(before.count("\n") + 1, len(before) - before.rfind("\n")), "is a number of too many digits")


def _syntax_mistake(error: tomllib.TOMLDecodeError, text: str) -> Mistake:
    """Take the place out of the parser's sentence, where it stands until Python 3.14 gives it as numbers."""
    said = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
    sentence, line, column = said.groups() if said else (str(error), "1", "1")
    if line is None:
        lines = text.split("\n")
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    return Mistake(Place(int(line), int(column)), f"is no TOML: {sentence[:1].lower()}{sentence[1:]}")


# --- what the file says ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reader:
    """Reads one file, and notes what is wrong as it goes."""

    places: Places
    mistakes: list[Mistake] = field(default_factory=list)

    def _key(self, path: toml_positions.Path, sentence: str) -> None:
        """Note what is wrong with a key."""
        self.mistakes.append(Mistake(self.places.of_key(path), f"{_shown(path)} {sentence}"))

    def _value(self, path: toml_positions.Path, sentence: str) -> None:
        """Note what is wrong with a value."""
        self.mistakes.append(Mistake(self.places.of_value(path), f"{_shown(path)} {sentence}"))

    def tables(self, document: Mapping[str, Any]) -> list[Table]:
        """Read all tables of a document; ``mistakes`` has what is wrong with the others."""
        taken = {name.casefold(): f"is the name of the built-in table {name}" for name in _built_in()} | _TAKEN_TABLES
        for name in document:
            self._check_name((name,), taken)
            taken.setdefault(name.casefold(), f"is the name of the table {name} too: case does not tell names apart")
        self._check_names_of_indexes(document)
        if len(document) > MOST_TABLES:
            self._key((list(document)[MOST_TABLES],), f"is beyond the {MOST_TABLES} tables that may be declared")
        found = [self._table(name, body) for name, body in document.items()]
        return [table for table in found if table is not None]

    def _check_names_of_indexes(self, names: Iterable[str]) -> None:
        """Refuse a table named as an index of another: SQLite keeps both names in one place."""
        owners = {name.casefold(): name for name in (*_built_in(), *names)}
        for name in names:
            for end in ("_id", "_unique_id"):
                owner = owners.get(name.casefold().removesuffix(end)) if name.casefold().endswith(end) else None
                if owner:
                    self._key((name,), f"is the name of an index of the table {owner}; choose another")

    def _check_name(self, path: toml_positions.Path, taken: Mapping[str, str]) -> None:
        name = str(path[-1])
        if not _NAME.fullmatch(name):
            self._key(path, _NAME_SENTENCE)
        elif name.casefold().startswith("sqlite_"):
            self._key(path, "begins as SQLite's own names do; choose another")
        elif path == (name,) and name.casefold() == "sqlite":
            self._key(path, "would have an index named as SQLite's own are; choose another")
        elif name.casefold() in taken:
            self._key(path, taken[name.casefold()])

    def _table(self, name: str, body: Any) -> Table | None:
        if not isinstance(body, dict):
            self._key((name,), f"must be a table with columns: [{name}.columns]")
            return None
        self._check_keys((name,), body, _TABLE_KEYS)
        stated = body.get("columns")
        if not isinstance(stated, dict) or not stated:
            self._value((name, "columns"), f"must have at least one column, each a line under [{name}.columns]")
            return None
        if len(stated) > MOST_COLUMNS:
            path = (name, "columns", list(stated)[MOST_COLUMNS])
            self._key(path, f"is beyond the {MOST_COLUMNS} columns that a table may have")
        taken = dict.fromkeys(_server_names(), "is a column that every table has")
        columns = []
        for own, said in stated.items():
            path = (name, "columns", own)
            self._check_name(path, taken)
            taken.setdefault(own.casefold(), f"is the name of the column {own} too: case does not tell names apart")
            columns.append(self._column(path, said))
        own_indexes = [own for own, said in stated.items() if isinstance(said, dict) and said.get("index") is True]
        return Table(name, columns, self._indexes(name, body.get("indexes", []), columns, own_indexes))

    def _check_keys(self, path: toml_positions.Path, body: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in body:
            if key == "unique":
                self._key((*path, key), _UNIQUE)
            elif key not in known:
                close = difflib.get_close_matches(key, known, 1)
                meant = f'did you mean "{close[0]}"?' if close else "there are " + ", ".join(known)
                self._key((*path, key), f"is not known here: {meant}".removesuffix("?"))

    # --- columns -----------------------------------------------------------------------------------------------------

    def _column(self, path: toml_positions.Path, said: Any) -> Column:
        name = str(path[-1])
        if isinstance(said, str):
            return Column(name, self._type(path, said))
        if not isinstance(said, dict):
            self._value(path, f"must be a type, {_listed(TYPES)}, or a table with one")
            return Column(name, "json")
        self._check_keys(path, said, _COLUMN_KEYS)
        kind = self._type((*path, "type"), said["type"]) if "type" in said else self._no_type(path)
        flags = {key: self._flag((*path, key), said.get(key, False)) for key in ("required", "index")}
        if flags["index"] and kind == "json":
            self._value((*path, "index"), "can't be: a JSON column has no order to look things up by")
        enum = self._enum((*path, "enum"), kind, said["enum"]) if "enum" in said else ()
        default = self._default((*path, "default"), kind, said["default"], enum) if "default" in said else None
        return Column(name, kind, flags["required"], default, enum)

    def _type(self, path: toml_positions.Path, said: Any) -> str:
        """Read a type; one that is not known counts as json, which takes whatever else is said."""
        if isinstance(said, str) and said in TYPES:
            return said
        close = difflib.get_close_matches(str(said), TYPES, 1)
        self._value(path, f"must be a type: {_listed(TYPES)}" + (f'; did you mean "{close[0]}"' if close else ""))
        return "json"

    def _no_type(self, path: toml_positions.Path) -> str:
        self._key(path, f"must have a type: {_listed(TYPES)}")
        return "json"

    def _flag(self, path: toml_positions.Path, said: Any) -> bool:
        if not isinstance(said, bool):
            self._value(path, "must be true or false")
        return said is True

    def _enum(self, path: toml_positions.Path, kind: str, said: Any) -> Sequence[Any]:
        if kind not in _ENUM_TYPES:
            self._key(path, f"goes with {_listed(_ENUM_TYPES)} only")
            return ()
        if not isinstance(said, list) or not 1 <= len(said) <= MOST_WORDS:
            self._value(path, f"must be a list of 1 to {MOST_WORDS} values")
            return ()
        seen: list[Any] = []
        for number, value in enumerate(said):
            fault = _fault_of(kind, value, ()) or ("is there twice" if value in seen else "")
            if fault:
                self._value((*path, number), fault)
            seen.append(value)
        return tuple(said)

    def _default(self, path: toml_positions.Path, kind: str, said: Any, enum: Sequence[Any]) -> Any:
        fault = _fault_of(kind, said, enum)
        if fault:
            self._value(path, fault)
        return said

    # --- indexes -----------------------------------------------------------------------------------------------------

    def _indexes(self, table: str, said: Any, columns: Sequence[Column], own: Sequence[str]) -> list[tuple[str, ...]]:
        path: toml_positions.Path = (table, "indexes")
        found: list[tuple[str, ...]] = [(name,) for name in own]
        if not isinstance(said, list):
            self._value(path, 'must be a list of columns, or of lists of them: ["status", ["assignee", "due"]]')
            return found
        for number, entry in enumerate(said):
            index = tuple(entry) if isinstance(entry, list) else (entry,)
            fault = self._fault_of_index(index, {column.name: column.type for column in columns})
            if fault or index in found:
                self._value((*path, number), fault or "is an index already")
            found.append(index)
        if len(found) > MOST_INDEXES:
            self._key(path, f"make {len(found)} indexes with those of columns; a table may have {MOST_INDEXES}")
        return found

    def _fault_of_index(self, index: tuple[Any, ...], types: Mapping[str, str]) -> str:
        if not index or not all(isinstance(name, str) for name in index) or len(set(index)) < len(index):
            return "must name a column, or a list of different ones"
        unknown = [name for name in index if name not in types]
        if unknown:
            return f'names "{unknown[0]}", which is no column of this table'
        return next(
            (f'names "{name}", a JSON column, which has no order' for name in index if types[name] == "json"), ""
        )


def _shown(path: toml_positions.Path) -> str:
    """Write where something is as one would say it: ``job.columns.status.enum[1]``."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(letter if letter.isprintable() else "?" for letter in words.removeprefix("."))[:200]


def _listed(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"


def _fault_of(kind: str, value: Any, enum: Sequence[Any]) -> str:
    """Say why a column of a type can't hold a value from the file, or nothing."""
    if has_null(value):
        return NO_NULL
    if kind == "json":
        return _fault_of_json(value)
    types = _JSON_TYPES.get(kind, (str,))
    if type(value) not in types:
        hint = " in quotes" if hasattr(value, "isoformat") else ""
        return f"must be {_KINDS.get(kind, 'a text')}{hint}"
    try:
        column_of(field_of(Column("column", kind, enum=enum))).check(value)
    except ValueError as error:
        return str(error)
    return f"has more than {MOST_DEFAULT_BYTES:,} bytes" if len(json.dumps(value)) > MOST_DEFAULT_BYTES else ""


def _fault_of_json(value: Any) -> str:
    try:
        written = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return "must be JSON: no dates or times but in quotes, no nan and no inf"
    return f"has more than {MOST_DEFAULT_BYTES:,} bytes" if len(written) > MOST_DEFAULT_BYTES else ""


def _built_in() -> list[str]:
    return [model._meta.table_name for model in models.python_models()]


def _server_names() -> list[str]:
    names = [field.column_name.casefold() for field in SyncedRow._meta.sorted_fields]
    return [*names, "isdeleted"]  # Devices may say isDeleted for is_deleted.
