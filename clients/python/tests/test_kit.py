"""The scenario suite, against this client, and the suite itself: it must find a client that is bad.

``SEED=…`` makes the same random choices again, ``STORIES=…`` plays more random stories.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kit.randoms import shrink
from tests.kit.scenarios import SCENARIOS
from tests.kit.server import LocalServer
from tests.kit.suite import Kit, LeftOut
from tests.kit.truth import Account, Typed, differences

DRIVER = [sys.executable, str(Path(__file__).with_name("driver.py"))]
SRC = Path(__file__).resolve().parent.parent / "src"
SEED = int(os.environ.get("SEED", random.randrange(10**9)))


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SRC))
        patch.setenv("STORIES", os.environ.get("STORIES", "1"))
        kit = Kit(DRIVER, tmp_path_factory.mktemp("kit"), random.Random(SEED))
        yield kit
        kit.close()


@pytest.mark.parametrize("name", SCENARIOS)
def test_client_passes_every_scenario(kit: Kit, name: str) -> None:
    """Seen to fail on faults in a copy of the client: ``answer_lost``, ``client_killed`` and ``server_killed_mid_sync``
    when edits left the outbox before they were answered, ``overtaken`` when a push's cursor was always adopted,
    ``restore_from_older_backup`` without ``take_back``, ``purged_past_a_device`` when a new start was no new generation,
    ``live_edits`` when notifications were not heard.
    """
    print(f"SEED={SEED}")
    kit.rng = random.Random(f"{SEED} {name}")
    kit.run(SCENARIOS[name])


def test_suite_leaves_out_by_name_what_a_client_or_a_place_can_not_do(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kit.hello, "features", [])
    with pytest.raises(LeftOut, match="needs a client with persists"):
        SCENARIOS["client_killed"](kit)
    monkeypatch.setattr(kit, "_server", None)
    with pytest.raises(LeftOut, match="needs a server of the suite's own"):
        SCENARIOS["restore_from_older_backup"](kit)
    monkeypatch.setattr(kit, "url", "https://sync.example.com")
    with pytest.raises(LeftOut, match="https"):
        kit.proxy()


@pytest.fixture
def make_kit(kit: Kit, server: LocalServer, tmp_path: Path) -> Iterator[Callable[[], Kit]]:
    """Make runs of the suite against a deployment: a server that it did not start. After ``kit``, for its environment."""
    kits: list[Kit] = []

    def make() -> Kit:
        kits.append(Kit(DRIVER, tmp_path / f"kit-{len(kits)}", random.Random(SEED), server.url))
        return kits[-1]

    yield make
    for made in kits:
        made.end_drivers()


def test_suite_at_a_deployment_uses_one_account_and_closes_it(make_kit: Callable[[], Kit]) -> None:
    kit = make_kit()
    for name in ("empty_first_sync", "overtaken"):
        kit.run(SCENARIOS[name])
    account = kit.account()
    assert account.rows()[0]
    kit.close()
    with pytest.raises(AssertionError, match="invalid_credentials"):
        account.session()


def test_suite_with_an_account_that_is_given_wants_it_empty_and_leaves_it_so(
    make_kit: Callable[[], Kit], account: Account
) -> None:
    kit = make_kit()
    kit.use(account.email, account.password)
    kit.run(SCENARIOS["conflict"])
    with pytest.raises(AssertionError, match="needs an empty one"):
        make_kit().use(account.email, account.password)
    kit.close()
    assert account.rows()[0] == {}


ROW = {"id": "a", "name": "x", "version": 2}
SERVER = {("end_user", "a"): {**ROW}}
DIGESTS = {"end_user": {"count": 1, "hash": "9b5a3b4aa9a4ad88"}}


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ([], "lacks ('end_user', 'a')"),
        ([ROW, {**ROW, "id": "b"}], "has ('end_user', 'b'), which the server has not"),
        ([{**ROW, "name": "y"}], "('end_user', 'a').name is 'y', on the server 'x'"),
        ([{**ROW, "version": 3}], "the digest of end_user is not the server's"),
    ],
)
def test_every_way_to_differ_is_found(held: list[dict[str, object]], found: str) -> None:
    assert found in differences(SERVER, DIGESTS, {"end_user": held}, [Typed("end_user", "a", "name", "x")])


def test_story_that_fails_is_made_as_short_as_it_still_fails() -> None:
    def fails(steps: list[list[object]]) -> bool:
        return ["put", 7] in steps and ["kill", 31] in steps

    steps: list[list[object]] = [["kill" if number == 31 else "put", number] for number in range(40)]
    assert len(shrink(steps, fails)) < 8 and fails(shrink(steps, fails))
