"""What the whole of sync is held against: the server in dictionaries, and a device with its replica.

``Plain`` says what docs/api.md says. Must not know: how the server does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from protocol.codec import format_time
from tests.conftest import JSON
from tests.storage.test_devices import digest_of

FRESH: dict[str, JSON] = {"end_user": {"name": None, "note": None}, "interactions": {}}
"""Columns that a new row has from its table; to interactions these two are fields it does not know."""
Key = tuple[str, str]


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
        latest = format_time(edited if is_anew or not chain else max(edited, chain[-1].edited_at))
        row = {**old, **fields, "version": self.version(key) + 1, "updatedAt": format_time(this.at)}
        row["last_updated"] = latest
        names = {name for name in before | row if before.get(name) != row.get(name)} - {"version", "updatedAt"}
        names -= set() if is_anew else {"last_updated"}  # It is written with the row, not by the device.
        chain.append(Entry(self.sequence, edited, frozenset(names) if before else None, row, this.device))
        this.written[key] = this.written.get(key, set()) | (names if before else fields.keys())

    def is_deleted(self, key: Key) -> bool:
        return key in self.rows and bool(self.rows[key][-1].row["is_deleted"])

    def version(self, key: Key) -> int:
        return int(self.rows[key][-1].row["version"]) if self.rows.get(key) else 0

    def size(self) -> int:
        return sum(map(len, self.rows.values()))

    def purge(self, until: int, receipts_before: int) -> None:
        """Drop what was replaced up to ``until``, and deleted rows with it."""
        for key, chain in list(self.rows.items()):
            newest = chain[-1]
            chain[:-1] = [entry for entry, after in pairwise(chain) if after.sequence > until]
            if newest.row["is_deleted"] and newest.sequence <= until:
                del self.rows[key]
        self.receipts = {name: kept for name, kept in self.receipts.items() if kept[1] > receipts_before}


def fields_of(operation: JSON) -> JSON:
    """Give what an operation says of the row."""
    fields = {name: value for name, value in operation["data"].items() if name != "id"}
    return fields | ({"is_deleted": 1} if operation["operation"] == "delete" else {})


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
