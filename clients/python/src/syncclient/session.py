"""The account of the replica and its session: log in, refresh, report that a log-in is needed.

Knows: tokens and where they are kept (in the replica). Must not know: what is asked with them.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from .answers import tokens_of
from .errors import LoginNeeded, SyncError, Unauthorized, WrongAccount
from .replica import Replica, get_meta, set_meta
from .transport import Transport
from .wire import JSON


class Session:
    """Asks the server as the account that owns the replica."""

    def __init__(self, replica: Replica, transport: Transport, email: str | None, password: str | None) -> None:
        """``email`` and ``password``: to log in again without asking anybody; they are not written anywhere."""
        self._replica, self._transport = replica, transport
        self._email, self._password = email, password
        transport.clock_offset_ms = replica.meta("clock_offset_ms") or 0

    def go_by(self, device_id: str) -> None:
        """Have the server know this device by a name."""
        self._transport.device_id = device_id

    def login(self, email: str, password: str) -> None:
        """Begin a session.

        Raises: WrongAccount if the replica is another account's, Unauthorized if the password is wrong.
        """
        body = {"email": email, "password": password}
        self.adopt(*tokens_of(self._transport.send("POST", "/api/customers/login", body)))

    def adopt(self, token: str, refresh_token: str) -> None:
        """Take over a session that began elsewhere.

        Raises: WrongAccount.
        """
        tenant = tenant_of(token)
        with self._replica.transaction() as connection:
            if (get_meta(connection, "tenant") or tenant) != tenant:
                raise WrongAccount
            set_meta(connection, tenant=tenant, tokens=[token, refresh_token])

    def logout(self) -> None:
        """End the session; the replica and what waits in it stay."""
        try:
            self.ask("POST", "/api/customers/logout")
        finally:
            with self._replica.transaction() as connection:
                set_meta(connection, tokens=None)

    @property
    def tokens(self) -> tuple[str | None, str | None]:
        """The access and the refresh token."""
        token, refresh_token = self._replica.meta("tokens") or (None, None)
        return token, refresh_token

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> JSON:
        """Send a request with the session's token, renewed if need be.

        Raises: LoginNeeded, and all that ``Transport.send`` raises.
        """
        token, _ = self.tokens
        if token is None:
            token = self.renew(None)
        try:
            answer = self._transport.send(method, path, body, token, **headers)
        except Unauthorized:
            answer = self._transport.send(method, path, body, self.renew(token), **headers)
        self._keep_clock()
        return answer

    def renew(self, spent: str | None) -> str:
        """Give a token that is not ``spent``: a newer one if there is one, else by the refresh token, else by logging in.

        A refresh token may be used once: so only one of all threads and processes does. If its answer is lost the server
        takes it once more, for a few minutes. After that only the password helps.
        Raises: LoginNeeded.
        """
        token, _ = self.tokens
        if token is not None and token != spent:
            return token
        with self._replica.turn():
            token, refresh_token = self.tokens
            if token is not None and token != spent:  # Who had the turn before has renewed it.
                return token
            if refresh_token is None or not self._refresh(refresh_token):
                self._login_again()
            renewed, _ = self.tokens
            assert renewed is not None
            return renewed

    def _refresh(self, refresh_token: str) -> bool:
        """Renew by the refresh token; false if the server does not take it."""
        try:
            body = {"refreshToken": refresh_token}
            answer = self._transport.send("POST", "/api/customers/refresh", body)
        except Unauthorized:
            return False
        self.adopt(*tokens_of(answer))
        return True

    def _login_again(self) -> None:
        if self._email is None or self._password is None:
            raise LoginNeeded
        try:
            self.login(self._email, self._password)
        except Unauthorized as error:
            raise LoginNeeded(error.message) from error

    def _keep_clock(self) -> None:
        offset = self._transport.clock_offset_ms
        if abs(offset - (self._replica.meta("clock_offset_ms") or 0)) > 1000:
            with self._replica.transaction() as connection:
                set_meta(connection, clock_offset_ms=offset)


def tenant_of(token: str) -> str:
    """Read whose token this is; the server checks it, we only compare.

    Raises: SyncError if it is no token.
    """
    try:
        payload = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["customerId"])
    except (IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SyncError("This is no access token.", "unauthorized") from error
