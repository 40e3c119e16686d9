"""What was: the history of each row, the edits that lost, and bringing either back.

Knows: the statements that read the log of changes backwards and the log of conflicts, bound to one tenant by the caller.
Must not know: Flask, sockets, engines. To bring something back is a change like any other, made by ``push_writer.apply``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from models import connection
from protocol.codec import Row, format_time, has_null
from protocol.errors import NotFound, ValidationError
from protocol.messages import PushResult, same
from storage.system_tables import Conflict, Logged, shown_conflict

State = Literal["open", "resolved", "all"]
Resolution = Literal["keep", "other", "row"]


def history(table: str, row_id: str, before_version: int | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """List a row's changes from the newest back, at most ``limit``, and tell whether older ones are held.

    Raises: NotFound if there never was such a row, or nothing of it is held any more.
    """
    sequence = next((row[0] for row in connection().execute(_NEWEST.format(table=table), (row_id,))), None)
    if sequence is None:
        raise NotFound("There is no such row.")
    entries: list[dict[str, Any]] = []
    while sequence is not None:
        entry = Logged.get_or_none(Logged.sequence == sequence)
        if entry is None:
            return entries, False
        if before_version is None or entry.version < before_version:
            if len(entries) == limit:
                return entries, True
            entries.append(_shown(entry))
        sequence = entry.previous
    return entries, False


_NEWEST = 'SELECT e._seq FROM "{table}" AS e WHERE e.id = ?'


def _shown(entry: Logged) -> dict[str, Any]:
    return {
        "version": entry.version,
        "operation": "create" if entry.previous is None else "delete" if _is_delete(entry) else "update",
        "fields": entry.fields,
        "deviceId": entry.device_id,
        "editedAt": format_time(entry.edited_at),
        "committedAt": format_time(entry.committed_at),
        "row": entry.row,
    }


def _is_delete(entry: Logged) -> bool:
    return "is_deleted" in entry.fields and bool(entry.row["is_deleted"])


def fields_of_version(table: str, row_id: str, version: int) -> tuple[Row, int]:
    """Give what a change must set to make a row again what it was at ``version``, and the version that the row has now.

    A field that the row did not have then becomes null. One with U+0000, which older versions took, is left out if the
    row still has it: no change can say it any more. Raises: NotFound if that version is not held.
    """
    held, _ = history(table, row_id, None, 1)
    then, _ = history(table, row_id, version + 1, 1)
    if not then or then[0]["version"] != version:
        raise NotFound("This version of the row is not held.")
    of_now, of_then = held[0]["row"], then[0]["row"]
    left = {name for name, value in of_then.items() if has_null([name, value]) and same(value, of_now.get(name))}
    fields: Row = {name: of_then.get(name) for name in of_now | of_then if name not in left}
    return fields, held[0]["version"]


def conflicts(state: State, after: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """List conflicts in the order of their detection, and tell whether more follow."""
    query = Conflict.select().where(Conflict.number > after).order_by(Conflict.number).limit(limit + 1)
    found = list(query if state == "all" else query.where(Conflict.state == state))
    return [shown_conflict(conflict) for conflict in found[:limit]], len(found) > limit


def conflict(number: int) -> Conflict:
    """Find a conflict.

    Raises: NotFound.
    """
    found: Conflict | None = Conflict.get_or_none(Conflict.number == number)
    if found is None:
        raise NotFound("There is no such conflict.")
    return found


def losing_fields(found: Conflict) -> Row:
    """Give the values that lost, for the change that takes them after all."""
    loser = {"client": "server", "server": "client"}
    return {name: field[loser[field["winner"]]] for name, field in found.fields.items()}


def is_row_held(found: Conflict) -> bool:
    """Tell whether there is a row of this id, be it deleted."""
    return any(connection().execute(_NEWEST.format(table=found.table), (found.row_id,)))


def _check_row(found: Conflict) -> None:
    """Refuse to set anything of a row that was deleted and removed since: what lost is a part of a row.

    Raises: NotFound.
    """
    of_now = f'SELECT e.version, e."createdAt" FROM "{found.table}" AS e WHERE e.id = ?'
    for version, created_at in connection().execute(of_now, (found.row_id,)):
        if version >= found.version and created_at <= format_time(found.detected_at):
            return
    raise NotFound(
        "The row of this conflict is no longer held: it was deleted, and removed or made anew since. Resolve the conflict"
        " with keep; to have the row back, create it."
    )


def resolve(number: int, resolution: Resolution, now: int, write: Callable[[], PushResult]) -> PushResult:
    """Note a person's decision together with the change that it makes, in the transaction of the caller.

    Raises: ValidationError if somebody decided before, NotFound if there is no row to decide on.
    """
    found = conflict(number)
    if found.state != "open":
        raise ValidationError("This conflict was resolved already.")
    if resolution != "keep":
        _check_row(found)
    applied = write()
    found.state, found.resolution, found.resolved_at = "resolved", resolution, now
    found.save()
    return applied
