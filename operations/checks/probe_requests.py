"""Probes what HTTP requests and answers need from a reverse proxy.

Knows: what HTTP clients need, and how to check it from outside. Must not know: sockets, which line of which proxy's
configuration mends what. No probe changes anything.
"""

from __future__ import annotations

import itertools
import ssl
import time

from operations.checks import probe_proxies
from operations.checks.doctor import Finding
from operations.checks.probe_client import Address, NoAnswer, connect, interim_status, request
from operations.checks.probe_target import Deployment, health_of, is_refusal

_READS_ALL = "/api/customers/refresh"
"""An endpoint that reads its whole body and refuses it, without counting an attempt."""

_SENT_BYTES = 5 * 1024 * 1024
_UPLOADS = 4
"""A limit refuses every upload; a broken connection does not recur."""
_SENT_SECONDS = 120.0
_EXPIRES_SOON_SECONDS = 14 * 86_400
_DAY_SECONDS = 86_400
_TRIES = 8
_FORGED = {"X-Forwarded-For": "192.0.2.1"}  # RFC 5737: an address for documentation.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_GZIP = {"Accept-Encoding": "gzip"}


# --- how clients get here --------------------------------------------------------------------------------------------


def certificate(deployment: Deployment) -> Finding | None:
    """Check whether clients can trust the certificate, for two weeks at least."""
    if deployment.certificate_fault:
        incomplete = "unable to get" in deployment.certificate_fault
        remedy = (
            "Give the proxy the whole chain (fullchain.pem)."
            if incomplete
            else "Get one for this name that clients trust."
        )
        return Finding(f"Clients refuse the certificate: {deployment.certificate_fault}.", remedy, refuses=True)
    with connect(deployment.address) as network:
        assert isinstance(network, ssl.SSLSocket)
        until = ssl.cert_time_to_seconds(str((network.getpeercert() or {})["notAfter"]))
    left_seconds = until - time.time()
    if left_seconds > _EXPIRES_SOON_SECONDS:
        return None
    days = int(left_seconds) // _DAY_SECONDS
    return Finding(f"The certificate expires in {days} days.", "Let it be renewed by itself.")


def plain_http(deployment: Deployment) -> Finding | None:
    """Check whether tokens and passwords are sent only encrypted."""
    address = deployment.address
    if address.scheme == "http":
        return Finding(
            "Tokens and passwords are sent unencrypted.", f"Let the proxy terminate TLS ({probe_proxies.DOC}, TLS)."
        )
    plain = Address("http", address.host, 80)
    try:
        answers = address.port == 443 and request(plain, "GET", "/health", seconds=5)
    except NoAnswer:
        return None
    if answers and isinstance(answers.json, dict) and "version" in answers.json:
        return Finding(
            f"{plain.origin} is served too: tokens and passwords may be sent unencrypted.",
            "Let the proxy redirect it to https, or close the port.",
        )
    return None


# --- what requests need ----------------------------------------------------------------------------------------------


def large_bodies(deployment: Deployment) -> Finding | None:
    """Check whether a body of 5 MiB gets through, and one of the server's limit would."""
    most_bytes = deployment.limits.maxBodyBytes
    start, end = b'{"refreshToken": "none", "padding": "', b'"}'
    filler = min(_SENT_BYTES, most_bytes) - len(start) - len(end)
    body = start + b"x" * filler + end
    faults = (_large_body_fault(deployment.address, body) for _ in range(_UPLOADS))
    refused = list(itertools.takewhile(bool, faults))
    if len(refused) == _UPLOADS:
        return deployment.finding(f"A body of {_mib(len(body))} does not get through: {refused[-1]}", "body")
    if interim_status(deployment.address, _READS_ALL, most_bytes) == 413:
        return deployment.finding(
            f"A body of {_mib(most_bytes)}, which the server would take, is answered 413.", "body"
        )
    return None


def _large_body_fault(address: Address, body: bytes) -> str:
    try:
        answer = request(address, "POST", _READS_ALL, body, {"Content-Type": "application/json"}, _SENT_SECONDS)
    except NoAnswer as error:
        return str(error)
    return "" if is_refusal(answer, 401) else f"it is answered {answer.status}."


