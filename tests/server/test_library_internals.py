"""The private names of libraries that this server uses are there, and stand in one table.

Seen to fail with: a name that no version had; a use of ``engine._async`` that the table did not have.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from importlib import metadata

import pytest

from server.library_internals import INTERNALS, Internals
from tests.sources import modules, name_of

DOCUMENTED = {"_meta", "_replace", "_asdict", "_fields"}
"""Names that look private and are not: of peewee's models and of named tuples."""


def assigned(owner: type) -> set[str]:
    """Collect what a class and its bases assign to ``self``: attributes that only instances have."""
    found: set[str] = set()
    for kind in inspect.getmro(owner):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        except (OSError, TypeError):  # Compiled.
            continue
        found |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
        }
    return found


def missing(internals: Internals) -> list[str]:
    module, _, kind = internals.owner.partition(":")
    try:
        owner = importlib.import_module(module)
    except ImportError:
        return [internals.owner]
    if not kind:
        return [name for name in internals.names.split() if not hasattr(owner, name)]
    found = getattr(owner, kind, None)
    if found is None:
        return [internals.owner]
    of_instances = assigned(found)
    return [name for name in internals.names.split() if not hasattr(found, name) and name not in of_instances]


@pytest.mark.parametrize("internals", INTERNALS, ids=lambda one: one.owner)
def test_each_private_name_is_there(internals: Internals) -> None:
    absent = missing(internals)
    version = "" if internals.package == "Python" else metadata.version(internals.package)
    assert not absent, (
        f"{internals.package} {version} has no {', '.join(absent)} in {internals.owner}, which {internals.used_by} use:"
        " see server/README.md, and change server/library_internals.py with what replaces it"
    )


@pytest.mark.parametrize("name", ["", "_gone", "queue _gone"])
def test_missing_name_is_named(name: str) -> None:
    found = missing(Internals("python-engineio", "engineio.socket:Socket", name, "x"))
    assert found == ["_gone"] * bool(name)
    assert missing(Internals("python-engineio", "engineio.socket:Gone", "queue", "x")) == ["engineio.socket:Gone"]
    assert missing(Internals("python-engineio", "engineio.gone:Socket", "queue", "x")) == ["engineio.gone:Socket"]


def private_names(source: str) -> set[str]:
    """Collect the private attributes that a module uses and does not define itself."""
    tree = ast.parse(source)
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {
        node.attr for node in used if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls")
    }
    own |= {name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in _fields_of(node)}
    return {node.attr for node in used if not node.attr.startswith("__")} - own - DOCUMENTED


def _fields_of(kind: ast.ClassDef) -> set[str]:
    """Collect the names that a class declares, among them those of ``__slots__``."""
    named = {
        node.target.id for node in kind.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    targets = [one for node in kind.body if isinstance(node, ast.Assign) for one in node.targets]
    return named | {target.id for target in targets if isinstance(target, ast.Name)}


def test_each_private_name_that_is_used_stands_in_the_table() -> None:
    known = {(module, name) for one in INTERNALS for module in one.used_by.split() for name in one.names.split()}
    for path in modules():
        used = {(name_of(path), name) for name in private_names(path.read_text())}
        assert used <= known, f"{used - known}: use a public name, or add them to server/library_internals.py"
