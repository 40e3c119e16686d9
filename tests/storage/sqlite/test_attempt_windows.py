"""Attempts in the memory of the one process that has the files.

Seen to fail with: a ``_within`` that forgets nothing, a ``_sweep`` that drops no key, or drops every key.
"""

from __future__ import annotations

import time

from storage.sqlite.attempt_windows import _KEPT_AT_LEAST, AttemptWindows


def windows_at(now: list[float]) -> AttemptWindows:
    return AttemptWindows(lambda: now[0])


def test_window_moves_with_each_attempt() -> None:
    now = [100.0]
    windows = windows_at(now)
    taken = []
    for now[0] in (100.0, 104.0, 108.0, 110.0, 110.5, 114.0):
        taken.append(windows.acquire_entry("k", 2, 10))
    assert taken == [True, True, False, True, False, True]


def test_state_of_a_window_is_its_count_and_its_oldest_attempt_by_the_clock_on_the_wall() -> None:
    now = [100.0]
    windows = windows_at(now)
    for now[0] in (100.0, 103.0):
        windows.acquire_entry("k", 5, 10)
    now[0] = 109.0
    oldest, count = windows.get_moving_window("k", 5, 10)
    assert count == 2 and 8.9 < time.time() - oldest < 60
    now[0] = 112.0
    assert windows.get_moving_window("k", 5, 10)[1] == 1
    assert windows.get_moving_window("other", 5, 10)[1] == 0


def test_keys_whose_window_is_over_are_forgotten() -> None:
    """Fault: the library ``limits`` kept each address that had ever tried, and went through all at each attempt."""
    now = [0.0]
    windows = windows_at(now)
    for number in range(10 * _KEPT_AT_LEAST):
        now[0] += 0.1
        assert windows.acquire_entry(f"address {number}", 1, 10)
    assert len(windows) <= _KEPT_AT_LEAST + 1
    assert not windows.acquire_entry(f"address {number}", 1, 10)
