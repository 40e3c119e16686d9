"""Checks that an answer has the form of a sync server's before it is used.

Knows: the shapes of answers that this client reads. Must not know: how they come, what is done with them. An answer
that lacks a part is a proxy's, a portal's, or was cut; it says nothing about an edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import Offline
from .wire import JSON


def tokens_of(answer: JSON) -> tuple[str, str]:
    """Give the tokens of a log-in or a renewal. Raises: Offline."""
    data = _has(answer, {"data": dict})["data"]
    _has(data, {"token": str, "refreshToken": str})
    return data["token"], data["refreshToken"]


def page_of(answer: JSON) -> JSON:
    """Give a page of a pull. Raises: Offline."""
    _has(answer, {"data": dict, "cursor": str, "hasMore": bool} | ({} if answer.get("hasMore") else {"digest": dict}))
    for got in answer["data"].values():
        for row in _has({"rows": got}, {"rows": list})["rows"]:
            _check_row(row)
    return answer


def outcomes_of(answer: JSON, count: int) -> JSON:
    """Give the outcomes of a push of so many edits. Raises: Offline."""
    shape = {"data": list, "results": list, "conflicts": list, "cursor": str, "previousCursor": str}
    _has(answer, shape)
    if not len(answer["data"]) == len(answer["results"]) == count:
        raise Offline("The server answered for another number of edits than it was sent.")
    for row, result in zip(answer["data"], answer["results"], strict=True):
        if _has(result, {"status": str, "version": int} if row else {"status": str})["status"] == "rejected":
            _has(result, {"error": str})
        elif _has(row, {"id": str, "version": int})["version"] > 0:  # 0: a delete of what the server never had.
            _check_row(row)
    for conflict in answer["conflicts"]:
        _check_conflict(conflict)
    return answer


def conflicts_of(answer: JSON) -> JSON:
    """Give a page of the list of conflicts. Raises: Offline."""
    for conflict in _has(answer, {"data": list, "hasMore": bool})["data"]:
        _check_conflict(conflict)
    return answer


def _check_row(row: Any) -> None:
    _has(row, {"id": str, "version": int, "updatedAt": str})


def _check_conflict(conflict: Any) -> None:
    _has(conflict, {"conflictId": int, "detectedAt": str, "table": str, "id": str, "fields": dict})


def _has(part: Any, shape: Mapping[str, type]) -> JSON:
    if isinstance(part, dict) and all(isinstance(part.get(name), kind) for name, kind in shape.items()):
        return part
    raise Offline("The answer is none of a sync server's: something between may have given it.")
