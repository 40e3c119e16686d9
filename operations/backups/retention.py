"""Which backups stay, and which objects nothing needs any more.

Knows: the rule of BACKUP_KEEP, when no backup may be removed. Must not know: how a backup is made, what is in objects.

The newest of each of the last hours, days and weeks stays, and the last one of a customer who did not close the account.
An object goes when none of the backups that stay names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from operations.backups.catalogue import Catalogue, Catalogues, catalogue_name, time_of
from operations.backups.manifest import BackupError
from operations.backups.objects import KeyDoesNotFit
from operations.backups.places import PlaceUnusable

_PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V"}
_ORPHAN_SECONDS = 86_400
"""How old an object must be that no backup names: one of a run that is at work elsewhere may have none yet."""

Report = Callable[[str], object]


class Removed(NamedTuple):
    """The backups that were removed, how many objects went with them, and why nothing was removed, if so."""

    names: list[str]
    objects: int
    kept_why: str | None = None


def staying(names: Iterable[str], keep: str) -> set[str]:
    """Give the backups that stay by the rule, such as ``hourly=24,daily=7``; the newest always stays."""
    newest_first = sorted(names, reverse=True)
    stay = set(newest_first[:1])
    for rule in keep.split(","):
        period, _, count = rule.partition("=")
        newest_of: dict[str, str] = {}
        for name in newest_first:
            newest_of.setdefault(datetime.fromtimestamp(time_of(name), UTC).strftime(_PERIODS[period]), name)
        stay |= set(list(newest_of.values())[: int(count)])
    return stay


def remove_old(
    catalogues: Catalogues, newest: Catalogue, keep: str, closed: Collection[str], report: Report
) -> Removed:
    """Remove the backups that are too old, with their objects. ``closed``: customers whose data may go.

    Where a backup that stays can't be read, nothing is removed, since nobody knows what it needs.
    """
    names = catalogues.names()
    stay = staying(names, keep)
    going = sorted(set(names) - stay)
    if not going:
        return Removed([], 0)
    read = {}
    for name in names:
        try:
            read[name] = newest if name == newest.name else catalogues.read(name, also_plain=True)
        except BackupError as error:
            why = str(error) if isinstance(error, PlaceUnusable | KeyDoesNotFit) else f"{error}. {_remove(name)}"
            report(f"nothing was removed: {why}")
            return Removed([], 0, why)
    going = _without_the_last_of_somebody(going, read, closed, report)
    catalogues.remove(going)
    needed = {one for name in read.keys() - set(going) for one in read[name].objects()}
    dropped = {one for name in going for one in read[name].objects()}
    gone = [one for one in catalogues.objects() if one not in needed and (one in dropped or _is_orphan(one))]
    catalogues.place.remove(gone)
    for name in going:
        report(f"removed {name}")
    return Removed(going, len(gone))


def _remove(name: str) -> str:
    return f"If you can't mend it, remove {catalogue_name(name)} there: nobody knows which objects it needs."


def _without_the_last_of_somebody(
    going: list[str], read: Mapping[str, Catalogue], closed: Collection[str], report: Report
) -> list[str]:
    """Give of some backups those that may go, the oldest first: the last one that holds a customer stays."""
    left = set(read)
    for name in going:
        others = set[str]().union(*(read[other].tenants for other in left if other != name))
        if alone := read[name].tenants.keys() - others - set(closed):
            report(f"{name} stays: no other backup holds {', '.join(sorted(alone))}")
        else:
            left.remove(name)
    return [name for name in going if name not in left]


def _is_orphan(name: str) -> bool:
    """Tell whether an object that no backup names is old enough to be nobody's."""
    try:
        return time_of(name.rpartition("-")[2].partition(".")[0]) < time.time() - _ORPHAN_SECONDS
    except ValueError:  # It is not of our making.
        return False
