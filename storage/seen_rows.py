"""Records which rows a device has seen: the base of an edit whose device only counts versions.

Knows: how pulls and pushes move the positions that a device was sent and is known to have, the statements on them. Must not
know: Flask, sockets, engines, what becomes of a change. Only what a device says it has is known: an answer may be lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from models import connection
from protocol.codec import encode
from protocol.messages import PushResult
from protocol.seen_rows import Evidence
from storage.pull_reader import Page

_CACHED = 10_000
_DAY_MS = 86_400_000
_MOST_OWN = 64
"""Pushes of a device that are remembered as its own, from when others pushed until it says that it has them."""

Query = Callable[[], Evidence | None]


class Evidences:
    """The evidence of all tenants' devices; what no file has yet is kept until ``take``, the rest may be forgotten.

    Where other processes serve the same tenants, a device may speak to each of them in turn: then what is stored counts,
    and news is stored before a request is answered (``is_due``).
    """

    def __init__(self) -> None:
        self.is_alone: Callable[[], bool] = lambda: True
        """Tells whether it is known that no other process serves these tenants."""
        self._latest: dict[tuple[str, str], Evidence] = {}
        self._unsaved: dict[str, dict[str, Evidence]] = {}

    def find(
        self, tenant_id: str, device_id: str | None, session_id: str, read: Callable[[str, Query], Evidence | None]
    ) -> Evidence:
        """Give what is known of a device: by its name, or by its session. ``read``: runs a query in a tenant."""
        who = f"device {device_id}" if device_id else f"session {session_id}"
        found = self._latest.get((tenant_id, who)) if self.is_alone() else None
        found = found or self._unsaved.get(tenant_id, {}).get(who)
        if found is None:
            session = None if device_id else session_id[:_SESSION_CHARACTERS]
            found = read(tenant_id, lambda: _read(who, session)) or Evidence(who, session)
            self._keep(tenant_id, found)
        return found

    def pulled(self, tenant_id: str, before: Evidence, page: Page, now: int) -> None:
        """Note what a device was sent, and what it said that it has: no less than ``since``, no more than ``claimed``."""
        old, until = before, page.until
        if before.epoch != page.epoch:
            old = before._replace(epoch=page.epoch, known={}, sent={}, first_push=None, may_have_deleted=False, own=())
        known = {table: min(max(old.known.get(table, 0), since), page.claimed) for table, since in page.starts.items()}
        is_news = any(
            old.known.get(table) != position or old.sent.get(table) != until for table, position in known.items()
        )
        if is_news or old is not before or now - before.seen_at > _DAY_MS:
            sent = dict.fromkeys(known, until)
            is_further = all(position >= old.known.get(table, 0) for table, position in known.items())
            own = old.own if is_further else ()  # Else it began anew, without what it made.
            found = old._replace(known={**old.known, **known}, sent={**old.sent, **sent}, seen_at=now, own=own)
            self._note(tenant_id, found)

    def pushed(self, tenant_id: str, before: Evidence, applied: PushResult) -> None:
        """Note that a device made what it pushed: it has all of it, if it had all that was there before.

        Not brought to the file, but for the first (``note_first_push``): without it, the device's changes are still known
        for its own.
        """
        now = self._latest.get((tenant_id, before.who), before)
        at, after = applied.before, applied.after
        if after.sequence == at.sequence:
            return
        is_same = now.epoch == at.epoch
        known, sent = (dict(now.known), dict(now.sent)) if is_same else ({}, {})
        for name in applied.touched:
            known.setdefault(name, 0)
        for positions in (known, sent):
            for name, position in positions.items():
                if position >= at.sequence:
                    positions[name] = after.sequence
        first = at.sequence if now.first_push is None or not is_same else now.first_push
        may_have_deleted = now.may_have_deleted or applied.may_delete
        own = now.own if is_same else ()
        if applied.has_seen_all and min(known.values()) < after.sequence:
            own = (*own, (at.sequence + 1, after.sequence))[-_MOST_OWN:]
        about = now.row_device_id, now.is_shared, now.seen_at, first, may_have_deleted, now.is_kept, own
        found = Evidence(now.who, now.session, at.epoch, known, sent, *about)
        others = applied.row_device_ids - {now.row_device_id} if applied.row_device_ids and now.session else None
        if others:
            is_shared = now.is_shared or now.row_device_id is not None or len(others) > 1
            self._note(tenant_id, found._replace(row_device_id=now.row_device_id or min(others), is_shared=is_shared))
        else:
            self._keep(tenant_id, found)

    def _keep(self, tenant_id: str, found: Evidence) -> None:
        if len(self._latest) >= _CACHED:
            self._latest.clear()
        self._latest[tenant_id, found.who] = found

    def _note(self, tenant_id: str, found: Evidence) -> None:
        self._keep(tenant_id, found)
        self._unsaved.setdefault(tenant_id, {})[found.who] = found

    def take(self, tenant_id: str) -> Mapping[str, Evidence]:
        """Give what no file of this tenant has yet, to be saved."""
        taken = self._unsaved.pop(tenant_id, {})
        for found in taken.values():
            self._note_kept(tenant_id, found, is_kept=any(found.known.values()))
        return taken

    def give_back(self, tenant_id: str, taken: Mapping[str, Evidence]) -> None:
        """Keep again what could not be saved."""
        for found in taken.values():
            self._note_kept(tenant_id, found, is_kept=True)
        self._unsaved[tenant_id] = {**taken, **self._unsaved.get(tenant_id, {})}

    def _note_kept(self, tenant_id: str, found: Evidence, *, is_kept: bool) -> None:
        latest = self._latest.get((tenant_id, found.who), found)
        self._keep(tenant_id, latest._replace(is_kept=is_kept))

    def is_due(self, tenant_id: str) -> bool:
        """Tell whether there is news that another process may be asked for next."""
        return tenant_id in self._unsaved and not self.is_alone()

    @property
    def tenants(self) -> list[str]:
        """List the tenants of which something is not written yet."""
        return list(self._unsaved)


_SESSION_CHARACTERS = 13
"""Of a session's UUID, as the log of changes has it."""


