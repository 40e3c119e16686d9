"""How tests try random input: ``FUZZ_EXAMPLES`` examples each, which ``make unit`` sets lower than ``make test``.

``conftest`` loads this before any test is defined, so that it holds for each, and no test has a time to keep to.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
settings.register_profile(
    "ours",
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ours")


def times_as_many(factor: float) -> settings:
    """Have a test try so many times as many examples as others do."""
    return settings(max_examples=max(1, round(factor * EXAMPLES)))
