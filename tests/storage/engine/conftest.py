"""An installation of each engine, opened as its server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.engine import Database, Engine
from tests import postgres
from tests.storage.engine.installations import ENGINES, Installation, create

_AN_ENGINE = [pytest.param(name, marks=[pytest.mark.server] if name == "postgres" else []) for name in ENGINES]


@pytest.fixture(params=_AN_ENGINE)
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    if request.param == "postgres" and not postgres.is_there():
        pytest.skip(postgres.MISSING)
    installation = ENGINES[request.param](tmp_path / "installation")
    yield installation
    installation.end()


@pytest.fixture
def engine(installation: Installation) -> Iterator[Engine]:
    engine = installation.open()
    yield engine
    engine.close()


@pytest.fixture
def new_id(engine: Engine) -> Callable[[], str]:
    """Create tenants, and give their IDs."""
    return lambda: create(engine, str(uuid.uuid4()))


@pytest.fixture
def database(engine: Engine, new_id: Callable[[], str]) -> Database:
    """The database of one new tenant."""
    return engine.tenant(new_id())
