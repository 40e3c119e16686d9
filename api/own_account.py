"""The endpoints by which customers see and end their sessions, and take their data away (docs/api.md, customers).

Knows: what each call takes and answers. Must not know: SQL, engines, how passwords are checked, what an archive has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint

from accounts.account_fields import FieldReader
from accounts.tokens import Identity, Tokens
from api.auth import bearer
from protocol.codec import format_time
from server.http.exchange import Reply, read_object, success
from storage.main_database import Session

ARCHIVE_TYPE = "application/zip"
_ARCHIVE_HEADERS = [
    ("Content-Type", ARCHIVE_TYPE),
    ("Content-Disposition", 'attachment; filename="syncapp-export.zip"'),
    ("Cache-Control", "no-store"),
]


class OwnAccount:
    """The endpoints on one's own sessions and data under ``/api/customers/me``."""

    def __init__(
        self,
        tokens: Tokens,
        check_password: Callable[[Identity, str], object],
        archive_of: Callable[[str], Iterator[bytes]],
    ) -> None:
        """``check_password`` raises unless it is the customer's; ``archive_of`` gives the archive of a tenant in parts."""
        self._tokens, self._check_password, self._archive_of = tokens, check_password, archive_of

    def blueprint(self) -> Blueprint:
        """Give the routes."""
        routes = Blueprint("account", __name__, url_prefix="/api/customers/me")
        routes.get("/sessions")(self.sessions)
        routes.delete("/sessions")(self.end_other_sessions)
        routes.delete("/sessions/<session_id>")(self.end_session)
        routes.post("/export")(self.export)
        return routes

    def sessions(self) -> Reply:
        """List the sessions of the account: each is one log-in."""
        identity = bearer(self._tokens)
        return success([_shown(one, identity) for one in self._tokens.sessions_of(identity)])

    def end_session(self, session_id: str) -> Reply:
        """End one session of the account, such as that of a lost device."""
        self._tokens.end_session_of(bearer(self._tokens), session_id)
        return success({"message": "The session has ended."})

    def end_other_sessions(self) -> Reply:
        """End all sessions of the account but the one of the token."""
        ended = self._tokens.end_other_sessions(bearer(self._tokens))
        return success({"ended": ended, "message": "All other sessions have ended."})

    def export(self) -> Reply:
        """Send all that is held of the account as one ZIP archive, to who proves to know the password."""
        identity = bearer(self._tokens)
        fields = FieldReader(read_object())
        password = fields.any_text("password")
        fields.check()
        self._check_password(identity, password)
        return Reply(self._archive_of(identity.tenant_id), headers=_ARCHIVE_HEADERS)


def _shown(session: Session, identity: Identity) -> dict[str, Any]:
    return {
        "sessionId": session.id,
        "current": session.id == identity.session_id,
        "createdAt": format_time(session.created_at * 1000),
        "expiresAt": format_time(session.expires_at * 1000),
    }
