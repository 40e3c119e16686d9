"""Which rows a push will look up, said before it does: where each look-up is a round trip, they are made together.

Knows: which names of its rows a change is found by. Must not know: Flask, sockets, engines, statements, what becomes of a
change. What is said is a guess: what it leaves out is looked up when it is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import attrgetter
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
    found: Wanted = defaultdict(set)
    typed = [one for one in some if isinstance(one, TypedRow)]
    for decoder, own in groupby(typed, attrgetter("decoder")):
        table, rows = decoder.table.name, list(own)
        names = [one.row.Unique_id for one in rows if one.is_new or not one.row_id]
        found[table, "id"].update(one.row_id for one in rows if one.row_id)
        found[table, "Unique_id"].update(filter(None, names))
    for change in [one for one in some if isinstance(one, Change)] if len(typed) < len(some) else ():
        if change.table is not None and not change.problems:
            found[change.table.name, "id"].update(filter(None, [change.row_id]))
            found[change.table.name, "Unique_id"].update(filter(None, [change.unique_id]))
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
