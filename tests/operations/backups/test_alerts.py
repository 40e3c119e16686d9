"""Where an alert of backups goes: to the address of the setting, and to no other."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest

from operations.backups import alerts
from settings import Settings
from storage.engine import Engine


def test_alert_follows_no_redirect_and_reports_it_without_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who answers there could have this server ask addresses that only it reaches."""
    monkeypatch.setattr(alerts, "_PAUSE_SECONDS", 0.0)
    asked, reported = list[str](), list[str]()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(302 if self.path == "/a/secret" else 204)
            self.send_header("Location", "/within")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    with HTTPServer(("127.0.0.1", 0), Hook) as hook:
        threading.Thread(target=hook.serve_forever, args=(0.01,)).start()
        settings = Settings(backup_alert_url=f"http://127.0.0.1:{hook.server_port}/a/secret")
        alerts.tell(settings, cast(Engine, None), "backup_failed", "It failed.", reported.append)
        hook.shutdown()
    assert set(asked) == {"/a/secret"}
    assert len(reported) == 1 and "secret" not in reported[0]
