"""The middleware, called as servers call it; requests and responses that pass through it are in ``test_exchange``."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask import Flask

from server.http.exchange import Reply, answer, current_exchange
from server.http.middleware import Middleware
from server.quotas import Quotas
from server.scheduler import Scheduler
from settings import Settings

PATH = "/api/client/sync/push"
ENVIRON = {"REQUEST_METHOD": "POST", "PATH_INFO": PATH, "CONTENT_LENGTH": "3", "wsgi.input": io.BytesIO(b"{} ")}


def entered() -> Reply:
    current_exchange().reserve("a")
    return answer({"success": True})


@pytest.mark.parametrize("is_broken", [False, True], ids=["answered", "the server refuses the head"])
def test_request_releases_its_reservation_however_it_ends(is_broken: bool) -> None:
    """Fault: ``start_response`` called after the guard: the second kept its place for ever."""
    quotas = Quotas(Settings(), Scheduler())
    middleware = Middleware(Flask("middleware"), Settings(), quotas)
    middleware.views[PATH] = entered

    def start(status: str, headers: Any) -> None:
        assert status == "200 OK" and quotas.admission._tenants["a"].running == 1
        if is_broken:
            raise ValueError("carriage return or newline in header value")

    if is_broken:
        with pytest.raises(ValueError, match="carriage return"):
            middleware(dict(ENVIRON), start)
    else:
        parts: Any = middleware(dict(ENVIRON), start)
        assert b"".join(parts) == b'{"success":true}'
        parts.close()
    assert not quotas.admission._tenants
    with pytest.raises(LookupError):
        current_exchange()
