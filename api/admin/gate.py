"""Lets the operator into the console, and nobody else: sign-in, session cookie, and what each request must prove.

Knows: the cookie, ``Origin``, the proof that our own pages send. Must not know: what the console shows; that is built when
somebody has signed in, so that a server without an operator at it holds none of it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, make_response, render_template, request

from accounts import operator_sign_in
from accounts.attempts import Attempts
from accounts.operator_sign_in import LINK_SECONDS, SESSION_SECONDS, Operator
from protocol.errors import OriginNotAllowed, Unauthorized, invalid
from server.http.exchange import Reply, answer, client_address, current_exchange, read_json
from settings import Settings
from storage.engine import AttemptCounts, Database

Served = Response | Reply
Console = Callable[[Operator, str, str], Served]
"""Answers a request of somebody who has signed in: who, the method, the path behind ``/admin``."""

COOKIE = "admin_session"
PROOF_HEADER = "X-Console-Proof"
_PATH = "/admin"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_SAFE = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_SIGN_IN_AGAIN = "Sign in to the console with a link that this prints on the server: python syncapp.py admin-link."


class Gate:
    """All routes under ``/admin``."""

    def __init__(
        self, settings: Settings, directory: Database, counts: AttemptCounts, open_console: Callable[[], Console]
    ) -> None:
        """``open_console`` gives the console, the same each time."""
        self._directory, self._open_console = directory, open_console
        self._attempts = Attempts(settings.rate_limit_login, "admin", counts)

    def blueprint(self) -> Blueprint:
        """Give the routes. Which pages there are, only somebody who has signed in finds out."""
        routes = Blueprint("admin", __name__)
        routes.add_url_rule(f"{_PATH}/sign-in", "sign_in_page", self.sign_in_page, methods=["GET"])
        routes.add_url_rule(f"{_PATH}/sign-in", "sign_in", self.sign_in, methods=["POST"])
        routes.add_url_rule(_PATH, "start", self.serve, methods=_METHODS, strict_slashes=False)
        routes.add_url_rule(f"{_PATH}/<path:rest>", "serve", self.serve, methods=_METHODS)
        return routes

    def sign_in_page(self) -> Response:
        """Show the page on which a link is used. Opening it uses nothing up, since programs open links too."""
        return page("admin-sign-in.html", minutes=LINK_SECONDS // 60)

    def sign_in(self) -> Served:
        """Begin a session with a link."""
        _must_be_ours()
        self._attempts.count(client_address())
        body = read_json()
        link = body.get("link") if isinstance(body, dict) else None
        if not isinstance(link, str):
            raise invalid("link", "must be a text")
        signed_in = operator_sign_in.sign_in(self._directory, link)
        if signed_in is None:
            raise Unauthorized(
                f"This link was used before, or is older than {LINK_SECONDS // 60} minutes. {_SIGN_IN_AGAIN}"
            )
        reply = answer({"success": True})
        return reply._replace(headers=[*reply.headers, ("Set-Cookie", _cookie(signed_in[0], SESSION_SECONDS))])

    def serve(self, rest: str = "") -> Served:
        """Answer what the console is asked, once it is clear that its operator asks."""
        operator = operator_sign_in.signed_in(self._directory, request.cookies.get(COOKIE, ""))
        if operator is None:
            return _refused(rest)
        if request.method not in _SAFE:
            _must_be_ours()
            _must_prove(operator)
        if (request.method, rest) == ("POST", "sign-out"):
            return self._sign_out(operator)
        return self._open_console()(operator, request.method, f"/{rest}")

    def _sign_out(self, operator: Operator) -> Reply:
        operator_sign_in.sign_out(self._directory, operator)
        reply = answer({"success": True})
        return reply._replace(headers=[*reply.headers, ("Set-Cookie", _cookie("", 0))])


def page(name: str, status: int = 200, **values: Any) -> Response:
    """Give a page of the console."""
    response = make_response(render_template(name, **values), status)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


def _refused(rest: str) -> Response:
    """Answer who has not signed in, the same for each address, whether there is something or not.

    Raises: Unauthorized, where a program of ours asked.
    """
    if rest.startswith("api/") or request.method not in _SAFE:
        raise Unauthorized(_SIGN_IN_AGAIN)
    response = page("admin-sign-in.html", 401, minutes=LINK_SECONDS // 60)
    response.headers["WWW-Authenticate"] = Unauthorized.challenge
    return response


def _must_be_ours() -> None:
    """Check that a page of this server sent the request: cookies go with what others send, too.

    ``CORS_ORIGINS`` do not count here, and neither does another port of this machine.
    Raises: OriginNotAllowed.
    """
    exchange = current_exchange()
    own = re.fullmatch(r"https?://(.+)", exchange.header("Origin") or "")
    is_own = own is not None and own[1].lower() == (exchange.header("Host") or "").lower()
    if not is_own or exchange.header("Sec-Fetch-Site") not in (None, "same-origin"):
        raise OriginNotAllowed("Only pages of the console may ask for this.")


def _must_prove(operator: Operator) -> None:
    """Check that a page sent the request that could read our answers.

    Raises: OriginNotAllowed.
    """
    proof = current_exchange().header(PROOF_HEADER) or ""
    if not hmac.compare_digest(proof.encode("utf-8", "replace"), operator.proof.encode()):
        raise OriginNotAllowed(
            f"The console's pages send {PROOF_HEADER}; this request had another or none. Load the page anew."
        )


def _cookie(token: str, seconds: int) -> str:
    """Write the cookie; behind TLS it never goes out without."""
    origin = current_exchange().header("Origin") or ""
    secure = "; Secure" if request.is_secure or origin.startswith("https://") else ""
    return f"{COOKIE}={token}; Path={_PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
