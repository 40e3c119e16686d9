"""How a pull comes in: page by page, each with its cursor in one transaction, and the digest at the end.

Knows: the server's pull. Must not know: how requests are sent, what is in the outbox. A row that comes over an edit that
waits is stored under it: the edit stays, and stays based on what its writer saw.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Literal

from . import resync, rows
from .errors import NotEqual, ResyncRequired
from .replica import Replica, get_meta, set_meta
from .session import Session
from .wire import JSON, digest_of

PUSH, PULL = "/api/client/sync/push", "/api/client/sync/pull"
Report = Callable[[Literal["pull", "push"], int, dict[str, list[str]]], None]
"""Told after each transaction: what was done, how many rows, and the ids that changed by table."""

_ROUNDS = 5


class Pulling:
    """Brings a replica up to the server."""

    def __init__(
        self, replica: Replica, session: Session, tables: Sequence[str] | None, page_rows: int | None, report: Report
    ) -> None:
        """``tables``: which to sync, None for all that the server has."""
        self._replica, self._session, self._report = replica, session, report
        self._tables, self._page_rows = sorted(tables) if tables else None, page_rows
        self._is_verified = False

    def run(self, verify: bool = False) -> None:
        """Pull to the end; the first time, after starting anew, and on demand also compare the digest, and repair.

        Raises: NotEqual if not even that helps.
        """
        self._cover_tables()
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
                self._start_anew("missed")
        raise NotEqual(differing)

    def _cover_tables(self) -> None:
        """Start anew if a table is to be synced that was not so far."""
        with self._replica.transaction() as connection:
            covered = get_meta(connection, "tables")
            if covered == self._tables and get_meta(connection, "cursor"):
                return
            is_wider = covered is not None and (self._tables is None or not set(self._tables) <= set(covered))
            set_meta(connection, tables=self._tables)
            if is_wider and get_meta(connection, "cursor"):
                resync.begin(connection, "missed")

    def _pull_all(self) -> JSON:
        """Pull page by page from the replica's cursor to the end, and give the digests there."""
        while True:
            cursor = self._replica.meta("cursor")
            try:
                page = self._ask(cursor)
            except ResyncRequired:
                self._is_verified = False
                self._start_anew("restored" if self._is_of_another_database(cursor) else "missed")
                continue
            self._take(page)
            if not page["hasMore"]:
                digests: JSON = page["digest"]
                return digests

    def _ask(self, cursor: str | None) -> JSON:
        body: JSON = {"cursor": cursor, "digest": True}
        body |= {"limit": self._page_rows} if self._page_rows else {}
        body |= {"entityTypes": self._tables} if self._tables else {}
        return self._session.ask("POST", PULL, body)

    def _is_of_another_database(self, cursor: str | None) -> bool:
        """Tell a restored server from one that purged what we missed: a push only minds the former."""
        try:
            self._session.ask("POST", PUSH, {"operations": [], "baseCursor": cursor})
        except ResyncRequired:
            return True
        return False

    def _start_anew(self, reason: resync.Reason) -> None:
        with self._replica.transaction() as connection:
            resync.begin(connection, reason)

    def _take(self, page: JSON) -> None:
        """Store a page, its cursor, and if it is the last of a new start, the end of that, in one transaction."""
        changed: dict[str, list[str]] = {}
        with self._replica.transaction() as connection:
            reason, generation = get_meta(connection, "resync"), get_meta(connection, "generation")
            for table, got in page["data"].items():
                for row in got:
                    if _take_row(connection, table, row, generation, reason):
                        changed.setdefault(table, []).append(row["id"])
            if reason and not page["hasMore"]:
                for table, row_id in resync.end(connection, reason, generation):
                    changed.setdefault(table, []).append(row_id)
            set_meta(connection, cursor=page["cursor"])
        self._report("pull", sum(map(len, page["data"].values())), changed)

    def _differing(self, digests: JSON) -> list[str]:
        with self._replica.reading() as connection:
            ours = {table: digest_of(rows.ids_and_versions(connection, table)) for table in digests}
        return [table for table in digests if ours[table] != digests[table]]


def _take_row(
    connection: sqlite3.Connection, table: str, row: JSON, generation: int, reason: resync.Reason | None
) -> bool:
    if reason == "restored":
        resync.take_back(connection, table, row, generation)
    is_new = rows.store(connection, table, row, generation)
    if is_new and rows.has_edits(connection, table, row["id"]):
        rows.lay_over(connection, table, row["id"])
    return is_new
