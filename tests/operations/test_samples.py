"""Samples of a running server, and what the disk's tell of tomorrow."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations.samples import Samples, full_in_seconds
from server.metrics import PUSHES


def disk(*free: float | None) -> dict[str, list[float | None]]:
    """Samples of free bytes, five minutes apart."""
    return {"at": [300.0 * number for number in range(len(free))], "disk": list(free)}


def test_disk_that_fills_evenly_is_full_when_it_is(tmp_path: Path) -> None:
    assert full_in_seconds(disk(*[100.0 - number for number in range(20)])) == pytest.approx(81 * 300)


@pytest.mark.parametrize(
    "columns",
    [
        disk(),
        disk(*[9.0] * 50),
        disk(*[float(number) for number in range(50)]),
        disk(5.0, 4.0, 3.0),
        disk(*[None] * 50),
    ],
    ids=["nothing", "steady", "emptying", "too few", "not measured"],
)
def test_disk_that_does_not_fill_has_no_forecast(columns: dict[str, list[float | None]]) -> None:
    assert full_in_seconds(columns) is None


def test_samples_are_rates_and_keep_the_worst_lag(tmp_path: Path) -> None:
    samples = Samples(tmp_path, lambda: 7)
    samples.take(0.0, 0.0)
    assert samples.hour.columns()["at"] == []
    PUSHES[()] += 50
    for second in range(1, 11):
        samples.take(float(second), 0.3 if second == 4 else 0.001)
    columns = samples.hour.columns()
    assert columns["pushes"] == [5.0] and columns["lag"] == [0.3] and columns["sockets"] == [7.0]
    assert (columns["memory"][0] or 0) > 2**20 and (columns["disk"][0] or 0) > 0
    assert samples.day.columns()["at"] == []


def test_samples_are_bounded_and_what_is_not_measured_is_none() -> None:
    samples = Samples(None, lambda: 0)
    for number in range(400):
        samples.take(number * 10.0, 0.0)
    columns = samples.hour.columns()
    assert len(columns["at"]) == 360 and set(columns["disk"]) == {None}
    assert len(samples.day.columns()["at"]) == int(400 * 10 / 300)
