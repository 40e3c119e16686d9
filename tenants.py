"""The customers' tenants: accounts and their databases, which come and go together.

Knows: in which order the directory and the storage engine are changed. Must not know: requests, sockets, tokens, the
rules of sync, which engine it is, where it keeps anything.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from protocol.errors import EmailTaken, InvalidTenantId
from protocol.messages import Position
from storage import main_database
from storage.declarations import compatibility
from storage.engine import Engine
from storage.look_ahead import Wanted
from storage.positions import POSITION

T = TypeVar("T")
log = logging.getLogger("syncapp.tenants")


def parse_tenant_id(text: object) -> str:
    """Read a tenant ID in the form that tokens and the directory have.

    Raises: InvalidTenantId unless it is a UUID, with or without dashes.
    """
    try:
        if not isinstance(text, str) or len(text) not in (32, 36):
            raise ValueError
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidTenantId from None


class Tenants:
    """The tenants of one installation."""

    def __init__(self, engine: Engine, retiring: Collection[str] = ()) -> None:
        """Take over an engine; a server has the declared tables accepted, and puts right what a crash left half done.

        ``retiring``: declared tables that are no longer, although there are rows in them.
        Raises: MigrationRefused.
        """
        self.engine, self.directory = engine, engine.directory
        if engine.is_server:
            for difference in compatibility.accept(engine, retiring):  # Before any tenant is touched.
                log.info("tables: %s", difference.sentence)
            for tenant_id in self.directory.read(main_database.unfinished_closings):
                self._finish_closing(tenant_id)
            engine.recover(main_database.customer_ids)

    def read(self, tenant_id: str, query: Callable[[], T]) -> T:
        """Run a query bound to a tenant (see ``engine.Database.read``).

        Raises: TenantNotFound.
        """
        return self.engine.tenant(tenant_id).read(query)

    def positions(self, tenant_ids: Iterable[str]) -> dict[str, Position]:
        """Give the position of each tenant that is there.

        Raises: Busy.
        """
        found = self.engine.ask_each(tenant_ids, [POSITION])
        return {tenant_id: Position(*rows[0]) for tenant_id, (rows,) in found.items()}

    def write(
        self,
        tenant_id: str,
        work: Callable[[], T],
        after: Callable[[T], None] | None = None,
        *,
        is_alone: bool = False,
        ahead: Callable[[], Wanted] | None = None,
    ) -> T:
        """Run ``work`` bound to a tenant in a transaction, and ``after`` once that is on disk (``engine.Database.write``).

        Raises: TenantNotFound, and what ``engine.Database.write`` raises.
        """
        return self.engine.tenant(tenant_id).write(work, after, is_alone=is_alone, ahead=ahead)

    def provision(self, customer: main_database.Customer) -> None:
        """Create a customer and its database, both or neither.

        Raises: EmailTaken.
        """

        def insert() -> None:
            """Add the customer to the directory, unless the address is taken."""
            if main_database.id_by_email(customer.email):
                raise EmailTaken
            main_database.add_customer(customer)

        self.engine.create(customer.id, insert)

    def close_account(self, customer_id: str, proven: str | None = None) -> list[str]:
        """Remove a customer and its database; return the sessions that end. What a crash leaves, the next start does.

        Raises: InvalidCredentials if ``proven``, the hash that its password was compared with, is not its hash any more.
        """
        sessions = self.directory.write(lambda: main_database.remove_customer(customer_id, proven))
        self._finish_closing(customer_id)
        return sessions

    def _finish_closing(self, tenant_id: str) -> None:
        self.engine.remove(tenant_id)
        self.directory.write(lambda: main_database.finish_closing(tenant_id, int(time.time())))

    def close(self) -> None:
        """End the engine, each database when its last write is done."""
        self.engine.close()
