"""Sends requests: again if that is safe, later if the server says so.

Knows: HTTP, which failures pass. Must not know: tokens, what a body means. Every request of this client may be sent twice,
since edits have names (``opId``), pulls change nothing, and decisions have keys.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from .errors import Busy, Offline, Stalled, SyncError, error_of
from .wire import JSON, encode

_TRIES = 3
_FIRST_PAUSE_SECONDS = 0.1
_SLOWEST_NOTED_MS = 10_000
_SKEW_NOTED_MS = 2000
"""A difference below this may as well come from the way and from ``Date`` having whole seconds."""


class Transport:
    """Sends requests to one server, and learns from its answers how far this device's clock is off."""

    def __init__(self, url: str, device_id: str, timeout_seconds: float = 30.0, patience_seconds: float = 60.0) -> None:
        """``timeout_seconds``: how long the line may be silent; ``patience_seconds``: how long one request may wait, in
        all, for a server that says to come back later. Raises: ValueError for what is no address of a server.
        """
        if not re.match(r"https?://[^/?#\s]", url):
            raise ValueError(f"a server's address begins with http:// or https://, not {url!r}")
        self.url, self.device_id = url.rstrip("/"), device_id
        self.timeout_seconds, self.patience_seconds = timeout_seconds, patience_seconds
        self.clock_offset_ms = 0
        self.stopped = threading.Event()
        self._http = requests.Session()

    def close(self) -> None:
        """End a wait that is under way, and the connections."""
        self.stopped.set()
        self._http.close()

    def send(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str | None) -> JSON:
        """Send a request until it is answered, and give the answer; ``headers`` with ``_`` for ``-``, None for without.

        Raises: Offline, Stalled, Busy if it would have to wait beyond the patience, else what ``error_of`` makes of it.
        """
        named: dict[str, str | None] = {"X-Device-Id": self.device_id, "Content-Type": "application/json"}
        named |= {name.replace("_", "-"): one for name, one in headers.items()}
        if token:
            named["Authorization"] = f"Bearer {token}"
        told = {name: one for name, one in named.items() if one is not None}
        give_up = time.monotonic() + self.patience_seconds
        failures = 0
        while True:
            try:
                return self._once(method, path, body, told)
            except Busy as busy:
                pause = busy.retry_after_seconds * random.uniform(1.0, 1.25) + random.uniform(0, 0.1)
                if time.monotonic() + pause > give_up or self.stopped.wait(pause):
                    raise
            except Stalled:
                raise
            except Offline as error:
                failures += 1
                pause = _FIRST_PAUSE_SECONDS * 2**failures * random.uniform(0.5, 1.0)
                is_silent = isinstance(error.__cause__, requests.Timeout)
                if failures == _TRIES or is_silent or self.stopped.wait(pause):
                    raise

    def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> JSON:
        sent_ms = _now_ms()
        # As a file: each part of it has the time limit, and not all of it.
        data = None if body is None else io.BytesIO(encode(body).encode())
        try:
            answer = self._http.request(
                method, self.url + path, data=data, headers=headers, timeout=self.timeout_seconds,
                allow_redirects=False, stream=True,
            )  # fmt: skip
        except (requests.RequestException, ValueError) as error:
            raise Offline(f"No answer from {self.url}: {error}") from error
        with answer:
            self._learn_clock(answer.headers.get("Date"), sent_ms)
            if answer.is_redirect:
                raise SyncError(f"{self.url} has moved to {answer.headers['Location']}: use that address.", "moved")
            return self._told(answer)

    def _told(self, answer: requests.Response) -> JSON:
        """Read an answer, of which the head has come."""
        retry_after = answer.headers.get("Retry-After")
        try:
            told = json.loads(answer.content)
        except requests.RequestException as error:
            kind = Stalled if "timed out" in str(error) else Offline
            raise kind(f"The answer of {self.url} broke off: {error}") from error
        except (ValueError, RecursionError) as error:
            if answer.status_code >= 400:
                raise error_of(answer.status_code, None, retry_after) from None
            raise Offline(f"No answer of a sync server from {self.url}: {error}") from error
        if not answer.ok:
            raise error_of(answer.status_code, told, retry_after)
        if not isinstance(told, dict) or told.get("success") is not True:
            raise Offline(f"No answer of a sync server from {self.url}: something between may have given it.")
        return told

    def _learn_clock(self, date: str | None, sent_ms: int) -> None:
        """Compare the ``Date`` of an answer's head with the middle between request and head, unless these are far apart."""
        heard_ms = _now_ms()
        if heard_ms - sent_ms > _SLOWEST_NOTED_MS:
            return
        with contextlib.suppress(TypeError, ValueError):  # No date, or none that can be read.
            server_ms = int(parsedate_to_datetime(date or "").timestamp() * 1000) + 500
            offset = server_ms - (sent_ms + heard_ms) // 2
            self.clock_offset_ms = offset if abs(offset) > _SKEW_NOTED_MS else 0

    def now_ms(self) -> int:
        """Give the time as the server would, as far as this device knows."""
        return _now_ms() + self.clock_offset_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
