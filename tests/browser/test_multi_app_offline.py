"""The page with three apps, some of them offline: edits wait, conflicts are shown, all end equal.

First seen to fail, each on a fault put into the page:

- ``offline_edits_survive_a_reload``: replicas under a name that each load of the page makes anew.
- ``switch_cuts_http_and_socket``: a switch that ends the socket only; one that ends HTTP only; one that does not bring the
  socket back.
- ``conflict_is_resolved``: a decision that sends the other side.
"""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import Page, browser_test
from tests.conftest import Device, Server, Tenant, wait_for
from tests.multi_app import (
    ALL,
    App,
    apps_of,
    browser,  # noqa: F401 -- a fixture, in the place of that of all
    log_in,
    wait_equal,
)


def calls_of(page: Page) -> set[str]:
    """Give the addresses that the page asked since they were last forgotten."""
    script = "return performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)"
    return set(page.driver.execute_script(script))


@browser_test
def test_offline_edits_survive_a_reload_and_are_sent(multi: Page, tenant: Tenant, device: Device) -> None:
    device.create(id="a", name="Asha", phone="1")
    device.create(id="b", name="Bela")
    two = App(multi, 2)
    two.wait_rows(("Bela", ""), ("Asha", "1"))
    two.switch(False)
    two.edit("Asha", phone="2")
    two.add("Chetan")
    two.press("Delete Bela")
    two.wait_queue("Edit Asha: Phone → 2", "Add Chetan", "Delete Bela")
    assert two.rows() == [("Chetan", ""), ("Asha", "2")]
    multi.wait_text("#verdict-reasons", "App 2: offline, 3 edits waiting.")
    assert len(device.rows()) == 2
    multi.driver.refresh()
    log_in(multi, tenant)
    two.wait_rows(("Chetan", ""), ("Asha", "2"))
    two.wait_queue("Edit Asha: Phone → 2", "Add Chetan", "Delete Bela")
    assert not two.is_on()
    two.switch(True)
    wait_equal(multi)
    two.wait_queue()
    live = [row for row in device.rows() if not row["is_deleted"]]
    assert {(row["name"], row["phone"]) for row in live} == {("Asha", "2"), ("Chetan", None)}
    assert multi.severe() == []


@browser_test
def test_switch_cuts_http_and_socket_and_others_do_not_reach_the_app(
    multi: Page, server: Server, tenant: Tenant, device: Device
) -> None:
    def connected() -> int:
        said = [line["message"] for line in server.log if line.get("tenant") == tenant.id]
        return said.count("socket joined") - said.count("socket left")

    wait_for(lambda: connected() == 3, "three sockets")
    apps = apps_of(multi)
    for app in apps:
        app.switch(False)
        app.wait_state("Offline")
    wait_for(lambda: connected() == 0, "no socket")
    multi.driver.execute_script("performance.clearResourceTimings()")
    for app in apps:
        app.add(f"Row {app.number}")
        app.wait_queue(f"Add Row {app.number}")
    device.create(name="Theirs")
    multi.wait_text("#verdict-reasons", "App 3: offline, 1 edit waiting.")
    assert calls_of(multi) <= {"/api/client/sync/pull"}, "the verdict's own, and nobody else's"
    assert [app.rows() for app in apps] == [[(f"Row {number}", "")] for number in ALL]
    for app in apps:
        app.switch(True)
    wait_equal(multi)
    wait_for(lambda: connected() == 3, "three sockets")
    assert {row["name"] for row in device.rows()} == {"Theirs", "Row 1", "Row 2", "Row 3"}


@browser_test
def test_different_fields_that_two_apps_edit_offline_are_both_kept(multi: Page, device: Device) -> None:
    device.create(id="a", name="Asha", phone="1")
    one, two, three = apps_of(multi)
    for app in (two, three):
        app.wait_rows(("Asha", "1"))
        app.switch(False)
    two.edit("Asha", phone="2")
    three.edit("Asha", name="Asha Rao")
    for app in (three, two):
        app.switch(True)
    for app in (one, two, three):
        app.wait_rows(("Asha Rao", "2"))
    wait_equal(multi)
    assert "conflict" not in multi.text("#verdict-reasons")
    assert not multi.driver.find_elements(By.CSS_SELECTOR, ".conflict") and multi.severe() == []


