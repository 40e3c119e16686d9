"""Reads the archive that ``export`` writes, line by line, and believes nothing of it.

Knows: the parts of the archive and the forms of their lines. Must not know: the command line, SQL, engines, what becomes of
it. Names in the archive are compared and never used as paths; its ``tenant.db`` is not opened: a database from outside may
run code of its own, and lines say the same.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from protocol.codec import Row, decode, parse_time, whole_number
from protocol.errors import Problem
from protocol.identifiers import IDENTIFIER

HISTORY, CONFLICTS, DEVICES, ACCOUNT = "history.jsonl", "conflicts.jsonl", "devices.jsonl", "account.json"
_OTHERS = {"README.txt", "tenant.db"}
_ROWS = re.compile(r"rows/(\w{1,64})\.jsonl", re.ASCII)
_LEAST_LINE_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that are read a bounded part at a time: of the others a few bytes become megabytes at once."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class ArchiveError(RuntimeError):
    """An archive that can't be imported; as text it says why."""


class Entry(NamedTuple):
    """A change of the history: times in milliseconds, ``fields`` None if it made the row."""

    sequence: int
    table: str
    id: str
    version: int
    committed_at: int
    edited_at: int
    device_id: str | None
    fields: list[str] | None
    row: Row


class Archive:
    """An open archive."""

    def __init__(self, file: zipfile.ZipFile, path: Path, row_bytes: int) -> None:
        """``row_bytes``: how large a row may be here. Raises: ArchiveError if it is not one of ours."""
        self._file, self._path = file, path
        self._most_bytes = max(_LEAST_LINE_BYTES, 2 * row_bytes)
        names = [info.filename for info in file.infolist()]
        if len(set(names)) < len(names):
            raise self._bad("a part is in it twice")
        for name in names:
            if name not in {HISTORY, CONFLICTS, DEVICES, ACCOUNT, *_OTHERS} and not _ROWS.fullmatch(name):
                raise self._bad(f"it has a part {name[:80]!r}, which no export has")
        if missing := {HISTORY, CONFLICTS, DEVICES, ACCOUNT} - set(names):
            raise self._bad(f"it has no {sorted(missing)[0]}")
        if any(info.compress_type not in _METHODS for info in file.infolist()):
            raise self._bad("it is compressed in a way that no export uses")
        self.tables = [found[1] for found in map(_ROWS.fullmatch, names) if found]

    def account(self) -> Row:
        """Give whose it is. Raises: ArchiveError."""
        with self._reading(ACCOUNT), self._file.open(ACCOUNT) as part:
            return self._object(part.read(self._most_bytes + 1), ACCOUNT)

    def lines(self, part: str) -> Iterator[tuple[str, Row]]:
        """Give the objects of a part, each with the name of its line. Raises: ArchiveError."""
        with self._reading(part), self._file.open(part) as opened:
            number = 0
            while line := opened.readline(self._most_bytes + 1):
                number += 1
                place = f"{part}, line {number:,}"
                if not line.endswith(b"\n") and len(line) <= self._most_bytes:
                    raise self._bad(f"{place}: it is cut off")
                yield place, self._object(line, place)

    def rows(self, table: str) -> Iterator[tuple[str, Row]]:
        """Give the rows of a table."""
        return self.lines(f"rows/{table}.jsonl")

    def history(self) -> Iterator[tuple[str, Entry]]:
        """Give the changes, whose sequences and times rise. Raises: ArchiveError."""
        sequence = committed = 0
        for place, line in self.lines(HISTORY):
            entry = self._entry(place, line)
            if entry.sequence <= sequence or entry.committed_at < committed:
                raise self._bad(f"{place}: changes are not in the order of their commits")
            sequence, committed = entry.sequence, entry.committed_at
            yield place, entry

    def _entry(self, place: str, line: Row) -> Entry:
        row, fields = line.get("row"), line.get("fields")
        sequence, version = whole_number(line.get("sequence")), whole_number(line.get("version"))
        row_id, device = line.get("id"), line.get("deviceId")
        is_good = (
            isinstance(row, dict)
            and isinstance(line.get("table"), str)
            and isinstance(row_id, str)
            and IDENTIFIER.fullmatch(row_id)
            and (row.get("id"), row.get("version")) == (row_id, version)
            and row.get("is_deleted") in (0, 1)
            and sequence
            and version
            and 0 < sequence < 2**53
            and 0 < version < 2**53
            and (device is None or isinstance(device, str))
            and (fields is None or (isinstance(fields, list) and all(isinstance(name, str) for name in fields)))
        )
        if not is_good or not isinstance(row, dict) or sequence is None or version is None or not row_id:
            raise self._bad(f"{place}: it is no change of a row")
        times = (line.get("committedAt"), line.get("editedAt"), row.get("createdAt"), row.get("updatedAt"))
        committed, edited, *_ = (self.time(place, time) for time in times)
        return Entry(sequence, str(line["table"]), row_id, version, committed, edited, device, fields, row)

    def time(self, place: str, text: object) -> int:
        """Read a time of a line. Raises: ArchiveError."""
        try:
            return parse_time(text, place)
        except Problem as error:
            raise self._bad(f"{place}: a time {error}") from None

    def bad(self, place: str, why: str) -> ArchiveError:
        """Say what is wrong with a line."""
        return self._bad(f"{place}: {why}")

    def _object(self, line: bytes, place: str) -> Row:
        if len(line) > self._most_bytes:
            raise self._bad(f"{place}: it is longer than {self._most_bytes:,} bytes")
        try:
            found: Any = decode(line)
        except Problem as error:
            raise self._bad(f"{place}: {error}") from None
        if not isinstance(found, dict):
            raise self._bad(f"{place}: it is no object")
        return found

    def _bad(self, why: str) -> ArchiveError:
        return ArchiveError(f"{self._path} can't be imported: {why}.")

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        try:
            yield
        except ArchiveError:
            raise
        except _BROKEN as error:
            raise self._bad(f"{part} is damaged ({error})") from None


@contextmanager
def opened(path: Path, row_bytes: int) -> Iterator[Archive]:
    """Open an archive.

    Raises: ArchiveError, OSError.
    """
    try:
        file = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise ArchiveError(f"{path} is no archive of export, or it is cut off ({error}).") from None
    with file:
        yield Archive(file, path, row_bytes)