def host(deployment: Deployment) -> Finding | None:
    """Check whether the Host header arrives as it was sent, so that the deployment's own pages may call."""
    origin = deployment.address.origin
    answer = request(deployment.address, "GET", "/health", headers={"Origin": origin})
    if answer.headers.get("access-control-allow-origin") == origin:
        return None
    sent = deployment.address.netloc
    return deployment.finding(f"The Host header does not arrive as {sent}: pages of {origin} may not call.", "host")


def callers(deployment: Deployment) -> Finding | None:
    """Check whether TRUSTED_PROXIES is the number of proxies that forward the caller's address."""
    plain, forged = health_of(deployment).forwardedFor, health_of(deployment, _FORGED).forwardedFor
    if plain is None or forged is None:
        return Finding("This server is of an older version, which does not say.", "Check TRUSTED_PROXIES yourself.")
    addresses, trusted = plain.addresses, plain.trusted
    if addresses == trusted and (addresses or not deployment.proxy):
        return None
    if addresses:
        harm = (
            "all callers share one rate limit"
            if addresses > trusted
            else "callers choose by which address they are limited"
        )
        sentence = f"Proxies put {addresses} in X-Forwarded-For, and TRUSTED_PROXIES is {trusted}: {harm}."
        return Finding(sentence, f"Set TRUSTED_PROXIES={addresses}.", refuses=True)
    passes = ", and passes on what callers say of themselves" if forged.addresses else ""
    return deployment.finding(f"The proxy does not forward the caller's address (X-Forwarded-For){passes}.", "address")


def authorization(deployment: Deployment) -> Finding | None:
    """Check whether the Authorization header arrives."""
    answer = request(deployment.address, "GET", "/api/customers/me", headers={"Authorization": "Bearer none"})
    if is_refusal(answer, 401) and "invalid_token" in answer.headers.get("www-authenticate", ""):
        return None
    return deployment.finding("The Authorization header is lost: no token is ever seen.", "authorization")


def methods(deployment: Deployment) -> Finding | None:
    """Check whether PATCH and DELETE get through."""
    answers = {one: request(deployment.address, one, "/api/customers/me") for one in ("PATCH", "DELETE")}
    lost = [f"{one} is answered {answer.status}" for one, answer in answers.items() if not is_refusal(answer, 401)]
    return deployment.finding(f"{' and '.join(lost)}.", "methods") if lost else None


def error_answers(deployment: Deployment) -> Finding | None:
    """Check whether the server's own error answers get through."""
    answer = request(deployment.address, "GET", "/api/none-of-this-name")
    if is_refusal(answer, 404):
        return None
    return deployment.finding("Error answers are replaced by pages of the proxy: apps can't read the reason.", "errors")


# --- what answers need -----------------------------------------------------------------------------------------------


def compression(deployment: Deployment) -> Finding | None:
    """Check whether answers come compressed to those who ask for it."""
    answer = request(deployment.address, "GET", "/openapi.json", headers=_GZIP)
    if answer.json is None:
        return deployment.finding(f"A compressed answer arrives broken (status {answer.status}).", "compression")
    if answer.headers.get("content-encoding") != "gzip":
        return deployment.finding("Answers come uncompressed: pulls take longer.", "compression", breaks=False)
    return None


def streamed(deployment: Deployment) -> Finding | None:
    """Check whether answers are passed on while they are made."""
    if not all(_is_measured(deployment) for _ in range(_TRIES)):
        return None
    return deployment.finding("Answers are held back until they are whole: large pulls wait.", "stream", breaks=False)


def _is_measured(deployment: Deployment) -> bool:
    """Tell whether a compressed answer came with its length, which the server does not send.

    A proxy that streams may by chance have the whole answer.
    """
    headers = request(deployment.address, "GET", "/openapi.json", headers=_GZIP).headers
    return "content-length" in headers and headers.get("content-encoding") == "gzip"


def caches(deployment: Deployment) -> Finding | None:
    """Check whether each request gets an answer of its own."""
    answers = [request(deployment.address, "GET", "/health") for _ in range(2)]
    names = {answer.headers.get("x-request-id", object()) for answer in answers}  # The server gives each its own.
    return deployment.finding("Answers come from a cache.", "cache") if len(names) == 1 else None


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1_048_576:g} MiB"
