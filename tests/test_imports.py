"""Imports point one way, and what must not know of the other does not (ARCHITECTURE.md, layers).

By tests of ours, because import-linter 2.17 handles packages only, and many layers are single files.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter

import pytest

from tests.conftest import ROOT
from tests.sources import FOLDERS, modules, name_of, nodes, parsed

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text().partition("\n## Layers\n")[2].partition("\n## ")[0]
FLOORS = [
    name.replace("/", ".") for name in re.findall(r"^\| `(\w+(?:/\w+)*)(?:/|\.py)` \|", ARCHITECTURE, re.MULTILINE)
]
"""From the bottom up. A module may import those of the floors before its own, and of its own, without a circle."""

ONLY_THERE = {
    "apsw": {f"storage.sqlite.{name}" for name in ("binding", "connections", "database", "errors", "files")},
    "playhouse": {"storage.sqlite.binding"},
    "psycopg": {f"storage.postgres.{name}" for name in ("connecting", "connection", "errors", "handshakes", "rows")},
    "bcrypt": {"accounts.passwords"},
    "isal": {"server.http.middleware", "operations.backups.objects"},
    "obstore": {"operations.backups.bucket"},
    "pyrage": {"operations.backups.objects"},
    "redis": {"server.bus.redis_bus"},
    "flask_socketio": {"server.websocket.socketio_server"},
}
"""Packages that one module alone may import."""

ENGINES = ("storage.sqlite.", "storage.postgres.")
MAY_KNOW_THE_ENGINE = {
    "storage.postgres.copies": "writes and reads files of the other",
    "storage.postgres.retired_tables": "reads files of the other",
    "assembly": "says why it could not open, and watches its files",
    "operations.backups.backup": "says why a file of it is at fault",
    "operations.backups.chains": "writes and reads copied files",
    "operations.backups.changes": "looks at files",
    "operations.backups.lock": "locks the data folder",
    "operations.backups.manifest": "reads copied files",
    "operations.backups.retrieval": "reads copied files",
    "operations.backups.run": "says why a file of it is at fault",
    "operations.backups.verification": "reads copied files",
    "operations.backups.restore": "puts files back",
    "operations.backups.rewind": "opens copies of files, and makes one",
    "operations.export": "makes a file of it",
    "operations.import_archive": "makes a file that is taken over",
    "operations.checks.support": "says its version",
    "operations.migration": "copies files before they are changed",
    "operations.migration_check": "reads these copies",
    "operations.file_monitor": "looks at files",
    "operations.checks.doctor": "looks at the data folder",
    "operations.checks.trial_start": "opens the data folder",
    "operations.engine_choice": "chooses it",
    "operations.commands.command_line": "opens the data folder",
}
"""Modules that may import of an engine's folder, since they are about files; all others know ``storage.engine`` alone."""

PURE = sorted(name for name in map(name_of, modules()) if name.startswith("protocol."))
NEVER_THERE = {name: {"flask", "gevent", "peewee", "playhouse", "apsw"} for name in PURE}
"""Packages that a module must not import."""

STANDARD_LIBRARY_ONLY = {
    "protocol.errors",
    "operations.checks.misspelled_settings",
    "operations.checks.probe_proxies",
    "server.disk_space",
    "setting_values",
    "storage.declarations.toml_positions",
}
MAY_BIND = {"server.http.listening": {"listener.bind"}, "api.admin.console": {"paths.bind"}}
"""Calls of a ``bind`` that is no peewee model's."""

Sources = Mapping[str, str]
NAMES = {name_of(path) for path in modules()}


def sources() -> Sources:
    """Read every module but gunicorn's, which gunicorn runs and nobody imports."""
    return {name_of(path): path.read_text() for path in modules()}


