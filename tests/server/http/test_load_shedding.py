"""Requests of a tenant that has too many in flight are shed with an error; all others pass."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import assembly
from protocol.errors import Busy
from server.http.load_shedding import LoadShedding
from settings import Settings

PATHS = {"/api/client/sync/push", "/api/client/sync/pull"}
PUSH = {"HTTP_AUTHORIZATION": "Bearer known", "PATH_INFO": "/api/client/sync/push", "REQUEST_METHOD": "POST"}
BUSY = Busy("Not now.", retry_after_seconds=2)


def shedding(full: set[str]) -> LoadShedding:
    """Make one that knows one token: ``known`` is that of tenant ``a``."""
    return LoadShedding(PATHS, {"known": "a"}.get, lambda tenant_id: BUSY if tenant_id in full else None)


def test_request_of_a_full_tenant_is_shed() -> None:
    """Fault: nothing shed."""
    assert shedding({"a"}).refusal(PUSH) is BUSY


@pytest.mark.parametrize(
    ("environ", "full"),
    [
        (PUSH, set[str]()),
        (PUSH, {"b"}),
        (PUSH | {"PATH_INFO": "/health"}, {"a"}),
        (PUSH | {"PATH_INFO": "/api/limits"}, {"a"}),
        (PUSH | {"REQUEST_METHOD": "GET"}, {"a"}),
        (PUSH | {"HTTP_AUTHORIZATION": ""}, {"a"}),
        (PUSH | {"HTTP_AUTHORIZATION": "Bearer other"}, {"a"}),
        (PUSH | {"HTTP_AUTHORIZATION": "known"}, {"a"}),
        (PUSH | {"HTTP_ORIGIN": "https://app.example.com"}, {"a"}),
    ],
)
def test_request_that_is_not_shed_passes(environ: dict[str, str], full: set[str]) -> None:
    assert shedding(full).refusal(environ) is None


def test_hot_paths_are_routes_with_the_same_views(tmp_path: Path) -> None:
    app = assembly.build(Settings(data_dir=tmp_path))
    app.extensions["lifecycle"].end()
    middleware = app.extensions["middleware"]
    assert middleware.views.keys() == PATHS
    for path, view in middleware.views.items():
        endpoint, _ = app.url_map.bind("localhost").match(path, "POST")
        assert app.view_functions[endpoint] == view, "the blueprint holds another view than the middleware"


def test_refusals_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    subject = shedding({"a"})
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            subject.refusal(PUSH)
    assert [record.getMessage() for record in caplog.records] == [
        "1 requests were shed: the tenant has too many in flight"
    ]


def test_request_that_is_about_to_be_refused_is_counted_until_then() -> None:
    counts = list[int]()

    def failing(_: str) -> Busy:
        counts.append(subject.under_way)
        raise RuntimeError

    subject = LoadShedding(PATHS, {"known": "a"}.get, failing)
    with pytest.raises(RuntimeError):
        subject.refusal(PUSH)
    assert (counts, subject.under_way) == ([1], 0)
