"""Requests of a tenant that has too many in flight are shed with an error; all others pass."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import syncapp
from server.http.load_shedding import LoadShedding
from settings import Settings

PATHS = {"/api/client/sync/push", "/api/client/sync/pull"}
BEARER = {"HTTP_AUTHORIZATION": "Bearer known", "PATH_INFO": "/api/client/sync/push"}


def called(environ: dict[str, str], full: set[str]) -> tuple[str, dict[str, str], bytes]:
    """Call an application behind the middleware; ``known`` is the token of tenant ``a``."""
    said: list[Any] = []

    def application(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"in"]

    middleware = LoadShedding(application, PATHS, {"known": "a"}.get, full.__contains__)
    body = b"".join(middleware(environ, lambda status, headers: said.append((status, dict(headers)))))
    return said[0][0], said[0][1], body


def test_request_of_a_full_tenant_is_shed_with_a_retry_after() -> None:
    """Fault: nothing shed: ``200 OK``."""
    status, headers, body = called(BEARER | {"HTTP_X_REQUEST_ID": "r-1"}, {"a"})
    assert (status, headers["Retry-After"], headers["X-Request-ID"]) == ("503 Service Unavailable", "1", "r-1")
    assert headers["X-Content-Type-Options"] == "nosniff" and int(headers["Content-Length"]) == len(body)
    failure = json.loads(body)
    assert (failure["success"], failure["code"], failure["requestId"]) == (False, "busy", "r-1")


@pytest.mark.parametrize(
    ("environ", "full"),
    [
        (BEARER, set[str]()),
        (BEARER, {"b"}),
        (BEARER | {"PATH_INFO": "/health"}, {"a"}),
        (BEARER | {"PATH_INFO": "/api/limits"}, {"a"}),
        (BEARER | {"HTTP_AUTHORIZATION": ""}, {"a"}),
        (BEARER | {"HTTP_AUTHORIZATION": "Bearer other"}, {"a"}),
        (BEARER | {"HTTP_AUTHORIZATION": "known"}, {"a"}),
        (BEARER | {"HTTP_ORIGIN": "https://app.example.com"}, {"a"}),
    ],
)
def test_request_that_is_not_shed_passes(environ: dict[str, str], full: set[str]) -> None:
    assert called(environ, full)[0] == "200 OK"


def test_hot_paths_are_routes_with_the_same_views(tmp_path: Path) -> None:
    app = syncapp.build(Settings(data_dir=tmp_path))
    app.extensions["lifecycle"].end()
    middleware = app.extensions["middleware"]
    assert middleware.views.keys() == PATHS
    for path, view in middleware.views.items():
        endpoint, _ = app.url_map.bind("localhost").match(path, "POST")
        assert app.view_functions[endpoint] == view, "the blueprint holds another view than the middleware"


def test_refusals_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    middleware = LoadShedding(lambda *_: [], PATHS, {"known": "a"}.get, lambda _: True)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            middleware(dict(BEARER), lambda *_: None)
    assert [record.getMessage() for record in caplog.records] == [
        "1 requests were shed: the tenant has too many in flight"
    ]
