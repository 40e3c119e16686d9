"""A start with an endpoint or an event that is not described whole is refused, with the file to edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

import assembly
from api import reference
from api.docs import completeness, openapi
from api.docs.endpoints import CALLS, Call
from settings import Settings

TIDES = "pages.tides"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = assembly.build(Settings(data_dir=tmp_path_factory.mktemp("completeness") / "data", shutdown_seconds=1))
    yield app
    app.extensions["lifecycle"].end()


@pytest.fixture
def of_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Serve one endpoint that is described as ``call`` says, and look whether that is whole."""

    def serve(address: str = "/api/tables", call: Call | None = None, docstring: str = "List the tides.") -> None:
        def view() -> str:
            return ""

        app, view.__doc__ = Flask("of_a_newcomer"), docstring
        app.add_url_rule(address, TIDES, view)
        monkeypatch.setattr(completeness, "CALLS", {TIDES: call} if call else {})
        monkeypatch.setattr(openapi, "CALLS", {TIDES: call} if call else {})
        completeness.must_describe(app, Settings(), ["sync_push"])

    return serve


def test_endpoint_that_is_described_whole_may_start(of_a_newcomer: Callable[..., None]) -> None:
    of_a_newcomer(call=Call("Message"))


def test_endpoint_that_is_not_described_refuses_the_start_with_the_file_to_edit(
    of_a_newcomer: Callable[..., None],
) -> None:
    with pytest.raises(LookupError, match=r"/api/tables .*'pages\.tides' .*api/docs/endpoints\.py"):
        of_a_newcomer()


@pytest.mark.parametrize("call", [Call("Tides"), Call("Message", "Tides")])
def test_schema_that_is_not_there_refuses_the_start(of_a_newcomer: Callable[..., None], call: Call) -> None:
    with pytest.raises(LookupError, match=r"'Tides'.*'pages\.tides'.*api/docs/schemas\.py"):
        of_a_newcomer(call=call)


def test_view_without_a_docstring_refuses_the_start(of_a_newcomer: Callable[..., None]) -> None:
    with pytest.raises(LookupError, match=r"view of /api/tables .*docstring"):
        of_a_newcomer(call=Call("Message"), docstring="")


def test_variable_that_is_not_described_refuses_the_start(of_a_newcomer: Callable[..., None]) -> None:
    with pytest.raises(LookupError, match=r"variable harbour .*api/docs/openapi\.py"):
        of_a_newcomer("/api/tides/<harbour>", Call("Message"))


def test_description_of_what_is_not_served_refuses_the_start(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completeness, "CALLS", {**CALLS, TIDES: Call("Message")})
    with pytest.raises(LookupError, match=r"'pages\.tides' has no route.*api/docs/endpoints\.py"):
        completeness.must_describe(app, Settings(), [])


def test_event_that_is_not_described_refuses_the_start_with_the_file_to_edit(app: Flask) -> None:
    with pytest.raises(LookupError, match=r"sync_tides .*api/docs/asyncapi\.py"):
        completeness.must_describe(app, Settings(), ["sync_push", "sync_tides"])


@pytest.mark.parametrize("contents", [None, b"", b"# Our API\n\n### `GET /api/tables`\n", b"\xff\xfe"])
def test_server_whose_reference_is_missing_or_edited_starts_and_shows_its_page(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, contents: bytes | None
) -> None:
    """Seen to fail: the page was a 500, and a section that somebody had removed refused the start."""
    monkeypatch.setattr(reference, "PATH", tmp_path / "api.md")
    if contents is not None:
        (tmp_path / "api.md").write_bytes(contents)
    reference.calls.cache_clear()
    try:
        completeness.must_describe(app, Settings(), [])
        answer = app.test_client().get("/docs", buffered=True)
    finally:
        reference.calls.cache_clear()
    assert answer.status_code == 200 and len(CALLS) > 10
    assert all(name in answer.get_data(as_text=True) for name in CALLS)
