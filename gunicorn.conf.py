"""The configuration of gunicorn, beside the Procfile; gunicorn reads this file by itself.

With files, one process holds all rooms, locks and open databases. More workers would lose notifications, and only the lock
of the data folder would keep them from corrupting data. So they are refused at once, and so are worker classes without
WebSocket. With PostgreSQL there are as many workers as WEB_CONCURRENCY says, each a process with a name of its own.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from gevent import events

import settings

try:
    _settings = settings.load()
except settings.SettingError as error:
    raise SystemExit(f"syncapp: {error}") from None
events.notify_and_call_entry_points = events.notify  # As in syncapp.py: the worker patches the standard library first.
_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
if not _settings.database_url:
    workers = 1  # Whatever WEB_CONCURRENCY says, which platforms set; else gunicorn takes it.
worker_class = _WORKER
graceful_timeout = _settings.shutdown_seconds + 5
timeout = 120
control_socket_disable = True
loglevel = "warning"


def on_starting(server: Any) -> None:
    """Refuse to start in a way that would lose notifications."""
    if server.cfg.workers != 1 and not _settings.database_url:
        raise SystemExit(
            "syncapp: one process holds all rooms: start gunicorn with --workers 1, or set DATABASE_URL for several."
        )
    if server.cfg.settings["worker_class"].get() != _WORKER:
        raise SystemExit(f"syncapp: only one worker class speaks WebSocket here: --worker-class {_WORKER}")


def pre_fork(server: Any, worker: Any) -> None:
    """Number the workers, so that one which takes another's place takes its name."""
    taken = {one.number for one in server.WORKERS.values()}
    worker.number = next(number for number in itertools.count(1) if number not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Name the process, as the IDs of its sockets do."""
    if server.cfg.workers > 1:
        os.environ["PROCESS_NAME"] = f"{_settings.process_name[:28] or 'worker'}{worker.number}"


def post_worker_init(worker: Any) -> None:
    """Serve and end as our own server does."""
    from server.http.lifecycle import serve_with_worker  # After the worker's monkey patch, not before.

    serve_with_worker(worker, worker.wsgi.extensions["lifecycle"])