@cache
def imported(tree: ast.AST) -> set[str]:
    """Collect what a tree imports, wherever in it: modules of ours by their name, others by that of their package."""
    found = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found |= {_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "no relative imports: a name says where a module is"
            found |= {_module(node.module, alias.name) for alias in node.names}
    return found


def _module(name: str, member: str = "") -> str:
    """Name the module that an import means: it is named itself, or taken from its folder."""
    if f"{name}.{member}" in NAMES:
        return f"{name}.{member}"
    first = name.partition(".")[0]
    return name if first in FOLDERS else first


def floor(name: str) -> str:
    """Give the floor of a module: its folder, or itself at the root."""
    return name.rpartition(".")[0] or name


def height(name: str) -> int:
    """Give the number of a module's floor, and -1 of what is not ours."""
    return FLOORS.index(floor(name)) if floor(name) in FLOORS else -1


@cache
def calls(tree: ast.AST) -> set[str]:
    """Collect what a tree calls, as it is written."""
    return {ast.unparse(node.func) for node in nodes(tree) if isinstance(node, ast.Call)}


Rule = Callable[[str, ast.Module], Iterator[str]]


def points_one_way(name: str, tree: ast.Module) -> Iterator[str]:
    for other in sorted(imported(tree)):
        if other.partition(".")[0] in FOLDERS and other not in NAMES:
            yield f"{name} imports {other}, which is no module: a folder exports nothing"
        elif height(other) > height(name):
            yield f"{name} imports {other}, which stands above it"


MAY_IMPORT_LATE = {
    "assembly._add_metrics",
    "assembly._backups",
    "assembly._console",
    "assembly._send_mails",
    "operations.backups.alerts._post",
    "operations.backups.place_choice.place_of",
    "operations.bus_choice.chosen_bus",
    "operations.checks.doctor.redis_address",
    "operations.commands.check_commands.doctor",
    "operations.engine_choice.postgres_engine",
    "syncapp._run_command",
    "syncapp._serve",
    "syncapp.create_app",
    "syncapp.import_server",
}
"""A server that only serves must not hold what the operator's commands need, nor one on SQLite alone drivers of others; and
no command what the server needs. The rules above hold for what is imported late, too."""

BY_NAME = {"__import__", "importlib.import_module", "import_module"}


def stays_at_the_top(name: str, tree: ast.Module) -> Iterator[str]:
    functions = [node for node in nodes(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        if imported(function) and f"{name}.{function.name}" not in MAY_IMPORT_LATE:
            yield f"{name}.{function.name} imports inside a function"
    for node in nodes(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in BY_NAME and not _stays_in_its_folder(name, node):
            yield f"{name} calls {ast.unparse(node)}"


def _stays_in_its_folder(name: str, call: ast.Call) -> bool:
    """Tell whether a module is imported by its name whose folder is written out, and is that of who imports it."""
    match call.args:
        case [ast.JoinedStr(values=[ast.Constant(value=folder), *_])]:
            return bool(folder == f"{floor(name)}.")
    return False


def knows_only_what_it_may(name: str, tree: ast.Module) -> Iterator[str]:
    for package in sorted(imported(tree)):
        if package in NEVER_THERE.get(name, ()) or name not in ONLY_THERE.get(package, {name}):
            yield f"{name} imports {package}"
        if name in STANDARD_LIBRARY_ONLY and package not in sys.stdlib_module_names:
            yield f"{name} imports {package}, which is not of the standard library"


def knows_no_engine(name: str, tree: ast.Module) -> Iterator[str]:
    for other in sorted(imported(tree)):
        folder = next((one for one in ENGINES if other.startswith(one)), None)
        if folder and not name.startswith(folder) and name not in MAY_KNOW_THE_ENGINE:
            yield f"{name} imports {other}: ask storage.engine for it"


def binds_no_model(name: str, tree: ast.Module) -> Iterator[str]:
    for call in sorted(calls(tree) - MAY_BIND.get(name, set())):
        if call.rpartition(".")[2] in ("bind", "bind_ctx"):
            yield f"{name} calls {call}: a bound model is bound for every tenant (trap 2)"


RULES: list[Rule] = [points_one_way, stays_at_the_top, knows_only_what_it_may, knows_no_engine, binds_no_model]


def faults(rule: Rule, modules: Sources) -> list[str]:
    return [fault for name, text in modules.items() for fault in rule(name, parsed(text))]


def test_every_module_has_its_floor_and_every_floor_its_modules() -> None:
    assert {floor(name) for name in sources()} == set(FLOORS)


def test_every_folder_says_what_it_is_and_exports_nothing() -> None:
    for name in FLOORS:
        if name not in sources():
            (docstring,) = parsed((ROOT / name.replace(".", "/") / "__init__.py").read_text()).body
            assert isinstance(docstring, ast.Expr), name
            text = " ".join(str(getattr(docstring.value, "value", "")).split())
            assert "Knows:" in text and "Must not know:" in text, name


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imported(parsed(text)) for name, text in sources().items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_modules_keep_the_rule(rule: Rule) -> None:
    assert faults(rule, sources()) == []


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (points_one_way, "models", "import tenants"),
        (points_one_way, "protocol.merge", "from storage.push_writer import apply"),
        (points_one_way, "api.pages", "from operations import commands"),
        (
            points_one_way,
            "models",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from storage.sqlite import database",
        ),
        (stays_at_the_top, "api.sync", "def f():\n    from api import auth"),
        (stays_at_the_top, "api.sync", "class A:\n    async def f(self):\n        from api.auth import bearer"),
        (stays_at_the_top, "api.sync", "import importlib\nimportlib.import_module('auth')"),
        (stays_at_the_top, "api.sync", "from importlib import import_module\nimport_module(f'operations.{name}')"),
        (stays_at_the_top, "api.sync", "from importlib import import_module\nimport_module(f'{name}.api.')"),
        (knows_only_what_it_may, "tenants", "import apsw"),
        (knows_only_what_it_may, "models", "from playhouse.apsw_ext import APSWDatabase"),
        (knows_only_what_it_may, "protocol.merge", "from flask import request"),
        (knows_only_what_it_may, "protocol.codec", "import gevent.event"),
        (knows_only_what_it_may, "protocol.errors", "import msgspec"),
        (knows_no_engine, "tenants", "from storage.sqlite.engine import SQLiteEngine"),
        (knows_no_engine, "storage.schema", "from storage.sqlite import dialect"),
        (knows_no_engine, "storage.postgres.pool", "from storage.sqlite import database"),
        (knows_no_engine, "tenants", "from storage.postgres.engine import PostgresEngine"),
        (binds_no_model, "tenants", "with database.bind_ctx([Customer]): pass"),
        (binds_no_model, "server.http.lifecycle", "Customer.bind(database)"),
    ],
)
def test_rule_finds_what_breaks_it(rule: Rule, name: str, text: str) -> None:
    assert len(faults(rule, {name: text})) == 1


def test_module_that_knows_nothing_of_ours_may_be_imported_by_all() -> None:
    assert (
        faults(
            points_one_way,
            {
                "syncapp": "from protocol import errors\nimport settings\nfrom protocol import codec",
                "models": "from protocol.codec import Row",
            },
        )
        == []
    )
