"""Imports an archive of ``export``: into a new tenant with its history, or into an existing one by the rules of a push.

Knows: in which order an archive is read, checked and stored. Must not know: the command line, SQL, requests, sockets.

The archive first becomes a scratch database; whatever is wrong with it is found there, and nothing else is changed. That
database is a new tenant's, or the device whose rows an existing one is given.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from api.limits import limits_of
from models import synced_tables
from operations.archive import CONFLICTS, DEVICES, Archive, ArchiveError, opened
from operations.backups.scratch import scratch_folder
from protocol.codec import Row, encode_sorted, whole_number
from protocol.errors import EmailTaken
from protocol.identifiers import IDENTIFIER
from protocol.messages import PushResult, Strategy
from protocol.push_parser import parse_push
from server.scheduler import yield_if_due
from settings import Settings
from storage import importing, main_database, operator_actions, push_writer
from storage.engine import Database, Engine
from storage.importing import NEVER, LogEntry
from storage.main_database import Customer
from storage.positions import now_ms
from storage.rewind import fitted
from storage.sqlite.files import copy_file, put_file
from storage.sqlite.tenant_files import new_tenant_file, open_tenant_file

_ROWS_AT_ONCE = 500
Counts = dict[str, dict[str, int]]
"""By table how many rows have which status (``added``, ``changed``, ``deleted``, ``conflict``, ``unchanged``)."""

_WORDS = {"created": "added", "updated": "changed", "merged": "changed"}


@dataclass
class Import:
    """An archive that was read and found good: a database with all of it."""

    account: Row
    file: Path
    database: Database
    changes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Changes of tables that the archive has no rows of: they were synced no more."""


@contextmanager
def read(path: Path, row_bytes: int) -> Iterator[Import]:
    """Read an archive into a scratch database.

    Raises: ArchiveError, OSError, PlaceUnusable.
    """
    with opened(path, row_bytes) as archive, scratch_folder() as scratch:
        if others := sorted(set(archive.tables) - synced_tables().keys()):
            raise archive.bad(f"rows of {others[0]}", "this is no synced table here; declare it in tables.toml first")
        file = scratch / "tenant.db"
        put_file(file, new_tenant_file(now_ms()))
        database = open_tenant_file(file)
        try:
            found = Import(archive.account(), file, database)
            _fill(database, archive, found)
            yield found
        finally:
            database.close()


def _fill(database: Any, archive: Archive, found: Import) -> None:
    newest: dict[tuple[str, str], bytes] = {}
    entries = _entries(archive, found, newest)
    conflicts, devices = _conflicts(archive), _devices(archive)
    database.run_now(lambda: importing.fill(entries, conflicts, devices))
    for table in archive.tables:
        for place, row in archive.rows(table):
            if newest.pop((table, str(row.get("id"))), b"") != _mark(row):
                raise archive.bad(place, "the row is not what the history says")
    if newest:
        table, row_id = min(newest)
        raise archive.bad(f"rows of {table}", f"{row_id} is in the history and not among them")


def _mark(row: Row) -> bytes:
    return hashlib.blake2b(encode_sorted(row), digest_size=16).digest()


def _entries(archive: Archive, found: Import, newest: dict[tuple[str, str], bytes]) -> Iterator[LogEntry]:
    """Give the history as the log has it, and note each row as it is in the end."""
    known: dict[tuple[str, str], tuple[int, int]] = {}
    for place, entry in archive.history():
        if entry.table not in archive.tables:
            found.left_out[entry.table] += 1
            continue
        key = entry.table, entry.id
        version, sequence = known.get(key, (None, None))
        if version is None:
            is_next, sequence = True, None if entry.version == 1 else NEVER
        else:
            is_next = entry.version == version + 1
        if not is_next or (sequence is None) is not (entry.fields is None):
            raise archive.bad(place, f"this can't come after version {version or 'none'} of {entry.table} {entry.id}")
        known[key], newest[key] = (entry.version, entry.sequence), _mark(entry.row)
        found.changes += 1
        yield _logged(entry, sequence)


def _logged(entry: Any, previous: int | None) -> LogEntry:
    row = fitted(entry.row, synced_tables()[entry.table]) | {"sync_status": "synced", "server_synced": 1}
    row |= {"version": entry.version, "is_deleted": int(entry.row["is_deleted"])}  # Not ``true``, which is 1 to Python.
    about = entry.committed_at, entry.edited_at, entry.device_id, entry.fields
    return LogEntry(entry.sequence, entry.table, entry.id, entry.version, previous, *about, row)


def _conflicts(archive: Archive) -> Iterator[Row]:
    """Give the conflicts as they are stored."""
    for place, line in archive.lines(CONFLICTS):
        if not _is_conflict(line):
            raise archive.bad(place, "it is no conflict")
        if line["table"] in archive.tables:
            yield _conflict(archive, place, line)


def _is_conflict(line: Row) -> bool:
    fields, resolved = line.get("fields"), line.get("resolvedAt")
    return (
        isinstance(fields, dict)
        and all(isinstance(one, dict) and one.keys() >= {"client", "server", "winner"} for one in fields.values())
        and all(one["winner"] in ("client", "server") for one in fields.values())
        and all(isinstance(line.get(side), dict) for side in ("client", "server"))
        and line.get("state") == ("open" if resolved is None else "resolved")
        and all(isinstance(line.get(name), str) for name in ("table", "id", "strategy"))
        and bool(IDENTIFIER.fullmatch(line["id"]))
        and _count(line.get("version")) is not None
    )


