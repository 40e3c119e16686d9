"""The whole of sync against a plain model: devices edit offline, push, lose answers, pull; the server dies and goes back.

A state machine of Hypothesis drives tenants in this process, without HTTP. ``Plain`` says what docs/api.md says, in
dictionaries; after each push all results, rows, conflicts and the place must be the model's, on each last page of a pull
the device's own digest the server's, and at the end all devices equal. MODEL_EXAMPLES=… runs more.
Seen to fail on faults: receipts not stored (an operation sent again is no replay), tombstones left out of pulls (``is
not the server``: the digest), a clock without ``max(now, last + 1)`` (``the log's clock falls``), conflicts not stored,
a restore that keeps the epoch (a device that never was away is refused), a purge that waits for no device (the same),
and, with 300 examples, a cursor of before a purge that is not refused (the digest).
"""

from __future__ import annotations

import copy
import functools
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from models import connection
from operations import restore
from protocol.codec import decode_stored, format_time
from protocol.errors import ResyncRequired
from protocol.messages import Applied
from protocol.pull_parser import parse_pull
from protocol.push_parser import parse_push
from storage import devices, history, main_database, positions, pull_reader, push_writer
from storage.devices import DAY_MS
from storage.sqlite import files
from tenants import Tenants
from tests.conftest import JSON
from tests.inside import LIMITS, SKEW_MS, push, tables
from tests.storage.test_devices import digest_of

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
FIELDS = ("name", "note", "is_deleted", "device_id", "version", "updatedAt")
FRESH: dict[str, JSON] = {"end_user": {"name": None, "note": None}, "interactions": {}}
"""Columns that a new row has from its table; to interactions these two are fields it does not know."""

WHO = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
KINDS = ["update", "update", "update", "create", "delete"]
EDITS = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.sampled_from([True, True, False]),
    st.sampled_from([True, False, False]),
)

Key = tuple[str, str]


# --- the model -------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A change of a row: ``fields`` is None for the one that created it, ``device`` who said its name with the push."""

    sequence: int
    edited_at: int
    fields: frozenset[str] | None
    row: JSON
    device: str | None


@dataclass
class Pushing:
    """One push: by whom, when, the rows before it, and what it did and said so far."""

    device: str | None
    now: int
    at: int
    start: dict[Key, list[Entry]]
    said: dict[Key, JSON] = field(default_factory=dict)
    written: dict[Key, set[str]] = field(default_factory=dict)
    sent_again: set[int] = field(default_factory=set)

    def made(self, entry: Entry) -> bool:
        return (self.device is not None and entry.device == self.device) or entry.sequence in self.sent_again


