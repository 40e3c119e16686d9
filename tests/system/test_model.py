"""The whole of sync against a plain model: devices edit offline, push, lose answers, pull; the server dies and goes back.

A state machine of Hypothesis drives tenants in this process, without HTTP. ``plain_model`` says what docs/api.md says,
in dictionaries; after each push all results, rows, conflicts and the place must be the model's, on each last page of a pull
the device's own digest the server's, and at the end all devices equal. MODEL_EXAMPLES=… runs more.
Seen to fail on faults: receipts not stored (an operation sent again is no replay), tombstones left out of pulls (``is
not the server``: the digest), a clock without ``max(now, last + 1)`` (``the log's clock falls``), conflicts not stored,
a restore that keeps the epoch (a device that never was away is refused), a purge that waits for no device (the same),
and, with 300 examples, a cursor of before a purge that is not refused (the digest).
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from models import connection
from protocol.codec import decode_stored
from protocol.errors import ResyncRequired
from protocol.messages import PushResult
from protocol.pull_parser import parse_pull
from protocol.push_parser import parse_push
from storage import devices, history, positions, pull_reader, push_writer
from storage.devices import DAY_MS
from tests import postgres
from tests.conftest import JSON
from tests.customers import customer
from tests.data_folder import opened
from tests.inside import LIMITS, SKEW_MS, push, tables
from tests.plain_model import Key, Phone, Plain

T0 = 2_000_000_000_000
MEMORY = Path("/dev/shm")
"""Where a commit waits for no disk: what a power loss does is not tried here."""
HISTORY_MS, IDLE_MS = 10 * DAY_MS, 30 * DAY_MS
NAMES = ("till", "phone", "tablet")
NAMELESS = "tablet"
"""The device that does not tell the server its name, so that nothing is held for it."""
SKEWS = {"till": 0, "phone": -90_000, "tablet": 40_000}
"""How wrong the clock of each device is."""
KEYS = [(table, row_id) for table in ("end_user", "interactions") for row_id in ("a", "b")][:3]
FIELDS = ("name", "note", "is_deleted", "device_id", "version", "last_updated", "updatedAt")
WHO = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
KINDS = ["update", "update", "update", "create", "delete"]
EDITS = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.sampled_from([True, True, False]),
    st.sampled_from([True, False, False]),
)


class DiedError(Exception):
    """The server ended before the commit."""


class Syncing(RuleBasedStateMachine):
    """One tenant, three devices, a server that dies, forgets and is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.tenants, self.lives = opened(self.folder / "0"), 0
        self.id, self.now, self.purged_at = str(uuid.uuid4()), T0, 0
        self.plain, self.forgotten, self.backups = Plain(), set[str](), list[tuple[Path, Plain]]()
        self.phones = {name: Phone(name) for name in NAMES}

    @initialize()
    def register(self) -> None:
        self.tenants.provision(customer(tenant_id=self.id))
        self.plain.clock = self.read(positions.position).clock
        self.edit(KEYS[0], [("till", "create", 3, False, False)])
        self.edit(KEYS[-1], [("till", "create", 3, False, False)])
        self.everyone_settles()

    def read(self, query: Any) -> Any:
        return self.tenants.read(self.id, query)

    def write(self, work: Any) -> Any:
        return self.tenants.write(self.id, work)

    # --- devices -----------------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), edits=st.lists(EDITS, min_size=1, max_size=4))
    def edit(self, key: Key, edits: list[tuple[str, str, int, bool, bool]]) -> None:
        """Devices edit a row offline, each by its own clock; an update or a delete mostly says what it was based on.

        Some take back what was edited: their values are those that the device holds from the server.
        """
        for name, kind, what, has_base, takes_back in edits:
            phone = self.phones[name]
            held = phone.replica.get(key)
            value = f"{name} {phone.number + 1}"
            data: JSON = {field: value for bit, field in ((1, "name"), (2, "note")) if what & bit and kind != "delete"}
            data |= {field: held.get(field) for field in data} if held and takes_back else {}
            base = held["version"] if held and kind != "create" and has_base else None
            phone.operation(kind, key, base, self.now + SKEWS[name], **data)

    @rule(who=WHO, sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), lost=st.integers(0, 2))
    def push(self, who: list[str], sizes: list[int], lost: int) -> None:
        """Push in slices; of an answer that is lost the device learns nothing, and sends its operations again."""
        for number, name in enumerate(who):
            phone, first = self.phones[name], 0
            for size in sizes:
                slice_ = phone.pending[first : first + size]
                answered = self.take(phone, slice_) if slice_ else {}
                if lost == number:
                    first += size
                else:
                    phone.replica |= answered
                    del phone.pending[:size]

    @rule(who=WHO, limit=st.integers(1, 3), pages=st.integers(1, 4))
    def pull(self, who: list[str], limit: int, pages: int) -> None:
        for name in who:
            for _ in range(pages):
                self.page(self.phones[name], limit)

    @rule(name=st.sampled_from(NAMES), size=st.integers(1, 5))
    def push_that_dies(self, name: str, size: int) -> None:
        """The server ends between the writing and the commit: nothing of it is there."""
        body = {"operations": sent(self.phones[name].pending[:size])}
        parsed = parse_push(body, tables(), LIMITS, self.now)

        def die() -> None:
            push_writer.apply(parsed, LIMITS.row_bytes, self.now, lambda: None)
            raise DiedError

        try:
            self.write(die)
        except DiedError:
            self.crash()

    def take(self, phone: Phone, operations: list[JSON]) -> dict[Key, JSON]:
        """Push to the server and to the model, hold one against the other, and give the rows of the answer."""
        self.now += 7
        conflicts = len(self.plain.conflicts)
        taken_before = set(self.plain.receipts)
        device = None if phone.name == NAMELESS else phone.name
        applied = push(self.tenants, self.id, {"operations": sent(operations)}, self.now, device_id=device)
        assert applied.results == self.plain.push(operations, self.now, device)
        shown = [{name: found[name] for name in self.plain.conflicts[-1]} for found in applied.conflicts]
        assert shown == self.plain.conflicts[conflicts:]
        for operation, result in zip(operations, applied.results, strict=True):
            event("replayed" if "replayed" in result else result["status"])
            if operation["opId"] not in taken_before:
                self.check_nothing_lost(operation)
        return self.rows_of(applied)

    def rows_of(self, applied: PushResult) -> dict[Key, JSON]:
        places = [(result["table"], result["id"]) for result in applied.results]
        rows = {place: decode_stored(body.decode()) for place, body in zip(places, applied.rows, strict=True) if body}
        return {place: row for place, row in rows.items() if row["version"]}

    def check_nothing_lost(self, operation: JSON) -> None:
        """What a device wrote is in the row's history or in the log of conflicts, without asking the model."""
        table, row_id, name = operation["table"], operation["data"]["id"], operation["data"].get("name")
        if name is not None:
            entries, _ = self.read(lambda: history.history(table, row_id, None, 10_000))
            found, _ = self.read(lambda: history.conflicts("all", 0, 10_000))
            lost = [one["fields"].get("name", {}).get("client") for one in found if one["id"] == row_id]
            assert name in [entry["row"].get("name") for entry in entries] + lost, f"{operation['opId']} is lost"

    def page(self, phone: Phone, limit: int) -> bool:
        """Pull one page as the endpoint does, and tell whether there are more."""
        try:
            page, rows = self.pulled(phone, limit)
        except ResyncRequired:
            is_other = (phone.cursor or "").split("-")[0] != self.read(positions.position).epoch
            was_away = phone.seen_at <= self.purged_at - IDLE_MS
            assert is_other or was_away or phone.name == NAMELESS, f"{phone.name} was here and is refused"
            event("device starts anew: " + ("restored" if is_other else "expired or purged"))
            phone.start_anew(is_other)
            return True
        if phone.cursor is None:
            phone.replica = {}
        phone.replica |= rows
        phone.cursor, phone.seen_at = page.cursor, self.now
        if page.digest is not None:
            assert page.digest == {table: phone.digest(table) for table in tables()}, f"{phone.name} is not the server"
            phone.push_back(self.now + SKEWS[phone.name])
        return bool(page.has_more)

    def pulled(self, phone: Phone, limit: int) -> tuple[pull_reader.Page, dict[Key, JSON]]:
        pull = parse_pull({"cursor": phone.cursor, "limit": limit, "digest": True}, tables(), LIMITS)

        def plan() -> pull_reader.Page:
            if pull.since is not None and phone.name != NAMELESS:
                at = devices.expired_at(phone.name)
                if at is not None:
                    raise devices.expired(at)
            return pull_reader.page_of(pull, self.now, SKEW_MS)

        page: pull_reader.Page = self.read(plan)
        if phone.name != NAMELESS:
            seen = devices.Seen(self.tenants.write)
            seen.note(self.id, phone.name, dict.fromkeys(page.tables, page.since), self.now, page.cursor.split("-")[0])
            seen.save(self.id)
        found = {t: self.read(lambda t=t: pull_reader.rows_of(page, t, page.since, 99)) for t in page.tables}
        assert sum(some.count for some in found.values()) <= limit
        rows = [(table, row) for table, some in found.items() for row in some.rows()]
        return page, {(table, row["id"]): row for table, row in rows}

    # --- the server --------------------------------------------------------------------------------------------------

    @rule()
    def crash(self) -> None:
        """Go on with what is stored at this moment, as after kill -9."""
        if not postgres.IS_UNDER_TEST:
            self.lives += 1
            shutil.copytree(self.folder / str(self.lives - 1), self.folder / str(self.lives))
        self.tenants.close()
        self.tenants = opened(self.folder / str(self.lives))

    @rule(is_restore=st.booleans(), which=st.integers(0, 3))
    def back_up_or_restore(self, is_restore: bool, which: int) -> None:
        if is_restore and self.backups:
            self.restore(which)
        else:
            self.back_up()

    def back_up(self) -> None:
        file = self.folder / f"{len(self.backups)}.backup"
        self.tenants.engine.copy_to(self.id, file)
        self.backups.append((file, copy.deepcopy(self.plain)))

    def restore(self, which: int) -> None:
        """Put a backup back under a new epoch."""
        file, plain = self.backups[which % len(self.backups)]
        self.tenants.engine.restore_from(self.id, file)
        self.plain = copy.deepcopy(plain)
        self.plain.clock = max(self.plain.clock, self.read(positions.position).clock)

    @rule(
        gone=st.none() | st.sampled_from(KEYS),
        hours=st.sampled_from([-30, -1, 100, 300, 300, 800]),
        who=st.lists(st.sampled_from(NAMES), unique=True),
    )
    def time_passes(self, gone: Key | None, hours: int, who: list[str]) -> None:
        """A row is deleted, the server's clock goes on or is set back, some devices come by, and upkeep is done."""
        if gone:
            self.edit(gone, [("till", "delete", 1, False, False)])
            self.push(["till"], [len(self.phones["till"].pending)], -1)
        self.now = max(T0, self.now + hours * 3_600_000)
        for name in who * 2:
            self.pull_to_the_end(self.phones[name])
        self.purge()

    def purge(self) -> None:
        """Expire who was away, and remove what is too old, as the server's upkeep does."""
        self.purged_at = max(self.purged_at, self.now)
        self.write(lambda: devices.expire(self.now, IDLE_MS))
        self.write(lambda: devices.forget_receipts(self.now - HISTORY_MS))
        until = self.read(lambda: devices.purge_limit(self.now, HISTORY_MS))
        after: int | None = 0
        while after is not None:
            after = self.write(lambda after=after: devices.purge(after, until))
        before, held = set(self.plain.receipts), self.plain.size()
        self.plain.purge(until, self.now - HISTORY_MS)
        event("purge that removes something" if held != self.plain.size() else "purge")
        self.forgotten |= before - set(self.plain.receipts)

    def is_there(self) -> bool:
        return self.id in self.tenants.engine.tenant_ids()

    # --- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def place_is_the_models(self) -> None:
        if self.is_there():
            place = self.read(positions.position)
            assert (place.sequence, place.clock) == (self.plain.sequence, self.plain.clock)

    @invariant()
    def rows_are_the_models(self) -> None:
        if self.is_there():
            held = {(table, row["id"]): row for table, row in self.read(stored_rows)}
            shown = {key: {name: row.get(name) for name in FIELDS} for key, row in held.items()}
            rows = {key: chain[-1].row for key, chain in self.plain.rows.items()}
            assert shown == {key: {name: row.get(name) for name in FIELDS} for key, row in rows.items()}

    @invariant()
    def log_rises_and_holds_each_operation_once(self) -> None:
        if self.is_there():
            log, once = self.read(logged), set[str]()
            versions: dict[Key, int] = {}
            assert [entry[3] for entry in log] == sorted(entry[3] for entry in log), "the log's clock falls"
            for table, row_id, version, _, fields, op_id in log:
                assert versions.get((table, row_id), 0) < version, "a version falls"
                versions[table, row_id] = version
                if fields is None or '"device_id"' in fields:
                    assert op_id not in once or op_id in self.forgotten, f"{op_id} was applied twice"
                    once.add(op_id)

    @rule()
    def everyone_settles(self) -> None:
        """All push what they have and pull to the end, twice, since who starts anew has more to push after it."""
        for _ in range(3):
            for phone in self.phones.values():
                self.pull_to_the_end(phone)
                while phone.pending:
                    self.push([phone.name], [5], -1)
        for phone in self.phones.values():
            self.pull_to_the_end(phone)
        self.check_all_equal()

    def pull_to_the_end(self, phone: Phone) -> None:
        while self.page(phone, 2):
            pass

    def check_all_equal(self) -> None:
        whole = {(table, row["id"]): row for table, row in self.read(stored_rows) if not row["is_deleted"]}
        for phone in self.phones.values():
            assert not phone.pending
            assert {key: row for key, row in phone.replica.items() if not row["is_deleted"]} == whole, phone.name

    def teardown(self) -> None:
        if sys.exc_info()[0] is None and self.is_there():
            self.everyone_settles()
        self.tenants.close()
        shutil.rmtree(self.folder)


def sent(operations: Iterable[JSON]) -> list[JSON]:
    return [{name: value for name, value in one.items() if name != "edited"} for one in operations]


def stored_rows() -> list[tuple[str, JSON]]:
    """Read all rows, tombstones among them, in the form that pulls send."""
    sql = "SELECT c.row FROM {} AS e JOIN _changes AS c ON c.seq = e._seq"
    return [(table, decode_stored(row[0])) for table in tables() for row in connection().execute(sql.format(table))]


def logged() -> list[Any]:
    sql = "SELECT table_name, row_id, version, committed_at, fields, row FROM _changes ORDER BY seq"
    return [(*about, decode_stored(row).get("device_id")) for *about, row in connection().execute(sql)]


EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "20" if postgres.IS_UNDER_TEST else "80"))  # Each has a database.
TestSyncing = pytest.mark.slow(pytest.mark.timeout(120 + EXAMPLES)(Syncing.TestCase))
TestSyncing.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
