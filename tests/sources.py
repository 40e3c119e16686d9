"""Where the server's modules are, for tests that read them all."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("protocol", "server", "storage", "accounts", "api", "operations")


def modules() -> list[Path]:
    """List the server's modules, but for gunicorn's, which nobody imports, and those that only say what a folder is."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py")
    return sorted([*(path for path in ROOT.glob("*.py") if path.name != "gunicorn.conf.py"), *inside])


def name_of(path: Path) -> str:
    """Give the name by which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@cache
def parsed(text: str) -> ast.Module:
    """Parse a module's text, once for all tests of a run; whoever has the tree leaves it as it is."""
    return ast.parse(text)


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """List every node of a tree, as ``ast.walk`` does, once for all tests of a run."""
    return list(ast.walk(tree))
