"""The contract of a storage engine: what keeps the tenants of an installation, and what it promises.

Knows: nothing that runs; the types that callers name. Must not know: SQL, files, connections, any engine.

There is one ``Engine`` an installation, and one ``Database`` a tenant, beside that of the directory of customers. Code
that reads or writes is a function that is run *bound* to one database (``models.bound``): its statements name no tenant
and see the rows of one only. No text with U+0000 is given to an engine, since not every one can store it: whatever takes
texts from clients refuses it. ``tests/storage/engine`` holds every engine to the promises below.

1. A write has its tenant to itself from its first statement to its commit, against all greenlets and processes.
2. What a write raises undoes that write alone. An error of the commit is the error of every write in it.
3. The order of commits is the order of sequences: a write reads ``_meta``, and sees all that was committed before it.
4. A write that returned is on disk. One that raised ``Busy``, ``StorageFull`` or an error of its own is not kept. An engine
   that can lose the answer to a commit must raise an error of its own for that, and no other.
5. A read sees one committed state from its first statement to its last. It may not write.
6. Code that is bound to nothing raises ``NotBound``, in whatever greenlet or thread it runs.
7. ``after`` runs after the commit, in the order of commits of this process, and before any ``write`` of its group returns.
8. Once a database notes that it moved away (``storage.moving``), each write raises ``Moved``, in all processes, and is not
   kept. Reads go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from server.bus.bus import Bus
from storage.look_ahead import Wanted

T = TypeVar("T")
Answers = list[list[tuple[Any, ...]]]
"""By statement the rows that it found."""


class CanNotOpen(RuntimeError):
    """Storage that can't be used; as text it says why, and what to do."""


class NothingBegun(CanNotOpen):
    """There is no data where it is looked for; as text it says what begins it."""


class EngineFailed(RuntimeError):
    """What an engine itself says of a statement or of its storage, and nobody here can do anything about."""


class NotRestored(RuntimeError):
    """A copy that did not come in the place of a tenant's data, or was replaced at once; as text it says why."""


class Database(Protocol):
    """The database of one tenant, or the directory of customers."""

    @property
    def mark(self) -> object:
        """Another object after each commit of this process: what was read under the same one still holds."""

    def read(self, query: Callable[[], T]) -> T:
        """Run a query bound to this database and give its result, which must not be read from the database later.

        It sees one committed state; the query must not switch greenlets by itself, the engine may.

        Raises: what ``query`` raises; Busy, TenantNotFound.
        """

    def write(
        self,
        work: Callable[[], T],
        after: Callable[[T], None] | None = None,
        *,
        is_alone: bool = False,
        ahead: Callable[[], Wanted] | None = None,
    ) -> T:
        """Run ``work`` bound to this database in a transaction; return its result when it is on disk.

        Writes that wait for the same database share a commit. ``work`` may switch greenlets. ``after`` is called with the
        result; its failure is logged and harms nobody. ``is_alone``: nobody else is about to write here, so that there is
        no reason to wait for who could share the commit. ``ahead``: tells which rows ``work`` will look up, for engines
        that ask a server for them; it may be called before ``work``, several times.
        Raises: what ``work`` raises; Busy, also at once if too many wait; StorageFull, TenantNotFound.
        """


class About(NamedTuple):
    """What the storage is, for operators, and how many connections all processes may have to it, if that is limited."""

    name: str
    most_connections: int | None


