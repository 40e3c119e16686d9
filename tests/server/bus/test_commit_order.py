"""Commits of several processes are told in the order of their sequences, each once, in whatever order they arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.bus import commit_order
from server.bus.commit_order import CommitOrder

ENDS = st.lists(st.integers(1, 3), min_size=1, max_size=12)
"""How many rows each commit has."""


def commits_of(sizes: list[int], start: int = 0) -> list[tuple[int, int, list[bytes]]]:
    """Give commits that follow one another, each with a packet that names its end."""
    found = []
    for size in sizes:
        found.append((start, start + size, [b"%d" % (start + size)]))
        start += size
    return found


def begun(last: int = 0) -> CommitOrder:
    order = CommitOrder()
    order.expect("e", last)
    return order


@given(ENDS, st.data())
def test_commits_in_any_order_and_repeated_are_told_in_order_and_once(sizes: list[int], data: st.DataObject) -> None:
    commits = commits_of(sizes)
    order, told = begun(), list[bytes]()
    for before, after, packets in data.draw(st.permutations(commits + commits[: data.draw(st.integers(0, 3))])):
        told += order.take("e", before, after, packets)
    assert told == [packet for *_, packets in commits for packet in packets]
    assert order.last == commits[-1][1] and not order.is_waiting


@given(ENDS, st.data())
def test_when_one_never_comes_its_position_is_told_and_none_after_it_is_told_twice(
    sizes: list[int], data: st.DataObject
) -> None:
    commits = commits_of([1, *sizes, 1])
    missing = data.draw(st.integers(0, len(commits) - 2))
    order, told = begun(), list[bytes]()
    for before, after, packets in data.draw(st.permutations(commits[:missing] + commits[missing + 1 :])):
        told += order.take("e", before, after, packets)
    assert told == [packets[0] for *_, packets in commits[:missing]] and order.is_waiting
    assert order.give_up() == commits[-1][1] and not order.is_waiting
    assert order.take("e", *commits[missing]) == [], "what was missing comes after all"
    end = commits[-1][1]
    assert order.take("e", end, end + 1, [b"next"]) == [b"next"]


def test_first_commit_is_told_whatever_it_follows() -> None:
    order = CommitOrder()
    assert order.take("e", 41, 42, [b"42"]) == [b"42"] and order.last == 42


def test_commit_of_a_new_epoch_is_told_and_begins_it() -> None:
    order = begun(100)
    assert order.take("e", 200, 201, [b"waits"]) == [] and order.is_waiting
    assert order.take("new", 5, 6, [b"6"]) == [b"6"]
    assert (order.epoch, order.last, order.is_waiting) == ("new", 6, False)


def test_late_commit_of_an_epoch_that_a_restore_ended_is_not_told() -> None:
    """Fault: rows of before the restore were told after it, and the new epoch once more as if it began."""
    order = CommitOrder()
    order.take("old", 0, 7, [b"7"])
    assert order.expect("new", 10)
    assert order.take("old", 7, 8, [b"8"]) == [] and not order.expect("old", 9)
    assert (order.epoch, order.last) == ("new", 10) and order.take("new", 10, 11, [b"11"]) == [b"11"]


def test_position_beyond_what_was_told_is_waited_for() -> None:
    order = begun(1)
    assert not order.expect("e", 3) and order.is_waiting
    assert order.take("e", 1, 2, [b"2"]) == [b"2"] and order.is_waiting
    assert order.take("e", 2, 3, [b"3"]) == [b"3"] and not order.is_waiting


def test_position_of_a_new_epoch_is_to_be_told_at_once() -> None:
    order = begun(100)
    assert order.expect("new", 3) and (order.epoch, order.last) == ("new", 3)


def test_position_that_is_behind_changes_nothing() -> None:
    order = begun(5)
    assert not order.expect("e", 3) and not order.is_waiting and order.last == 5


def test_too_many_that_wait_are_not_kept_and_their_position_is() -> None:
    order = begun()
    for number in range(1, commit_order._MOST_WAITING + 10):
        order.take("e", number, number + 1, [b"x"])
    assert len(order._waiting) == commit_order._MOST_WAITING
    assert order.give_up() == commit_order._MOST_WAITING + 10
