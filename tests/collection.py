"""Which tests run, in which order and in which of several runs; ``tests/conftest.py`` loads this as pytest's plugin.

Knows: pytest's items, what starts a process. Must not know: what is tested.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sources import ROOT

LONGEST = ("test_js_handlers", "test_fairness", "test_dart", "test_backup_losses", "test_pages", "test_network")
"""What begins first, so that what runs beside it does not wait for it in the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "run only modules that no other run with this folder has taken, so that runs side by side end together"
    parser.addoption("--among", metavar="FOLDER", type=Path, help=about)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what is longest first; mark what works against a server process, so that ``make unit`` leaves it out."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    for item in items:
        if _works_with_processes(item):
            item.add_marker("server")


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests of modules that no other run has taken, each with the one that really follows, for fixtures' ends.

    Raises: pytest.Session.Failed, pytest.Session.Interrupted, as pytest's own loop does.
    """
    among = session.config.getoption("--among")
    if among is None or session.config.option.collectonly:
        return None
    ours = (item for item in session.items if _is_ours(among / str(item.path.relative_to(ROOT)).replace("/", ".")))
    for item, following in itertools.pairwise(itertools.chain(ours, [None])):
        assert item
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
    return True


@functools.cache
def _is_ours(mark: Path) -> bool:
    """Take a module, if it is still to be had."""
    try:
        mark.mkdir()
    except FileExistsError:
        return False
    return True


def _works_with_processes(item: pytest.Item) -> bool:
    """Tell whether a test, a fixture of its, or a function of its module that one of them calls starts a process."""
    known = getattr(item, "_fixtureinfo", None)
    definitions = known.name2fixturedefs.values() if known else ()
    functions = [getattr(item, "function", None), *(one.func for some in definitions for one in some)]
    return any(_starts_processes(one) for one in functions if one)


@functools.cache
def _starts_processes(function: Callable[..., Any]) -> bool:
    function = inspect.unwrap(function)
    names, own = set[str](), getattr(function, "__globals__", {})
    waiting = [getattr(function, "__code__", None)]
    while waiting:
        if code := waiting.pop():
            names |= set(code.co_names)
            waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    called = [own[name] for name in names if isinstance(own.get(name), types.FunctionType)]
    return bool(names & {"subprocess", "forking", "Server", "elsewhere"}) or any(
        _starts_processes(one) for one in called if one is not function and one.__module__ == function.__module__
    )
