"""What the operator does to a tenant in the console: the same as by commands, and recorded with the session.

Knows: what each call takes. Must not know: SQL, engines, what comes of a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from accounts.operator_sign_in import Operator
from accounts.passwords import Passwords
from api.admin.console import Route
from api.admin.customers import customer_of
from api.admin.json_fields import text_of
from api.admin.server_parts import ServerParts
from operations import customer_changes
from protocol.errors import invalid
from server.http.exchange import Reply, answer, current_exchange, read_object
from storage.main_database import State

_LINK_SECONDS = 86_400


class CustomerActions:
    """The calls that change a tenant."""

    def __init__(self, server: ServerParts) -> None:
        self._server, self._engine = server, server.tenants.engine
        self._passwords = Passwords(server.settings.bcrypt_rounds)

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        for name, view in {
            "state": self.set_state,
            "email": self.change_email,
            "password": self.set_password,
            "reset-link": self.make_reset_link,
            "end-sessions": self.end_sessions,
            "delete": self.delete,
        }.items():
            yield "POST", f"/api/tenants/<tenant_id>/{name}", view

    def set_state(self, operator: Operator, tenant_id: str) -> Reply:
        """Suspend a tenant, let it read only, or end either."""
        customer, body = customer_of(self._server, tenant_id), read_object()
        state: State | None = next((one for one in get_args(State) if one == body.get("state")), None)
        if state is None:
            raise invalid("state", "must be one of " + ", ".join(get_args(State)))
        customer_changes.set_state(self._engine, customer, state, operator.name)
        return _done(f"{customer.email} is {state}.")

    def change_email(self, operator: Operator, tenant_id: str) -> Reply:
        """Replace the address that a customer logs in with."""
        customer, address = customer_of(self._server, tenant_id), text_of(read_object(), "email")
        new = customer_changes.change_email(self._engine, customer, address, operator.name)
        return _done(f"The customer logs in as {new} now.")

    def set_password(self, operator: Operator, tenant_id: str) -> Reply:
        """Replace a password that was forgotten, and end all sessions."""
        customer, password = customer_of(self._server, tenant_id), text_of(read_object(), "password")
        ended = customer_changes.set_password(self._engine, self._passwords, customer, password, operator.name)
        return _done(f"{customer.email} has a new password. Sessions ended: {ended}.")

    def make_reset_link(self, operator: Operator, tenant_id: str) -> Reply:
        """Make a link by which a customer sets a new password; without PUBLIC_URL it is to where the console is."""
        customer, settings = customer_of(self._server, tenant_id), self._server.settings
        here = replace(settings, public_url=settings.public_url or current_exchange().header("Origin") or "")
        link = customer_changes.make_link(self._engine, here, customer, "reset", _LINK_SECONDS, operator.name)
        told = f"Send this to {customer.email}, on a way that nobody else reads. It works once, within a day."
        return answer({"message": told, "link": link})

    def end_sessions(self, operator: Operator, tenant_id: str) -> Reply:
        """End all sessions, or one."""
        customer, session_id = customer_of(self._server, tenant_id), read_object().get("session")
        if session_id is not None and not isinstance(session_id, str):
            raise invalid("session", "must be a text")
        ended = customer_changes.end_sessions(self._engine, customer, session_id, operator.name)
        return _done(f"Sessions ended: {ended}.")

    def delete(self, operator: Operator, tenant_id: str) -> Reply:
        """Close an account and remove its data, if its address was typed to confirm that."""
        customer = customer_of(self._server, tenant_id)
        if text_of(read_object(), "email").strip().lower() != customer.email.lower():
            raise invalid("email", "must be the customer's address, to confirm that all its data goes")
        ended = customer_changes.delete(self._server.tenants, customer, operator.name)
        return _done(f"{customer.email} is removed. Sessions ended: {ended}.")


def _done(message: str) -> Reply:
    return answer({"message": message})
