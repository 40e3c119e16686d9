"""The newest lines of the log are found again: in order, within their bounds, by level, tenant and request."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO

import gevent
import pytest

from server import log_format
from server.recent_log import RecentLog

LOGGER = logging.getLogger("syncapp.request")


def line(message: str, **fields: object) -> str:
    return json.dumps({"time": "t", "level": "info", "logger": "l", "message": message} | fields)


@pytest.fixture
def recent() -> RecentLog:
    return RecentLog(most_lines=3, most_bytes=1_000)


@pytest.fixture(params=["json", "human"])
def installed(request: pytest.FixtureRequest, recent: RecentLog) -> Iterator[RecentLog]:
    """The server's log alone, in either form, without pytest's handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(StringIO()):
        log_format.install(request.param, [recent])
        yield recent
        gevent.sleep(0)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_line_of_a_request_and_a_record_are_kept_alike(installed: RecentLog) -> None:
    about = {"request_id": "r-1", "tenant": "t-1", "path": "/a\x1b[2J"}
    log_format.write_line(LOGGER, logging.INFO, "GET /a 200", about)
    gevent.sleep(0)
    LOGGER.log(logging.INFO, "GET /a 200", extra=about)
    first, second = installed.since()
    assert first._replace(number=2, time=second.time) == second
    assert (second.request_id, second.tenant, second.fields) == ("r-1", "t-1", {"path": "/a\x1b[2J"})
    assert (second.level, second.logger, second.message) == ("info", "syncapp.request", "GET /a 200")


def test_exception_is_kept_with_its_traceback(installed: RecentLog) -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError:
        LOGGER.exception("it failed")
    (entry,) = installed.since(level="error")
    assert "RuntimeError: why" in entry.fields["exception"]


def test_follower_gets_each_line_once_and_in_order(recent: RecentLog) -> None:
    recent.take([(logging.INFO, line("a"))])
    before = recent.newest
    recent.take([(logging.INFO, line("b"))])
    recent.take([(logging.INFO, line("c"))])
    assert [one.message for one in recent.since(before)] == ["b", "c"]
    assert recent.since(recent.newest) == []
    assert [one.message for one in recent.since(99)] == ["a", "b", "c"], "that number was of another process"


def test_oldest_lines_go_first_and_warnings_outlive_them(recent: RecentLog) -> None:
    recent.take([(logging.WARNING, line("w", level="warning"))])
    for number in range(5):
        recent.take([(logging.INFO, line(str(number)))])
    assert [one.message for one in recent.since()] == ["w", "2", "3", "4"]
    assert [one.number for one in recent.since()] == [1, 4, 5, 6]
    recent.take([(logging.INFO, line("x" * 950))])
    assert [len(one.message) for one in recent.since(1)] == [950], "the bound in bytes"


def test_lines_are_found_by_level_tenant_and_request(recent: RecentLog) -> None:
    recent.take([(logging.INFO, line("a", tenant="t", request_id="1"))])
    recent.take([(logging.ERROR, line("b", tenant="t", request_id="2", level="error"))])
    recent.take([(logging.INFO, line("c", tenant="u"))])
    found = {
        "t": recent.since(tenant="t"),
        "error": recent.since(level="ERROR"),
        "1": recent.since(request_id="1"),
        "none": recent.since(tenant="u", level="error"),
    }
    assert {name: [one.message for one in entries] for name, entries in found.items()} == {
        "t": ["a", "b"],
        "error": ["b"],
        "1": ["a"],
        "none": [],
    }
    with pytest.raises(ValueError, match="must be debug"):
        recent.since(level="loud")
