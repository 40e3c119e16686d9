"""Customers: register, log in, stay logged in, leave (docs/api.md, customers).

Knows: what an account is made of and what each call takes and gives. Must not know: sync, sockets, engines; tokens and
passwords only by name.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import Any

from flask import Blueprint

from accounts.tokens import PASSWORD_BYTES, Attempts, Identity, Pair, Passwords, Tokens, check_tenant
from protocol.codec import format_time
from protocol.errors import Detail, InvalidCredentials, NotFound, NoToken, RegistrationClosed, ValidationError, invalid
from server.http.exchange import Reply, View, client_address, current_exchange, read_json, success
from settings import Settings
from storage import main_database
from tenants import Tenants, now_ms

EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,190}")
NAME_CHARACTERS = 100
PROFILE_FIELDS = ("firstName", "lastName", "companyName", "phone")
_DEFAULT_COMPANY = "Individual Customer"


def bearer(tokens: Tokens) -> Identity:
    """Tell who makes the running request, from its access token and from nothing else.

    A tenant that the request states in ``X-Tenant-Id`` must be the token's.
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


def create_customer(tenants: Tenants, passwords: Passwords, body: dict[str, Any]) -> main_database.Customer:
    """Make an account and its database, from a request or from the operator's command line.

    Raises: ValidationError, EmailTaken.
    """
    faults = _Faults()
    values = {name: faults.text(body, name, NAME_CHARACTERS) for name in ("firstName", "lastName")}
    email = faults.email(body)
    password = faults.password(body, "password")
    phone = faults.text(body, "phone", NAME_CHARACTERS, optional=True)
    company = faults.text(body, "companyName", NAME_CHARACTERS, optional=True) or _DEFAULT_COMPANY
    faults.check()
    customer = main_database.Customer(
        id=str(uuid.uuid4()),
        name=f"{values['firstName']} {values['lastName']}",
        email=email,
        phone=phone,
        companyName=company,
        passwordHash=passwords.hash(password),
        createdAt=format_time(now_ms()),
        **values,
    )
    tenants.provision(customer)
    return customer


class Accounts:
    """The endpoints under ``/api/customers``."""

    def __init__(self, settings: Settings, tenants: Tenants, tokens: Tokens) -> None:
        self._tenants, self._tokens = tenants, tokens
        self._is_open = settings.registration == "open"
        self._passwords = Passwords(settings.bcrypt_rounds)
        self._logins = Attempts(settings.rate_limit_login, "login")
        self._registrations = Attempts(settings.rate_limit_register, "register")

    def blueprint(self) -> Blueprint:
        """Lay the endpoints out."""
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
        if not self._is_open:
            raise RegistrationClosed
        _count(self._registrations, client_address())
        body = _object(read_json())
        customer = create_customer(self._tenants, self._passwords, body)
        pair = self._tokens.begin(customer)
        return success(_session(pair, customer) | {"message": "Registered. The tenant's database is ready."}, 201)

    def login(self) -> Reply:
        """Begin a session for who proves to know the password."""
        _count(self._logins, client_address())
        body = _object(read_json())
        faults = _Faults()
        email, password = (faults.anything(body, name) for name in ("email", "password"))
        faults.check()
        _count(self._logins, main_database.normal_email(email)[:254])
        customer = self._tenants.directory.read(lambda: main_database.customer_by_email(email))
        if not self._passwords.matches(password, customer.passwordHash if customer else None) or not customer:
            raise InvalidCredentials
        current_exchange().tenant_id = customer.id
        return success(_session(self._tokens.begin(customer), customer))

    def refresh(self) -> Reply:
        """Renew a session with its refresh token, which is spent by that."""
        body = _object(read_json())
        faults = _Faults()
        token = faults.anything(body, "refreshToken")
        faults.check()
        pair = self._tokens.refresh(token)
        return success({"token": pair.token, "refreshToken": pair.refresh_token})

    def logout(self) -> Reply:
        """End the session of the token."""
        self._tokens.end(bearer(self._tokens).session_id)
        return success({"message": "Logged out."})

    def profile(self) -> Reply:
        """Show the account."""
        return success({"customer": _shown(self._customer(bearer(self._tokens)))})

    def change_profile(self) -> Reply:
        """Change what of the account may be changed."""
        identity = bearer(self._tokens)
        body = _object(read_json())
        customer = self._customer(identity)
        faults = _Faults()
        for name in body.keys() - set(PROFILE_FIELDS):
            faults.add(name[:NAME_CHARACTERS], "can't be changed here")
        changes = {
            name: faults.text(body, name, NAME_CHARACTERS, optional=name in ("phone", "companyName"))
            for name in PROFILE_FIELDS
            if name in body
        }
        faults.check()
        if "companyName" in changes:
            changes["companyName"] = changes["companyName"] or _DEFAULT_COMPANY
        first, last = (changes.get(name, getattr(customer, name)) for name in ("firstName", "lastName"))
        self._tenants.directory.write(
            lambda: main_database.change_customer(customer.id, **changes, name=f"{first} {last}")
        )
        return success({"customer": _shown(self._customer(identity))})

    def change_password(self) -> Reply:
        """Replace the password, and end all other sessions."""
        identity = bearer(self._tokens)
        body = _object(read_json())
        faults = _Faults()
        old, new = faults.anything(body, "oldPassword"), faults.password(body, "newPassword")
        faults.check()
        proven = self._prove(identity, old)
        self._tokens.change_password(identity, proven, self._passwords.hash(new))
        return success({"message": "Password changed. All other sessions have ended."})

    def close(self) -> Reply:
        """Close the account and remove its data."""
        identity = bearer(self._tokens)
        body = _object(read_json())
        faults = _Faults()
        password = faults.anything(body, "password")
        faults.check()
        proven = self._prove(identity, password)
        self._tokens.ended.send(self._tenants.close_account(identity.tenant_id, proven))
        return success({"message": "The account is closed and its data removed."})

    def _customer(self, identity: Identity) -> main_database.Customer:
        customer = self._tenants.directory.read(lambda: main_database.customer_by_id(identity.tenant_id))
        if customer is None:
            raise NotFound("This account does not exist any more.")
        return customer

    def _prove(self, identity: Identity, password: str) -> str:
        """Check the password of someone who bears a token already, and give the hash that it is right for: a password may
        be changed while it is compared.

        Raises: InvalidCredentials, RateLimited.
        """
        _count(self._logins, main_database.normal_email(identity.email))
        hashed: str = self._customer(identity).passwordHash
        if not self._passwords.matches(password, hashed):
            raise InvalidCredentials("The password is wrong.")
        return hashed


