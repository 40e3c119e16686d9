"""Finds misspelled settings among the environment variables, which would leave a default in place.

Knows: the edit distance of two names, which variables platforms set by themselves. Must not know: anything of ours;
standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

_OURS = re.compile(r"SYNC_?APP_(.+)", re.IGNORECASE)
_OF_A_PLATFORM = re.compile(r"SYNCAPP_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes sets in every container beside a service called ``syncapp``.
Source: kubernetes.io, Services, "Environment variables"; the form is that of Docker's links."""

_IS_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_FIRST_WORDS = re.compile(r"[A-Z]+_[A-Z_]*[A-Z]")
_MIN_LETTERS, _MANY_LETTERS = 6, 10


def sentences(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """For each variable that is probably meant as one of the ``known`` settings, say which one."""
    for name, value in sorted(environ.items()):
        if name in known or not value or _is_of_a_platform(name, value):
            continue
        ours = _OURS.fullmatch(name)
        meant = _meant(ours[1] if ours else name, known)
        if meant:
            yield f"{name} is no setting; {meant} is."
        elif ours:
            yield f"{name} is no setting."


def _is_of_a_platform(name: str, value: str) -> bool:
    return bool(_OF_A_PLATFORM.fullmatch(name)) or (name == "SYNCAPP_PORT" and bool(_IS_ADDRESS.match(value)))


def _meant(name: str, known: Collection[str]) -> str | None:
    """Give the setting that is nearest to a name, if it is near; a short name is near to too many."""
    upper = name.upper()
    several = re.sub("Y$", "IES", upper)
    if several in known:
        return several
    if _FIRST_WORDS.fullmatch(upper):
        begun = [one for one in known if one.startswith(f"{upper}_")]
        if len(begun) == 1:
            return begun[0]
    if len(name) < _MIN_LETTERS:
        return None
    max_distance = 2 if len(name) >= _MANY_LETTERS else 1
    near = [one for one in known if _may_be_within(max_distance, upper, one)]
    apart, nearest = min([(distance(upper, one), one) for one in near], default=(max_distance + 1, None))
    return nearest if apart <= max_distance else None


def _may_be_within(max_distance: int, one: str, other: str) -> bool:
    """Tell cheaply whether two names can be so near: an edit changes the length by one, and two of the kinds of letters.

    Else every start would compare each variable of the environment with each setting, which took 70 ms.
    """
    return abs(len(one) - len(other)) <= max_distance and len(set(one) ^ set(other)) <= 2 * max_distance


def distance(one: str, other: str) -> int:
    """Count the letters to insert, delete, substitute or swap to turn one name into the other.

    Source: the optimal string alignment distance (Damerau 1964).
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, theirs in enumerate(other, 1):
            cost = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != theirs))
            if before and column > 1 and letter == other[column - 2] and one[row - 2] == theirs:
                cost = min(cost, before[column - 2] + 1)
            now.append(cost)
        before, last = last, now
    return last[-1]
