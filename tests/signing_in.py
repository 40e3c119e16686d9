"""What a person or an app does with an account: register, log in, refresh."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.conftest import JSON, Server, Tenant

API = "/api/customers"
StartServer = Callable[..., Server]


def account(**fields: Any) -> JSON:
    """Write a registration with an address of its own."""
    body = {"firstName": "Asha", "lastName": "Rao", "email": f"{uuid.uuid4()}@example.com", "password": "password123"}
    return body | fields


def log_in(tenant: Tenant, **fields: str) -> Any:
    return tenant.server.post(f"{API}/login", {"email": tenant.email, "password": tenant.password} | fields)


def session(tenant: Tenant) -> Tenant:
    """Log in once more, as from another device."""
    data = log_in(tenant).json()["data"]
    return Tenant(tenant.server, tenant.id, tenant.email, tenant.password, data["token"], data["refreshToken"])


def me(tenant: Tenant, token: str | None = None) -> Any:
    return tenant.server.call("GET", f"{API}/me", token=tenant.token if token is None else token)


def refresh(tenant: Tenant, refresh_token: str) -> Any:
    return tenant.server.post(f"{API}/refresh", {"refreshToken": refresh_token})
