"""Hashes and checks passwords with bcrypt, in threads.

Knows: bcrypt, how long a password may be, how many may be checked at once. Must not know: accounts, tokens, endpoints.
"""

from __future__ import annotations

from typing import Any

import bcrypt
from gevent.threadpool import ThreadPool

from protocol.errors import Busy
from storage import main_database

PASSWORD_BYTES = (8, 72)
"""Least and most bytes of a password as UTF-8 in NFC; bcrypt reads no more than 72 (bcrypt on PyPI, "Maximum Password
Length")."""

_THREADS = 2
_MAX_QUEUED = 100


class Passwords:
    """Hashes and checks passwords in its own threads, since one takes as long as thousands of requests."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._threads = ThreadPool(_THREADS)
        self._queued = 0
        self._dummy_hash: bytes | None = None

    def hash(self, password: str) -> str:
        """Hash a new password."""
        secret = main_database.normal_form(password).encode()
        hashed: bytes = self._run(bcrypt.hashpw, secret, bcrypt.gensalt(self._rounds))
        return hashed.decode()

    def matches(self, password: str, hashed: str | None) -> bool:
        """Check a password against its hash. It takes the same time if there is no such customer (``hashed`` is None).

        A password with accents is tried in each Unicode form: earlier versions hashed it as it was typed.
        """
        if self._dummy_hash is None:
            self._dummy_hash = self._run(bcrypt.hashpw, b"no customer's password", bcrypt.gensalt(self._rounds))
        expected = hashed.encode() if hashed else self._dummy_hash
        return any(self._is_match(form, expected) for form in main_database.forms(password)) and hashed is not None

    def _is_match(self, password: str, hashed: bytes) -> bool:
        secret = password.encode("utf-8", "replace")
        fits = PASSWORD_BYTES[0] <= len(secret) <= PASSWORD_BYTES[1]
        return bool(self._run(bcrypt.checkpw, secret[: PASSWORD_BYTES[1]], hashed)) and fits

    def _run(self, function: Any, *arguments: bytes) -> Any:
        if self._queued >= _MAX_QUEUED:
            raise Busy("Too many log in just now. Try again soon.")
        self._queued += 1
        try:
            return self._threads.apply(function, arguments)
        finally:
            self._queued -= 1
