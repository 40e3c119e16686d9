"""Puts PostgreSQL in the place of each data folder, for a run with SYNCAPP_TEST_ENGINE=postgres, and lets each disk do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import assembly
from operations import engine_choice
from settings import Settings
from storage.engine import Engine
from tests import postgres


def _server_engine(settings: Settings) -> Engine:
    """Open what the server of this process would; its disk may be small, as /dev/shm is in a container."""
    url = postgres.address_of(settings.data_dir) if postgres.IS_UNDER_TEST else settings.database_url
    return engine_choice.server_engine(replace(settings, database_url=url, min_free_bytes=0))


assembly.__dict__["server_engine"] = _server_engine


@pytest.fixture(autouse=postgres.IS_UNDER_TEST)
def databases_end_with_their_test(tmp_path: Path) -> Iterator[None]:
    """Drop those of this test, for they take 8 MB each."""
    yield
    postgres.drop_those_in(tmp_path)
