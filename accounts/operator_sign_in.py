"""How the operator signs in to the console: by a link that a command on the server makes, never by a password.

Knows: the secrets of links and sessions, how long they count. Must not know: cookies, requests, the command line. The main
database has hashes alone, so that who reads it, or a backup, can't sign in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import NamedTuple

from storage import operator_actions, operator_sessions
from storage.engine import Database

LINK_SECONDS = 600
SESSION_SECONDS = 8 * 3600
_SECRET_BYTES = 32
_ID_BYTES = 4


class Operator(NamedTuple):
    """Somebody who has signed in: the session's ID, which the record shows, and the proof that a page of ours asks."""

    session_id: str
    proof: str

    @property
    def name(self) -> str:
        """Give the name under which the record has what is done in this session."""
        return f"console {self.session_id}"


def make_link(directory: Database) -> tuple[str, int]:
    """Give the secret of a new link, and until when it works, in seconds since 1970."""
    secret, session_id, now = secrets.token_urlsafe(_SECRET_BYTES), secrets.token_hex(_ID_BYTES), int(time.time())

    def note() -> None:
        """Store the link, and record that there is one."""
        operator_sessions.begin_link(session_id, _hash(secret), now, now + LINK_SECONDS)
        operator_actions.record("admin-link", "", now, session_id)

    directory.write(note)
    return secret, now + LINK_SECONDS


def sign_in(directory: Database, link_secret: str) -> tuple[str, Operator] | None:
    """Spend a link: give the token of a new session, and who has it; None if it is spent, too old, or no link."""
    token, now = secrets.token_urlsafe(_SECRET_BYTES), int(time.time())

    def begin() -> str | None:
        """Begin the session, and record it."""
        begun = operator_sessions.begin_session(_hash(link_secret), _hash(token), now, now + SESSION_SECONDS)
        if begun:
            operator_actions.record("sign-in", "", now, by=_named(begun, token).name)
        return begun

    session_id = directory.write(begin)
    return (token, _named(session_id, token)) if session_id else None


def signed_in(directory: Database, token: str) -> Operator | None:
    """Tell who has a token, if its session counts."""
    session_id = directory.read(lambda: operator_sessions.live_session(_hash(token), int(time.time())))
    return _named(session_id, token) if session_id else None


def sign_out(directory: Database, operator: Operator) -> None:
    """End a session."""

    def end() -> None:
        """End it, and record it."""
        operator_sessions.end_session(operator.session_id)
        operator_actions.record("sign-out", "", int(time.time()), by=operator.name)

    directory.write(end)


def end_all(directory: Database) -> int:
    """End all sessions of the console and unused links, and give how many there were."""
    now = int(time.time())

    def end() -> int:
        """End them, and record it."""
        operator_actions.record("end-console-sessions", "", now)
        return operator_sessions.end_all(now)

    return directory.write(end)


def _named(session_id: str, token: str) -> Operator:
    """A page learns the proof from our answer, which no other site can read; it is not the token, which no script sees."""
    return Operator(session_id, hmac.digest(token.encode(), b"syncapp console", "sha256").hex())


def _hash(secret: str) -> str:
    """Hash a secret that is random, so that nobody can find it by trying; a slow hash would add nothing."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
