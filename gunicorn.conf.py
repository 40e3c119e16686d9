"""The configuration of gunicorn, beside the Procfile; gunicorn reads this file by itself.

One process holds all rooms, locks and open databases. More workers would lose notifications, and only the lock of the data
folder would keep them from corrupting data. So more workers, and worker classes without WebSocket, are refused at once.
"""

from __future__ import annotations

from typing import Any

import settings

try:
    _settings = settings.load()
except settings.SettingError as error:
    raise SystemExit(f"syncapp: {error}") from None
_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = 1
worker_class = _WORKER
graceful_timeout = _settings.shutdown_seconds + 5
timeout = 120
control_socket_disable = True
loglevel = "warning"


def on_starting(server: Any) -> None:
    """Refuse to start in a way that would lose notifications."""
    if server.cfg.workers != 1:
        raise SystemExit("syncapp: one process holds all rooms: start gunicorn with --workers 1.")
    if server.cfg.settings["worker_class"].get() != _WORKER:
        raise SystemExit(f"syncapp: only one worker class speaks WebSocket here: --worker-class {_WORKER}")


def post_worker_init(worker: Any) -> None:
    """Serve and end as our own server does."""
    from server.http.lifecycle import serve_with_worker  # After the worker's monkey patch, not before.

    serve_with_worker(worker, worker.wsgi.extensions["lifecycle"])
