"""Which tests run, in which order and in which of several runs; ``tests/conftest.py`` loads this as pytest's plugin.

Knows: pytest's items, what starts a process. Must not know: what is tested.
"""

from __future__ import annotations

import atexit
import functools
import gc
import inspect
import itertools
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.disk_space import room
from tests import postgres
from tests.sources import ROOT

LONGEST = (
    *("test_js_handlers", "test_other_browsers", "test_js_own_tests", "test_operators_day", "test_restore"),
    *("test_pages", "test_lifecycle", "test_operator", "test_connections", "test_toolchains", "test_losses"),
    *("test_multi_app_offline", "test_console", "test_fairness", "test_network", "test_upgrade", "test_api_schema"),
    *("test_chaos", "test_redis_bus", "test_push_writer", "test_numbers"),
    *("test_disk_quota", "test_push_fast_path", "test_row_identity", "test_parsers", "test_idle_reader"),
)
"""What begins first, the longest before the others, so that what runs beside it does not wait for it in the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "run only modules that no other run with this folder has taken, so that runs side by side end together"
    parser.addoption("--among", metavar="FOLDER", type=Path, help=about)


def pytest_configure(config: pytest.Config) -> None:
    gc.freeze()  # What is imported lives on: no search for cycles need visit it.
    atexit.register(gc.freeze)  # The last search, as Python ends, takes seconds, and nobody is told what it finds.
    if config.getoption("--among") and not config.option.collectonly:
        config.pluginmanager.register(Shared(config.getoption("--among")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what is longest first; mark what works against a server process, so that ``make unit`` leaves it out.

    Skip what is about files, where there are none.
    """
    items.sort(key=_rank)
    for item in items:
        if _works_with_processes(item):
            item.add_marker("server")
        if postgres.IS_UNDER_TEST and not postgres.is_there():
            item.add_marker(pytest.mark.skip(postgres.MISSING))
        if postgres.IS_UNDER_TEST and (why := _about_files(item)):
            item.add_marker(pytest.mark.skip(f"about the files of SQLite: {why}"))


def _about_files(item: pytest.Item) -> str | None:
    """Tell what of SQLite's files a test is about."""
    mark = item.get_closest_marker("files")
    return str(mark.args[0]) if mark else "its engine" if item.path.parent.name == "sqlite" else None


def pytest_runtest_teardown() -> None:
    """Forget that a test's disk was full, which is noted once a process."""
    room.is_full = room.is_low = False


class Shared:
    """The tests of several runs side by side: a run imports a module when it takes it, and no module of another run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put_off: list[pytest.Module] = []
        self.is_running = False

    def pytest_make_collect_report(self, collector: pytest.Collector) -> pytest.CollectReport | None:
        """Put off each module, as if it had no tests, until it is taken."""
        if self.is_running or not isinstance(collector, pytest.Module):
            return None
        self.put_off.append(collector)
        return pytest.CollectReport(collector.nodeid, "passed", None, [])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests of modules that no other run has taken, each with the one that really follows, for fixtures' ends.

        Raises: pytest.Session.Failed, pytest.Session.Interrupted, as pytest's own loop does.
        """
        self.is_running = True
        for item, following in itertools.pairwise(itertools.chain(self._items(session), [None])):
            assert item
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        return True

    def _items(self, session: pytest.Session) -> Iterator[pytest.Item]:
        for module in sorted(self.put_off, key=_rank):
            if self._is_ours(module):
                items = list(session.genitems(module))
                session.testscollected += len(items)
                session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=items)
                yield from items

    def _is_ours(self, module: pytest.Module) -> bool:
        """Take a module, if it is still to be had."""
        try:
            (self.folder / str(module.path.relative_to(ROOT)).replace("/", ".")).mkdir()
        except FileExistsError:
            return False
        return True


def _rank(node: pytest.Module | pytest.Item) -> int:
    return LONGEST.index(node.path.stem) if node.path.stem in LONGEST else len(LONGEST)


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
    if (
        names & {"subprocess", "forking", "Server", "elsewhere", "PostgresInstallation"}
        or {"postgres", "server"} <= names
    ):
        return True
    return any(
        _starts_processes(one) for one in called if one is not function and one.__module__ == function.__module__
    )