@dataclass
class Plain:
    """What the server is to do, in dictionaries."""

    rows: dict[Key, list[Entry]] = field(default_factory=dict)
    sequence: int = 0
    clock: int = 0
    conflicts: list[JSON] = field(default_factory=list)
    receipts: dict[str, tuple[JSON, int, int | None]] = field(default_factory=dict)

    def push(self, operations: list[JSON], now: int, device: str | None) -> list[JSON]:
        at, before = max(now, self.clock + 1), self.sequence
        this = Pushing(device, now, at, {key: list(chain) for key, chain in self.rows.items()})
        results = [self.take(operation, this) for operation in operations]
        if self.sequence > before:
            self.clock = at
        return results

    def take(self, operation: JSON, this: Pushing) -> JSON:
        key, fields = (operation["table"], operation["data"]["id"]), fields_of(operation)
        receipt = self.receipts.get(operation["opId"])
        if receipt:
            this.said[key] = this.said.get(key, {}) | fields
            this.sent_again |= {receipt[2]} if receipt[2] else set()
            return receipt[0] | {"replayed": True}
        is_anew = operation["operation"] == "create" and self.is_deleted(key)
        status, taken = ("updated", fields) if is_anew else self.decide(operation, key, fields, this)
        this.said[key] = this.said.get(key, {}) | fields
        if taken:
            self.store(key, taken, min(operation["edited"], this.now), this, is_anew)
        result = {"table": key[0], "id": key[1], "status": status, "version": self.version(key)}
        self.receipts[operation["opId"]] = (result, this.at, self.sequence if taken else None)
        return result

    def decide(self, operation: JSON, key: Key, fields: JSON, this: Pushing) -> tuple[str, JSON]:
        """Give the status and the fields to write, none if nothing is to be."""
        kind, base = operation["operation"], operation.get("baseVersion")
        if key not in self.rows:
            return ("unchanged", {}) if kind == "delete" else ("created", fields)
        row = self.rows[key][-1].row
        different = {name: value for name, value in fields.items() if row.get(name) != value}
        if different and key in this.start and base is not None:
            changed, then = self.missed(key, base, this)
            if changed or then is None:
                return self.settle(operation, different, min(operation["edited"], this.now), changed, then)
        last = this.start[key][-1] if key in this.start else None
        if different and base is None and kind != "delete" and last and last.row["is_deleted"] and not this.made(last):
            told = self.tell(operation, different, self.swallowed(operation, different, different, {}, None))
            return "conflict" if told else "updated", different
        return ("unchanged" if not different else "deleted" if kind == "delete" else "updated"), different

    def missed(self, key: Key, base: int, this: Pushing) -> tuple[dict[str, int], JSON | None]:
        """Give what others changed since version ``base``, when, and the row as the device saw it, None if unknown.

        What the device itself wrote to a field after another did is settled between the two.
        """
        known, written = this.start[key], this.written.get(key, set())
        newest = self.rows[key][-1]
        if base > newest.row["version"]:  # Of elsewhere: whatever others did to it may have been missed.
            changed, then = self.missed(key, 0, this)
            if changed and then is not None and "is_deleted" not in written:
                changed["is_deleted"] = max(changed.values())
            return changed, None if changed else then
        changed = {}
        said: JSON = {}
        for entry in known:
            for name in (entry.fields or entry.row) if entry.row["version"] > base else ():
                if this.made(entry):
                    said[name] = entry.row.get(name)
                    changed.pop(name, None)
                else:
                    changed[name] = max(entry.edited_at, changed.get(name, 0))
        changed = {name: edited for name, edited in changed.items() if name not in written}
        held = [entry.row for entry in known if entry.row["version"] <= base]
        if held or known[0].row["version"] == 1:
            return changed, (held or [{}])[-1] | said | this.said.get(key, {})
        if base >= known[-1].row["version"]:
            return {}, {}
        settled = written | said.keys()
        return {name: known[-1].edited_at for name in known[-1].row if name not in settled} | changed, None

    def settle(
        self, operation: JSON, different: JSON, edited: int, changed: dict[str, int], then: JSON | None
    ) -> tuple[str, JSON]:
        """Merge field by field: to whom only one side's, to the later edit what both changed."""
        row = self.rows[operation["table"], operation["data"]["id"]][-1].row
        taken: JSON = {}
        typed: JSON = {}
        clashes: JSON = {}
        for name, value in different.items():
            repeated = then is not None and then.get(name) == value
            wins = not repeated and (name not in changed or edited >= changed[name])
            taken |= {name: value} if wins else {}
            typed |= {} if repeated else {name: value}
            if name != "device_id" and (name in changed if wins else not repeated):
                sides = {"base": (then or {}).get(name), "client": value, "server": row.get(name)}
                clashes[name] = sides | {"winner": "client" if wins else "server"}
        clashes |= self.swallowed(operation, taken, typed, changed, then)
        if not taken.keys() - {"device_id"}:
            taken = {}
        self.tell(operation, taken, clashes)
        return ("conflict" if clashes else "merged" if taken else "unchanged"), taken

    def swallowed(self, operation: JSON, taken: JSON, typed: JSON, changed: dict[str, int], then: JSON | None) -> JSON:
        """Give what a deletion takes with it: others' edits that it did not know, or what was typed into a deleted row."""
        row = self.rows[operation["table"], operation["data"]["id"]][-1].row
        deletes = operation["operation"] == "delete"
        if not (row | taken)["is_deleted"] or deletes is bool(row["is_deleted"]):
            return {}
        was = {name: (then or {}).get(name) for name in changed if name in ("name", "note")}
        lost = {name: value for name, value in (was if deletes else typed).items() if name != "device_id"}
        lost = {name: value for name, value in lost.items() if not deletes or value != row.get(name)}
        if not lost or not (deletes or not changed or "is_deleted" in changed):
            return {}
        winner = "client" if deletes else "server"
        sides: JSON = {
            name: {"base": (then or {}).get(name), "client": value, "server": row.get(name), "winner": winner}
            for name, value in lost.items()
        }
        deletion = {"base": 0, "client": int(deletes), "server": int(not deletes), "winner": winner}
        return sides | {"is_deleted": deletion}

    def tell(self, operation: JSON, taken: JSON, clashes: JSON) -> bool:
        """Note a conflict, if there is one, and say whether there is."""
        key = operation["table"], operation["data"]["id"]
        place: JSON = {"table": key[0], "id": key[1], "baseVersion": operation.get("baseVersion")}
        place["version"] = self.version(key) + bool(taken)
        self.conflicts += [place | {"fields": clashes}] if clashes else []
        return bool(clashes)

    def store(self, key: Key, fields: JSON, edited: int, this: Pushing, is_anew: bool) -> None:
        """Store a change; one that is made ``is_anew`` has nothing of what it was."""
        self.sequence += 1
        chain = self.rows.setdefault(key, [])
        before: JSON = chain[-1].row if chain else {}
        old = FRESH[key[0]] | {"is_deleted": 0, "device_id": None} if is_anew or not chain else before
        row = {**old, **fields, "version": self.version(key) + 1, "updatedAt": format_time(this.at)}
        names = {name for name in before | row if before.get(name) != row.get(name)} - {"version", "updatedAt"}
        chain.append(Entry(self.sequence, edited, frozenset(names) if before else None, row, this.device))
        this.written[key] = this.written.get(key, set()) | (names if before else fields.keys())

    def is_deleted(self, key: Key) -> bool:
        return key in self.rows and bool(self.rows[key][-1].row["is_deleted"])

    def version(self, key: Key) -> int:
        return int(self.rows[key][-1].row["version"]) if self.rows.get(key) else 0

    def size(self) -> int:
        return sum(map(len, self.rows.values()))

    def purge(self, until: int, receipts_before: int) -> None:
        """Drop what is no longer current up to ``until``, and deleted rows with it."""
        for key, chain in list(self.rows.items()):
            newest = chain[-1]
            chain[:-1] = [entry for entry in chain[:-1] if entry.sequence > until]
            if newest.row["is_deleted"] and newest.sequence <= until:
                del self.rows[key]
        self.receipts = {name: kept for name, kept in self.receipts.items() if kept[1] > receipts_before}


