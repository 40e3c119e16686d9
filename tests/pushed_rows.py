"""Rows that tests of faults push, and look for."""

from __future__ import annotations

from tests.conftest import JSON, Device

ROW = {"changes": {"end_user": [{"id": "a", "name": "then"}]}}


def push_of(*names: str) -> JSON:
    return {"changes": {"end_user": [{"id": name, "name": name} for name in names]}}


def names(device: Device) -> set[str]:
    return {row["name"] for row in device.rows()}
