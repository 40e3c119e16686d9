"""The PostgreSQL engine: the tables of an installation in one database, with the rows of all tenants.

Knows: how tenants come and go together with the directory's rows. Must not know: requests, sockets, tokens, the rules of
sync.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import gevent

from models import connection
from protocol.errors import TenantNotFound
from server.bus.bus import Bus
from storage import main_database, positions, schema, tenant_check
from storage.engine import About, Answers, CanNotOpen, Database, NotRestored
from storage.positions import incarnation, now_ms
from storage.postgres import copies, installation, renewals
from storage.postgres.connecting import connect, place_of
from storage.postgres.connection import Connection
from storage.postgres.database import PostgresDatabase
from storage.postgres.notify_bus import NotifyBus
from storage.postgres.pool import Pool
from storage.postgres.shared import Shared
from storage.postgres.start import must_answer
from storage.postgres.transactions import turn_to, turn_to_locked_directory
from storage.system_tables import CommitOrder

T = TypeVar("T")
_MOST_KEPT = 1_000
log = logging.getLogger("syncapp.tenants")
_END_WITH_PEER = (
    b"SELECT set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false),"
    b" set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '15000', false)"
)
"""Has the server notice within half a minute that this machine is gone; else it waits for two hours, with the locks."""


class PostgresEngine:
    """The storage of one installation in a database (see ``storage.engine.Engine``)."""

    def __init__(
        self,
        url: str,
        *,
        connections: int = 5,
        most_waiting: int = 1000,
        wait_seconds: float = 0,
        is_server: bool = True,
        creates: bool = True,
        replaced: Path | None = None,
    ) -> None:
        """Open the directory, and make its tables what this version needs.

        ``connections``: how many this process has at the most. ``wait_seconds``: for how long a server is waited for that
        is not there yet. ``creates``: whether a database without data is begun. ``replaced``: the folder for what restores
        replace.
        Raises: CanNotOpen.
        """
        self.is_server, self.replaced, self._url = is_server, replaced, url
        self._pool = Pool(partial(_connected, url), connections)
        self.attempt_counts = self._shared = Shared(self._pool)
        self._most_waiting = most_waiting
        self._installation = installation.Installation(self._pool, changes=is_server)
        self._open(creates, wait_seconds)
        self.directory = PostgresDatabase(self._pool, None, most_waiting, None)
        self._databases: WeakValueDictionary[str, PostgresDatabase] = WeakValueDictionary()
        self._kept: deque[PostgresDatabase] = deque(maxlen=_MOST_KEPT)
        """So that a tenant's queue and mark live on between requests."""
        self._renewals = self.directory.read(renewals.last)

    def _open(self, creates: bool, wait_seconds: float) -> None:
        try:
            must_answer(self._pool, self._url, wait_seconds)
            self._installation.prepare_directory(creates=creates)
        except BaseException:
            self._pool.close()
            raise

    @property
    def place(self) -> str:
        """Name the database and where it is."""
        return place_of(self._url)

    # --- tenants -----------------------------------------------------------------------------------------------------

    def tenant(self, tenant_id: str) -> PostgresDatabase:
        """Give a tenant's database.

        Raises: TenantNotFound for what can be no ID.
        """
        found = self._databases.get(tenant_id)
        if found is None:
            if not _is_id(tenant_id):
                raise TenantNotFound
            found = PostgresDatabase(self._pool, tenant_id, self._most_waiting, self._installation)
            self._databases[tenant_id] = found
            self._kept.append(found)
        return found

    def ask_each(self, tenant_ids: Iterable[str], statements: Sequence[str]) -> dict[str, Answers]:
        """Ask some tenants, in one trip; each statement is sent as its tenant, whose rows alone are seen."""
        return self.directory.read(partial(_answers_of_each, tenant_ids, statements))

    def tenant_ids(self) -> list[str]:
        """List the customers who have rows here."""
        return self.directory.read(_tenant_ids)

    def fault_of(self, tenant_id: str) -> str | None:
        """Tell whether a customer's rows are not there."""
        return "its rows are missing" if self._epoch_of(tenant_id) is None else None

    def owner_of(self, epoch: str) -> str | None:
        """Tell whose epoch this is."""
        return self.directory.read(partial(renewals.owner_of, epoch))

    def create(self, tenant_id: str, note: Callable[[], object]) -> None:
        """Create an empty tenant and run ``note`` in the directory, in one transaction."""
        self._installation.prepare_tenants()

        def begin() -> None:
            """Do what belongs to it in the directory, and begin the tenant's rows."""
            note()
            sql = connection()
            turn_to(sql, tenant_id)
            schema.begin_tenant(now_ms())
            schema.begin_tables()
            renewals.note(tenant_id)
            turn_to(sql, None)

        self.directory.write(begin)

    def remove(self, tenant_id: str) -> None:
        """Remove a tenant's rows, when its last write is done."""

        def remove() -> None:
            """Remove the tenant's rows and what is kept of it."""
            sql = connection()
            copies.empty(ends=True)
            turn_to(sql, None)
            sql.execute("DELETE FROM tenants WHERE id = ?", (tenant_id,))
            turn_to(sql, tenant_id)

        self.tenant(tenant_id).replace(remove)
        self.forget_replaced(tenant_id, math.inf)

    def recover(self, known: Callable[[], Collection[str]]) -> None:
        """Make the tables of tenants current. What a crash cut off, PostgreSQL has undone."""
        self._installation.prepare_tenants()

    def peek(self, tenant_id: str, query: Callable[[], T]) -> T:
        """Run a query bound to a tenant as it is stored."""
        return self.tenant(tenant_id).peek(query)

    def is_current(self, tenant_id: str) -> bool:
        """Tell whether the tables of tenants are those of this version."""
        return self.peek(tenant_id, schema.is_current)

    def migrate(self, tenant_id: str) -> None:
        """Make the tables of all tenants those of this version."""
        self._installation.prepare_tenants()

    def faults_in(self, tenant_id: str) -> list[str]:
        """Check a tenant's rows against each other and against the directory."""
        noted = self._epoch_of(tenant_id)
        if noted is None:
            return ["its rows are missing"]
        found, here = self.peek(tenant_id, lambda: (tenant_check.faults(), incarnation()))
        is_other = here[0] != noted and noted == self._epoch_of(tenant_id)  # Else it was restored meanwhile.
        return [*found, "its epoch is not the one that the directory knows"] if is_other else found

    def forget_migrated(self, before: float) -> None:
        """Do nothing: all tenants are migrated in one transaction, and nothing is kept of before."""

    def rewrite(self, tenant_id: str | None, work: Callable[[], T]) -> T:
        """Run ``work`` bound to a tenant, which begins with it if need be, or to the directory, also if it moved away."""
        if tenant_id is None:
            return self.directory.replace(work)

        def begun() -> T:
            """Do the work while nobody else writes this tenant."""
            renewals.hold(tenant_id)
            if not CommitOrder.select().exists():
                schema.begin_tenant(now_ms())
            result = work()
            renewals.note(tenant_id)
            return result

        return self.tenant(tenant_id).replace(begun)

    # --- copies ------------------------------------------------------------------------------------------------------

    def copy_to(self, tenant_id: str, file: Path) -> None:
        """Copy a tenant as of one moment into a file of SQLite's; tables of another version stay what they are."""
        self.peek(tenant_id, partial(copies.write, file))

    def copy_directory(self, file: Path) -> None:
        """Copy the directory in the same way."""
        self.directory.read(partial(self._copy_directory, file))

    def _copy_directory(self, file: Path) -> None:
        if not main_database.customer_ids_after("", 1) and renewals.is_any():
            raise CanNotOpen(f"{self.place} knows no customer, but tenants' rows are there: put the customers back.")
        copies.write_directory(file)

    def restore_from(self, tenant_id: str, file: Path) -> str:
        """Put what is in a file of SQLite's in the place of a tenant's rows, under a new epoch, which it returns."""
        return self.lay_ready(tenant_id, copies.copying(file))

    def lay_ready(
        self, tenant_id: str, put: Callable[[Path], object], note: Callable[[], object] = lambda: None
    ) -> str:
        """Restore what ``put`` writes into a file, and run ``note`` in the directory, in one transaction."""
        with copies.opened(put) as source:
            return self.tenant(tenant_id).replace(partial(self._restore, tenant_id, source, note))

    def _restore(self, tenant_id: str, source: Database, note: Callable[[], object]) -> str:
        renewals.hold(tenant_id)
        if self.replaced is not None and CommitOrder.select().exists():
            copies.keep(self.replaced, tenant_id)
        copies.empty(ends=False)
        copies.read(source)
        return self._begin_epoch(tenant_id, note)

    def _begin_epoch(self, tenant_id: str, note: Callable[[], object]) -> str:
        positions.begin_epoch(now_ms())
        renewals.note(tenant_id)
        epoch = incarnation()[0]
        turn_to_locked_directory(connection())
        renewals.tell(tenant_id)
        note()
        return epoch

    def begin_epoch(self, tenant_id: str) -> str:
        """Begin a new epoch on the rows that a tenant has."""

        def begin() -> str:
            """Begin a new epoch, and give it."""
            if not CommitOrder.select().exists():
                raise TenantNotFound
            return self._begin_epoch(tenant_id, lambda: None)

        return self.tenant(tenant_id).replace(begin)

    def wait_until_taken(self, epochs: Mapping[str, str], wait_seconds: float) -> None:
        """Look whether tenants that were restored are still what was restored."""
        lost = [tenant_id for tenant_id, epoch in epochs.items() if self._epoch_of(tenant_id) != epoch]
        if lost:
            raise NotRestored(f"Closed or restored by someone else meanwhile: {', '.join(lost)}.")

    def _epoch_of(self, tenant_id: str) -> str | None:
        return self.directory.read(partial(renewals.epoch_of, tenant_id))

    def forget_replaced(self, tenant_id: str, before: float) -> None:
        """Remove what was kept of a tenant on this machine until ``before``."""
        if self.replaced is not None:
            copies.forget(self.replaced, tenant_id, before)

    def renewed(self) -> list[str]:
        """List the tenants that began a new epoch since this was asked last, by whichever process."""
        self._renewals, found = self.directory.read(partial(renewals.after, self._renewals))
        for tenant_id in found:
            log.warning("tenant %s was restored: it goes on under a new epoch", tenant_id)
        return sorted(found)

    # --- while it runs -----------------------------------------------------------------------------------------------

    def about(self) -> About:
        """Say which server it is, and how many connections the user of DATABASE_URL may have to it."""
        return self.directory.read(_about)

    def maintain(self) -> None:
        """Forget what nobody needs; else PostgreSQL looks after itself."""
        self._shared.forget()

    def lease(self, name: str, seconds: float) -> bool:
        """Take a lease, or renew it, unless another process has it."""
        return self._shared.lease(name, seconds)

    def has_room(self) -> bool:
        """Tell whether the disk has room, as far as is known: a write that finds none says so."""
        return True

    def is_intact(self) -> bool:
        """Tell whether the server could be reached when it was last tried, which is each second at the least."""
        return self._pool.is_reachable

    def kept_secret(self, make: Callable[[], str]) -> str:
        """Give the secret that all processes share, from the directory."""

        def keep() -> str:
            """Keep a new secret, unless another process did so before, and give the one that is kept."""
            sql = connection()
            sql.execute("INSERT INTO secrets (name, secret) VALUES ('signing', ?) ON CONFLICT DO NOTHING", (make(),))
            return str(_secret())

        return self.directory.read(_secret) or self.directory.write(keep)

    def keep_secret(self, secret: str) -> bool:
        """Keep another secret in the place of that."""

        def keep() -> None:
            """Replace it."""
            sql = connection()
            sql.execute("DELETE FROM secrets WHERE name = 'signing'")
            sql.execute("INSERT INTO secrets (name, secret) VALUES ('signing', ?)", (secret,))

        self.rewrite(None, keep)
        return True

    def bus(self, channel: str) -> Bus:
        """Give the bus of this process: over NOTIFY, with a connection more than the pool has."""
        return NotifyBus(self._pool, partial(connect, self._url), channel)

    def give_up_after(self, seconds: float) -> None:
        """Have what waits for a server that does not answer fail, so many seconds from now."""
        gevent.spawn_later(seconds, self._pool.give_up)

    def close(self) -> None:
        """Wait for each database's last write, and close the connections."""
        for database in [*self._databases.values(), self.directory]:
            database.wait()
        self._pool.close()


