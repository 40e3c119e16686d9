"""How packets of sockets come in: no binary, within the budgets of socket and tenant, when it is the tenant's turn.

Knows: how Engine.IO hands a message over, budgets and turns. Must not know: what an event does, who listens, how an answer
looks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import gevent

from budgets import Budgets, Visit
from errors import Problem

_refused: ContextVar[Problem | None] = ContextVar("refused", default=None)
"""Why the packet that is being taken must not be obeyed."""


class Intake:
    """Stands before the library's own taking of messages."""

    def __init__(
        self,
        engine: Any,
        budgets: Budgets,
        tenant_of: Callable[[str], str | None],
        close: Callable[[str], None],
        end_flood: Callable[[str, Problem], None],
    ) -> None:
        """``tenant_of`` tells whose a socket is, None before it has authenticated; ``close`` ends one without a word,
        ``end_flood`` one that went on and on after it was refused."""
        self._budgets, self._tenant_of, self._close, self._end_flood = budgets, tenant_of, close, end_flood
        self._take_message = engine.handlers["message"]
        engine.handlers["message"] = self._take

    def _take(self, engine_id: str, data: object) -> None:
        """Take a packet, unless it is or announces binary: no event here has any, and the library would collect it all."""
        if isinstance(data, str) and data[:1] not in ("5", "6"):
            self._take_within_budget(engine_id, data)
        else:
            self._close(engine_id)

    def _take_within_budget(self, engine_id: str, data: str) -> None:
        pause_seconds = self._budgets.pause_seconds(engine_id, len(data))
        if pause_seconds:
            gevent.sleep(pause_seconds)  # The rest waits in its own network.
        try:
            self._budgets.check_event(engine_id)
            visit = self._enter(engine_id, len(data))
        except Problem as problem:
            return self._take_refused(engine_id, data, problem)
        try:
            with visit.alone() if visit else nullcontext():
                self._take_message(engine_id, data)
        finally:
            if visit:
                visit.leave()
        return None

    def _enter(self, engine_id: str, size_bytes: int) -> Visit | None:
        """Wait for the turn of whose packet it is; all sockets that have not authenticated share one, and are nobody's."""
        tenant_id = self._tenant_of(engine_id)
        if tenant_id is None:
            self._budgets.turns.take("")
            return None
        return self._budgets.enter(tenant_id, size_bytes)

    def _take_refused(self, engine_id: str, data: str, problem: Problem) -> None:
        """Have an event's acknowledgement say why it was not done; end a socket that goes on and on."""
        if self._budgets.is_flood(engine_id):
            return self._end_flood(engine_id, problem)
        token = _refused.set(problem)
        try:
            self._take_message(engine_id, data)
        finally:
            _refused.reset(token)


def check_not_refused() -> None:
    """Raises: the problem for which the packet that is being taken must not be obeyed."""
    problem = _refused.get()
    if problem:
        raise problem
