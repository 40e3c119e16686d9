"""Statements outside an engine's folder are understood by SQLite and PostgreSQL (see ``storage.dialect``)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from storage.dialect import Dialect
from storage.postgres import dialect as postgres_dialect
from storage.sqlite import dialect as sqlite_dialect
from tests.sources import modules, name_of, nodes, parsed

DIALECTS: list[Dialect] = [sqlite_dialect, postgres_dialect]
"""The engines' dialects; that each gives all that is asked, mypy says."""

ONLY_SQLITE = {
    "a pragma": r"\bPRAGMA\b",
    "a function on JSON": r"\bjson_(?:\w+)|\bjson\(",
    "an operator on JSON": r"\w ->>? (?:\?|'|\{)",
    "a function": r"\b(?:iif|ifnull|instr|group_concat|total|printf|randomblob|hex|char|unicode|julianday|typeof)\(",
    "max or min of more than one value": r"\b(?:max|min)\([^()]*(?:\([^()]*\)[^()]*)*,",
    "a way to insert": r"\b(?:INSERT|UPDATE) OR \w+|\bREPLACE INTO\b",
    "an insert without the names of its columns": r"\bINSERT INTO \S+ (?:VALUES|SELECT)\b",
    "the catalog": r"\bsqlite_\w+",
    "a number of a parameter": r"\?[0-9]",
    "a way to compare": r"COLLATE NOCASE|\bGLOB\b|\bIS (?:NOT )?\?",
    "a type": r"\bAS BLOB\b|\bAUTOINCREMENT\b|\bWITHOUT ROWID\b",
    "a condition of a CROSS JOIN": r"\bCROSS JOIN\b.*\bON\b",
    "a row's number": r"\b_?rowid_?\b",
    "a hint": r"\bINDEXED BY\b|\bunlikely\(|\blikely\(",
    "a command on the file": r"^(?:VACUUM|ATTACH|DETACH|ANALYZE|REINDEX)\b",
    "a subquery without a name": r"FROM \(SELECT [^()]*(?:\([^()]*\)[^()]*)*\)(?! AS )",
}
"""What PostgreSQL refuses, or reads otherwise."""

NO_CALLS = {"pragma", "last_insert_rowid", "total_changes", "changes", "set_last_insert_rowid", "on_conflict_replace"}
"""Methods of SQLite's connections, and what peewee writes in SQLite's words."""

NO_SQL = {("storage.declarations.toml_file", "json_each")}
"""Texts that are no SQL: a name that a table must not have."""


def texts(tree: ast.Module) -> Iterator[str]:
    """Give the texts of a module, joined as they are written; not its docstrings."""
    docstrings = {id(node.value) for node in nodes(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in nodes(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes(tree):
        if id(node) in docstrings or id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def faults(name: str, text: str) -> list[str]:
    tree = parsed(text)
    called = [node.func.attr for node in nodes(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")]
    found = [f"{name} calls {one}" for one in called if one in NO_CALLS]
    for one in texts(tree):
        if (name, one) not in NO_SQL:
            found += [f"{name} has {what}: {one}" for what, word in ONLY_SQLITE.items() if re.search(word, one)]
    return found


def test_no_module_outside_the_engine_has_sql_that_only_sqlite_knows() -> None:
    found = []
    for path in modules():
        name = name_of(path)
        if not name.startswith(("storage.sqlite.", "storage.postgres.")):
            found += faults(name, path.read_text())
    assert found == []


@pytest.mark.parametrize(
    "statement",
    [
        "sql.execute('PRAGMA user_version')",
        "sql.pragma('user_version')",
        "sql.execute('SELECT x FROM t, json_each(t.y) AS z')",
        "sql.execute(f'UPDATE \"{t}\" SET a = json_set(a, ?, ?)')",
        "sql.execute('SELECT c.row ->> ? FROM c')",
        "sql.execute('SELECT iif(a = 1, 2, 3) FROM t')",
        "sql.execute('SELECT max(a, b) FROM t')",
        "sql.execute('UPDATE t SET a = max(coalesce(a, 0), ?)')",
        "sql.execute('INSERT OR REPLACE INTO t (a) VALUES (?)')",
        "sql.execute('INSERT INTO t VALUES (?, ?)')",
        "sql.execute('SELECT name FROM sqlite_schema')",
        "sql.execute('UPDATE t SET a = ?1 WHERE b = ?2')",
        "sql.execute('SELECT a FROM t WHERE a = ? COLLATE NOCASE')",
        "sql.execute('SELECT a FROM t WHERE a IS NOT ?')",
        "sql.execute('SELECT CAST(a AS BLOB) FROM t')",
        "sql.execute('SELECT max(a) FROM (SELECT a FROM t LIMIT ?)')",
        "sql.execute('SELECT 1 FROM t CROSS JOIN s ON s.a = t.a')",
        "sql.execute('VACUUM INTO ?')",
        "Row.insert(a=1).on_conflict_replace().execute()",
    ],
)
def test_statement_that_only_sqlite_understands_is_found(statement: str) -> None:
    assert faults("storage.x", statement)


@pytest.mark.parametrize(
    "statement",
    [
        "sql.execute('SELECT max(a), min(b), count(*) FROM (SELECT a, b FROM t WHERE c IN (1, 2)) AS part')",
        "sql.execute('INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b')",
        "sql.execute('UPDATE t SET a = ? FROM s AS c WHERE c.b = t.b AND c.d IS DISTINCT FROM ?')",
        "sentence = 'a text with an arrow -> and a PRAGMATIC word, replaced'",
        "def f():\n    'A docstring on PRAGMA.'",
    ],
)
def test_it_takes_sql_that_both_know(statement: str) -> None:
    assert faults("storage.x", statement) == []