def _connected(url: str) -> Connection:
    connection = connect(url)
    installation.must_be_fit(connection)
    if connection.has_own_session:  # A pooler lends its sessions to others, too.
        connection.send(_END_WITH_PEER)
        connection.end_batch()  # Else a ROLLBACK would undo it.
    return connection


def _is_id(tenant_id: str) -> bool:
    try:
        return str(uuid.UUID(tenant_id)) == tenant_id
    except ValueError:
        return False


def _answers_of_each(tenant_ids: Iterable[str], statements: Sequence[str]) -> dict[str, Answers]:
    sql, asked = connection(), {}
    for tenant_id in tenant_ids:
        turn_to(sql, tenant_id)
        asked[tenant_id] = [sql.execute(statement) for statement in statements]
    found = {tenant_id: [rows.fetchall() for rows in each] for tenant_id, each in asked.items()}
    return {tenant_id: each for tenant_id, each in found.items() if each[0]}


def _about() -> About:
    sql = connection()
    version, most = sql.execute(_ABOUT).fetchone()
    if sql.has_own_session:
        return About(f"PostgreSQL {version}", most)
    return About(f"PostgreSQL {version}, behind a pooler", None)


_ABOUT = (
    "SELECT split_part(current_setting('server_version'), ' ', 1),"
    " least(current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,"
    " nullif(u.rolconnlimit, -1), nullif(d.datconnlimit, -1)) FROM pg_roles AS u, pg_database AS d"
    " WHERE u.rolname = current_user AND d.datname = current_database()"
)


def _secret() -> str | None:
    found = connection().execute("SELECT secret FROM secrets WHERE name = 'signing'").fetchone()
    return str(found[0]) if found else None


def _tenant_ids() -> list[str]:
    found = connection().execute("SELECT t.id FROM tenants AS t JOIN customers AS c ON c.id = t.id ORDER BY t.id")
    return [row[0] for row in found]
