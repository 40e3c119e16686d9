"""Takes a tenant back to a moment of its history in the console: first what would change, then the change.

Knows: that nothing is done but what was shown. Must not know: how a moment is found or compared, SQL, engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.customers import customer_of
from api.admin.json_fields import text_of, whole_of
from api.admin.server_parts import ServerParts
from protocol.codec import format_time
from protocol.errors import ValidationError
from server.http.exchange import Reply, answer, read_object
from storage.main_database import Customer
from storage.moments import Moment, NoMoment, Preview
from storage.positions import now_ms
from storage.time_machine import TimeMachine

_PAGE_ROWS = 50


class Rewinding:
    """The calls about moments of a tenant."""

    def __init__(self, server: ServerParts) -> None:
        self._server, self._engine = server, server.tenants.engine

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/tenants/<tenant_id>/moments", self.moments
        yield "POST", "/api/tenants/<tenant_id>/rewind/preview", self.preview
        yield "POST", "/api/tenants/<tenant_id>/rewind/rows", self.rows
        yield "POST", "/api/tenants/<tenant_id>/rewind", self.rewind

    def moments(self, operator: Operator, tenant_id: str) -> Reply:
        """Tell from which moment on each can be gone back to."""
        machine = self._machine(operator, customer_of(self._server, tenant_id))
        return answer({"since": _shown(machine.known_since())})

    def preview(self, operator: Operator, tenant_id: str) -> Reply:
        """Count the rows that would change, by table; none of them is shown."""
        machine = self._machine(operator, customer_of(self._server, tenant_id))
        found = _previewed(machine, read_object())
        return answer({"to": _shown(found.moment), "seen": found.here.cursor, "tables": found.counts})

    def rows(self, operator: Operator, tenant_id: str) -> Reply:
        """Show rows that would change, with what of them; the record has that somebody looked."""
        customer, body = customer_of(self._server, tenant_id), read_object()
        machine, first = self._machine(operator, customer), whole_of(body, "first", 0)
        found = _as_seen(machine, body)
        machine.record("show-rows", f"that differ from change {found.moment.sequence}")
        return answer({"rows": machine.rows(found, first, _PAGE_ROWS), "hasMore": first + _PAGE_ROWS < len(found.rows)})

    def rewind(self, operator: Operator, tenant_id: str) -> Reply:
        """Make the rows what they were, as a new change that listeners hear of; the time machine records it."""
        customer, body = customer_of(self._server, tenant_id), read_object()
        machine = self._machine(operator, customer)
        found = _as_seen(machine, body)
        with _told():  # It may be restored between the two.
            done = machine.apply(found, partial(self._server.sockets.announce, customer.id))
        left = f" {done.left} changed meanwhile and were left: look again what differs." if done.left else ""
        return answer({"message": f"Rows written: {done.rows}, as changes {done.first} to {done.last}.{left}"})

    def _machine(self, operator: Operator, customer: Customer) -> TimeMachine:
        return TimeMachine(self._engine, customer.id, operator.name)


def _previewed(machine: TimeMachine, body: dict[str, Any]) -> Preview:
    """Compare now with the moment that a body names, in all tables or in one.

    Raises: ValidationError.
    """
    table = body.get("table")
    tables = [text_of(body, "table")] if table else []
    with _told():
        return machine.preview(machine.moment(text_of(body, "to"), now_ms()), tables)


@contextmanager
def _told() -> Iterator[None]:
    """Say which moment there is none of, and what to do."""
    try:
        yield
    except NoMoment as error:
        hint = " A backup from before may have it: use rewind --from, or --backup." if error.is_removed else ""
        raise ValidationError(f"{error}{hint}") from None


def _as_seen(machine: TimeMachine, body: dict[str, Any]) -> Preview:
    """Compare again, and refuse it if there were changes or a restore since somebody looked: nobody saw what is lost.

    Raises: ValidationError.
    """
    found = _previewed(machine, body)
    if found.here.cursor != text_of(body, "seen"):
        raise ValidationError("The tenant was changed since you looked. Look again what would change.")
    return found


def _shown(moment: Moment) -> dict[str, Any]:
    return {
        "change": moment.sequence,
        "at": format_time(moment.at) if moment.at else None,
        "restoredAt": format_time(moment.restored_at) if moment.restored_at else None,
    }
