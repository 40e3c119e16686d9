"""Imports point down one line, and what must not know of the other does not (ARCHITECTURE.md, modules)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
from conftest import ROOT

LAYERS = [
    ["syncapp"],
    ["asyncapi", "openapi", "operate", "pages"],
    ["calls", "schemas"],
    ["review"],
    ["sync"],
    ["sockets"],
    ["admission", "door", "events", "handshakes", "intake"],
    ["announced", "auth", "rehearsal"],
    ["backup_commands", "probe"],
    ["command_line"],
    ["backup", "probe_requests", "probe_sockets", "restore"],
    ["deployments", "verification"],
    ["checks", "fanout", "logs", "notices", "serving", "upkeep", "web"],
    ["manifest"],
    ["file_monitor", "signing", "tokens"],
    ["tenants"],
    ["leftovers", "takeover"],
    ["tenant_files"],
    ["migration"],
    ["incarnations"],
    ["files"],
    ["storage"],
    ["archive", "devices"],
    ["evidence"],
    ["changes", "pulls", "quota"],
    ["short"],
    ["identity", "repeats", "revival", "writing"],
    ["directory"],
    ["schema"],
    ["bases", "digest", "fitting", "receipts", "tables_file"],
    ["declared", "ledger", "records", "shapes"],
    ["models", "parsing"],
    ["handler", "lines", "polling", "typed"],
    ["answers", "connections", "inlets", "protocol"],
    ["bodies", "budgets", "engine_errors", "folder_locks", "frames", "heads", "wire"],
    [
        "disk",
        "errors",
        "misnamed",
        "probe_client",
        "reference",
        "reverse_proxies",
        "room",
        "seen_rows",
        "settings",
        "toml_places",
        "turns",
    ],
]
"""From the top down. A module may import those of the layers below its own, and none beside it."""

ONLY_THERE = {
    "apsw": {"engine_errors", "files", "storage"},
    "playhouse": {"storage"},
    "bcrypt": {"tokens"},
    "flask_socketio": {"sockets"},
}
"""Packages that one module alone may import."""

PURE = ("parsing", "typed", "protocol", "seen_rows", "wire", "errors")
NEVER_THERE = {name: {"flask", "gevent", "peewee", "playhouse", "apsw"} for name in PURE}
"""Packages that a module must not import."""

STANDARD_LIBRARY_ONLY = {"errors", "misnamed", "reverse_proxies", "room", "settings", "toml_places"}
MAY_BIND = {"serving": {"listener.bind"}}
"""Calls of a ``bind`` that is no peewee model's."""

Sources = Mapping[str, str]


def sources() -> Sources:
    """Read every top-level module but gunicorn's, which gunicorn runs and nobody imports."""
    return {path.stem: path.read_text() for path in ROOT.glob("*.py") if path.name != "gunicorn.conf.py"}


def imported(tree: ast.AST) -> set[str]:
    """Collect the modules and packages that a tree imports, wherever in it, each by its first name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "no relative imports: the modules are flat"
            found.add(node.module.split(".")[0])
    return found


def calls(tree: ast.AST) -> set[str]:
    """Collect what a tree calls, as it is written."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


Rule = Callable[[str, ast.Module], Iterator[str]]


def points_down(name: str, tree: ast.Module) -> Iterator[str]:
    layer = {module: number for number, modules in enumerate(LAYERS) for module in modules}
    for other in sorted(imported(tree) & layer.keys()):
        if name in layer and layer[other] <= layer[name]:
            yield f"{name} imports {other}, which is not below it"


def stays_at_the_top(name: str, tree: ast.Module) -> Iterator[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        if imported(function):
            yield f"{name}.{function.name} imports inside a function"
    for call in sorted(calls(tree) & {"__import__", "importlib.import_module", "import_module"}):
        yield f"{name} calls {call}"


def knows_only_what_it_may(name: str, tree: ast.Module) -> Iterator[str]:
    for package in sorted(imported(tree)):
        if package in NEVER_THERE.get(name, ()) or name not in ONLY_THERE.get(package, {name}):
            yield f"{name} imports {package}"
        if name in STANDARD_LIBRARY_ONLY and package not in sys.stdlib_module_names:
            yield f"{name} imports {package}, which is not of the standard library"


def binds_no_model(name: str, tree: ast.Module) -> Iterator[str]:
    for call in sorted(calls(tree) - MAY_BIND.get(name, set())):
        if call.rpartition(".")[2] in ("bind", "bind_ctx"):
            yield f"{name} calls {call}: a bound model is bound for every tenant (trap 2)"


RULES: list[Rule] = [points_down, stays_at_the_top, knows_only_what_it_may, binds_no_model]


def faults(rule: Rule, modules: Sources) -> list[str]:
    return [fault for name, text in modules.items() for fault in rule(name, ast.parse(text))]


def test_every_module_has_its_layer_and_every_layer_its_modules() -> None:
    assert sorted(name for layer in LAYERS for name in layer) == sorted(sources())


def test_architecture_shows_these_layers() -> None:
    line = " ►\n".join("  ".join(layer) for layer in LAYERS)
    assert f"```\n{line}\n```" in (ROOT / "ARCHITECTURE.md").read_text(), line


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_modules_keep_the_rule(rule: Rule) -> None:
    assert faults(rule, sources()) == []


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (points_down, "models", "import tenants"),
        (points_down, "protocol", "from changes import apply"),
        (points_down, "pages", "import operate"),
        (points_down, "models", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import storage"),
        (stays_at_the_top, "sync", "def f():\n    import auth"),
        (stays_at_the_top, "sync", "class A:\n    async def f(self):\n        from auth import bearer"),
        (stays_at_the_top, "sync", "import importlib\nimportlib.import_module('auth')"),
        (knows_only_what_it_may, "tenants", "import apsw"),
        (knows_only_what_it_may, "models", "from playhouse.apsw_ext import APSWDatabase"),
        (knows_only_what_it_may, "protocol", "from flask import request"),
        (knows_only_what_it_may, "wire", "import gevent.event"),
        (knows_only_what_it_may, "errors", "import msgspec"),
        (binds_no_model, "tenants", "with database.bind_ctx([Customer]): pass"),
        (binds_no_model, "serving", "Customer.bind(database)"),
    ],
)
def test_rule_finds_what_breaks_it(rule: Rule, name: str, text: str) -> None:
    assert len(faults(rule, {name: text})) == 1


def test_module_that_knows_nothing_of_ours_may_be_imported_by_all() -> None:
    assert faults(points_down, {"syncapp": "import errors, settings, wire", "models": "from wire import Row"}) == []
