"""The line of a request is the same by the fast path, and nothing in it can become a line or an escape of its own."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import gevent
import pytest

from server import log_format

LOGGER = logging.getLogger("syncapp.request")
ABOUT: dict[str, object] = {"request_id": "r-1", "path": "/a", "status": 200, "duration_ms": 1.5}


@contextmanager
def installed() -> Iterator[io.StringIO]:
    """The server's log, alone: without pytest's handlers, which come back only when a test begins."""
    text, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(text):
        log_format.install("json")
    try:
        yield text
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def request(message: str = "GET /a 200", about: dict[str, object] = ABOUT) -> None:
    """Log the line of a request, and let it be written."""
    log_format.write_line(LOGGER, logging.INFO, message, about)
    gevent.sleep(0)


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_line_of_a_request_is_that_of_the_logging_module() -> None:
    with installed() as log:
        request()
        LOGGER.log(logging.INFO, "GET /a 200", extra=ABOUT)
        first, second = lines(log)
        assert str(first.pop("time"))[:17] == str(second.pop("time"))[:17]
        assert first == second and list(first) == list(second)


def test_another_log_handler_gets_the_line_too(caplog: pytest.LogCaptureFixture) -> None:
    with installed() as log:
        logging.getLogger().addHandler(caplog.handler)
        request()
        assert len(lines(log)) == 1 and caplog.messages == ["GET /a 200"]


@pytest.mark.parametrize("bad", ["a\nb", "a\x1b[2J", "a\x9b2J", "a\u2028b", "ä\U0001f600", "\ud83d"])
def test_text_from_outside_stays_within_its_line(bad: str) -> None:
    """Fault: characters beyond ASCII written as they are: a terminal obeys U+009B."""
    with installed() as log:
        request(bad, {"path": bad})
        text = log.getvalue()
        assert text.count("\n") == 1 and text.isascii() and text.rstrip("\n").isprintable()


def test_log_that_nobody_reads_any_more_harms_no_request() -> None:
    with installed() as log:
        log.close()
        request()


def test_lines_of_a_crowd_stand_in_their_order() -> None:
    with installed() as log:
        for number in range(3):
            log_format.write_line(LOGGER, logging.INFO, f"GET /{number} 200", ABOUT)
        gevent.sleep(0)
        assert [line["message"] for line in lines(log)] == [f"GET /{number} 200" for number in range(3)]