def _count(attempts: Attempts, who: str) -> None:
    """Count an attempt, and have the answer say how many are left.

    Raises: RateLimited.
    """
    current_exchange().quota_headers = lambda: attempts.headers(who)
    attempts.count(who)


def _session(pair: Pair, customer: main_database.Customer) -> dict[str, Any]:
    return {"token": pair.token, "refreshToken": pair.refresh_token, "customer": _shown(customer)}


def _shown(customer: main_database.Customer) -> dict[str, Any]:
    names = ("id", "name", "email", "companyName", "phone", "subscriptionPlan")
    return {name: getattr(customer, name) for name in names}


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    return body


class _Faults:
    """Reads the fields of a body and remembers all that is wrong with them."""

    def __init__(self) -> None:
        self.details: list[Detail] = []

    def add(self, path: str, error: str) -> str:
        """Note a fault, and give an empty text in place of the value."""
        self.details.append({"path": path, "error": error})
        return ""

    def check(self) -> None:
        """Raises: ValidationError if anything was wrong; its sentence is the first fault."""
        if self.details:
            first = self.details[0]
            raise ValidationError(f"{first['path']} {first['error']}.", details=self.details)

    def anything(self, body: dict[str, Any], name: str) -> str:
        """Read a text that is compared, not kept."""
        value = body.get(name)
        return value if isinstance(value, str) and value else self.add(name, "must be a text")

    def text(self, body: dict[str, Any], name: str, most: int, optional: bool = False) -> Any:
        """Read a text of one line to keep, without the space around it."""
        value = body.get(name)
        if optional and value in (None, ""):
            return None
        if not isinstance(value, str) or not 1 <= len(value.strip()) <= most:
            return self.add(name, f"must be a text of 1 to {most} characters")
        if any(unicodedata.category(character) == "Cc" for character in value):
            return self.add(name, "must not have control characters")
        return value.strip()

    def email(self, body: dict[str, Any]) -> str:
        """Read an address in the form in which it is stored."""
        value = body.get("email")
        normal = main_database.normal_email(value) if isinstance(value, str) else ""
        return normal if EMAIL.fullmatch(normal) else self.add("email", "must be an e-mail address")

    def password(self, body: dict[str, Any], name: str) -> str:
        """Read a new password within the bounds of bcrypt."""
        value, (least, most) = body.get(name), PASSWORD_BYTES
        normal = main_database.normal_form(value) if isinstance(value, str) else ""
        if not least <= len(normal.encode()) <= most:
            return self.add(name, f"must have {least} to {most} bytes as UTF-8")
        return normal
