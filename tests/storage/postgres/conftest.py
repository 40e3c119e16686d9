"""An installation in a database of its own, opened as its server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from tests import postgres
from tests.storage.engine.installations import PostgresInstallation, create


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[PostgresInstallation]:
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    installation = PostgresInstallation(tmp_path)
    yield installation
    installation.end()


@pytest.fixture
def engine(installation: PostgresInstallation) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(installation.address)
    yield engine
    engine.close()


@pytest.fixture
def database(engine: PostgresEngine) -> PostgresDatabase:
    """The database of one new tenant."""
    return engine.tenant(create(engine, str(uuid.uuid4())))