def fields_of(operation: JSON) -> JSON:
    """Give what an operation says of the row."""
    fields = {name: value for name, value in operation["data"].items() if name != "id"}
    return fields | ({"is_deleted": 1} if operation["operation"] == "delete" else {})


# --- a device --------------------------------------------------------------------------------------------------------


@dataclass
class Phone:
    """A device with its replica, its edits that are not answered yet, and what it held before it had to start anew."""

    name: str
    cursor: str | None = None
    replica: dict[Key, JSON] = field(default_factory=dict)
    pending: list[JSON] = field(default_factory=list)
    lost: dict[Key, JSON] = field(default_factory=dict)
    edited: set[Key] = field(default_factory=set)
    has_new_epoch: bool = False
    seen_at: int = 0
    number: int = 0

    def operation(self, kind: str, key: Key, base: int | None, edited: int, **data: Any) -> None:
        self.number += 1
        name = f"{self.name}-{self.number}"
        body: JSON = {
            "table": key[0],
            "operation": kind,
            "data": {"id": key[1], "device_id": name, **data},
            "opId": name,
        }
        body |= {"timestamp": format_time(edited), "edited": edited}
        self.pending.append(body if base is None else body | {"baseVersion": base})

    def start_anew(self, has_new_epoch: bool) -> None:
        """Keep what was held, with the edits of its own on top, until all rows are pulled again."""
        held: dict[Key, JSON] = dict(self.replica)
        for operation in self.pending:
            key = (operation["table"], operation["data"]["id"])
            row = {"version": 0, "is_deleted": 0, **held.get(key, {}), **operation["data"]}
            held[key] = row | {"create": {"is_deleted": 0}, "delete": {"is_deleted": 1}}.get(operation["operation"], {})
            self.edited.add(key)
        self.lost |= held
        self.has_new_epoch |= has_new_epoch
        self.replica, self.pending, self.cursor = {}, [], None

    def push_back(self, now: int) -> None:
        """Make edits of the rows it held that are newer than what the server gave it."""
        for key, row in self.lost.items():
            base = self.replica[key]["version"] if key in self.replica else None
            if key in self.edited or (self.has_new_epoch and row["version"] > (base or 0)):
                data = {name: row[name] for name in ("name", "note") if row.get(name) is not None}
                kind = "delete" if row["is_deleted"] else "create" if base is None else "update"
                data |= {"is_deleted": 0} if kind == "update" else {}
                self.operation(kind, key, base, now, **({} if kind == "delete" else data))
        self.lost, self.edited, self.has_new_epoch = {}, set(), False

    def digest(self, table: str) -> JSON:
        return digest_of(row for key, row in self.replica.items() if key[0] == table)


