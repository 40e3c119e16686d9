"""Issues, verifies and revokes access and refresh tokens.

Knows: JWT claims, how long a session lasts. Must not know: passwords, endpoints, sync, sockets, engines. It gives the rest
an ``Identity``, and that is the only source of a tenant ID (docs/api.md, customers).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import jwt
from blinker import Signal
from cachetools import LRUCache
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token
from jwt.types import Options

from protocol.errors import (
    InvalidCredentials,
    Moved,
    NotFound,
    Problem,
    SessionEnded,
    TenantMismatch,
    TenantNotFound,
    TenantReadOnly,
    TenantSuspended,
    TokenExpired,
    Unauthorized,
)
from server.metrics import TOKENS
from server.quotas import Quotas
from settings import Settings
from storage import main_database, sessions
from tenants import Tenants, parse_tenant_id

_CACHED_TOKENS = 10_000
LIVE_SECONDS = 1
"""For so long a session counts that has ended at another process."""
_NEVER = (None, 0.0)


class Identity(NamedTuple):
    """The bearer of a verified access token. ``expires_at`` in seconds since 1970."""

    tenant_id: str
    email: str
    session_id: str
    pair_id: str
    expires_at: int


class TokenPair(NamedTuple):
    """What a login gives: the token for calls and the one that renews it."""

    token: str
    refresh_token: str


class Tokens:
    """Issues, verifies and revokes tokens. ``ended`` is sent with the IDs of sessions that have ended."""

    def __init__(self, app: Flask, settings: Settings, secret: str, tenants: Tenants, quotas: Quotas) -> None:
        app.config.update(
            JWT_SECRET_KEY=secret,
            JWT_ALGORITHM="HS256",
            JWT_COOKIE_CSRF_PROTECT=False,  # There are no cookies here.
            JWT_ENCODE_NBF=False,  # A token is valid at once, even if the clock is set back.
            JWT_ACCESS_TOKEN_EXPIRES=timedelta(seconds=settings.access_token_seconds),
            JWT_REFRESH_TOKEN_EXPIRES=timedelta(seconds=settings.refresh_token_seconds),
        )
        JWTManager(app)
        self._app, self._keys = app, (secret, *settings.jwt_old_keys)
        self.ended = Signal()
        self._refresh_seconds = settings.refresh_token_seconds
        self._tenants, self._quotas = tenants, quotas
        self._verified: LRUCache[str, Identity] = LRUCache(_CACHED_TOKENS)
        self._read_only: set[str] = set()
        """Tenants that may only read, of those whose sessions were looked up."""
        self._live: dict[str, tuple[object, float]] = {}
        """By valid pair: the main database's mark when it was checked, and until when to trust that."""

    def start_session(self, customer: main_database.Customer) -> TokenPair:
        """Start a session for a customer whose password was checked.

        Raises: InvalidCredentials if the password was changed since; TenantSuspended.
        """
        _must_not_be_suspended(customer.state)
        session_id, refresh_id, now = str(uuid.uuid4()), str(uuid.uuid4()), int(time.time())
        expires_at = now + self._refresh_seconds
        self._tenants.directory.write(lambda: sessions.begin_session(session_id, customer, refresh_id, now, expires_at))
        return self._pair(customer, session_id, refresh_id)

    def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair.

        Raises: Unauthorized, TokenExpired, TenantSuspended. A token that was used before ends its whole session, unless the
        answer was lost.
        """
        claims = _claims(refresh_token, "refresh", self._keys)
        session_id, new_id, now = claims["sid"], str(uuid.uuid4()), int(time.time())
        expires_at = now + self._refresh_seconds

        def rotate() -> tuple[main_database.Customer | None, bool]:
            """Spend the token, unless its customer is suspended: it counts again after that."""
            customer = main_database.customer_by_id(claims["sub"])
            _must_not_be_suspended(customer.state if customer else "active")
            return customer, sessions.rotate_session(session_id, claims["jti"], new_id, now, expires_at)

        customer, goes_on = self._tenants.directory.write(rotate)
        if not goes_on or customer is None:
            self.ended.send([session_id])
            raise Unauthorized("The refresh token was used before or its session has ended. Log in again.")
        return self._pair(customer, session_id, new_id)

    def _pair(self, customer: main_database.Customer, session_id: str, refresh_id: str) -> TokenPair:
        claims = {"customerId": customer.id, "email": customer.email, "type": "client"}
        claims |= {"sid": session_id, "pair": refresh_id}
        return TokenPair(
            create_access_token(customer.id, additional_claims=claims),
            create_refresh_token(customer.id, additional_claims={"sid": session_id, "jti": refresh_id}),
        )

    def tenant_of(self, token: str) -> str | None:
        """Give the tenant of a recently verified token. It may be revoked since, so this gives no access."""
        identity = self._verified.get(token)
        return identity.tenant_id if identity else None

    def verify(self, token: object) -> Identity:
        """Verify an access token: its signature once, its expiry and its session each time.

        Raises: Unauthorized, TokenExpired, TenantSuspended.
        """
        identity = self._verified.get(token) if isinstance(token, str) else None
        if identity:
            TOKENS["hit",] += 1
        else:
            TOKENS["miss",] += 1
            claims = _claims(token, "client", self._keys)
            pair_id = str(claims.get("pair", claims["sid"]))  # Earlier versions had no such claim.
            identity = Identity(claims["customerId"], claims["email"], claims["sid"], pair_id, claims["exp"])
            self._verified[str(token)] = identity
        if identity.expires_at <= time.time():
            raise TokenExpired
        self.must_be_live(identity)
        return identity

    def must_take_changes(self, identity: Identity) -> None:
        """Refuse the changes of a customer who may only read, as its session was looked up last.

        Raises: TenantReadOnly.
        """
        if identity.tenant_id in self._read_only:
            raise TenantReadOnly

    def must_be_live(self, identity: Identity) -> None:
        """Look a session up, unless that was done within the last second.

        Raises: Unauthorized, TenantSuspended, TenantNotFound.
        """
        mark, until = self._live.get(identity.pair_id, _NEVER)
        if mark is not self._tenants.directory.mark or until <= time.monotonic():
            self._check_live(identity)

    def _check_live(self, identity: Identity) -> None:
        """Check that a session is valid: after each commit of the main database, and each second, since the operator's
        commands write there too."""
        main = self._tenants.directory
        live = main.read(lambda: sessions.live_session(identity.session_id, identity.tenant_id))
        if live is None:
            self._check_registered(identity.tenant_id)
            raise Unauthorized("The token was revoked. Log in again.")
        _must_not_be_suspended(live.state)
        if live.dropped_id == identity.pair_id:
            self.end_session(identity.session_id)
            raise Unauthorized("Another token took the place of this one, so that two hold one session. Log in again.")
        if live.spent_id and live.refresh_id == identity.pair_id:
            # Once the directory moved away, the data is still read here, and the pair is noted where it is by then.
            with contextlib.suppress(Moved):
                main.write(lambda: sessions.confirm_pair(identity.session_id, identity.pair_id))
                return self._check_live(identity)  # The session may have changed meanwhile.
        self._quotas.note_own(identity.tenant_id, live.quotas)
        (self._read_only.add if live.state == "read-only" else self._read_only.discard)(identity.tenant_id)
        if len(self._live) >= _CACHED_TOKENS:
            self._live.clear()
        self._live[identity.pair_id] = main.mark, time.monotonic() + LIVE_SECONDS
        return None

    def _check_registered(self, tenant_id: str) -> None:
        """Check that the account of a valid token exists on this server.

        Raises: TenantNotFound.
        """
        if self._tenants.directory.read(lambda: main_database.customer_by_id(tenant_id)) is None:
            raise TenantNotFound

    def end_session(self, session_id: str) -> None:
        """End one session: its tokens are revoked and its sockets are closed."""
        self._tenants.directory.write(lambda: sessions.revoke_session(session_id, int(time.time())))
        self.ended.send([session_id])

    def sessions_of(self, identity: Identity) -> list[main_database.Session]:
        """List the sessions of a customer whose tokens count, the newest first."""
        return self._tenants.directory.read(lambda: sessions.live_sessions(identity.tenant_id, int(time.time())))

    def end_session_of(self, identity: Identity, session_id: str) -> None:
        """End one session of a customer.

        Raises: NotFound unless it is live and the customer's own.
        """
        now, main = int(time.time()), self._tenants.directory
        if not main.write(lambda: sessions.revoke_session_of(identity.tenant_id, session_id, now)):
            raise NotFound("There is no such session, or it has ended.")
        self.ended.send([session_id])

    def end_other_sessions(self, identity: Identity) -> int:
        """End all sessions of a customer but the current one, and count them."""
        now, but = int(time.time()), identity.session_id
        ended = self._tenants.directory.write(
            lambda: main_database.revoke_sessions(identity.tenant_id, now, but),
        )
        self.ended.send(ended)
        return len(ended)

    def problems_of(self, session_ids: Collection[str]) -> dict[str, Problem]:
        """Tell of those of some sessions that have ended, also with their accounts, or are suspended, why they count no
        more; one statement, however many they are."""
        if not session_ids:
            return {}
        live = self._tenants.directory.read(lambda: sessions.live_among(session_ids))
        ended: dict[str, Problem] = {one: SessionEnded() for one in session_ids if one not in live}
        return ended | {one: TenantSuspended() for one, state in live.items() if state == "suspended"}

    def change_password(self, identity: Identity, checked_hash: str, password_hash: str) -> None:
        """Replace a customer's password, and end all its sessions but the current one.

        Raises: InvalidCredentials if ``checked_hash``, with which the old password was compared, was replaced meanwhile.
        """
        now, session_id = int(time.time()), identity.session_id
        ended = self._tenants.directory.write(
            lambda: sessions.change_password(identity.tenant_id, checked_hash, password_hash, now, but=session_id)
        )
        if ended is None:
            raise InvalidCredentials("The password is wrong.")
        self.ended.send(ended)


def _must_not_be_suspended(state: str) -> None:
    if state == "suspended":
        raise TenantSuspended


def check_tenant(identity: Identity, stated: object) -> None:
    """Refuse a tenant ID that differs from the token's; None means that the client gave none.

    Raises: InvalidTenantId, TenantMismatch.
    """
    if stated is not None and parse_tenant_id(stated) != identity.tenant_id:
        raise TenantMismatch


def _decoded(token: str, keys: Sequence[str]) -> dict[str, Any]:
    *others, last = keys
    for key in others:
        with contextlib.suppress(jwt.InvalidSignatureError):
            return jwt.decode(token, key, ["HS256"], _UNCHECKED)
    return jwt.decode(token, last, ["HS256"], _UNCHECKED)


_UNCHECKED: Options = {"verify_iat": False, "verify_nbf": False, "verify_aud": False}
"""``iat`` and ``nbf`` say when a token was issued. They are not checked, since the clock may have been set back."""


def _claims(token: object, kind: str, keys: Sequence[str]) -> dict[str, Any]:
    """Verify a token of one type, so that a refresh token can't be used as an access token, nor the reverse.

    ``keys``: the one that signs and those that did.
    """
    try:
        claims = _decoded(token if isinstance(token, str) else "", keys)
    except jwt.ExpiredSignatureError:
        raise TokenExpired from None
    except (jwt.PyJWTError, ValueError):
        raise Unauthorized from None
    later = claims.get("nbf", claims.get("iat"))  # Earlier versions wrote it, the same as ``iat``.
    if later != claims.get("iat") and not (isinstance(later, int) and later <= time.time()):
        raise Unauthorized
    texts = {"sub", "jti", "sid"} | ({"customerId", "email"} if kind == "client" else set())
    if (
        claims.get("type") != kind
        or "exp" not in claims
        or not all(isinstance(claims.get(name), str) for name in texts)
    ):
        raise Unauthorized
    return claims
