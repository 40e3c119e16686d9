"""What the processes of an installation share: leases that end by time, attempts that are counted over all, links that work
once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import pytest
from blinker import Signal

from accounts import operator_sign_in
from accounts.passwords import Passwords
from accounts.rescue import Rescue
from protocol.errors import LinkInvalid
from settings import Settings
from storage import account_links
from storage.account_links import Purpose
from storage.engine import Engine
from tests.conftest import all_closed, wait_for
from tests.inside import together
from tests.storage.engine.installations import Installation, PostgresInstallation, elsewhere, lines_of


@pytest.fixture
def another(installation: Installation, engine: Engine) -> Iterator[Callable[[], Engine]]:
    """Open the installation for other processes, where there can be others; else give the one that is open."""
    if isinstance(installation, PostgresInstallation):
        yield from all_closed(installation.open, lambda one: one.close())
    else:
        yield lambda: engine


def test_lease_is_one_process_and_is_renewed_by_it_alone(engine: Engine, another: Callable[[], Engine]) -> None:
    other = another()
    assert engine.lease("purge", 60) and engine.lease("purge", 60)
    assert other.lease("purge", 60) == (other is engine)
    assert other.lease("another", 60)


TAKE = """
print(engine.lease("purge", 0.5), flush=True)
sys.stdin.readline()
"""


def test_lease_of_a_process_that_was_killed_ends_by_time(installation: Installation, engine: Engine) -> None:
    if not isinstance(installation, PostgresInstallation):
        pytest.skip("one process has the files")
    process = elsewhere(installation, TAKE)
    assert lines_of(process).readline() == "True\n"
    process.kill()
    process.wait()
    wait_for(lambda: engine.lease("purge", 60), "the lease")


def test_attempts_are_counted_over_all_processes(engine: Engine, another: Callable[[], Engine]) -> None:
    """Also those that come at once, where nothing was counted before. Fault: looked at, and then counted."""
    counts = [one.attempt_counts for one in (engine, another(), another())]
    found = together(*[lambda one=one: one.acquire_entry("k", 5, 60) for one in counts for _ in range(5)])
    assert sum(found) == 5
    for one in counts:
        oldest, count = one.get_moving_window("k", 5, 60)
        assert count == 5 and abs(time.time() - oldest) < 60
        assert not one.acquire_entry("k", 5, 60) and one.get_moving_window("other", 5, 60)[1] == 0


def test_attempt_counts_no_more_when_its_window_has_passed(engine: Engine) -> None:
    counts = engine.attempt_counts
    assert counts.acquire_entry("k", 1, 1) and not counts.acquire_entry("k", 1, 1)
    wait_for(lambda: counts.acquire_entry("k", 1, 1), "the end of the window")
    assert counts.get_moving_window("k", 1, 1)[1] <= 1


# --- links that work once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["reset", "confirm", "sign-in"])
def test_link_that_comes_to_several_processes_at_once_works_once(
    engine: Engine, another: Callable[[], Engine], new_id: Callable[[], str], purpose: Purpose | Literal["sign-in"]
) -> None:
    """Fault: looked up, and removed later: each of them got a session, or its password."""
    directories = [one.directory for one in (engine, another(), another(), engine)]
    works: list[Callable[[], Any]] = []
    if purpose == "sign-in":
        secret, _ = operator_sign_in.make_link(engine.directory)
        works = [partial(operator_sign_in.sign_in, one, secret) for one in directories]
    else:
        tenant_id, now = new_id(), int(time.time())
        token = engine.directory.write(lambda: account_links.make(tenant_id, purpose, None, now, 60))
        by = [Rescue(Settings(), one, Passwords(4), Signal()) for one in directories]
        for number, one in enumerate(by):
            reset = partial(one.reset_password, token, f"password {number}")
            works.append(reset if purpose == "reset" else partial(one.confirm_email, token))
    found = together(*works)
    assert [isinstance(one, LinkInvalid) or one is None for one in found].count(False) == 1, found
