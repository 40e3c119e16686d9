"""Who is asking: access and refresh tokens, passwords, attempts.

Knows: JWT claims, bcrypt, how long a login lives. Must not know: endpoints, sync, sockets, engines. It gives the rest an
``Identity``, and that is the only source of a tenant ID (docs/api.md, customers).
"""

from __future__ import annotations

import math
import time
import uuid
from datetime import timedelta
from typing import Any, NamedTuple

import bcrypt
import jwt
from blinker import Signal
from cachetools import LRUCache
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token
from gevent.threadpool import ThreadPool
from jwt.types import Options
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from protocol.errors import (
    Busy,
    InvalidCredentials,
    RateLimited,
    TenantMismatch,
    TenantNotFound,
    TokenExpired,
    Unauthorized,
)
from server.quotas import RemainingQuota, rate_headers
from settings import Settings
from storage import main_database
from tenants import Tenants, parse_tenant_id

PASSWORD_BYTES = (8, 72)
"""Least and most bytes of a password as UTF-8 in NFC; bcrypt reads no more than 72 (bcrypt on PyPI, "Maximum Password
Length")."""

_HASHING_THREADS = 2
_MOST_WAITING_HASHES = 100
_CACHED_TOKENS = 10_000
_LIVE_SECONDS = 1
_NEVER = (None, 0.0)


class Identity(NamedTuple):
    """The bearer of a verified access token. ``expires_at`` in seconds since 1970."""

    tenant_id: str
    email: str
    session_id: str
    pair_id: str
    expires_at: int


class Pair(NamedTuple):
    """What a login gives: the token for calls and the one that renews it."""

    token: str
    refresh_token: str


class Tokens:
    """Issues, verifies and revokes tokens. ``ended`` is sent with the IDs of sessions whose tokens no longer count."""

    def __init__(self, app: Flask, settings: Settings, secret: str, tenants: Tenants) -> None:
        app.config.update(
            JWT_SECRET_KEY=secret,
            JWT_ALGORITHM="HS256",
            JWT_COOKIE_CSRF_PROTECT=False,  # No cookies here: no claim for them.
            JWT_ENCODE_NBF=False,  # A token counts from when it was made, whatever becomes of the clock.
            JWT_ACCESS_TOKEN_EXPIRES=timedelta(seconds=settings.access_token_seconds),
            JWT_REFRESH_TOKEN_EXPIRES=timedelta(seconds=settings.refresh_token_seconds),
        )
        JWTManager(app)
        self._app, self._secret = app, secret
        self.ended = Signal()
        self._refresh_seconds = settings.refresh_token_seconds
        self._tenants = tenants
        self._verified: LRUCache[str, Identity] = LRUCache(_CACHED_TOKENS)
        self._live: dict[str, tuple[object, float]] = {}
        """By pair that counts, the directory's mark when it was asked, and until when to believe it."""

    def begin(self, customer: main_database.Customer) -> Pair:
        """Begin a session for a customer who proved to be one.

        Raises: InvalidCredentials if the password was changed since.
        """
        session_id, refresh_id, now = str(uuid.uuid4()), str(uuid.uuid4()), int(time.time())
        expires_at = now + self._refresh_seconds
        self._tenants.directory.write(
            lambda: main_database.begin_session(session_id, customer, refresh_id, now, expires_at)
        )
        return self._pair(customer, session_id, refresh_id)

    def refresh(self, refresh_token: str) -> Pair:
        """Spend a refresh token for a new pair.

        Raises: Unauthorized, TokenExpired. A token spent before ends its whole session, unless its answer was lost.
        """
        claims = _claims(refresh_token, "refresh", self._secret)
        session_id, new_id, now = claims["sid"], str(uuid.uuid4()), int(time.time())
        expires_at = now + self._refresh_seconds
        customer, ended = self._tenants.directory.write(
            lambda: (
                main_database.customer_by_id(claims["sub"]),
                not main_database.rotate_session(session_id, claims["jti"], new_id, now, expires_at),
            )
        )
        if ended or customer is None:
            self.ended.send([session_id])
            raise Unauthorized("The refresh token was used before or its session has ended. Log in again.")
        return self._pair(customer, session_id, new_id)

    def _pair(self, customer: main_database.Customer, session_id: str, refresh_id: str) -> Pair:
        claims = {"customerId": customer.id, "email": customer.email, "type": "client"}
        claims |= {"sid": session_id, "pair": refresh_id}
        return Pair(
            create_access_token(customer.id, additional_claims=claims),
            create_refresh_token(customer.id, additional_claims={"sid": session_id, "jti": refresh_id}),
        )

    def tenant_of(self, token: str) -> str | None:
        """Tell whose a token is that was verified not long ago; it may have ended since, so that it opens nothing."""
        identity = self._verified.get(token)
        return identity.tenant_id if identity else None

    def verify(self, token: object) -> Identity:
        """Tell who bears an access token; its signature is checked once, its expiry and its session each time.

        Raises: Unauthorized, TokenExpired.
        """
        identity = self._verified.get(token) if isinstance(token, str) else None
        if identity is None:
            claims = _claims(token, "client", self._secret)
            pair_id = str(claims.get("pair", claims["sid"]))  # Versions before did not say the pair.
            identity = Identity(claims["customerId"], claims["email"], claims["sid"], pair_id, claims["exp"])
            self._verified[str(token)] = identity
        if identity.expires_at <= time.time():
            raise TokenExpired
        mark, until = self._live.get(identity.pair_id, _NEVER)
        if mark is not self._tenants.directory.mark or until <= time.monotonic():
            self._check_live(identity)
        return identity

    def _check_live(self, identity: Identity) -> None:
        """Ask whether a session still counts, again after each commit of the directory; at times anyway, since others than
        this server may write there."""
        main = self._tenants.directory
        live = main.read(lambda: main_database.live_session(identity.session_id, identity.tenant_id))
        if live is None:
            self._check_registered(identity.tenant_id)
            raise Unauthorized("The token was revoked. Log in again.")
        if live.dropped_id == identity.pair_id:
            self.end(identity.session_id)
            raise Unauthorized("Another token took the place of this one, so that two hold one session. Log in again.")
        if live.spent_id and live.refresh_id == identity.pair_id:
            main.write(lambda: main_database.confirm_pair(identity.session_id, identity.pair_id))
            return self._check_live(identity)  # Others had their turn meanwhile.
        if len(self._live) >= _CACHED_TOKENS:
            self._live.clear()
        self._live[identity.pair_id] = main.mark, time.monotonic() + _LIVE_SECONDS
        return None

    def _check_registered(self, tenant_id: str) -> None:
        """Tell the bearer of a good token whom this server does not know that he must register first.

        Raises: TenantNotFound.
        """
        if self._tenants.directory.read(lambda: main_database.customer_by_id(tenant_id)) is None:
            raise TenantNotFound

    def end(self, session_id: str) -> None:
        """End one session: its tokens count no more and its sockets are closed."""
        self._tenants.directory.write(lambda: main_database.revoke_session(session_id, int(time.time())))
        self.ended.send([session_id])

    def change_password(self, identity: Identity, proven: str, password_hash: str) -> None:
        """Replace a customer's password, and end all its sessions but the one that asks.

        Raises: InvalidCredentials if ``proven``, the hash that the old one was compared with, is not its hash any more.
        """
        now, session_id = int(time.time()), identity.session_id
        ended = self._tenants.directory.write(
            lambda: main_database.change_password(identity.tenant_id, proven, password_hash, now, but=session_id)
        )
        if ended is None:
            raise InvalidCredentials("The password is wrong.")
        self.ended.send(ended)