# --- the machine -----------------------------------------------------------------------------------------------------


class DiedError(Exception):
    """The server ended before the commit."""


class Syncing(RuleBasedStateMachine):
    """One tenant, three devices, a server that dies, forgets and is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.tenants, self.lives = Tenants(self.folder / "0"), 0
        self.id, self.now, self.purged_at = str(uuid.uuid4()), T0, 0
        self.plain, self.forgotten, self.backups = Plain(), set[str](), list[tuple[Path, Plain]]()
        self.phones = {name: Phone(name) for name in NAMES}

    @initialize()
    def register(self) -> None:
        fields = dict.fromkeys(("name", "companyName", "firstName", "lastName", "passwordHash"), "-")
        at = "2026-01-01T00:00:00.000Z"
        self.tenants.provision(main_database.Customer(id=self.id, email="a@example.com", createdAt=at, **fields))
        self.plain.clock = self.read(positions.place).clock
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

    def rows_of(self, applied: Applied) -> dict[Key, JSON]:
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
            is_other = (phone.cursor or "").split("-")[0] != self.read(positions.place).epoch
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
        """Go on with the files as they lie there at this moment, as after kill -9."""
        self.lives += 1
        shutil.copytree(self.folder / str(self.lives - 1), self.folder / str(self.lives))
        self.tenants.close()
        self.tenants = Tenants(self.folder / str(self.lives))

    @rule(is_restore=st.booleans(), which=st.integers(0, 3))
    def back_up_or_restore(self, is_restore: bool, which: int) -> None:
        if is_restore and self.backups:
            self.restore(which)
        else:
            self.back_up()

    def back_up(self) -> None:
        file = self.folder / f"{len(self.backups)}.backup"
        files.copy_file(self.tenants.path_of(self.id), file)
        self.backups.append((file, copy.deepcopy(self.plain)))

    def restore(self, which: int) -> None:
        """Put a backup back under a new epoch."""
        file, plain = self.backups[which % len(self.backups)]
        restore._lay_ready(self.tenants, self.id, functools.partial(shutil.copyfile, file))
        self.tenants.take_restored(self.id)
        self.plain = copy.deepcopy(plain)
        self.plain.clock = max(self.plain.clock, self.read(positions.place).clock)

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

    # --- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def place_is_the_models(self) -> None:
        if self.tenants.path_of(self.id).exists():
            place = self.read(positions.place)
            assert (place.sequence, place.clock) == (self.plain.sequence, self.plain.clock)

    @invariant()
    def rows_are_the_models(self) -> None:
        if self.tenants.path_of(self.id).exists():
            held = {(table, row["id"]): row for table, row in self.read(stored_rows)}
            shown = {key: {name: row.get(name) for name in FIELDS} for key, row in held.items()}
            rows = {key: chain[-1].row for key, chain in self.plain.rows.items()}
            assert shown == {key: {name: row.get(name) for name in FIELDS} for key, row in rows.items()}

    @invariant()
    def log_rises_and_holds_each_operation_once(self) -> None:
        if self.tenants.path_of(self.id).exists():
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
        if sys.exc_info()[0] is None and self.tenants.path_of(self.id).exists():
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
    sql = "SELECT table_name, row_id, version, committed_at, fields, row ->> 'device_id' FROM _changes ORDER BY seq"
    return list(connection().execute(sql))


EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "80"))
TestSyncing = pytest.mark.slow(pytest.mark.timeout(120 + EXAMPLES)(Syncing.TestCase))
TestSyncing.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