_COLUMNS = "epoch, known, sent, speaker, is_shared, seen_at, first_push"


def _read(who: str, session: str | None) -> Evidence | None:
    found = connection().execute(f"SELECT {_COLUMNS} FROM _evidence WHERE who = ?", (who,)).fetchone()
    if found is None:
        return None
    epoch, known, sent, speaker, is_shared, seen_at, first_push = found
    positions = json.loads(known), json.loads(sent)
    about = speaker, bool(is_shared), seen_at, first_push, first_push is not None, any(positions[0].values())
    return Evidence(who, session, epoch, *positions, *about)


def save(found: Mapping[str, Evidence]) -> None:
    """Write what is known of devices. What a pull showed may be written after a push that came later."""
    for who, one in found.items():
        kept = _read(who, None)
        is_same = kept is not None and kept.epoch == one.epoch
        _write(_merged(kept, one) if kept and is_same else one, is_new=kept is None)


def _merged(kept: Evidence, one: Evidence) -> Evidence:
    """Put together what is stored of a device and what is to be, which may be the older: its first push is stored before
    its pulls are, and another process may have heard of it since."""
    first = one.first_push if kept.first_push is None else kept.first_push
    speakers = {kept.row_device_id, one.row_device_id} - {None}
    is_shared = kept.is_shared or one.is_shared or len(speakers) > 1
    if kept.seen_at > one.seen_at:
        known, sent = _furthest(kept.known, one.known), _furthest(kept.sent, one.sent)
        one = one._replace(known=known, sent=sent, seen_at=kept.seen_at)
    return one._replace(first_push=first, row_device_id=kept.row_device_id or one.row_device_id, is_shared=is_shared)


def _furthest(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {name: max(some.get(name, 0), others.get(name, 0)) for name in {*some, *others}}


def _write(one: Evidence, *, is_new: bool) -> None:
    positions = encode(one.known).decode(), encode(one.sent).decode()
    values = one.epoch, *positions, one.row_device_id, one.is_shared, one.seen_at, one.first_push, one.who
    connection().execute(_INSERT if is_new else _UPDATE, values)


_INSERT = f"INSERT INTO _evidence ({_COLUMNS}, who) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = (
    "UPDATE _evidence SET epoch = ?, known = ?, sent = ?, speaker = ?, is_shared = ?, seen_at = ?, first_push = ?"
    " WHERE who = ?"
)


def note_first_push(pusher: Evidence, applied: PushResult, now: int) -> None:
    """Note in the file where a device's first push came, with that push itself: it may never have the answer."""
    at = applied.before
    is_noted = pusher.first_push is not None and pusher.epoch == at.epoch
    if is_noted or applied.after.sequence == at.sequence:
        return
    kept = _read(pusher.who, None)
    if kept is None:
        one = Evidence(pusher.who, None, at.epoch, seen_at=now, first_push=at.sequence)
    elif kept.epoch != at.epoch:
        one = kept._replace(epoch=at.epoch, known={}, sent={}, seen_at=now, first_push=at.sequence)
    else:
        first = at.sequence if kept.first_push is None else kept.first_push
        one = kept._replace(seen_at=now, first_push=first)
    _write(one, is_new=kept is None)


def forget(before: int) -> None:
    """Forget what is known of devices that were last here before ``before``."""
    connection().execute("DELETE FROM _evidence WHERE seen_at <= ?", (before,))
