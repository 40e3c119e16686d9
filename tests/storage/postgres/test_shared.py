"""Windows that have ended are forgotten: an address is not kept for longer than it counts."""

from __future__ import annotations

import pytest

from storage.postgres import shared
from storage.postgres.engine import PostgresEngine
from tests import postgres
from tests.conftest import wait_for
from tests.storage.engine.installations import PostgresInstallation


def test_windows_that_have_ended_are_forgotten(
    installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_FORGET_SECONDS", 0.0)
    engine = PostgresEngine(installation.address)

    def kept() -> list[str]:
        engine.maintain()
        return [key for (key,) in postgres.server().ask("SELECT key FROM syncapp.attempts", installation.name)]

    for key, seconds in (("soon", 1), ("late", 3_600)):
        assert engine.attempt_counts.acquire_entry(key, 5, seconds)
    wait_for(lambda: kept() == ["late"], "forgetting")
    engine.close()
