"""The endpoints by which customers set a new password without the old one, and confirm or change their address.

Knows: what each call takes and answers, and how often it may be called. Must not know: mails, links, how passwords are
checked, engines.
"""

from __future__ import annotations

from flask import Blueprint

from accounts.account_fields import FieldReader
from accounts.attempts import Attempts
from accounts.tokens import Tokens
from api.auth import Accounts, bearer, count_attempt
from server.http.exchange import Reply, View, client_address, current_exchange, read_object, success
from settings import Settings
from tenants import Tenants


class LostPasswords:
    """The endpoints under ``/api/customers`` that send mails or take what came by them."""

    def __init__(self, settings: Settings, tenants: Tenants, tokens: Tokens, accounts: Accounts) -> None:
        self._accounts, self._rescue, self._tokens = accounts, accounts.rescue, tokens
        self._mails = Attempts(settings.rate_limit_mail, "mail", tenants.engine.attempt_counts)

    def blueprint(self) -> Blueprint:
        """Give the routes."""
        routes = Blueprint("lost_passwords", __name__, url_prefix="/api/customers")
        views: list[tuple[str, View]] = [
            ("/password/forgotten", self.forgotten),
            ("/password/reset", self.reset),
            ("/email/confirm", self.confirm_email),
            ("/me/email", self.change_email),
            ("/me/email/verification", self.verify_email),
        ]
        for path, view in views:
            routes.add_url_rule(path, view.__name__, view, methods=["POST"])
        return routes

    def forgotten(self) -> Reply:
        """Send a link for a new password to an address, if a customer has it; the answer does not tell."""
        count_attempt(self._mails, client_address())
        fields = FieldReader(read_object())
        email = fields.email()
        fields.check()
        count_attempt(self._mails, email)
        self._rescue.ask_for_reset(email)
        return success({"message": "If an account has this address, a mail with a link is on its way to it."}, 202)

    def reset(self) -> Reply:
        """Set a new password by a link, and end all sessions."""
        fields = FieldReader(read_object())
        token, password = fields.any_text("token"), fields.password("newPassword")
        fields.check()
        current_exchange().tenant_id = self._rescue.reset_password(token, password).id
        return success({"message": "The password is changed, and all sessions have ended. Log in with it."})

    def confirm_email(self) -> Reply:
        """Confirm by a link that an address is the customer's own; a new address takes the place of the old one."""
        fields = FieldReader(read_object())
        token = fields.any_text("token")
        fields.check()
        customer, email = self._rescue.confirm_email(token)
        current_exchange().tenant_id = customer.id
        return success({"email": email, "message": "This address is confirmed."})

    def change_email(self) -> Reply:
        """Send a link to a new address, which takes the place of the old one once it is confirmed."""
        identity = bearer(self._tokens)
        fields = FieldReader(read_object())
        email, password = fields.email(), fields.any_text("password")
        fields.check()
        self._accounts.check_password(identity, password)
        count_attempt(self._mails, identity.tenant_id)
        self._rescue.ask_for_change(self._accounts.customer(identity), email)
        return success({"message": "A mail with a link is on its way to the new address."}, 202)

    def verify_email(self) -> Reply:
        """Send a link once more by which the customer's address is confirmed."""
        identity = bearer(self._tokens)
        count_attempt(self._mails, identity.tenant_id)
        self._rescue.ask_for_verification(self._accounts.customer(identity))
        return success({"message": "A mail with a link is on its way, unless this address is confirmed already."}, 202)
