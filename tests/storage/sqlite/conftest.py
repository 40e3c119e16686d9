"""One file, opened as a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.sqlite.database import SQLiteDatabase
from tests.storage.sqlite.words import prepare


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteDatabase]:
    store = SQLiteDatabase.open(tmp_path / "a.db", prepare, 1)
    yield store
    store.wait()
    store.close()
