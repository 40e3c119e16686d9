"""Sign-ins to the operator's console: a link that works once, and the session that it begins.

Knows: the statements on them in the main database, bound by the caller. Must not know: the secrets, of which it gets
hashes; cookies, requests, which engine or file.
"""

from __future__ import annotations

from peewee import IntegerField, TextField

from models import Bound, connection


class OperatorSession(Bound):
    """A sign-in to the operator's console: a link that works once, then the session that it began.

    Of both secrets only a hash is here. Times in seconds since 1970.
    """

    id = TextField(primary_key=True)
    link_hash = TextField(null=True, unique=True)
    token_hash = TextField(null=True, unique=True)
    created_at = IntegerField()
    expires_at = IntegerField()

    class Meta:
        table_name = "operator_sessions"


def begin_link(session_id: str, link_hash: str, now: int, expires_at: int) -> None:
    """Note a link, and forget what has run out."""
    OperatorSession.delete().where(OperatorSession.expires_at <= now).execute()
    OperatorSession.create(id=session_id, link_hash=link_hash, created_at=now, expires_at=expires_at)


def begin_session(link_hash: str, token_hash: str, now: int, expires_at: int) -> str | None:
    """Spend a link for a session, and give its ID; None if the link was spent, has run out, or is none."""
    link = OperatorSession.get_or_none((OperatorSession.link_hash == link_hash) & (OperatorSession.expires_at > now))
    if link is None:
        return None
    begun = {"link_hash": None, "token_hash": token_hash, "created_at": now, "expires_at": expires_at}
    unspent = (OperatorSession.id == link.id) & (OperatorSession.link_hash == link_hash)
    return str(link.id) if OperatorSession.update(**begun).where(unspent).execute() else None


def live_session(token_hash: str, now: int) -> str | None:
    """Give the ID of the session that a token is of, if it counts."""
    sql = "SELECT id FROM operator_sessions WHERE token_hash = ? AND expires_at > ?"
    return next((str(row[0]) for row in connection().execute(sql, (token_hash, now))), None)


def end_session(session_id: str) -> None:
    """End a session."""
    OperatorSession.delete().where(OperatorSession.id == session_id).execute()


def end_all(now: int) -> int:
    """End all sessions, and links that were not used yet; give how many counted."""
    count = OperatorSession.select().where(OperatorSession.expires_at > now).count()
    OperatorSession.delete().execute()
    return int(count)
