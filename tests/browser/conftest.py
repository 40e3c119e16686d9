"""The page with three apps, opened."""

from __future__ import annotations

import pytest

from tests.browsing import Page
from tests.conftest import Tenant
from tests.multi_app import opened


@pytest.fixture
def multi(page: Page, tenant: Tenant) -> Page:
    """The page with three apps of ``tenant``, all online."""
    return opened(page, tenant)
