"""Which rows a push will look up, said before it does: where each look-up is a round trip, they are made together.

Knows: which names of its rows a change is found by. Must not know: Flask, sockets, engines, statements, what becomes of a
change. What is said is a guess: what it leaves out is looked up when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from protocol.messages import Change, Push
from protocol.row_decoder import TypedRow

Wanted = dict[tuple[str, str], set[str]]
"""By table and column the values that rows are looked up by."""

FIRST_ROWS = 16
"""How many rows of a push are looked at before it begins."""

_MORE_ROWS = 512
"""How many of a long push are looked up together after that."""


def first_wanted(push: Push) -> Wanted:
    """Tell by which values a push will look its first rows up. It reads them as before, and fails where it would have."""
    some: list[Any] = []
    try:
        for one in islice(push.changes, FIRST_ROWS):
            some.append(one)
    except Exception as error:
        push.changes = chain(some, _raising(error))
    else:
        push.changes = chain(some, push.changes)
    return wanted(some)


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield


def wanted(some: Sequence[Change | TypedRow]) -> Wanted:
    """Tell by which values these changes will be looked up: an edit by its id, or without one by its ``Unique_id``."""
    found: Wanted = {}
    for one in some:
        if isinstance(one, TypedRow):
            table, row_id, unique_id, may_be_new = one.table.name, one.row_id, one.row.Unique_id, one.is_new
        elif one.table is not None and not one.problems:
            table, row_id, unique_id, may_be_new = one.table.name, one.row_id, one.unique_id, True
        else:
            continue
        if row_id:
            found.setdefault((table, "id"), set()).add(row_id)
        if unique_id and (may_be_new or not row_id):
            found.setdefault((table, "Unique_id"), set()).add(unique_id)
    return found


def looked_ahead(changes: Iterator[Any], look_up: Callable[[Wanted], None]) -> Iterator[Any]:
    """Give changes, some at a time, of which ``look_up`` is told before.

    What was decoded in advance is decoded again where its decoder has learned meanwhile that it is something else.
    """
    rows = FIRST_ROWS
    while some := list(islice(changes, rows)):
        look_up(wanted(some))
        for one in some:
            if isinstance(one, TypedRow) and one.is_new is not one.decoder.expects_new:
                yield one if one.decode_as_expected() else one.change()
            else:
                yield one
        rows = _MORE_ROWS