def _count(value: object) -> int | None:
    found = whole_number(value)
    return found if found is not None and 0 <= found < 2**53 else None


def _conflict(archive: Archive, place: str, line: Row) -> Row:
    resolved = line.get("resolvedAt")
    about: Row = {"table": line["table"], "row_id": line["id"], "state": line["state"], "strategy": line["strategy"]}
    for side in ("client", "server"):
        told = line[side]
        about[f"{side}_device_id"] = told.get("deviceId") if isinstance(told.get("deviceId"), str) else None
        about[f"{side}_edited_at"] = archive.time(place, told.get("editedAt"))
    return about | {
        "base_version": _count(line.get("baseVersion")),
        "version": _count(line["version"]),
        "fields": line["fields"],
        "pushed": {name: one["client"] for name, one in line["fields"].items()},
        "detected_at": archive.time(place, line.get("detectedAt")),
        "resolution": line.get("resolution") if line.get("resolution") in ("keep", "other", "row") else None,
        "resolved_at": None if resolved is None else archive.time(place, resolved),
    }


def _devices(archive: Archive) -> Iterator[Row]:
    """Give the devices as they are stored; each pulls from the start."""
    seen = set()
    for place, line in archive.lines(DEVICES):
        device, name = line.get("deviceId"), line.get("name")
        if not isinstance(device, str) or not IDENTIFIER.fullmatch(device) or device in seen:
            raise archive.bad(place, "it is no device")
        seen.add(device)
        first, last = (archive.time(place, line.get(when)) for when in ("firstSeen", "lastSeen"))
        shown = name[:100] if isinstance(name, str) else None
        yield {"id": device, "name": shown, "positions": {}, "first_seen_at": first, "last_seen_at": last}


# --- a new tenant ----------------------------------------------------------------------------------------------------


def free_id(engine: Engine, account: Row) -> str:
    """Give the ID that a new tenant gets: the archive's, unless somebody has or had it here."""
    wanted = account.get("id")
    try:
        named = str(uuid.UUID(wanted)) if isinstance(wanted, str) else ""
    except ValueError:
        named = ""
    taken = engine.directory.read(lambda: main_database.customer_ids() | main_database.closed_ids())
    return str(uuid.uuid4()) if not named or named in taken or engine.fault_of(named) is None else named


def create(engine: Engine, found: Import, customer: Customer, about: str) -> None:
    """Begin a tenant with all that an archive has, and its customer: both or neither.

    Raises: EmailTaken, StorageFull, NotRestored.
    """

    def note() -> None:
        """Add the customer, and record that."""
        _must_be_free(customer.email)
        main_database.add_customer(customer)
        operator_actions.record("import", customer.id, now_ms() // 1000, about)

    try:
        epoch = engine.lay_ready(customer.id, partial(copy_file, found.file), note)
    except Exception:
        engine.remove(customer.id)
        raise
    engine.wait_until_taken({customer.id: epoch}, 60.0)


def _must_be_free(email: str) -> None:
    if main_database.customer_by_email(email) is not None:
        raise EmailTaken


def must_be_free(engine: Engine, email: str) -> None:
    """Refuse an address that a customer has.

    Raises: ArchiveError.
    """
    if engine.directory.read(lambda: main_database.customer_by_email(email)) is not None:
        raise ArchiveError(f"{email} is a customer here: give another address by --email, or merge by --tenant.")


# --- an existing tenant ----------------------------------------------------------------------------------------------


class _Tried(Exception):
    """What a part would become; it undoes it."""

    def __init__(self, applied: PushResult) -> None:
        self.applied = applied


def merge(
    engine: Engine, tenant_id: str, found: Import, settings: Settings, note: Callable[[int, int], object] | None = None
) -> Counts:
    """Push the rows of an archive as a device does that had them from another database, and give what became of them.

    ``note`` is called with the first and the last change, also of an import that an error ends half way: these are stored.
    Without it each part is undone, and this only tells.
    Raises: ValidationError for a row that is not taken here; Busy, StorageFull.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    after, first, last = 0, 0, 0
    try:
        while (read := found.database.read(partial(importing.incoming, after, _ROWS_AT_ONCE)))[0]:
            rows, after = read
            applied = _push(engine.tenant(tenant_id), rows, settings, tries=note is None)
            for result in applied.results:
                counts[result["table"]][_WORDS.get(result["status"], result["status"])] += 1
            if applied.after.sequence > applied.before.sequence:
                first, last = first or applied.before.sequence + 1, applied.after.sequence
    finally:
        if last and note is not None:
            note(first, last)
    return {table: dict(count) for table, count in counts.items()}


def _push(database: Database, rows: list[importing.Incoming], settings: Settings, *, tries: bool) -> PushResult:
    tables = {name: table.rules for name, table in synced_tables().items()}
    limits = replace(limits_of(settings), push_rows=_ROWS_AT_ONCE)

    def write() -> PushResult:
        """Write some rows, in the transaction of the caller."""
        now = now_ms()
        push = parse_push({"operations": importing.operations_of(rows)}, tables, limits, now)
        strategy = cast(Strategy, settings.conflict_strategy)
        applied = push_writer.apply(push, settings.max_row_bytes, now, yield_if_due, strategy)
        if tries:
            raise _Tried(applied)
        return applied

    try:
        return database.write(write)
    except _Tried as tried:
        return tried.applied
