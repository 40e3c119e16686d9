"""Receives the packets of sockets: without binary, within the quotas of socket and tenant, when the tenant is scheduled.

Knows: Engine.IO's message handler, quotas and scheduling. Must not know: what an event does, who listens, how an answer
looks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import gevent

from protocol.errors import Problem
from server.quotas import Quotas, Reservation

log = logging.getLogger("syncapp.socket")

_BINARY = ("5", "6")
_BINARY_EVENT = re.compile(r"5([1-9][0-9]{0,2})-", re.ASCII)
"""An event with binary attachments, and their number. Source: Socket.IO protocol 5, "Packet encoding"."""

_refused: ContextVar[Problem | None] = ContextVar("refused", default=None)
"""Why the packet that is being handled is refused."""


class Receiver:
    """Receives messages before the library's own handler."""

    def __init__(
        self,
        engine: Any,
        quotas: Quotas,
        tenant_of: Callable[[str], str | None],
        is_slow: Callable[[Any], bool],
        close: Callable[[str], None],
        close_flooding: Callable[[str, Problem], None],
    ) -> None:
        """``tenant_of`` returns a socket's tenant, None before it has authenticated; ``is_slow`` whether its queue is long;
        ``close`` closes one silently, ``close_flooding`` one that keeps sending after it was refused."""
        self._quotas, self._tenant_of, self._is_slow = quotas, tenant_of, is_slow
        self._close, self._close_flooding = close, close_flooding
        self._engine = engine
        self._attachments: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        """By socket, how many binary attachments of a refused event are still to come."""
        self._handle_message = engine.handlers["message"]
        engine.handlers["message"] = self._receive

    def _receive(self, engine_id: str, data: str | bytes) -> None:
        """Receive a packet; an event with attachments is refused and they are dropped, other binary closes the socket."""
        if not self._wait_until_drained(engine_id):
            return
        left = self._pop_attachments(engine_id) if self._attachments else 0
        if isinstance(data, bytes):
            self._drop_binary(engine_id, left, data)
        elif not isinstance(data, str):  # The library has decoded it as JSON.
            self._close(engine_id)
        elif data[:1] not in _BINARY:
            self._receive_within_quotas(engine_id, data)
        elif attachments := _BINARY_EVENT.match(data):
            self._expect_attachments(engine_id, int(attachments[1]))
            self._receive_within_quotas(engine_id, data)
        else:
            self._close(engine_id)

    def _wait_until_drained(self, engine_id: str) -> bool:
        """Wait while the socket's queue is long; tell whether it is still open then.

        So the answers to a burst of events do not make their client a listener that fell behind.
        """
        socket = self._engine.sockets.get(engine_id)
        if socket and self._is_slow(socket):
            socket.queue.wait_while(lambda: self._is_slow(socket))
        return bool(socket and not socket.closed)

    def _pop_attachments(self, engine_id: str) -> int:
        """Return how many attachments are still to come; any packet but one of them resets that."""
        socket = self._engine.sockets.get(engine_id)
        return self._attachments.pop(socket, 0) if socket else 0

    def _expect_attachments(self, engine_id: str, count: int) -> None:
        socket = self._engine.sockets.get(engine_id)
        if socket and count:
            self._attachments[socket] = count

    def _drop_binary(self, engine_id: str, left: int, data: bytes) -> None:
        if left:
            self._expect_attachments(engine_id, left - 1)
            gevent.sleep(self._quotas.pause_seconds(engine_id, len(data)))
        else:
            self._close(engine_id)

    def _receive_within_quotas(self, engine_id: str, data: str) -> None:
        pause_seconds = self._quotas.pause_seconds(engine_id, len(data))
        if pause_seconds:
            gevent.sleep(pause_seconds)  # Further bytes wait in the socket's buffer.
        try:
            self._quotas.check_event(engine_id)
            reservation = self._reserve(engine_id, data)
        except Problem as problem:
            return self._answer_refused(engine_id, data, problem)
        try:
            with reservation.exclusive() if reservation else nullcontext():
                self._handle(engine_id, data)
        finally:
            if reservation:
                reservation.release()
        return None

    def _reserve(self, engine_id: str, data: str) -> Reservation | None:
        """Wait until the packet's tenant is scheduled; all unauthenticated sockets are scheduled as one."""
        tenant_id = self._tenant_of(engine_id)
        if tenant_id is None:
            self._quotas.scheduler.wait_turn("")
            return None
        reservation = self._quotas.reserve(tenant_id, len(data))
        sent_bytes = len(data) if data.isascii() else len(data.encode())
        self._quotas.usage.of(tenant_id).bytes_in += sent_bytes + 1  # Engine.IO's type was before it.
        return reservation

    def _answer_refused(self, engine_id: str, data: str, problem: Problem) -> None:
        """Acknowledge an event with the reason of its refusal; close a socket that keeps sending."""
        if self._quotas.is_flood(engine_id):
            return self._close_flooding(engine_id, problem)
        token = _refused.set(problem)
        try:
            self._handle(engine_id, data)
        finally:
            _refused.reset(token)

    def _handle(self, engine_id: str, data: str) -> None:
        """Pass a packet on; a malformed one closes its socket, as the protocol says.

        The library would ignore it. Source: Socket.IO protocol 5, "Sending and receiving data".
        """
        try:
            self._handle_message(engine_id, data)
        except ValueError as error:
            log.info("a socket sent a malformed packet and was closed", extra={"reason": type(error).__name__})
            self._close(engine_id)
        except Exception:
            log.exception("handling a packet failed")
            self._close(engine_id)


def check_not_refused() -> None:
    """Raise the problem for which the packet that is being handled is refused."""
    problem = _refused.get()
    if problem:
        raise problem
