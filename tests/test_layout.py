"""Files stay small enough to be read at once, and tests are found where what they test is (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.sources import FOLDERS, ROOT, modules, nodes, parsed

TESTS = ROOT / "tests"
MODULE_LINES, TEST_FILE_LINES, FUNCTION_LINES = 400, 500, 50
OF_THE_WHOLE = {"system", "browser", "clients", "bench"}
"""Folders of tests that are about no folder of the server: about all of it, pages, clients, the benchmark."""


def long_files(paths: list[Path], most: int) -> list[str]:
    """Name the files of more than ``most`` lines."""
    sizes = {path: len(path.read_text().splitlines()) for path in paths}
    return [f"{path} has {lines} lines, {most} are allowed" for path, lines in sizes.items() if lines > most]


def long_functions(paths: list[Path], most: int) -> list[str]:
    """Name the functions of more than ``most`` lines."""
    return [
        f"{path}:{node.lineno}: {node.name} has more than {most} lines"
        for path in paths
        for node in nodes(parsed(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= most
    ]


def astray(tests: list[Path]) -> list[str]:
    """Name the tests, by their path in ``tests/``, that are in no folder of the server or in another than their module."""
    wrong, ours = [], modules()
    for test in tests:
        parts, subject = test.parent.parts, test.stem.removeprefix("test_")
        homes = {path.relative_to(ROOT).parent.parts for path in ours if path.stem == subject}
        if not parts or parts[0] in OF_THE_WHOLE:
            continue
        if parts[0] not in FOLDERS:
            wrong.append(f"tests/{test} mirrors no folder of the server")
        elif homes and parts not in homes:
            wrong.append(f"tests/{test} is not beside the tests of {'/'.join(homes.pop())}, where {subject}.py is")
    return wrong


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    assert long_files(modules(), MODULE_LINES) == [], "split it by subject"
    assert long_functions(modules(), FUNCTION_LINES) == []


def test_no_test_file_is_too_long_to_be_read_at_once() -> None:
    paths = [*TESTS.rglob("*.py"), *(ROOT / "clients" / "python" / "tests").rglob("*.py")]
    assert long_files(paths, TEST_FILE_LINES) == [], "split it by subject"
    assert long_functions(paths, FUNCTION_LINES) == []


def test_tests_are_in_the_folder_of_what_they_test() -> None:
    assert astray([path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]) == []


def test_every_folder_of_the_server_has_tests() -> None:
    for folder in {path.relative_to(ROOT).parent for path in modules()}:
        assert list((TESTS / folder).glob("test_*.py")), f"tests/{folder} has no tests"


@pytest.mark.parametrize("path", ["storing/test_rows.py", "api/test_quotas.py", "server/http/test_frames.py"])
def test_test_in_a_folder_that_is_not_its_modules_is_named(path: str) -> None:
    assert len(astray([Path(path)])) == 1


def test_file_and_function_that_are_too_long_are_named(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f() -> None:\n" + "    pass\n" * 4)
    assert long_files([path], 4) and not long_files([path], 5)
    assert long_functions([path], 4) and not long_functions([path], 5)