class AttemptCounts(Protocol):
    """Counts attempts in moving windows."""

    def acquire_entry(self, key: str, limit: int, expiry: int) -> bool:
        """Count one attempt and tell so, unless there were ``limit`` within the last ``expiry`` seconds.

        Raises: Busy.
        """

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Give when the oldest attempt within the last ``expiry`` seconds was, as ``time.time``, and how many there were.

        Raises: Busy.
        """


class Engine(Protocol):
    """The storage of one installation."""

    @property
    def directory(self) -> Database:
        """The database of customers and sessions (``storage.main_database``)."""

    @property
    def place(self) -> str:
        """Say for a person where the data is."""

    @property
    def replaced(self) -> Path | None:
        """Give the folder in which a restore keeps what it replaced; None if it keeps nothing."""

    @property
    def is_server(self) -> bool:
        """Tell whether this process serves; an operator's command works beside one that does."""

    def tenant(self, tenant_id: str) -> Database:
        """Give a tenant's database. What uses it raises TenantNotFound if it is not there."""

    def ask_each(self, tenant_ids: Iterable[str], statements: Sequence[str]) -> dict[str, Answers]:
        """Give what some statements find in each of some tenants that is there, each as its own read would.

        The first statement must be one that finds something in every tenant, such as ``positions.POSITION``.
        Raises: Busy.
        """

    def tenant_ids(self) -> list[str]:
        """List the customers whose databases are there."""

    def fault_of(self, tenant_id: str) -> str | None:
        """Say why a customer's database can't be used, as far as that is seen without reading it; None if it may be."""

    def owner_of(self, epoch: str) -> str | None:
        """Tell whose epoch this is, as far as the directory knows."""

    def create(self, tenant_id: str, note: Callable[[], object]) -> None:
        """Create an empty tenant and run ``note`` in the directory: both or neither, whatever crashes.

        Raises: what ``note`` raises; Busy, StorageFull.
        """

    def remove(self, tenant_id: str) -> None:
        """Remove a tenant and all that was kept of it, when its last write is done. It need not be there any more."""

    def recover(self, known: Callable[[], Collection[str]]) -> None:
        """Finish or undo what a crash cut off. ``known``, read in the directory, gives the tenants that exist."""

    def peek(self, tenant_id: str, query: Callable[[], T]) -> T:
        """Run a query bound to a tenant as it is stored, even by an older version; nothing is written or made current."""

    def is_current(self, tenant_id: str) -> bool:
        """Tell whether a tenant's tables are those of this version and its declarations."""

    def migrate(self, tenant_id: str) -> None:
        """Make a tenant's tables those of this version, in one transaction; else its next use does."""

    def faults_in(self, tenant_id: str) -> list[str]:
        """Check a tenant from end to end, also beside a server, and list what is wrong with it.

        What takes its time runs in threads. Raises: Busy while somebody has it to himself.
        """

    def rewrite(self, tenant_id: str | None, work: Callable[[], T]) -> T:
        """Run ``work`` in a transaction of its own, also if what it writes moved away: for who moves it. It is bound to a
        tenant, which begins with it if need be without a row of the directory, or for None to the directory.

        No server may be at work in this process. Raises: what ``work`` raises; Busy, StorageFull.
        """

    def copy_to(self, tenant_id: str, file: Path) -> None:
        """Copy a tenant as of one moment into a new file of the operator's, also one that is being written.

        Raises: TenantNotFound, StorageFull.
        """

    def copy_directory(self, file: Path) -> None:
        """Copy the directory in the same way.

        Raises: StorageFull; CanNotOpen if it knows no customer, although there are tenants: it is not theirs.
        """

    def restore_from(self, tenant_id: str, file: Path) -> str:
        """Put what ``copy_to`` wrote in the place of a tenant's data, or begin the tenant with it; return its new epoch.

        No old cursor fits the new epoch. Writes wait or are Busy meanwhile; the data is the old or the new, never both.
        Raises: Busy, StorageFull, NotRestored.
        """

    def lay_ready(self, tenant_id: str, put: Callable[[Path], object], note: Callable[[], object]) -> str:
        """Take what ``put`` writes into a file, to be restored in the same way, and run ``note`` in the directory.

        For many tenants at once: ``wait_until_taken`` must follow. It gives the epoch, and may have restored it.
        Raises: what ``put`` and ``note`` raise, and what ``restore_from`` does.
        """

    def wait_until_taken(self, epochs: Mapping[str, str], wait_seconds: float) -> None:
        """Wait until tenants that were laid ready are restored; ``epochs``: by tenant what ``lay_ready`` gave.

        Raises: NotRestored.
        """

    def begin_epoch(self, tenant_id: str) -> str:
        """Begin a new epoch on the rows that a tenant has, as a restore does; return it.

        For storage that was put back as a whole, which nobody here can see. No server may be at work in another process.
        Raises: TenantNotFound, Busy, StorageFull; CanNotOpen if one is, as far as that is known.
        """

    def forget_replaced(self, tenant_id: str, before: float) -> None:
        """Remove what restores replaced until ``before``, in seconds since 1970."""

    def forget_migrated(self, before: float) -> None:
        """Remove what was kept of tenants as they were before a migration, until ``before``."""

    def renewed(self) -> list[str]:
        """List the tenants that began a new epoch since this was asked last, here or by a command beside the server."""

    def maintain(self) -> None:
        """Do what is to be done every few seconds."""

    def has_room(self) -> bool:
        """Tell whether writes can be stored now, as far as is known."""

    def is_intact(self) -> bool:
        """Tell whether what holds the directory is still the one that was opened."""

    def kept_secret(self, make: Callable[[], str]) -> str | None:
        """Give the installation's secret, which ``make`` makes at the first time; None if this engine keeps none."""

    def keep_secret(self, secret: str) -> bool:
        """Keep another secret in the place of the installation's; False if this engine keeps none."""

    def about(self) -> About:
        """Describe the storage."""

    @property
    def attempt_counts(self) -> AttemptCounts:
        """Give what counts attempts, over all processes of the installation."""

    def lease(self, name: str, seconds: float) -> bool:
        """Tell whether this process is the one of the installation that may do something for so long.

        It has the lease from then on, and renews it by asking again; one that asks no more, as it died, loses it by time.
        Raises: Busy.
        """

    def bus(self, channel: str) -> Bus:
        """Give a bus on which this process and others of the installation tell each other, if this engine carries one."""

    def give_up_after(self, seconds: float) -> None:
        """Have what waits for storage that does not answer fail, so many seconds from now: the process is about to end."""

    def close(self) -> None:
        """End: wait for each database's last write, and close it."""
