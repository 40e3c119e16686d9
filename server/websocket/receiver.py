"""How packets of sockets come in: without binary, within the quotas of socket and tenant, when the tenant is scheduled.

Knows: how Engine.IO hands a message over, quotas and scheduling. Must not know: what an event does, who listens, how an
answer looks.
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
_ANNOUNCED = re.compile(r"5([1-9][0-9]{0,2})-", re.ASCII)
"""An event with binary, and how many messages of it follow. Source: Socket.IO protocol 5, "Packet encoding"."""

_refused: ContextVar[Problem | None] = ContextVar("refused", default=None)
"""Why the packet that is being taken must not be obeyed."""


class Intake:
    """Stands before the library's own taking of messages."""

    def __init__(
        self,
        engine: Any,
        quotas: Quotas,
        tenant_of: Callable[[str], str | None],
        is_slow: Callable[[Any], bool],
        close: Callable[[str], None],
        end_flood: Callable[[str, Problem], None],
    ) -> None:
        """``tenant_of`` tells whose a socket is, None before it has authenticated; ``is_slow`` whether much waits for it;
        ``close`` ends one without a word, ``end_flood`` one that went on and on after it was refused."""
        self._quotas, self._tenant_of, self._is_slow = quotas, tenant_of, is_slow
        self._close, self._end_flood = close, end_flood
        self._engine = engine
        self._attachments: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        """By socket, how many binary messages still belong to an event that was refused for them."""
        self._take_message = engine.handlers["message"]
        engine.handlers["message"] = self._take

    def _take(self, engine_id: str, data: str | bytes) -> None:
        """Take a packet; binary is dropped that an event announced, which is refused for it, and none other is taken."""
        if not self._is_wanted(engine_id):
            return
        left = self._left_of(engine_id) if self._attachments else 0
        if isinstance(data, bytes):
            self._drop(engine_id, left, data)
        elif not isinstance(data, str):  # The library has read it as JSON.
            self._close(engine_id)
        elif data[:1] not in _BINARY:
            self._take_within_budget(engine_id, data)
        elif announced := _ANNOUNCED.match(data):
            self._expect(engine_id, int(announced[1]))
            self._take_within_budget(engine_id, data)
        else:
            self._close(engine_id)

    def _is_wanted(self, engine_id: str) -> bool:
        """Wait while the answers to what came before pile up; tell whether the socket is still open then.

        So what a client sends in one burst does not make it a listener that fell behind.
        """
        socket = self._engine.sockets.get(engine_id)
        if socket and self._is_slow(socket):
            socket.queue.wait_while(lambda: self._is_slow(socket))
        return bool(socket and not socket.closed)

    def _left_of(self, engine_id: str) -> int:
        """Take how many binary messages a socket has still to send; any other packet ends them."""
        socket = self._engine.sockets.get(engine_id)
        return self._attachments.pop(socket, 0) if socket else 0

    def _expect(self, engine_id: str, count: int) -> None:
        socket = self._engine.sockets.get(engine_id)
        if socket and count:
            self._attachments[socket] = count

    def _drop(self, engine_id: str, left: int, data: bytes) -> None:
        if left:
            self._expect(engine_id, left - 1)
            gevent.sleep(self._quotas.pause_seconds(engine_id, len(data)))
        else:
            self._close(engine_id)

    def _take_within_budget(self, engine_id: str, data: str) -> None:
        pause_seconds = self._quotas.pause_seconds(engine_id, len(data))
        if pause_seconds:
            gevent.sleep(pause_seconds)  # The rest waits in its own network.
        try:
            self._quotas.check_event(engine_id)
            reservation = self._enter(engine_id, len(data))
        except Problem as problem:
            return self._take_refused(engine_id, data, problem)
        try:
            with reservation.exclusive() if reservation else nullcontext():
                self._obey(engine_id, data)
        finally:
            if reservation:
                reservation.release()
        return None

    def _enter(self, engine_id: str, size_bytes: int) -> Reservation | None:
        """Wait for the turn of whose packet it is; all sockets that have not authenticated share one, and are nobody's."""
        tenant_id = self._tenant_of(engine_id)
        if tenant_id is None:
            self._quotas.scheduler.wait_turn("")
            return None
        return self._quotas.reserve(tenant_id, size_bytes)

    def _take_refused(self, engine_id: str, data: str, problem: Problem) -> None:
        """Have an event's acknowledgement say why it was not done; end a socket that goes on and on."""
        if self._quotas.is_flood(engine_id):
            return self._end_flood(engine_id, problem)
        token = _refused.set(problem)
        try:
            self._obey(engine_id, data)
        finally:
            _refused.reset(token)

    def _obey(self, engine_id: str, data: str) -> None:
        """Do what a packet says; one that is none ends its socket, as the protocol wants.

        The library would go on as if nothing had come. Source: Socket.IO protocol 5, "Sending and receiving data".
        """
        try:
            self._take_message(engine_id, data)
        except ValueError as error:
            log.info("a socket sent what is no packet and was ended", extra={"reason": type(error).__name__})
            self._close(engine_id)
        except Exception:
            log.exception("taking a packet failed")
            self._close(engine_id)


def check_not_refused() -> None:
    """Raises: the problem for which the packet that is being taken must not be obeyed."""
    problem = _refused.get()
    if problem:
        raise problem
