"""How a request is sent: again if it may be, later if the server says so.

Knows: HTTP, which failures pass. Must not know: tokens, what a body means. Every request of this client may be sent twice,
since edits have names (``opId``), pulls change nothing, and decisions have keys.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from .errors import Busy, Offline, SyncError, error_of
from .wire import JSON

_TRIES = 3
_FIRST_PAUSE_SECONDS = 0.1
_SKEW_NOTED_MS = 2000
"""A difference below this may as well come from the way and from ``Date`` having whole seconds."""


class Transport:
    """Sends requests to one server, and learns from its answers how far this device's clock is off."""

    def __init__(self, url: str, device_id: str, timeout_seconds: float = 30.0, patience_seconds: float = 60.0) -> None:
        """``patience_seconds``: how long one request may wait, in all, for a server that says to come back later."""
        self.url, self.device_id = url.rstrip("/"), device_id
        self.timeout_seconds, self.patience_seconds = timeout_seconds, patience_seconds
        self.clock_offset_ms = 0
        self.stopped = threading.Event()
        self._http = requests.Session()

    def close(self) -> None:
        """End a wait that is under way, and the connections."""
        self.stopped.set()
        self._http.close()

    def send(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> JSON:
        """Send a request until it is answered, and give the answer; ``headers`` with ``_`` for ``-``.

        Raises: Offline, Busy if it would have to wait beyond the patience, else what ``error_of`` makes of the answer.
        """
        named = {"X-Device-Id": self.device_id} | {name.replace("_", "-"): one for name, one in headers.items()}
        if token:
            named["Authorization"] = f"Bearer {token}"
        give_up = time.monotonic() + self.patience_seconds
        failures = 0
        while True:
            try:
                return self._once(method, path, body, named)
            except Busy as busy:
                pause = busy.retry_after_seconds * random.uniform(1.0, 1.25) + random.uniform(0, 0.1)
                if time.monotonic() + pause > give_up or self.stopped.wait(pause):
                    raise
            except Offline:
                failures += 1
                pause = _FIRST_PAUSE_SECONDS * 2**failures * random.uniform(0.5, 1.0)
                if failures == _TRIES or self.stopped.wait(pause):
                    raise

    def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> JSON:
        sent_ms = _now_ms()
        try:
            answer = self._http.request(
                method, self.url + path, json=body, headers=headers, timeout=self.timeout_seconds, allow_redirects=False
            )
            if answer.is_redirect:
                raise SyncError(f"{self.url} has moved to {answer.headers['Location']}: use that address.", "moved")
            told = answer.json()
        except (requests.RequestException, ValueError) as error:
            if isinstance(error, requests.JSONDecodeError) and answer.status_code >= 400:
                raise error_of(answer.status_code, None, answer.headers.get("Retry-After")) from None
            raise Offline(f"No answer from {self.url}: {error}") from error
        self._learn_clock(answer.headers.get("Date"), sent_ms)
        if not answer.ok or not isinstance(told, dict):
            raise error_of(answer.status_code, told, answer.headers.get("Retry-After"))
        return told

    def _learn_clock(self, date: str | None, sent_ms: int) -> None:
        """Compare the answer's ``Date`` with the middle between request and answer."""
        with contextlib.suppress(TypeError, ValueError):  # No date, or none that can be read.
            server_ms = int(parsedate_to_datetime(date or "").timestamp() * 1000) + 500
            offset = server_ms - (sent_ms + _now_ms()) // 2
            self.clock_offset_ms = offset if abs(offset) > _SKEW_NOTED_MS else 0

    def now_ms(self) -> int:
        """Give the time as the server would, as far as this device knows."""
        return _now_ms() + self.clock_offset_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
