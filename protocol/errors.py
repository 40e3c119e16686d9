"""Every error that a client may get, with its status, code and message.

Knows: every error's status and code, and the one JSON shape. Must not know: Flask, tables, sockets; standard library
only. An error a client may meet is one class here; anything else is a bug and leaves as ``internal_error``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict


class Detail(TypedDict):
    """One error inside a body: where (``changes.end_user[3].dob``) and what."""

    path: str
    error: str


_INVALID_CHALLENGE = 'Bearer error="invalid_token"'
"""The challenge for a token that was sent and is not valid. Source: RFC 6750 sections 3 and 3.1."""


class Problem(Exception):
    """An error that ends a request or an event. ``args[0]`` is the message that clients see."""

    status = 500
    code = "internal_error"
    challenge = "Bearer"
    """``WWW-Authenticate`` of a 401."""
    sentence = "Something went wrong on the server. The request ID helps to find it in the log."

    def __init__(
        self,
        sentence: str | None = None,
        *,
        details: Sequence[Detail] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(sentence or self.sentence)
        self.details = list(details)
        self.retry_after_seconds = retry_after_seconds


class InvalidJson(Problem):
    status, code = 400, "invalid_json"
    sentence = "The body is not valid JSON."


class ValidationError(Problem):
    status, code = 400, "validation_error"
    sentence = "The request is not valid."


def invalid(path: str, sentence: str) -> ValidationError:
    """Say what is wrong with a field of the body, the body as a whole (``$``), or a header."""
    where = "The body" if path == "$" else path
    return ValidationError(f"{where} {sentence}.", details=[{"path": path, "error": sentence}])


class InvalidTenantId(Problem):
    status, code = 400, "invalid_tenant_id"
    sentence = "Invalid tenant ID. Use the exact ID from the JWT token or database."


class Unauthorized(Problem):
    status, code = 401, "unauthorized"
    sentence = "A valid access token is needed: Authorization: Bearer <token>."
    challenge = _INVALID_CHALLENGE


class SessionEnded(Unauthorized):
    """Of a socket: its session has ended while it was open."""

    sentence = "The session has ended. Log in again."


class NoToken(Unauthorized):
    """The request has no token: the challenge names no error."""

    challenge = "Bearer"


class TokenExpired(Problem):
    status, code = 401, "token_expired"
    sentence = "The token has expired. Refresh it or log in again."
    challenge = _INVALID_CHALLENGE


class InvalidCredentials(Problem):
    status, code = 401, "invalid_credentials"
    sentence = "The e-mail address or the password is wrong."


class TenantSuspended(Problem):
    status, code = 401, "tenant_suspended"
    sentence = "This account is suspended. Ask the operator of this server. What was not sent yet can be sent later."


class RegistrationClosed(Problem):
    status, code = 403, "registration_closed"
    sentence = "Registration is closed on this server. Ask its operator for an account."


class NoMail(Problem):
    status, code = 403, "no_mail"
    sentence = "This server sends no mail. Ask its operator for a link."


class TenantMismatch(Problem):
    status, code = 403, "tenant_mismatch"
    sentence = "The tenant ID is not the one of the token."


class OriginNotAllowed(Problem):
    status, code = 403, "origin_not_allowed"
    sentence = "Pages of this origin may not call this server. Its operator can allow the origin in CORS_ORIGINS."


class TenantNotFound(Problem):
    status, code = 404, "tenant_not_found"
    sentence = "Tenant database not found. Register the client first."


class NotFound(Problem):
    status, code = 404, "not_found"
    sentence = "There is nothing at this address."


class MethodNotAllowed(Problem):
    status, code = 405, "method_not_allowed"
    sentence = "This address does not take this method."


class RequestTimeout(Problem):
    status, code = 408, "request_timeout"
    sentence = "The request came too slowly. Send it again."


class EmailTaken(Problem):
    status, code = 409, "email_taken"
    sentence = "A customer with this e-mail address exists already. Log in instead."


class StillRunning(Problem):
    status, code = 409, "busy"
    sentence = "The first request with this Idempotency-Key is still running. Try again soon."

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=1)


class ExpectationFailed(Problem):
    status, code = 417, "expectation_failed"
    sentence = "The server can't meet what the Expect header asks for: it knows 100-continue only."


class IdempotencyMismatch(Problem):
    status, code = 422, "idempotency_mismatch"
    sentence = "This Idempotency-Key was used for another request. Use a new key for a new request."


class ResyncRequired(Problem):
    status, code = 410, "resync_required"
    sentence = "The cursor is not of this database. Pull again from the start, without a cursor."


class LinkInvalid(Problem):
    status, code = 410, "link_invalid"
    sentence = "This link was used before, is too old, or a newer one has taken its place. Ask for another."


class PayloadTooLarge(Problem):
    status, code = 413, "payload_too_large"
    sentence = "The body is too large. Send it in smaller parts."


class AddressTooLong(Problem):
    status, code = 414, "address_too_long"
    sentence = "The address is too long."


class UnsupportedMediaType(Problem):
    status, code = 415, "unsupported_media_type"
    sentence = "The body must be JSON: Content-Type: application/json."


class RateLimited(Problem):
    status, code = 429, "rate_limited"
    sentence = "Too many attempts. Wait a little and try again."


class HeadTooLarge(Problem):
    status, code = 431, "head_too_large"
    sentence = "The headers are too large."


class Unimplemented(Problem):
    status, code = 501, "not_implemented"
    sentence = "This server does not know what the request asks for."


class UnknownWebSocketVersion(ValidationError):
    spoken = "13"
    sentence = f"Sec-WebSocket-Version must be {spoken}."


class UnknownVersion(Problem):
    status, code = 505, "http_version_not_supported"
    sentence = "This server speaks HTTP/1.1 and HTTP/1.0."


class Busy(Problem):
    status, code = 503, "busy"
    sentence = "The server has too much to do for this tenant just now. Try again soon."

    def __init__(self, sentence: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(sentence, retry_after_seconds=retry_after_seconds)


class TenantReadOnly(Problem):
    status, code = 503, "tenant_read_only"
    sentence = "This account takes no changes just now; it can be read. Nothing was kept of this; send it again later."

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=60)


class UnderMaintenance(Problem):
    status, code = 503, "maintenance"
    sentence = "This server is under maintenance and takes no changes just now; pulls go on. Send this again later."

    def __init__(self, message: str | None = None) -> None:
        said = f"{self.sentence} {message.rstrip('.')}." if message else None
        super().__init__(said, retry_after_seconds=60)


class Moved(Problem):
    status, code = 503, "moved"
    sentence = (
        "This data has moved to another database, or is about to, and takes no changes here. Nothing was kept of this;"
        " send it again soon."
    )

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=5)


class OutcomeUnknown(Problem):
    status, code = 503, "outcome_unknown"
    sentence = (
        "Whether this was stored is not known: the connection to the database ended as it was. Send the same again soon:"
        " with its opId or Idempotency-Key it is not done twice."
    )

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=1)


class StorageFull(Problem):
    status, code = 507, "storage_full"
    sentence = "The server's disk is full. Nothing of this request was stored."


class StorageNearlyFull(StorageFull):
    """A change that takes more than a tombstone, while there is little room."""

    sentence = (
        "The server's disk is nearly full: it takes deletes alone, and pulls go on. Nothing of this was stored; send it"
        " again later."
    )


def sentences() -> dict[tuple[int, str], str]:
    """Give the message of each error by its status and code."""
    kinds = [Problem]
    for kind in kinds:  # The list grows while it is read.
        kinds += kind.__subclasses__()
    return {(kind.status, kind.code): kind.sentence for kind in reversed(kinds)}


class QuotaExceeded(Problem):
    status, code = 507, "quota_exceeded"
    sentence = (
        "This tenant has stored as much as it may here. Nothing of this request was stored; pulls and deletes go on."
    )


class ErrorBody(TypedDict, total=False):
    """The body of every error, over HTTP and in acknowledgements of events."""

    success: bool
    error: str
    message: str
    code: str
    details: list[Detail]
    requestId: str


def as_body(problem: Problem, request_id: str | None = None) -> ErrorBody:
    """Write the error as clients see it: ``error`` is for sync clients, ``message`` for customer clients."""
    sentence = str(problem)
    body = ErrorBody(success=False, error=sentence, message=sentence, code=problem.code)
    if problem.details:
        body["details"] = problem.details
    if request_id:
        body["requestId"] = request_id
    return body


def as_acknowledgement(problem: Problem) -> dict[str, Any]:
    """Write the error as an acknowledgement, which has no headers to say when to retry."""
    wait = problem.retry_after_seconds
    return dict(as_body(problem)) | ({} if wait is None else {"retryAfterSeconds": wait})
