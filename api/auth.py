"""The endpoints of accounts: register, log in, refresh, log out, profile, close (docs/api.md, customers).

Knows: what each call takes and answers. Must not know: sync, sockets, engines, how tokens and passwords are checked.
"""

from __future__ import annotations

import contextlib
from typing import Any

from flask import Blueprint

from accounts.account_fields import DEFAULT_COMPANY, NAME_CHARACTERS, PROFILE_FIELDS, FieldReader
from accounts.attempts import Attempts
from accounts.passwords import Passwords
from accounts.registration import create_customer
from accounts.rescue import Rescue
from accounts.tokens import Identity, TokenPair, Tokens, check_tenant
from protocol.errors import Busy, InvalidCredentials, NotFound, NoToken, RegistrationClosed, StorageNearlyFull
from server.disk_space import room
from server.http.exchange import Reply, View, client_address, current_exchange, read_object, success
from server.maintenance import maintenance
from settings import Settings
from storage import main_database
from tenants import Tenants


def bearer(tokens: Tokens) -> Identity:
    """Authenticate the current request by its access token, and by nothing else.

    A tenant in ``X-Tenant-Id`` must be the token's.
    Raises: NoToken, Unauthorized, TokenExpired, InvalidTenantId, TenantMismatch, Busy, RateLimited.
    """
    exchange = current_exchange()
    scheme, _, token = (exchange.header("Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NoToken
    identity = tokens.verify(token.strip())
    exchange.reserve(identity.tenant_id)
    check_tenant(identity, exchange.header("X-Tenant-Id"))
    return identity


class Accounts:
    """The endpoints under ``/api/customers``."""

    def __init__(self, settings: Settings, tenants: Tenants, tokens: Tokens) -> None:
        self._tenants, self._tokens = tenants, tokens
        self._is_registration_open = settings.registration == "open"
        self._passwords = Passwords(settings.bcrypt_rounds)
        self.rescue = Rescue(settings, tenants.directory, self._passwords, tokens.ended)
        counts = tenants.engine.attempt_counts
        self._logins = Attempts(settings.rate_limit_login, "login", counts)
        self._registrations = Attempts(settings.rate_limit_register, "register", counts)

    def blueprint(self) -> Blueprint:
        """Give the routes."""
        routes = Blueprint("customers", __name__, url_prefix="/api/customers")
        views: list[tuple[str, str, View]] = [
            ("POST", "/register", self.register),
            ("POST", "/login", self.login),
            ("POST", "/refresh", self.refresh),
            ("POST", "/logout", self.logout),
            ("GET", "/me", self.profile),
            ("PATCH", "/me", self.change_profile),
            ("POST", "/me/password", self.change_password),
            ("DELETE", "/me", self.close),
        ]
        for method, path, view in views:
            routes.add_url_rule(path, view.__name__, view, methods=[method])
        return routes

    def register(self) -> Reply:
        """Make an account and its tenant, and log it in."""
        if not self._is_registration_open:
            raise RegistrationClosed
        maintenance.must_be_over()
        if room.is_low:
            raise StorageNearlyFull
        count_attempt(self._registrations, client_address())
        body = read_object()
        customer = create_customer(self._tenants, self._passwords, body)
        pair = self._tokens.start_session(customer)
        if self.rescue.sends_mail:
            with contextlib.suppress(Busy):  # The account is there; the mail can be asked for again.
                self.rescue.ask_for_verification(customer)
        return success(_session_body(pair, customer) | {"message": "Registered. The tenant's database is ready."}, 201)

    def login(self) -> Reply:
        """Begin a session for who proves to know the password."""
        count_attempt(self._logins, client_address())
        body = read_object()
        fields = FieldReader(body)
        email, password = (fields.any_text(name) for name in ("email", "password"))
        fields.check()
        count_attempt(self._logins, main_database.normal_email(email)[:254])
        customer = self._tenants.directory.read(lambda: main_database.customer_by_email(email))
        if not self._passwords.matches(password, customer.passwordHash if customer else None) or not customer:
            raise InvalidCredentials
        current_exchange().tenant_id = customer.id
        return success(_session_body(self._tokens.start_session(customer), customer))

    def refresh(self) -> Reply:
        """Renew a session with its refresh token, which is spent by that."""
        body = read_object()
        fields = FieldReader(body)
        token = fields.any_text("refreshToken")
        fields.check()
        pair = self._tokens.refresh(token)
        return success({"token": pair.token, "refreshToken": pair.refresh_token})

    def logout(self) -> Reply:
        """End the session of the token."""
        self._tokens.end_session(bearer(self._tokens).session_id)
        return success({"message": "Logged out."})

    def profile(self) -> Reply:
        """Show the account."""
        return success({"customer": _profile_of(self.customer(bearer(self._tokens)))})

    def change_profile(self) -> Reply:
        """Change what of the account may be changed."""
        identity = bearer(self._tokens)
        body = read_object()
        customer = self.customer(identity)
        fields = FieldReader(body)
        for name in body.keys() - set(PROFILE_FIELDS):
            fields.add_error(name[:NAME_CHARACTERS], "can't be changed here")
        changes = {name: fields.line(name) for name in PROFILE_FIELDS if name in body}
        fields.check()
        if "companyName" in changes:
            changes["companyName"] = changes["companyName"] or DEFAULT_COMPANY
        first, last = (changes.get(name, getattr(customer, name)) for name in ("firstName", "lastName"))
        self._tenants.directory.write(
            lambda: main_database.change_customer(customer.id, **changes, name=f"{first} {last}")
        )
        return success({"customer": _profile_of(self.customer(identity))})

    def change_password(self) -> Reply:
        """Replace the password, and end all other sessions."""
        identity = bearer(self._tokens)
        body = read_object()
        fields = FieldReader(body)
        old, new = fields.any_text("oldPassword"), fields.password("newPassword")
        fields.check()
        checked_hash = self.check_password(identity, old)
        self._tokens.change_password(identity, checked_hash, self._passwords.hash(new))
        return success({"message": "Password changed. All other sessions have ended."})

    def close(self) -> Reply:
        """Close the account and remove its data."""
        identity = bearer(self._tokens)
        body = read_object()
        fields = FieldReader(body)
        password = fields.any_text("password")
        fields.check()
        checked_hash = self.check_password(identity, password)
        self._tokens.ended.send(self._tenants.close_account(identity.tenant_id, checked_hash))
        return success({"message": "The account is closed and its data removed."})

    def customer(self, identity: Identity) -> main_database.Customer:
        """Give who is authenticated. Raises: NotFound."""
        customer = self._tenants.directory.read(lambda: main_database.customer_by_id(identity.tenant_id))
        if customer is None:
            raise NotFound("This account does not exist any more.")
        return customer

    def check_password(self, identity: Identity, password: str) -> str:
        """Check the password of an authenticated customer, and give the hash that it matched: the password may be changed
        while it is compared.

        Raises: InvalidCredentials, RateLimited.
        """
        count_attempt(self._logins, main_database.normal_email(identity.email))
        hashed: str = self.customer(identity).passwordHash
        if not self._passwords.matches(password, hashed):
            raise InvalidCredentials("The password is wrong.")
        return hashed


def count_attempt(attempts: Attempts, who: str) -> None:
    """Count an attempt, and have the answer's headers say how many are left.

    Raises: RateLimited.
    """
    current_exchange().quota_headers = lambda: attempts.headers(who)
    attempts.count(who)


def _session_body(pair: TokenPair, customer: main_database.Customer) -> dict[str, Any]:
    return {"token": pair.token, "refreshToken": pair.refresh_token, "customer": _profile_of(customer)}


def _profile_of(customer: main_database.Customer) -> dict[str, Any]:
    names = ("id", "name", "email", "companyName", "phone", "subscriptionPlan")
    is_verified = customer.verifiedEmail == customer.email
    return {name: getattr(customer, name) for name in names} | {"emailVerified": is_verified}
