"""A pull that rows are pushed beside: what changes while it is answered comes with it or with what it announces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import JSON, Device, Tenant

_ROWS, _PULLS = 1200, 30
Pull = Callable[[JSON], JSON]


@pytest.fixture(params=["http", "event"])
def pull(request: pytest.FixtureRequest, device: Device) -> Pull:
    """Pull by a request or by an event."""
    if request.param == "http":
        return device.pull
    listener = device.listen()
    request.addfinalizer(listener.close)

    def by_event(body: JSON) -> JSON:
        answer: JSON = listener.call("sync_pull", body)
        return answer

    return by_event


@pytest.fixture
def busy_row(device: Device) -> Iterator[str]:
    """A row that changes all the time."""
    is_over, pushed = threading.Event(), threading.Event()

    def push() -> None:
        number = 0
        while not is_over.is_set():
            device.update(id="busy", note=f"{(number := number + 1)}")
            pushed.set()

    pusher = threading.Thread(target=push)
    pusher.start()
    assert pushed.wait(60)
    yield "busy"
    is_over.set()
    pusher.join()


@pytest.mark.parametrize("body", [{"cursor": None}, {"table": "end_user"}], ids=["cursor", "time"])
def test_short_pull_has_the_row_that_changes_all_the_time(pull: Pull, busy_row: str, body: JSON) -> None:
    """Fault: rows read after the read that planned the page: 115 of 202 answers had no row, and ``hasMore`` false."""
    for _ in range(_PULLS):
        answer = pull(body)
        assert [row["id"] for row in answer["data"]["end_user"]] == [busy_row] and not answer["hasMore"]


def test_pending_rows_of_a_device_have_the_row_that_changes_all_the_time(tenant: Tenant, busy_row: str) -> None:
    phone = tenant.device(X_Device_Id="phone-1")
    for _ in range(_PULLS):
        answer = phone.raw("sync/pull-pending", {"table": "end_user"}).json()
        assert [row["id"] for row in answer["data"]["end_user"]] == [busy_row] and not answer["hasMore"]


@pytest.mark.parametrize("form", ["cursor", "time"])
def test_long_pull_announces_that_rows_may_have_changed_meanwhile(
    device: Device, pull: Pull, request: pytest.FixtureRequest, form: str
) -> None:
    """Whoever drops what no answer gave until ``hasMore`` is false keeps every row. Fault: ``has_moved_on`` not asked."""
    rows = [{"id": f"r{number}", "note": "x" * 1000} for number in range(_ROWS)]
    device.push({"changes": {"end_user": rows}})
    busy: str = request.getfixturevalue("busy_row")
    was_announced = False
    for _ in range(5):
        known: set[str] = set()
        answer: JSON = {"cursor": None, "syncTimestamp": "1970-01-01T00:00:00.000Z", "hasMore": True}
        while answer["hasMore"]:
            by_time = {"table": "end_user", "lastSync": answer["syncTimestamp"]}
            answer = pull(by_time if form == "time" else {"cursor": answer["cursor"], "limit": 10_000, "digest": True})
            known |= {row["id"] for row in answer["data"]["end_user"]}
            was_announced |= answer["hasMore"]
            assert ("digest" in answer) == (form == "cursor" and not answer["hasMore"])
        assert known == {busy, *(row["id"] for row in rows)}
    assert was_announced
