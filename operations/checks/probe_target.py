"""Finds a syncapp at an address, or says what is there instead.

Knows: how to recognise a syncapp. Must not know: what a proxy may break.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from operations.checks import probe_proxies
from operations.checks.doctor import Finding
from operations.checks.probe_client import Address, Answer, NoAnswer, request


class NoDeployment(Exception):
    """There is no syncapp at the address; its text says what is there instead."""


class ForwardedFor(msgspec.Struct):
    """What a server says about the X-Forwarded-For of a request."""

    addresses: int
    trusted: int


class Health(msgspec.Struct):
    """The fields of ``/health`` that are used; an older server has no ``forwardedFor``."""

    status: str
    version: str
    forwardedFor: ForwardedFor | None = None


class Limits(msgspec.Struct):
    """The fields of ``/api/limits`` that are used."""

    maxBodyBytes: int
    socketAuthSeconds: int


_Answered = TypeVar("_Answered", Health, Limits)


@dataclass(frozen=True)
class Deployment:
    """A deployment that answered: its address, proxy, health and limits; and a token for it, if the operator gave one."""

    address: Address
    proxy: str | None
    health: Health
    limits: Limits
    certificate_fault: str = ""
    token: str = ""

    def finding(self, sentence: str, fault: str, *, breaks: bool = True) -> Finding:
        """Make a finding whose remedy is a line of the proxy's configuration."""
        return Finding(sentence, probe_proxies.remedy(self.proxy, fault), refuses=breaks)


def parse_address(url: str) -> Address:
    """Parse the address of a deployment.

    Raises: ValueError, with a message.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("The address has characters that none has; write a name in its ASCII form (xn--).")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("The address must begin with http:// or https://, as https://api.example.com does.")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("The address must be that of the whole server, with nothing behind the host and its port.")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError(f"{printable(parts.hostname)} can't be the name of a host.") from None
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
    return Address(parts.scheme, parts.hostname, port)


def find_deployment(address: Address, token: str = "") -> Deployment:
    """Find a syncapp at an address.

    Raises: NoDeployment.
    """
    fault = ""
    try:
        try:
            answer = request(address, "GET", "/health")
        except ssl.SSLCertVerificationError as error:
            address, fault = replace(address, is_verified=False), error.verify_message
            answer = request(address, "GET", "/health")
        health = _convert(answer.json, Health)
        body = request(address, "GET", "/api/limits").json if health else None
        limits = _convert(body.get("data") if isinstance(body, dict) else None, Limits)
    except NoAnswer as error:
        raise NoDeployment(str(error)) from None
    if health is None or limits is None:
        raise NoDeployment(_what_answers(address, answer))
    return Deployment(address, probe_proxies.identify_proxy(answer.headers), health, limits, fault, token)


def health_of(deployment: Deployment, headers: Mapping[str, str] | None = None) -> Health:
    """Read a deployment's health.

    Raises: NoAnswer, also if something else answers.
    """
    health = _convert(request(deployment.address, "GET", "/health", headers=headers).json, Health)
    if health is None:
        raise NoAnswer("what answers is sometimes syncapp and sometimes not.")
    return health


def is_refusal(answer: Answer, status: int) -> bool:
    """Tell whether an answer is one of syncapp's own errors."""
    return answer.status == status and isinstance(answer.json, dict) and "requestId" in answer.json


def _convert(body: Any, kind: type[_Answered]) -> _Answered | None:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError:
        return None


def _what_answers(address: Address, answer: Answer) -> str:
    """Say what answers in place of a syncapp."""
    where, proxy = f"{address.origin}/health", probe_proxies.identify_proxy(answer.headers) or "A proxy"
    if 300 <= answer.status < 400 and "location" in answer.headers:
        target = printable(answer.headers["location"])
        return f"{where} redirects to {target}: give doctor, and clients, that address."
    if answer.status in (502, 503, 504):
        return (
            f"{proxy} answers {answer.status} at {where}: it can't reach syncapp. Does syncapp run, and does the proxy"
            " know its address and port?"
        )
    if answer.status in (401, 403, 407):
        return f"{where} answers {answer.status}, before syncapp is asked: the proxy must let everybody through."
    kind = answer.headers.get("content-type", "nothing that is named").partition(";")[0]
    hint = " Is it an address of https:// ?" if (address.scheme, answer.status) == ("http", 400) else ""
    return f"There is no syncapp at {address.origin}: /health answers {answer.status} with {printable(kind)}.{hint}"


def printable(text: str) -> str:
    """Make a text of a stranger's fit for a terminal: at most 200 characters, without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])
