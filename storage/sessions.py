"""Sessions: how each log-in goes on, is renewed and ends.

Knows: every statement on sessions in the main database, bound by the caller. Must not know: tokens, passwords in clear,
requests, which engine or file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from models import connection
from protocol.errors import InvalidCredentials
from storage.dialect import dialect
from storage.main_database import Customer, Session, State, forget_links, is_hash_of, revoke_sessions

GRACE_SECONDS = 300
"""How long a spent refresh token may come once more: longer than a client waits for an answer and tries again."""


def begin_session(session_id: str, customer: Customer, refresh_id: str, now: int, expires_at: int) -> None:
    """Note a login, and forget those of this customer whose tokens have all run out.

    Raises: InvalidCredentials if the password was changed since ``customer`` was read.
    """
    if not is_hash_of(customer.id, customer.passwordHash):
        raise InvalidCredentials
    Session.delete().where((Session.customer_id == customer.id) & (Session.expires_at < now)).execute()
    Session.create(id=session_id, customer_id=customer.id, refresh_id=refresh_id, created_at=now, expires_at=expires_at)


class Live(NamedTuple):
    """What a session that counts says of its pairs (see ``Session``), what its customer may do, and its own quotas as
    they are stored."""

    refresh_id: str
    spent_id: str | None
    dropped_id: str | None
    state: State
    quotas: str | None


def live_session(session_id: str, customer_id: str) -> Live | None:
    """Look a session up, None if its tokens count no more; asked at each request, so in plain SQL."""
    sql = (
        "SELECT s.refresh_id, s.spent_id, s.dropped_id, c.state, c.quotas FROM sessions AS s"
        " JOIN customers AS c ON c.id = s.customer_id WHERE s.id = ? AND s.customer_id = ? AND s.revoked_at IS NULL"
    )
    return next((Live(*row) for row in connection().execute(sql, (session_id, customer_id))), None)


def live_among(session_ids: Iterable[str]) -> dict[str, State]:
    """Give those of some sessions whose tokens count, each with what its customer may do."""
    words = dialect()
    sql = (
        "SELECT s.id, c.state FROM sessions AS s JOIN customers AS c ON c.id = s.customer_id"
        f" WHERE {words.is_among('s.id')} AND s.revoked_at IS NULL"
    )
    return {str(one): state for one, state in connection().execute(sql, (words.listed(session_ids),))}


def confirm_pair(session_id: str, refresh_id: str) -> None:
    """Note that a pair arrived, so that the token which it was given for counts no more; unless another took its place."""
    mine = (Session.id == session_id) & (Session.refresh_id == refresh_id)
    Session.update(spent_id=None).where(mine).execute()


def rotate_session(session_id: str, spent_id: str, refresh_id: str, now: int, expires_at: int) -> bool:
    """Replace a session's refresh token; False, with the session revoked, if ``spent_id`` was spent before.

    The one that was spent last may come once more, soon, if nothing of the pair that it gave was used: its answer was
    lost (docs/security.md, "A lost answer to a refresh"). That pair is dropped.
    Source: RFC 9700 section 4.14.2, refresh token rotation.
    """
    session = Session.get_or_none((Session.id == session_id) & Session.revoked_at.is_null())
    if session is None:
        return False
    new: dict[str, Any] = {"refresh_id": refresh_id, "expires_at": expires_at}
    if session.refresh_id == spent_id:
        new |= {"spent_id": spent_id, "spent_at": now}
    elif session.spent_id == spent_id and abs(now - (session.spent_at or 0)) <= GRACE_SECONDS:
        new |= {"spent_id": None, "dropped_id": session.refresh_id}
    else:
        revoke_session(session_id, now)
        return False
    Session.update(**new).where(Session.id == session_id).execute()
    return True


def live_sessions(customer_id: str, now: int) -> list[Session]:
    """List a customer's sessions whose tokens count, the newest first."""
    live = (Session.customer_id == customer_id) & Session.revoked_at.is_null() & (Session.expires_at > now)
    return list(Session.select().where(live).order_by(Session.created_at.desc(), Session.id))


def revoke_session(session_id: str, now: int) -> None:
    """Let the tokens of one session count no more."""
    Session.update(revoked_at=now).where(Session.id == session_id).execute()


def revoke_session_of(customer_id: str, session_id: str, now: int) -> bool:
    """Let the tokens of one session of a customer count no more; False if it has no such live one."""
    live = (Session.customer_id == customer_id) & Session.revoked_at.is_null() & (Session.id == session_id)
    return bool(Session.update(revoked_at=now).where(live).execute())


def change_password(customer_id: str, proven: str, password_hash: str, now: int, but: str) -> list[str] | None:
    """Replace a password and end all sessions except ``but``, whose IDs it gives.

    None, and nothing is done, if ``proven`` is not the hash any more that the old password was compared with.
    """
    mine = (Customer.id == customer_id) & (Customer.passwordHash == proven)
    if not Customer.update(passwordHash=password_hash).where(mine).execute():
        return None
    forget_links(customer_id)
    return revoke_sessions(customer_id, now, but)
