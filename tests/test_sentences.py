"""No sentence of an error holds a status that is not the failure's own.

Libraries search sentences for one: `@tanstack/offline-transactions` drops an edit for good over a 400, 401, 403 or 422.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import errors
from tests.conftest import ROOT
from tests.sources import modules, nodes, parsed

STATUS = re.compile(r"[45]\d\d")
STATUSES = {
    name: kind.status for name, kind in vars(errors).items() if inspect.isclass(kind) and hasattr(kind, "status")
}
SERVER = [*modules(), ROOT / "gunicorn.conf.py"]
PYTHON_CLIENT = sorted((ROOT / "clients" / "python" / "src").rglob("*.py"))
JAVASCRIPT_CLIENT = sorted((ROOT / "clients" / "js" / "src").glob("*.js"))


def texts_of_calls(path: Path) -> Iterator[tuple[str, str]]:
    """Give what is called and each text within its arguments, for all calls of classes."""
    for node in nodes(parsed(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for argument in node.args if name[:1].isupper() else ():
                yield from ((name, text) for part in ast.walk(argument) for text in _texts(part))


def _texts(node: ast.AST) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def texts_of_javascript(path: Path) -> list[str]:
    """Give all texts that look like a sentence: the modules say nothing else in sentences."""
    code = re.sub(r"/\*.*?\*/|^\s*//.*$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    texts = re.findall(r'"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`', code)
    return [text for text in texts if " " in text]


def foreign_statuses(text: str, own: int | None) -> list[str]:
    """List the numbers in a text that would be taken for a status."""
    return [number for number in STATUS.findall(text) if int(number) != own]


@pytest.mark.parametrize("name", STATUSES)
def test_sentence_of_each_error_holds_no_other_status(name: str) -> None:
    assert foreign_statuses(getattr(errors, name).sentence, STATUSES[name]) == []


def test_sentences_that_the_server_raises_hold_no_other_status() -> None:
    found = [(path.name, *one) for path in SERVER for one in texts_of_calls(path) if one[0] in STATUSES]
    assert len(found) > 50
    assert [one for one in found if foreign_statuses(one[2], STATUSES[one[1]])] == []


def test_sentences_of_the_clients_hold_no_status() -> None:
    raised = [(path.name, name, text) for path in PYTHON_CLIENT for name, text in texts_of_calls(path)]
    said = [(path.name, "", text) for path in JAVASCRIPT_CLIENT for text in texts_of_javascript(path)]
    assert len(raised) > 20 and len(said) > 20
    assert [one for one in raised + said if foreign_statuses(one[2], None)] == []


def test_a_status_of_a_call_is_never_put_into_a_sentence_of_the_javascript_client() -> None:
    said = [text for path in JAVASCRIPT_CLIENT for text in texts_of_javascript(path)]
    assert [text for text in said if "${status}" in text or "${error.status}" in text] == []
