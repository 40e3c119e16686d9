"""Start and graceful shutdown, for our own server and for gunicorn's worker.

Knows: listening sockets, signals, requests in flight. Must not know: what requests do.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pywsgi import LoggingLogAdapter, WSGIServer
from greenlet import greenlet

from server import idle_reader
from server.http.handler import Handler
from server.http.listening import listen
from settings import Settings

log = logging.getLogger("syncapp.server")

_ACCEPTED_AT_ONCE = 16
"""Connections that are accepted in one round of the event loop. Those of before get their turn in between; the rest wait in
the kernel, where each costs nothing yet."""

_WITHOUT_BOUND = 1_000_000_000


class Lifecycle:
    """Counts the requests in flight, so that the shutdown can wait for them; it wraps the WSGI application."""

    def __init__(
        self,
        app: Flask,
        seconds: int,
        notify: Callable[[], None],
        close: Callable[[], None],
        counts: Callable[[], dict[str, int]],
    ) -> None:
        """``notify`` closes the WebSockets, ``close`` what requests use; each is called once, at shutdown.

        ``counts`` returns what is open for clients.
        """
        self._wrapped, self._seconds, self._notify, self._close, self._counts = (
            app.wsgi_app,
            seconds,
            notify,
            close,
            counts,
        )
        self._in_flight = 0
        self.is_ending = False
        app.wsgi_app = self  # type: ignore[method-assign]
        gevent.get_hub().exception_stream = LoggingLogAdapter(log, level=logging.ERROR)  # Else raw lines on stderr.

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self._in_flight += 1
        try:
            parts = self._wrapped(environ, start_response)
        except BaseException:
            self._done()
            raise
        if "wsgi.websocket" in environ:  # The body of an upgraded request is never closed.
            reader = environ.get(idle_reader.KEY)
            if reader and reader.receive_one:
                reader.on_end.append(self._done)
            else:
                self._done()
            return parts
        return _CountedBody(parts, self._done)

    def _done(self) -> None:
        self._in_flight -= 1

    def log_counts(self) -> None:
        """Log what the process holds at this moment, to find leaks."""
        running = sum(isinstance(found, greenlet) and not found.dead for found in gc.get_objects())
        log.info("held", extra={"greenlets": running, "in_flight": self._in_flight, **self._counts()})

    def end(self) -> None:
        """Wait for the requests in flight, and close."""
        self.is_ending = True
        Handler.connections.is_stopping = True
        self._notify()
        deadline = time.monotonic() + self._seconds
        while (self._in_flight or Handler.load_shedding.under_way) and time.monotonic() < deadline:
            gevent.sleep(0.02)
        if self._in_flight:
            log.warning("%d requests did not finish in %d s", self._in_flight, self._seconds)
        self._close()
        log.info("stopped")


class _CountedBody:
    """The body of a response, counted as in flight until it is closed."""

    __slots__ = ("_done", "_parts")

    def __init__(self, parts: Iterable[bytes], done: Callable[[], None]) -> None:
        self._parts, self._done = parts, done

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        """Close the body, and count it no more."""
        try:
            close = getattr(self._parts, "close", None)
            if close:
                close()
        finally:
            self._done()


def serve(app: Flask, lifecycle: Lifecycle, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then shut down.

    Raises: CannotListen.
    """
    listener = listen(settings.host, settings.port)
    quiet = LoggingLogAdapter(log, level=logging.WARNING)
    server = WSGIServer(listener, app, handler_class=Handler, log=None, error_log=quiet)
    server.max_accept = _ACCEPTED_AT_ONCE
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopping.set)
    gevent.signal_handler(signal.SIGUSR1, lifecycle.log_counts)
    server.start()
    _log_address(listener)
    stopping.wait()
    server.close()
    lifecycle.end()


def _log_address(listener: Any) -> None:
    """Log the address as a link; that of a Unix domain socket is its path."""
    where = listener.getsockname()
    if isinstance(where, tuple):
        log.info("serving on port %d: http://localhost:%d", where[1], where[1])
    else:
        log.info("serving on %s", where)


def serve_with_worker(worker: Any, lifecycle: Lifecycle) -> None:
    """Serve with our handler in gunicorn's worker, and shut down with it; idle connections do not delay that."""
    worker.wsgi_handler = Handler
    worker.server_class.max_accept = _ACCEPTED_AT_ONCE
    worker.worker_connections = _WITHOUT_BOUND  # Handler limits them, and makes room; the worker would stop accepting.

    def watch() -> None:
        """Shut down when the worker is told to end."""
        while worker.alive:
            gevent.sleep(0.1)
        lifecycle.end()
        sys.exit(0)

    for listener in worker.sockets:
        _log_address(listener)
    watching, run = gevent.spawn(watch), worker.run

    def run_to_the_end() -> None:
        """Run, and wait for the shutdown: the worker waits for its greenlets only, and an idle WebSocket has none."""
        run()
        watching.join()

    worker.run = run_to_the_end