def check_tenant(identity: Identity, stated: object) -> None:
    """Refuse a tenant ID that a client states beside its token, unless it is the token's; None states nothing.

    Raises: InvalidTenantId, TenantMismatch.
    """
    if stated is not None and parse_tenant_id(stated) != identity.tenant_id:
        raise TenantMismatch


_UNCHECKED: Options = {"verify_iat": False, "verify_nbf": False, "verify_aud": False}
"""``iat`` and ``nbf`` say when a token was made: a clock that was set back since makes none of ours less true."""


def _claims(token: object, kind: str, secret: str) -> dict[str, Any]:
    """Verify a token of one kind, so that a refresh token is no access token nor the reverse."""
    try:
        claims = jwt.decode(token if isinstance(token, str) else "", secret, ["HS256"], _UNCHECKED)
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


class Passwords:
    """Hashes and checks passwords in threads of their own, since one takes as long as thousands of requests."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._threads = ThreadPool(_HASHING_THREADS)
        self._waiting = 0
        self._nobody: bytes | None = None

    def hash(self, password: str) -> str:
        """Hash a new password."""
        secret = main_database.normal_form(password).encode()
        hashed: bytes = self._run(bcrypt.hashpw, secret, bcrypt.gensalt(self._rounds))
        return hashed.decode()

    def matches(self, password: str, hashed: str | None) -> bool:
        """Compare in the same time, be there such a customer (``hashed``) or not, and whatever is sent.

        A password with accents is tried in each form in which it may have been kept: earlier versions hashed it as typed.
        """
        if self._nobody is None:
            self._nobody = self._run(bcrypt.hashpw, b"nobody's password", bcrypt.gensalt(self._rounds))
        kept = hashed.encode() if hashed else self._nobody
        return any(self._is_right(form, kept) for form in main_database.forms(password)) and hashed is not None

    def _is_right(self, password: str, hashed: bytes) -> bool:
        secret = password.encode("utf-8", "replace")
        fits = PASSWORD_BYTES[0] <= len(secret) <= PASSWORD_BYTES[1]
        return bool(self._run(bcrypt.checkpw, secret[: PASSWORD_BYTES[1]], hashed)) and fits

    def _run(self, function: Any, *arguments: bytes) -> Any:
        if self._waiting >= _MOST_WAITING_HASHES:
            raise Busy("Too many log in just now. Try again soon.")
        self._waiting += 1
        try:
            return self._threads.apply(function, arguments)
        finally:
            self._waiting -= 1


class Attempts:
    """Counts what could be guessed, in a moving window. The counts live in memory: a restart forgives."""

    def __init__(self, rates: str, purpose: str) -> None:
        self._rates, self._purpose = parse_many(rates), purpose
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, who: str) -> None:
        """Count one attempt of ``who``, an address or an account.

        Raises: RateLimited, with the seconds to wait.
        """
        for rate in self._rates:
            if not self._limiter.hit(rate, self._purpose, who):
                reset = self._limiter.get_window_stats(rate, self._purpose, who).reset_time
                raise RateLimited(retry_after_seconds=max(1, int(reset - time.time()) + 1))

    def headers(self, who: str) -> dict[str, str]:
        """Write the headers that tell ``who`` how many attempts are left."""
        return rate_headers([self._remaining(rate, who) for rate in self._rates])

    def _remaining(self, rate: RateLimitItem, who: str) -> RemainingQuota:
        stats = self._limiter.get_window_stats(rate, self._purpose, who)
        name = f"{self._purpose} per {rate.GRANULARITY.name}"
        reset_seconds = max(0, math.ceil(stats.reset_time - time.time()))
        return RemainingQuota(name, rate.amount, rate.get_expiry(), stats.remaining, reset_seconds)
