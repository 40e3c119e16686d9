"""What tables.toml may say: each mistake is told with its line and column, and all of them at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import TYPES, SyncedRow, column_of
from storage.declarations import toml_file
from storage.declarations.table import Column, Table, model_of
from storage.declarations.toml_file import DeclarationError, read

GOOD = """
[job]
indexes = ["title", ["status", "due"]]
[job.columns]
title = { type = "text", required = true, default = "none" }
status = { type = "text", enum = ["open", "done"], default = "open", index = true }
priority = { type = "integer", enum = [1, 2, 3] }
due = "date"
photos = { type = "json", default = [{ a = 1 }] }
done = { type = "boolean", default = false }
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_declaration_is_read_as_it_stands() -> None:
    assert read(GOOD) == [
        Table(
            "job",
            [
                Column("title", "text", required=True, default="none"),
                Column("status", "text", default="open", enum=("open", "done")),
                Column("priority", "integer", enum=(1, 2, 3)),
                Column("due", "date"),
                Column("photos", "json", default=[{"a": 1}]),
                Column("done", "boolean", default=False),
            ],
            [("status",), ("title",), ("status", "due")],
        )
    ]


def test_empty_file_declares_nothing() -> None:
    assert read("") == read("# nothing yet\n") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[job", "1:5: is no TOML: expected ']' at the end of a table declaration."),
        ("[a]\n[a]", "2:3: is no TOML: cannot declare"),
        ('[job]\nx = "', "2:6: is no TOML: "),
        ("job = " + "[" * 5000 + "]" * 5000, "1:1: is nested too deep."),
        ("[job]\nx = " + "1" * 5000, "2:5: is a number of too many digits."),
        ("[job]\nx = -1" + "_1" * 5000, "2:6: is a number of too many digits."),
        ("job = 5", "1:1: job must be a table with columns: [job.columns]."),
        ("[[job]]\nx = 1", "1:3: job must be a table with columns: [job.columns]."),
        ("\n  [job]", "2:4: job.columns must have at least one column"),
        ("[job]\ncolumns = 5", "2:11: job.columns must have at least one column"),
        ("[job.columns]", "1:6: job.columns must have at least one column"),
        ("[1job]\ncolumns.a = 'text'", "1:2: 1job must be 1 to 64 characters"),
        ('["j b"]\ncolumns.a = "text"', "1:2: j b must be 1 to 64 characters"),
        ('["a\\nb"]\ncolumns.a = "text"', "1:2: a?b must be 1 to 64 characters"),
        (f"[{'j' * 65}]\ncolumns.a = 'text'", "must be 1 to 64 characters"),
        ("[_job]\ncolumns.a = 'text'", "1:2: _job must be 1 to 64 characters"),
        ("[sqlite_job]\ncolumns.a = 'text'", "1:2: sqlite_job begins as SQLite's own names do"),
        ("[SQLite]\ncolumns.sqlite = 'text'", "1:2: SQLite would have an index named as SQLite's own are"),
        ("[End_User]\ncolumns.a = 'text'", "1:2: End_User is the name of the built-in table end_user."),
        ("[end_user_id]\ncolumns.a = 'text'", "1:2: end_user_id is the name of an index of the table end_user"),
        ("[job_Unique_id]\ncolumns.a = 'text'\n[job]\ncolumns.a = 'text'", "1:2: job_Unique_id is the name of an index"),
        ("[batch]\ncolumns.a = 'text'", "1:2: batch is what notifications"),
        ("[a]\ncolumns.a = 'text'\n[A]\ncolumns.a = 'text'", "3:2: A is the name of the table a too"),
        ("[a]\ncolums.a = 'text'\ncolumns.a = 'text'", '2:1: a.colums is not known here: did you mean "columns".'),
        ("[a]\nsynced = 1\ncolumns.a = 'text'", "2:1: a.synced is not known here: there are columns, indexes."),
        ("[a.columns]\nb = 'text'\nB = 'text'", "3:1: a.columns.B is the name of the column b too"),
        ("[a.columns]\nVERSION = 'text'", "2:1: a.columns.VERSION is a column that every table has."),
        ("[a.columns]\nisDeleted = 'text'", "2:1: a.columns.isDeleted is a column that every table has."),
        ("[a.columns]\n_seq = 'text'", "2:1: a.columns._seq must be 1 to 64 characters"),
        ("[a.columns]\nb = 'txt'", '2:5: a.columns.b must be a type: text, integer, number, boolean, json, date, time'),
        ("[a.columns]\nb = 5", "2:5: a.columns.b must be a type"),
        ("[a.columns]\nb = {}", "2:1: a.columns.b must have a type: text, integer"),
        ("[a.columns]\nb = { type = 'text', requird = true }", '2:22: a.columns.b.requird is not known here: did you'),
        ("[a.columns]\nb = { type = 'text', required = 1 }", "2:33: a.columns.b.required must be true or false."),
        ("[a.columns]\nb = { type = 'text', unique = true }", "2:22: a.columns.b.unique can't be promised: two devices"),
        ("[a.columns]\nb = { type = 'json', index = true }", "2:30: a.columns.b.index can't be: a JSON column"),
        ("[a.columns]\nb = { type = 'date', enum = ['x'] }", "2:22: a.columns.b.enum goes with text, integer or number"),
        ("[a.columns]\nb = { type = 'text', enum = [] }", "2:29: a.columns.b.enum must be a list of 1 to 200 values."),
        ("[a.columns]\nb = { type = 'text', enum = ['x', 5] }", "2:35: a.columns.b.enum[1] must be a text."),
        ("[a.columns]\nb = { type = 'integer', enum = [1, true] }", "2:36: a.columns.b.enum[1] must be a whole number."),
        ("[a.columns]\nb = { type = 'text', enum = ['x', 'x'] }", "2:35: a.columns.b.enum[1] is there twice."),
        ("[a.columns]\nb = { type = 'text', enum = ['x'], default = 'y' }", "2:46: a.columns.b.default must be x."),
        ("[a.columns]\nb = { type = 'text', default = 5 }", "2:32: a.columns.b.default must be a text."),
        ("[a.columns]\nb = { type = 'integer', default = 0.5 }", "2:35: a.columns.b.default must be a whole number."),
        ("[a.columns]\nb = { type = 'integer', default = 9223372036854775808 }", "must be a whole number of at most 63"),
        ("[a.columns]\nb = { type = 'number', default = inf }", "2:34: a.columns.b.default must be a number."),
        ("[a.columns]\nb = { type = 'number', default = nan }", "2:34: a.columns.b.default must be a number."),
        ("[a.columns]\nb = { type = 'boolean', default = 'yes' }", "2:35: a.columns.b.default must be true or false."),
        ("[a.columns]\nb = { type = 'date', default = 2024-01-01 }", "2:32: a.columns.b.default must be a text in quotes."),
        ("[a.columns]\nb = { type = 'date', default = '2024-02-30' }", "2:32: a.columns.b.default must be a date such"),
        ("[a.columns]\nb = { type = 'json', default = [2024-01-01] }", "2:32: a.columns.b.default must be JSON: no dates"),
        ("[a.columns]\nb = { type = 'json', default = [nan] }", "2:32: a.columns.b.default must be JSON: no dates"),
        (f"[a.columns]\nb = {{ type = 'text', default = '{'x' * 5000}' }}", "has more than 4,096 bytes."),
        ('[a.columns]\nb = { type = "text", default = "x\\u0000" }', "2:32: a.columns.b.default must have no U+0000"),
        ('[a.columns]\nb = { type = "json", default = ["\\u0000"] }', "2:32: a.columns.b.default must have no U+0000"),
        ('[a.columns]\nb = { type = "text", enum = ["\\u0000"] }', "2:30: a.columns.b.enum[0] must have no U+0000"),
        ("[a]\nindexes = 'b'\ncolumns.b = 'text'", "2:11: a.indexes must be a list of columns"),
        ("[a]\nindexes = ['b', 'c']\ncolumns.b = 'text'", '2:17: a.indexes[1] names "c", which is no column of this'),
        ("[a]\nindexes = [['b', 'c']]\ncolumns.b = 'text'\ncolumns.c = 'json'", '2:12: a.indexes[0] names "c", a JSON'),
        ("[a]\nindexes = [['b', 'b']]\ncolumns.b = 'text'", "2:12: a.indexes[0] must name a column, or a list"),
        ("[a]\nindexes = [[], {}]\ncolumns.b = 'text'", "2:12: a.indexes[0] must name a column"),
        ("[a]\nindexes = ['b']\ncolumns.b = {type='text', index=true}", "2:12: a.indexes[0] is an index already."),
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_line_and_column(text: str, told: str) -> None:
    first = mistakes(text)[0]
    assert first.startswith("tables.toml:") and told in first


def test_too_many_of_anything_is_refused() -> None:
    many = "\n".join(f"[t{number}]\ncolumns.a = 'text'" for number in range(101))
    assert mistakes(many) == ["tables.toml:201:2: t100 is beyond the 100 tables that may be declared."]
    wide = "[a.columns]\n" + "\n".join(f"c{number} = 'text'" for number in range(201))
    assert mistakes(wide) == ["tables.toml:202:1: a.columns.c200 is beyond the 200 columns that a table may have."]
    indexed = "[a.columns]\n" + "\n".join(f"c{number} = {{type='text', index=true}}" for number in range(17))
    assert mistakes(indexed) == [
        "tables.toml:1:2: a.indexes make 17 indexes with those of columns; a table may have 16."
    ]


def test_all_mistakes_are_told_at_once_and_in_order() -> None:
    text = "[end_user.columns]\na = 'txt'\nb = { type = 'text', uniqe = true, default = 5 }\n[x]\n[y]\ncolumns.id = 1\n"
    told = [line.split(": ")[0] for line in mistakes(text)]
    assert told == [f"tables.toml:{place}" for place in ("1:2", "2:5", "3:22", "3:46", "4:2", "6:9", "6:14")]


def test_file_is_read_as_editors_write_it(tmp_path: Path) -> None:
    path = tmp_path / "tables.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert toml_file.check(path) == read(GOOD)
    path.write_bytes(b"# fine\n[job] # \xff")
    with pytest.raises(DeclarationError, match=r"tables\.toml:2:9: is not UTF-8\.$"):
        toml_file.check(path)
    with pytest.raises(OSError, match="No such file"):
        toml_file.check(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "name", ["select", "create_table", "table", "order", "group", "save", "delete", "metadata", "Meta"]
)
def test_words_of_sql_and_of_models_are_names_like_others(name: str) -> None:
    (table,) = read(f"[{name}.columns]\n{name} = {{ type = 'text', index = true }}")
    model = model_of(table)
    assert model._meta.table_name == name and name in [field.column_name for field in model._meta.sorted_fields]
    assert callable(model.create_table) and callable(model.select)


def test_column_of_a_declaration_takes_what_one_in_python_takes() -> None:
    (table,) = read("[a.columns]\n" + "\n".join(f"c_{word} = '{word}'" for word in TYPES))
    rules = {field.column_name: column_of(field) for field in model_of(table)._meta.sorted_fields[3:11]}
    fits: dict[str, Any] = {"text": 5, "integer": 5.0, "number": 1, "boolean": True, "json": {"a": [None]}}
    fits |= {"date": "2025-06-29", "time": "23:45", "timestamp": "2025-06-29 23:45:26+02:00"}
    stored: dict[str, Any] = {"text": "5", "integer": 5, "number": 1.0, "boolean": 1}
    for word, value in fits.items():
        assert rules[f"c_{word}"].check(value) == stored.get(word, value)
    bad: dict[str, Any] = {
        "date": ["2025-02-30", "20250629", "2025-W01-1", "2025-06-29T00:00", 5, "٢٠٢٥-06-29"],
        "time": ["24:00", "23", "23:45Z", "2345", ""],
        "timestamp": ["2025-06-29", "2025-06-29T25:00", "29.06.2025", "2025-06-29T23:45:26.002 Z", 5],
    }
    for word, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match="must be"):
                rules[f"c_{word}"].check(value)


# --- at random -------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "type",
        "text",
        "integer",
        "json",
        "date",
        "required",
        "default",
        "enum",
        "index",
        "indexes",
        "columns",
        "id",
        "a",
        "A",
    ]
)
ANY = st.recursive(
    st.one_of(WORDS, st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value) if "." in repr(value) or "e" not in repr(value) else repr(value).replace("e", ".0e")
    return json.dumps(value)


@given(st.dictionaries(WORDS, ANY | st.fixed_dictionaries({"columns": st.dictionaries(WORDS, ANY)}), max_size=3))
def test_whatever_a_file_says_it_is_read_or_refused_with_places(said: dict[str, Any]) -> None:
    text = "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in said.items())
    try:
        tables = read(text)
    except DeclarationError as error:
        assert error.mistakes and all(0 < place.line <= text.count("\n") + 1 for place, _ in error.mistakes)
    else:
        for table in tables:
            assert issubclass(model_of(table), SyncedRow)
            for field in model_of(table)._meta.sorted_fields:
                column_of(field) if field.column_name not in ("_seq", "_extra") else None
