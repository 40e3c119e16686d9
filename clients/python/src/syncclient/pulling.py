"""Pulls page by page, stores each page with its cursor in one transaction, and compares the digest at the end.

Knows: the server's pull. Must not know: how requests are sent, what is in the outbox. A row with a
waiting edit is stored below the edit, whose base stays what its writer saw.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Literal

from . import places, records, resync, rows
from .answers import page_of
from .errors import NotEqual, Offline, ResyncRequired, Stalled, SyncError
from .pace import Pace
from .replica import Replica, get_meta, new_device_id, set_meta
from .session import Session
from .wire import JSON, digest_of

PULL = "/api/client/sync/pull"
Report = Callable[[Literal["pull", "push"], int, dict[str, list[str]]], None]
"""Told after each transaction: what was done, how many rows, and the ids that changed by table."""

_ROUNDS = 5
_PAGE_ROWS = 1000
"""As many as the server gives if it is not told."""


class Pulling:
    """Brings a replica up to the server."""

    def __init__(
        self, replica: Replica, session: Session, tables: Sequence[str] | None, page_rows: int | None, report: Report
    ) -> None:
        """``tables``: which to sync, None for all that the server has."""
        self._replica, self._session, self._report = replica, session, report
        self._tables, self._page_rows = sorted(tables) if tables else None, page_rows
        self._pace = Pace(page_rows or _PAGE_ROWS)
        self._is_verified = False
        self.is_known = False
        """Whether the server has heard since the start from where this replica goes on, and told if that is a copy."""

    def run(self, verify: bool = False) -> None:
        """Pull to the end; the first time, after starting anew, and on demand also compare the digest, and repair.

        Raises: NotEqual if not even that helps.
        """
        with self._replica.transaction() as connection:
            places.want(connection, self._tables)
        self._session.go_by(self._replica.meta("device_id"))  # Another process may have told a copy apart.
        differing: list[str] = []
        for round_ in range(_ROUNDS):
            digests = self._pull_all()
            if self._is_verified and not verify:
                return
            differing = self._differing(digests)
            if not differing:
                self._is_verified = True
                return
            if 1 <= round_ < _ROUNDS - 1:  # Not at once: a row that changed while the page was written comes after it.
                self._start_anew(differing)
        raise NotEqual(differing)

    def _pull_all(self) -> JSON:
        """Pull all tables to the end, and give the digests there.

        Those that are at different places go on by themselves first, and then together from the place of the first.
        """
        while True:
            with self._replica.reading() as connection:
                groups = places.groups(connection) or [[]]
            if len(groups) == 1:
                digests = self._pull_group(groups[0], is_all=self._tables is None)
                with self._replica.reading() as connection:
                    if places.shared(connection):
                        return digests
            else:
                self._catch_up(groups)

    def _catch_up(self, groups: list[list[str]]) -> None:
        """Pull each group by itself; tables that the server does not sync keep to the place of the others.

        Without the device's name: those that got further go back to the place of the first, which would look like a copy.
        """
        caught_up: list[list[str]] = []
        refused: SyncError | None = None
        for tables in groups:
            try:
                self._pull_group(tables, is_all=False, is_named=False)
                caught_up.append(tables)
            except SyncError as error:
                if error.code != "validation_error":  # None of these tables is one of the server's.
                    raise
                refused = error
        if refused and not caught_up:
            raise refused
        with self._replica.transaction() as connection:
            everywhere = [table for tables in groups for table in tables]
            places.move(connection, everywhere, places.place_of(connection, caught_up[0]))

    def _pull_group(self, tables: list[str], is_all: bool, is_named: bool = True) -> JSON:
        """Pull tables that have one place page by page to the end, and give the digests there; ``is_all``: new ones too."""
        while True:
            with self._replica.reading() as connection:
                place = places.place_of(connection, tables)
            try:
                page = self._ask(place, None if is_all else tables, is_named)
            except ResyncRequired:
                self._is_verified = False
                self._start_anew(tables)
                continue
            except Stalled:
                self._pace.shrink(self._pace.rows)
                if self._pace.rows == 1:
                    raise
                continue
            except Offline:
                self._pace.shrink(self._pace.rows)
                raise
            self._pace.grow()
            if page.get("wentBack"):
                self._tell_apart()
            self.is_known = self.is_known or is_named
            self._take(page, tables, place)
            if not page["hasMore"]:
                digests: JSON = page["digest"]
                return digests
            tables = tables or list(page["data"])

    def _ask(self, place: str | None, tables: list[str] | None, is_named: bool) -> JSON:
        body: JSON = {"cursor": place, "digest": True}
        body |= {"limit": self._pace.rows} if self._page_rows or self._pace.rows < self._pace.most else {}
        body |= {"entityTypes": tables} if tables is not None else {}
        return page_of(self._session.ask("POST", PULL, body, **{} if is_named else {"X_Device_Id": None}))

    def _tell_apart(self) -> None:
        """Take a new name after the server heard of a later place from this one: an older state of the file was put back.

        A start from the beginning says earlier places too, and is none.
        """
        with self._replica.transaction() as connection:
            if not places.starting(connection):
                set_meta(connection, device_id=new_device_id())
        self._session.go_by(self._replica.meta("device_id"))

    def _start_anew(self, tables: Sequence[str]) -> None:
        with self._replica.transaction() as connection:
            places.start_anew(connection, tables)

    def _take(self, page: JSON, tables: list[str], place: str | None) -> None:
        """Store a page, its place, and if it is the last of a new start, the end of that, in one transaction."""
        changed: dict[str, list[str]] = {}
        with self._replica.transaction() as connection:
            epoch = places.epoch_of(page["cursor"])
            restored = {table for table, of in places.starting(connection).items() if set(of) - {epoch}}
            if restored and get_meta(connection, "epoch") not in (None, epoch):
                records.leave_behind(connection)
            for table, got in page["data"].items():
                generation = places.generation_of(connection, table)
                for row in got:
                    if _take_row(connection, table, row, generation, table in restored):
                        changed.setdefault(table, []).append(row["id"])
            for table in tables if not page["hasMore"] else ():
                if table in places.starting(connection):
                    gone = resync.end(connection, table, places.generation_of(connection, table), table in restored)
                    changed.setdefault(table, []).extend(gone)
                    places.is_through(connection, table)
            _move(connection, page, tables, place)
            set_meta(connection, epoch=epoch)
        self._report(
            "pull", sum(map(len, page["data"].values())), {table: ids for table, ids in changed.items() if ids}
        )

    def _differing(self, digests: JSON) -> list[str]:
        with self._replica.reading() as connection:
            ours = {table: digest_of(rows.ids_and_versions(connection, table)) for table in digests}
        return [table for table in digests if ours[table] != digests[table]]


def _move(connection: sqlite3.Connection, page: JSON, tables: list[str], place: str | None) -> None:
    """Note how far the tables of a page are; one that the server has newly is to be pulled from its start."""
    known = places.wanted(connection)
    new = [table for table in page["data"] if table not in known]
    places.move(connection, new, page["cursor"] if place is None and not tables else None)
    places.move(connection, [table for table in tables if table in page["data"]], page["cursor"])


def _take_row(connection: sqlite3.Connection, table: str, row: JSON, generation: int, is_restored: bool) -> bool:
    if is_restored:
        resync.take_back(connection, table, row, generation)
    is_new = rows.store(connection, table, row, generation)
    if is_new and rows.has_edits(connection, table, row["id"]):
        rows.lay_over(connection, table, row["id"])
    return is_new