@browser_test
@pytest.mark.parametrize(("decider", "whose"), [(2, "mine"), (2, "theirs"), (3, "mine"), (3, "theirs")])
def test_conflict_is_shown_with_both_sides_and_is_resolved(
    multi: Page, device: Device, decider: int, whose: str
) -> None:
    device.create(id="a", name="Asha", phone="1")
    one, two, three = apps_of(multi)
    for app in (two, three):
        app.wait_rows(("Asha", "1"))
        app.switch(False)
        app.edit("Asha", phone=f"from {app.number}")
    for app in (two, three):
        app.switch(True)
        app.wait_queue()
    two.wait_conflict("Phone", "1", "from 2", "from 3stands")
    three.wait_conflict("Phone", "1", "from 3stands", "from 2")
    multi.wait_text("#verdict-reasons", "1 conflict to decide.")
    assert one.texts(".conflict") == [] and "App 2" in three.texts(".conflict")[0]
    App(multi, decider).decide(whose)
    kept = decider if whose == "mine" else 5 - decider
    for app in (one, two, three):
        app.wait_rows(("Asha", f"from {kept}"))
        app.wait_no_conflict()
    wait_equal(multi)
    assert [row["phone"] for row in device.rows()] == [f"from {kept}"]
    assert multi.severe() == []


@browser_test
def test_conflict_can_not_be_decided_offline_and_one_that_was_decided_elsewhere_goes(
    multi: Page, server: Server, tenant: Tenant, device: Device
) -> None:
    device.create(id="a", name="Asha")
    two = App(multi, 2)
    two.wait_rows(("Asha", ""))
    two.switch(False)
    two.edit("Asha", name="mine")
    device.update(id="a", name="theirs")
    two.switch(True)
    two.wait_conflict("Name", "Asha", "mine", "theirsstands")
    assert "Another device" in two.texts(".conflict")[0]
    two.switch(False)
    multi.wait_text("#app-2 .conflict", "To be decided online.")
    assert not multi.find("#app-2 .conflict button").is_enabled()
    (conflict,) = server.call("GET", "/api/client/sync/conflicts", token=tenant.token).json()["data"]
    server.post(f"/api/client/sync/conflicts/{conflict['conflictId']}/resolve", {"resolution": "keep"}, tenant.token)
    two.switch(True)
    two.wait_no_conflict()
    assert multi.severe() == []


@browser_test
@pytest.mark.parametrize("first", [2, 3])
def test_deleting_and_editing_the_same_row_offline_ends_equal(multi: Page, device: Device, first: int) -> None:
    device.create(id="a", name="Asha", phone="1")
    _, two, three = apps_of(multi)
    for app in (two, three):
        app.wait_rows(("Asha", "1"))
        app.switch(False)
    two.press("Delete Asha")
    two.wait_queue("Delete Asha")
    three.edit("Asha", phone="2")
    for number in (first, 5 - first):
        App(multi, number).switch(True)
        App(multi, number).wait_queue()
    wait_equal(multi)
    assert len({tuple(app.rows()) for app in apps_of(multi)}) == 1
    assert multi.severe() == []


@browser_test
def test_edit_that_the_server_refuses_is_shown_and_holds_up_nothing(multi: Page, device: Device) -> None:
    one = App(multi, 1)
    multi.driver.execute_script("document.getElementById('name-1').value = 'x'.repeat(70000)")
    multi.find("#phone-1").send_keys("1", Keys.ENTER)
    multi.wait_text("#app-1 .rejected", "Refused: Add xxx")
    one.wait_queue()
    one.add("Asha")
    multi.find("#app-1 .rejected button").click()
    one.wait_same(lambda: one.texts(".rejected li"), [])
    wait_equal(multi)
    assert [row["name"] for row in device.rows()] == ["Asha"]
