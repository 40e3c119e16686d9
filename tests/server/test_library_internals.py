"""The private names of libraries that this server uses are there, and stand in one table.

Seen to fail with: a name that no version had; a use of ``engine._async`` that the table did not have.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from server.library_internals import INTERNALS, Internals
from tests.sources import modules, name_of, nodes, parsed

DOCUMENTED = {"_meta", "_replace", "_asdict", "_fields"}
"""Names that look private and are not: of peewee's models and of named tuples."""


def assigned(owner: type) -> set[str]:
    """Collect what a class and its bases assign to ``self``: attributes that only instances have."""
    texts = [node for kind in inspect.getmro(owner) for node in text_of(kind)]
    return {node.attr for node in texts if isinstance(node, ast.Attribute) and _is_stored_on_self(node)}


def text_of(kind: type) -> Iterator[ast.AST]:
    """Give every node of a class, and none of one that is compiled."""
    path = None if kind.__module__ == "builtins" else inspect.getsourcefile(kind)
    for node in nodes(parsed(Path(path).read_text())) if path else ():
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            yield from nodes(node)


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


def defined(tree: ast.AST) -> set[str]:
    """Collect the names that a module defines: functions, classes, and attributes of its classes and of ``self``."""
    names = {node.name for node in nodes(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute) and _is_stored_on_self(node)}
    return names | {name for node in nodes(tree) if isinstance(node, ast.ClassDef) for name in _fields_of(node)}


def _is_stored_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"


def _fields_of(kind: ast.ClassDef) -> set[str]:
    named = {
        node.target.id for node in kind.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    targets = [one for node in kind.body if isinstance(node, ast.Assign) for one in node.targets]
    return named | {target.id for target in targets if isinstance(target, ast.Name)}


def used(tree: ast.AST, anywhere: set[str]) -> set[str]:
    """Collect the private attributes that a module uses and that are no names of ours; ``anywhere``: those of all modules,
    which ``self`` may have from a base class."""
    here = defined(tree)
    private = [node for node in nodes(tree) if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr)]
    found = {
        node.attr for node in private if node.attr not in (anywhere if ast.unparse(node.value) == "self" else here)
    }
    return found - DOCUMENTED


def test_each_private_name_that_is_used_stands_in_the_table() -> None:
    known = {(module, name) for one in INTERNALS for module in one.used_by.split() for name in one.names.split()}
    trees = {name_of(path): parsed(path.read_text()) for path in modules()}
    anywhere = set[str]().union(*map(defined, trees.values()))
    found = {(module, name) for module, tree in trees.items() for name in used(tree, anywhere)}
    assert found <= known, f"{found - known}: use a public name, or add them to server/library_internals.py"


def test_each_private_name_in_the_table_is_used() -> None:
    text = {name_of(path): path.read_text() for path in modules()}
    for one in INTERNALS:
        sources = "".join(text[module] for module in one.used_by.split() if module in text)
        unused = [name for name in one.names.split() if name.startswith("_") and not re.search(rf"\b{name}\b", sources)]
        assert not unused, f"{one.used_by} use no {', '.join(unused)}: take them from server/library_internals.py"
