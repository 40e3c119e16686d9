"""Probes what sockets need from a reverse proxy: WebSockets, long polling, long time-outs.

Knows: how a Socket.IO client connects. Must not know: requests of the API, which line of which proxy's configuration mends
what. Sockets are unauthenticated unless the operator gave a token; they send nothing to other clients.
"""

from __future__ import annotations

import json
import re
import ssl
import time

import gevent

from operations.checks.doctor import Finding
from operations.checks.probe_client import (
    Address,
    Answer,
    AnswerTimeout,
    HandshakeRefused,
    NoAnswer,
    WebSocket,
    parse_json,
    request,
)
from operations.checks.probe_target import Deployment, is_refusal

_WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
_POLLING = "/socket.io/?EIO=4&transport=polling"
_EVENT = b'420["ping"]'
_SEPARATOR = b"\x1e"
_MAX_IDLE_SECONDS = 15.0
_MAX_PING_MILLISECONDS = 3_600_000
_LATE_SECONDS = 5


def upgrade(deployment: Deployment) -> Finding | None:
    """Check whether a WebSocket opens and carries messages both ways."""
    try:
        opened = WebSocket(deployment.address, _WEBSOCKET)
    except HandshakeRefused as refused:
        if is_refusal(refused.answer, 503):
            return Finding("The server has no room for sockets just now.", "Try again later.")
        fault = f"No WebSocket opens: the handshake is answered {refused.answer.status}. Listeners must poll."
        return deployment.finding(fault, "upgrade")
    except NoAnswer as error:
        return deployment.finding(f"No WebSocket opens: {error} Listeners must poll.", "upgrade")
    try:
        first = opened.receive()
        opened.send("40")
        if (first or "").startswith("0") and (opened.receive() or "").startswith("4"):
            return None
    except NoAnswer:
        pass
    finally:
        opened.close()
    return deployment.finding("A WebSocket opens, but messages do not get through.", "upgrade")


def polling(deployment: Deployment) -> Finding | None:
    """Check whether a waiting poll is answered as soon as there is a message.

    Source: Engine.IO protocol 4, "HTTP long-polling"; Socket.IO protocol 5.
    """
    opened = request(deployment.address, "GET", _POLLING)
    sid = session_of(opened.body)
    if not sid:
        return deployment.finding(f"No polling session starts: status {opened.status}.", "polling")
    path = f"{_POLLING}&sid={sid}"
    try:
        fault = _polling_fault(deployment.address, path)
    finally:
        _poll(deployment.address, "POST", path, b"1")
    return deployment.finding(fault, "polling") if fault else None


def session_of(body: bytes) -> str:
    """Give the session of an Engine.IO handshake; an empty text if the body of the answer is none."""
    handshake = parse_json(body[1:]) if body.startswith(b"0{") else None
    sid = handshake.get("sid") if isinstance(handshake, dict) else None
    return sid if isinstance(sid, str) and re.fullmatch(r"[\w-]{1,100}", sid) else ""


def _polling_fault(address: Address, path: str) -> str:
    joined = _poll(address, "POST", path, b"40")
    if joined and joined.status == 200:
        joined = _poll(address, "GET", path)
    if joined is None or joined.status != 200:
        what = f"answered {joined.status}" if joined else "not answered"
        return f"A poll of a session that has begun is {what}: do all requests reach the same server?"
    pending = gevent.spawn(_poll, address, "GET", path)
    _poll(address, "POST", path, _EVENT)
    answer = pending.get()
    if answer and any(packet.startswith(b"4") for packet in answer.body.split(_SEPARATOR)):
        return ""
    return "A poll that waits is not answered when there is a message."


def _poll(address: Address, method: str, path: str, body: bytes = b"") -> Answer | None:
    try:
        return request(address, method, path, body)
    except (NoAnswer, ssl.SSLCertVerificationError):
        return None


def idle(deployment: Deployment) -> Finding | None:
    """Check whether an idle socket stays open: until it must authenticate, with a token until its ping."""
    try:
        opened = WebSocket(deployment.address, _WEBSOCKET)
    except (HandshakeRefused, NoAnswer):
        return Finding(
            "No WebSocket opens: whether an idle one stays open can't be checked.", "Try again when one does."
        )
    began = time.monotonic()
    try:
        seconds, refusal = _wait_idle(opened, deployment)
    except AnswerTimeout:
        return None  # It is still open.
    finally:
        opened.close()
    lasted = time.monotonic() - began
    if refusal or lasted >= seconds - 1:
        return refusal
    return deployment.finding(f"An idle socket is cut after {lasted:.0f} s, before the server would ping.", "idle")


def _wait_idle(opened: WebSocket, deployment: Deployment) -> tuple[float, Finding | None]:
    """Wait until a socket is closed or pinged; give how long it should stay open at least.

    Raises: AnswerTimeout if it stays open longer.
    """
    if deployment.token:
        opened.send("40" + json.dumps({"token": deployment.token}))
    seconds = _MAX_IDLE_SECONDS if deployment.token else min(deployment.limits.socketAuthSeconds, _MAX_IDLE_SECONDS)
    while (message := opened.receive(seconds + _LATE_SECONDS)) is not None:
        if message.startswith("0{") and deployment.token:
            seconds = ping_seconds(message[1:])
        if "authentication_error" in message:
            return 0, Finding("The server refuses the token.", "Log in again.", refuses=True)
        if message == "2":
            return 0, None
    return seconds, None


def ping_seconds(handshake: str) -> float:
    """Give the time until a server's first ping, as its handshake says; a usual time if it does not."""
    said = parse_json(handshake)
    milliseconds = said.get("pingInterval") if isinstance(said, dict) else None
    if isinstance(milliseconds, int | float) and 0 < milliseconds <= _MAX_PING_MILLISECONDS:
        return milliseconds / 1_000
    return _MAX_IDLE_SECONDS
